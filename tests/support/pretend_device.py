"""A device that is none: its tensors lie in ordinary memory, but do not meet those of the CPU, as on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
_CROSSING = ("aten::copy_", "aten::_to_copy")


class _There(torch.Tensor):
    """A tensor on the device; ``held`` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> _There:
        there: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        there.held = held
        return there

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside the mode")


class PretendDevice(TorchDispatchMode):
    """While it is active, :data:`DEVICE` can be computed on, and everything that a GPU would refuse fails.

    Attributes:
        crossings: How often numbers went from the device to the CPU.
        calls: How many operations ran on the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossings = 0
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, torch.Tensor)]
        there = [item for item in tensors if isinstance(item, _There)]
        name = func._schema.name
        if there and name not in _CROSSING:
            here = [item for item in tensors if not isinstance(item, _There) and item.ndim]
            assert not here, f"{name} on tensors of two devices: {[tuple(item.shape) for item in here]}"
        to = kwargs.get("device")
        if to is not None:
            kwargs["device"] = torch.device("cpu")
        goes = bool(there) if to is None else torch.device(to) == DEVICE
        if name == "aten::copy_":
            goes = isinstance(args[0], _There)
        self.calls += goes
        self.crossings += bool(there) and (not goes or name == "aten::_local_scalar_dense")
        known = {id(item.held): item for item in there}

        def back(item: Any) -> Any:
            if not isinstance(item, torch.Tensor):
                return item
            if id(item) in known:
                return known[id(item)]
            return _There(item) if goes else item

        held_args, held_kwargs = tree_map(lambda item: item.held if isinstance(item, _There) else item, (args, kwargs))
        return tree_map(back, func(*held_args, **held_kwargs))
