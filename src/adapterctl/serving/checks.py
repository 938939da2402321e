"""What keeps a server from serving an adapter rightly: what it refuses, and what it would pass over in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from adapterctl.errors import AdapterError, Problem
from adapterctl.lora.compatibility import check
from adapterctl.lora.soundness import listed
from adapterctl.lora.untrusted import shown
from adapterctl.serving.targets import Target

if TYPE_CHECKING:
    from adapterctl.lora.adapter import Adapter

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_REMERGE = "merge again with merge.rank: {rank} in adapterctl.yaml, or export with --fit, which truncates"


def rank_of(adapter: Adapter) -> int:
    """Return the largest rank of any module's tensors; 0 where none can be read."""
    ranks = [0]
    for module in adapter.modules:
        # Halves and odd shapes are told by ``refusals``.
        with suppress(AdapterError, IndexError):
            ranks.append(adapter.shape(module)[0][0])
    return max(ranks)


def kinds_of(adapter: Adapter) -> list[str]:
    """Return the kinds of modules it changes, sorted: the last parts of their paths, such as ``q_proj``."""
    return sorted({module.rsplit(".", 1)[-1] for module in adapter.modules})


def refusals(target: Target, adapter: Adapter, name: str) -> list[Problem]:
    """Return every reason why a server could not serve an adapter as it is, whatever its rank.

    Reads every tensor once.

    Args:
        target: The server.
        adapter: The adapter.
        name: What messages call it.
    """
    problems = [replace(problem, where=name) for problem in check([adapter])]
    problems += [
        Problem(name, f"{key} is {shown(adapter.config[key])}: {reason}", "merge again, which writes plain LoRA")
        for key, reason in target.refused.items()
        if adapter.config.get(key)
    ]
    if pickles := sorted(path.name for path in adapter.folder.rglob("*") if path.suffix in _PICKLES):
        message = f"its folder holds {listed(pickles)}: a server may load a pickle, which can run code"
        problems.append(Problem(name, message, "publish the adapter without it"))
    return problems


def rank_problems(target: Target, rank: int, most: int | None, name: str) -> list[Problem]:
    """Return why a rank cannot be served.

    Args:
        target: The server.
        rank: Of the adapter.
        most: The ``--max-lora-rank`` that the server is started with; None where it may be chosen.
        name: What messages call the adapter.
    """
    problems = []
    if most is not None and target.ranks and most not in target.ranks:
        listed_ranks = ", ".join(map(str, target.ranks))
        message = f"{target.title} does not take {most}"
        problems.append(Problem("--max-lora-rank", message, f"it takes one of {listed_ranks}"))
    if most is not None and rank > most:
        hint = f"{_REMERGE.format(rank=most)}, or start the server with --max-lora-rank {target.least_rank(rank)}"
        hint = hint if target.least_rank(rank) else _REMERGE.format(rank=most)
        problems.append(Problem(name, f"its rank is {rank}, and the server takes {most} at most", hint))
    elif most is None and target.least_rank(rank) is None:
        largest = target.ranks[-1]
        message = f"its rank is {rank}, and {target.title} takes {largest} at most"
        problems.append(Problem(name, message, _REMERGE.format(rank=largest)))
    return problems


def layout_problems(adapter: Adapter, layout: Mapping[str, tuple[int, int]], base: str, name: str) -> list[Problem]:
    """Return the modules of an adapter that its base model does not have, or has in another shape.

    A server passes over modules it does not know, and serves the base model under the adapter's name. The output
    layer has a row for each token: another vocabulary shows here.

    Args:
        adapter: The adapter; one in which :func:`refusals` found nothing.
        layout: ``(out, in)`` of the base model's modules by path.
        base: The base model's name.
        name: What messages call the adapter.
    """
    problems = []
    if unknown := [module for module in adapter.modules if module not in layout]:
        message = f"the base model {base} has no module {listed(unknown)}"
        hint = "a server would pass over them in silence; export for the base model that the adapter was made on"
        problems.append(Problem(name, message, hint))
    for module in adapter.modules:
        a, b = adapter.shape(module)
        if module in layout and (b[0], a[1]) != layout[module]:
            out, width = layout[module]
            message = f"{module}: ΔW is {b[0]} × {a[1]}, the base model's weight is {out} × {width}"
            problems.append(Problem(name, message, "export for the base model that the adapter was made on"))
    return problems


def is_the_base(told: Sequence[str], names: Sequence[str], place: str = "") -> bool:
    """Tell whether what a server says of its model means a base model.

    Paths differ from machine to machine, and a hub's name may be a folder there, so last parts are compared as well.

    Args:
        told: The name and the path that the server tells.
        names: What the base model is called.
        place: The folder in which it lies here.
    """
    ends = {_end(name) for name in names if name}
    return any(name == place or _end(name) in ends for name in told if name)


def _end(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]
