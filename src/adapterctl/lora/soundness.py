"""Whether one adapter can be used at all: its configuration, the names and shapes of its tensors, and its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapterctl.errors import AdapterError, Problem
from adapterctl.lora.adapter import PEFT_PREFIX, TENSOR_FILE, Adapter
from adapterctl.lora.peft_config import config_problems
from adapterctl.lora.tensorfile import NUMBERS
from adapterctl.lora.untrusted import shown

LARGEST_SIDE = 1 << 24
"""No linear layer is wider; a header that claims so wants memory."""

_SHOWN = 5
"""How many names a message lists before it says "and N more"."""

_PLAIN = "train the adapter as plain LoRA on linear layers"


def listed(names: Sequence[str]) -> str:
    """Return the first names of many, and how many more there are."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown(name) or "''" for name in names[:_SHOWN]) + rest


def naming_problems(adapter: Adapter) -> list[Problem]:
    """Return what is wrong with the names of an adapter's tensors.

    Raises:
        AdapterError: Its tensors cannot be read.
    """
    return [Problem(adapter.name, *told) for told in _naming_problems(adapter)]


def tensor_problems(adapter: Adapter, *, numbers: bool = True) -> list[Problem]:
    """Return what is wrong with an adapter's single modules and tensors.

    Args:
        adapter: The adapter.
        numbers: Whether NaN and infinities are looked for: that reads every tensor once, a piece at a time.

    Raises:
        AdapterError: Its tensors cannot be read.
    """
    where = adapter.name
    problems: list[Problem] = []
    valid_config = not config_problems(adapter.config, where)
    sound: list[str] = []
    for module in adapter.modules:
        try:
            a, b = adapter.shape(module)
        except AdapterError as error:
            problems.append(Problem(where, error.message.removeprefix(f"{where}: ")))
            continue
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            problems.append(Problem(where, f"{module}: A {shown(a)} and B {shown(b)} are not factors of one matrix"))
        elif not (a[0] > 0 and 0 < a[1] <= LARGEST_SIDE and 0 < b[0] <= LARGEST_SIDE):
            problems.append(Problem(where, f"{module}: A {a} and B {b} are not the factors of a linear layer"))
        else:
            if valid_config and a[0] != adapter.rank(module):
                message = f"{module}: the tensors have rank {a[0]}, the configuration says {adapter.rank(module)}"
                problems.append(Problem(where, message, "correct r or rank_pattern in adapter_config.json"))
            sound += adapter.factors[module].values()
    for name in sorted(sound):
        if (dtype := adapter.dtype(name)) not in NUMBERS:
            message = f"{name} holds {dtype}, not floating-point numbers of 16, 32 or 64 bits"
            problems.append(Problem(where, message, "save the adapter in float32 or bfloat16"))
        elif numbers and (bad := adapter.not_finite(name)):
            message = f"{name}: {bad[0]} of {bad[1]} numbers are NaN or infinite"
            problems.append(Problem(where, message, "train it again"))
    return problems


def _naming_problems(adapter: Adapter) -> Iterator[tuple[str, str]]:
    unknown = adapter.unknown_tensors
    if magnitudes := [name for name in unknown if "lora_magnitude_vector" in name]:
        message = f"{TENSOR_FILE} holds DoRA magnitudes, which are no part of B·A: {listed(magnitudes)}"
        yield message, _PLAIN
    if prefixed := [name for name in unknown if not name.startswith(PEFT_PREFIX)]:
        message = f"{TENSOR_FILE} holds tensors whose names do not begin with {PEFT_PREFIX}: {listed(prefixed)}"
        yield message, "save the adapter with PEFT's save_pretrained"
    if other := sorted(set(unknown) - set(magnitudes) - set(prefixed)):
        yield f"{TENSOR_FILE} holds tensors that are not A or B of a linear layer: {listed(other)}", _PLAIN
    if not adapter.modules:
        yield f"{TENSOR_FILE} holds no LoRA factors", "train the adapter again"
