"""Whether adapters can be used, and used together: every problem of every adapter at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from adapterctl.errors import AdapterError, Problem
from adapterctl.lora.adapter import TENSOR_FILE, Adapter
from adapterctl.lora.peft_config import config_problems

_SHOWN = 5
"""How many names a message lists before it says "and N more"."""


def open_compatible(folders: Mapping[str, Path], *, base_model: str | None = None) -> tuple[Adapter, ...]:
    """Open one adapter for each language and check that they fit together.

    Args:
        folders: The PEFT folder of every language.
        base_model: The base model all of them must have been trained on; None: they must agree with one another.

    Raises:
        AdapterError: With every problem of every folder.
    """
    adapters, problems = [], []
    for lang, folder in folders.items():
        try:
            adapters.append(Adapter.open(folder, lang))
        except AdapterError as error:
            problems.append(Problem(f"{lang} ({folder})", error.message, error.hint))
    _raise(problems + check(adapters, base_model=base_model))
    return tuple(adapters)


def require_compatible(adapters: Sequence[Adapter], *, base_model: str | None = None) -> None:
    """Raise if :func:`check` finds anything.

    Raises:
        AdapterError: With every problem of every adapter.
    """
    _raise(check(adapters, base_model=base_model))


def _raise(problems: Sequence[Problem]) -> None:
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise AdapterError(f"the adapters cannot be used together: {count}", problems=problems)


def check(adapters: Sequence[Adapter], *, base_model: str | None = None) -> list[Problem]:
    """Return everything that keeps adapters from being merged: each on its own, then against one another.

    Reads every tensor once. An adapter whose own files cannot be read is left out of the comparison.
    """
    problems: list[Problem] = []
    readable = []
    for adapter in adapters:
        own = config_problems(adapter.config, adapter.name)
        try:
            own += _tensor_problems(adapter)
            readable.append(adapter)
        except AdapterError as error:
            own.append(Problem(adapter.name, error.message, error.hint))
        problems += own
    problems += _base_problems(adapters, base_model)
    problems += _disagreements(
        adapters, "task type", lambda adapter: adapter.config.get("task_type"), "use adapters trained for one task type"
    )
    problems += _disagreements(
        adapters,
        "fan_in_fan_out",
        lambda adapter: bool(adapter.config.get("fan_in_fan_out")),
        "use adapters of one base model",
    )
    return problems + _coverage_problems(readable) + _shape_problems(readable)


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _tensor_problems(adapter: Adapter) -> list[Problem]:
    where = adapter.name
    problems = []
    if unknown := adapter.unknown_tensors:
        message = f"{TENSOR_FILE} holds tensors that are not A or B of a linear layer: {_listed(unknown)}"
        problems.append(Problem(where, message, "train the adapter as plain LoRA on linear layers"))
    if not adapter.modules:
        problems.append(Problem(where, f"{TENSOR_FILE} holds no LoRA factors", "train the adapter again"))
    valid_config = not config_problems(adapter.config, where)
    for module in adapter.modules:
        try:
            a, b = adapter.shape(module)
        except AdapterError as error:
            problems.append(Problem(where, error.message.removeprefix(f"{where}: ")))
            continue
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            problems.append(Problem(where, f"{module}: A {a} and B {b} are not factors of one matrix"))
        elif valid_config and a[0] != adapter.rank(module):
            message = f"{module}: the tensors have rank {a[0]}, the configuration says {adapter.rank(module)}"
            problems.append(Problem(where, message, "correct r or rank_pattern in adapter_config.json"))
    return problems + [problem for name in adapter.tensor_names for problem in _number_problems(adapter, name)]


def _number_problems(adapter: Adapter, name: str) -> list[Problem]:
    tensor = adapter.tensor(name)
    if not tensor.is_floating_point():
        return [Problem(adapter.name, f"{name} holds {tensor.dtype}, not floating-point numbers")]
    if tensor.element_size() == 1:
        tensor = tensor.to(torch.float32)
    bad = int(tensor.numel() - torch.isfinite(tensor).sum().item())
    if not bad:
        return []
    return [Problem(adapter.name, f"{name}: {bad} of {tensor.numel()} numbers are NaN or infinite", "train it again")]


def _disagreements(
    adapters: Sequence[Adapter], what: str, value: Callable[[Adapter], object], hint: str
) -> list[Problem]:
    holders: dict[str, list[str]] = defaultdict(list)
    for adapter in adapters:
        holders[str(value(adapter))].append(adapter.lang or str(adapter.folder))
    if len(holders) < 2:
        return []
    said = "; ".join(f"{', '.join(names)}: {held}" for held, names in holders.items())
    return [Problem("", f"the adapters do not have the same {what} ({said})", hint)]


def _base_problems(adapters: Sequence[Adapter], expected: str | None) -> list[Problem]:
    hint = "merge only adapters of one base model; train the others on it again"
    revisions = _disagreements(adapters, "revision of the base model", lambda adapter: adapter.revision, hint)
    if expected is None:
        return _disagreements(adapters, "base model", lambda adapter: adapter.base_model, hint) + revisions
    return [
        Problem(adapter.name, f"its base model is {adapter.base_model}, not {expected}", hint)
        for adapter in adapters
        if adapter.base_model != expected
    ] + revisions


def _coverage_problems(adapters: Sequence[Adapter]) -> list[Problem]:
    everything = {module for adapter in adapters for module in adapter.modules}
    problems = []
    for adapter in adapters:
        if adapter.modules and (missing := sorted(everything - set(adapter.modules))):
            message = f"it lacks modules that other adapters have: {_listed(missing)}"
            problems.append(Problem(adapter.name, message, "train all adapters with the same target_modules"))
    return problems


def _shape_problems(adapters: Sequence[Adapter]) -> list[Problem]:
    held: dict[str, dict[tuple[int, int], list[str]]] = defaultdict(lambda: defaultdict(list))
    for adapter in adapters:
        for module in adapter.modules:
            if set(adapter.factors[module]) == {"A", "B"}:
                a, b = adapter.shape(module)
                if len(a) == len(b) == 2:
                    held[module][b[0], a[1]].append(adapter.lang or str(adapter.folder))
    problems = []
    for module, shapes in sorted(held.items()):
        if len(shapes) > 1:
            said = "; ".join(f"{', '.join(names)}: {out} × {width}" for (out, width), names in shapes.items())
            problems.append(Problem(module, f"the adapters do not have the same shape ({said})"))
    return problems
