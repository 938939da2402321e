"""Where a merge is written, and what must not be overwritten there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapterctl.errors import Problem
from adapterctl.files import storage_error

_REPORT = "merge_report.json"
_OF_AN_ADAPTER = frozenset({_REPORT, "adapter_config.json", "adapter_model.safetensors", "README.md"})
_OF_A_MODEL = (".safetensors", ".safetensors.index.json")
_SHOWN = 3


@dataclass(frozen=True)
class Target:
    """Where and how a merge is carried out.

    Attributes:
        out: The folder it appears in.
        to_model: Folder of the base model: then the merged model is written, not an adapter.
        cache: Folder of intermediate results that a later merge takes again.
        threads: Modules that are worked on at a time; None leaves it to the engine.
        device: ``cpu`` or ``cuda``.
    """

    out: Path | None = None
    to_model: Path | None = None
    cache: Path | None = None
    threads: int | None = None
    device: str = "cpu"


def target_problems(target: Target, inputs: Mapping[str, Path], *, required: bool = True) -> list[Problem]:
    """Return what keeps a merge from being written where it shall be.

    Args:
        target: Where and how.
        inputs: The folders that are read, each by what to call it.
        required: Whether the merge must be given a place.
    """
    problems = []
    if target.out is None and (required or target.to_model is not None):
        problems.append(Problem("--out", "is missing: it says where the result is written", "name a new folder"))
    if target.to_model is not None:
        inputs = {**inputs, "base model": target.to_model}
        if not target.to_model.is_dir():
            hint = "name the folder with the base model's safetensors files"
            problems.append(Problem("--to-model", f"there is no folder {target.to_model}", hint))
    if target.device == "cuda" and not _has_cuda():
        problems.append(Problem("--device", "PyTorch finds no CUDA device here", "leave it out"))
    if target.out is None:
        return problems
    if target.cache is not None:
        inputs = {**inputs, "cache": target.cache}
    try:
        return problems + (_overlaps(target.out, inputs) or _occupied(target.out, target.to_model))
    except OSError as error:
        known = storage_error(error, target.out, "read")
        if known is None:
            raise
        return [*problems, Problem("--out", known.message, known.hint)]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _overlaps(out: Path, inputs: Mapping[str, Path]) -> list[Problem]:
    here = out.resolve()
    hint = "name a new folder with --out"
    for name, folder in inputs.items():
        there = folder.resolve()
        if here == there:
            return [Problem("--out", f"{out} is the folder of an input ({name})", hint)]
        if there in here.parents:
            return [Problem("--out", f"{out} lies inside the folder of an input ({name}: {folder})", hint)]
        if here in there.parents:
            return [Problem("--out", f"{out} holds an input ({name}: {folder}) and would be replaced", hint)]
    return []


def _occupied(out: Path, base: Path | None) -> list[Problem]:
    hint = "name a new folder with --out"
    if out.is_symlink():
        return [
            Problem("--out", f"{out} exists already: it is a link", "name the folder that it leads to, or a new one")
        ]
    if not out.exists():
        return []
    if not out.is_dir():
        return [Problem("--out", f"{out} exists already: it is a file", hint)]
    names = sorted(entry.name for entry in out.iterdir())
    if not names:
        return []
    if _REPORT not in names:
        held = "an adapter that was not merged here" if "adapter_config.json" in names else _listed(names)
        return [Problem("--out", f"{out} exists already and holds {held}", hint)]
    known = _OF_AN_ADAPTER | ({entry.name for entry in base.iterdir()} if base is not None and base.is_dir() else set())
    if foreign := [name for name in names if name not in known and not (base and name.endswith(_OF_A_MODEL))]:
        return [Problem("--out", f"{out} exists already and holds more than a merge: {_listed(foreign)}", hint)]
    return []


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
