"""Whether adapters can be used, and used together: every problem of every adapter at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from adapterctl.errors import AdapterError, Problem
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.origin import disagreement, name_of, origin_problems
from adapterctl.lora.peft_config import config_problems
from adapterctl.lora.soundness import listed, naming_problems, tensor_problems
from adapterctl.lora.untrusted import shown

Missing = Literal["refuse", "zero", "present"]
"""What becomes of a module that only some adapters have, as a merge recipe says it."""

_HINT = "merge only adapters of one base model; train the others on it again"


def open_compatible(
    folders: Mapping[str, Path], *, base_model: str | None = None, missing: Missing = "refuse", numbers: bool = True
) -> tuple[Adapter, ...]:
    """Open one adapter for each language and check that they fit together.

    Args:
        folders: The PEFT folder of every language.
        base_model: The base model all of them must have been trained on; None: they must agree with one another.
        missing: Whether a module that only some adapters have is a problem: under ``refuse`` only.
        numbers: Whether NaN and infinities are looked for, which reads all tensors.

    Raises:
        AdapterError: With every problem of every folder.
    """
    adapters, problems = [], []
    for lang, folder in folders.items():
        try:
            adapters.append(Adapter.open(folder, lang))
        except AdapterError as error:
            problems.append(Problem(f"{lang} ({folder})", error.message, error.hint))
    raise_problems(problems + check(adapters, base_model=base_model, missing=missing, numbers=numbers))
    return tuple(adapters)


def require_compatible(
    adapters: Sequence[Adapter], *, base_model: str | None = None, missing: Missing = "refuse", numbers: bool = True
) -> None:
    """Raise if :func:`check` finds anything.

    Raises:
        AdapterError: With every problem of every adapter.
    """
    raise_problems(check(adapters, base_model=base_model, missing=missing, numbers=numbers))


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise if there are problems.

    Raises:
        AdapterError: With all of them.
    """
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise AdapterError(f"the adapters cannot be used together: {count}", problems=problems)


def check(
    adapters: Sequence[Adapter],
    *,
    base_model: str | None = None,
    missing: Missing = "refuse",
    numbers: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Return everything that keeps adapters from being merged: first what holds for a whole adapter, then modules.

    Reads every tensor once, a piece at a time. An adapter whose own files cannot be read is left out of the
    comparison of modules and shapes.

    Args:
        adapters: One for each language.
        base_model: The base model all of them must have been trained on; None: they must agree with one another.
        missing: Whether a module that only some adapters have is a problem: under ``refuse`` only. The shapes of
            those that have it must agree all the same.
        numbers: Whether NaN and infinities are looked for; without, no tensor is read.
        progress: Told how many adapters of how many have been read.
    """
    problems: list[Problem] = []
    single: list[list[Problem]] = []
    readable = []
    for place, adapter in enumerate(adapters):
        problems += config_problems(adapter.config, adapter.name)
        try:
            problems += naming_problems(adapter)
            single.append(tensor_problems(adapter, numbers=numbers))
            readable.append(adapter)
        except AdapterError as error:
            problems.append(Problem(adapter.name, error.message, error.hint))
        if progress is not None:
            progress(place + 1, len(adapters))
    problems += _base_problems(adapters, base_model) + origin_problems(adapters)
    task_types = [(name_of(adapter), adapter.config.get("task_type")) for adapter in adapters]
    problems += disagreement("task type", task_types, "use adapters trained for one task type")
    turned = [(name_of(adapter), bool(adapter.config.get("fan_in_fan_out"))) for adapter in adapters]
    problems += disagreement("fan_in_fan_out", turned, "use adapters of one base model")
    if missing == "refuse":
        problems += _coverage_problems(readable)
    # In turns, and last: a wrong rank is wrong in every module, and a screen shows twenty problems.
    problems += [problem for turn in zip_longest(*single) for problem in turn if problem is not None]
    return problems + _shape_problems(readable)


def _base_problems(adapters: Sequence[Adapter], expected: str | None) -> list[Problem]:
    differing = disagreement("revision of the base model", [(name_of(one), one.revision) for one in adapters])
    if expected is None:
        return disagreement("base model", [(name_of(one), one.base_model) for one in adapters]) + differing
    return [
        Problem(adapter.name, f"its base model is {shown(str(adapter.base_model))}, not {expected}", _HINT)
        for adapter in adapters
        if adapter.base_model != expected
    ] + differing


def _coverage_problems(adapters: Sequence[Adapter]) -> list[Problem]:
    everything = {module for adapter in adapters for module in adapter.modules}
    problems = []
    for adapter in adapters:
        if adapter.modules and (lacking := sorted(everything - set(adapter.modules))):
            message = f"it lacks modules that other adapters have: {listed(lacking)}"
            hint = "train all adapters with the same target_modules, or merge with missing: zero or present"
            problems.append(Problem(adapter.name, message, hint))
    return problems


def _shape_problems(adapters: Sequence[Adapter]) -> list[Problem]:
    held: dict[str, dict[tuple[int, int], list[str]]] = defaultdict(lambda: defaultdict(list))
    for adapter in adapters:
        for module in adapter.modules:
            if set(adapter.factors[module]) == {"A", "B"}:
                a, b = adapter.shape(module)
                if len(a) == len(b) == 2:
                    held[module][b[0], a[1]].append(name_of(adapter))
    problems = []
    for module, shapes in sorted(held.items()):
        if len(shapes) > 1:
            said = "; ".join(f"{', '.join(names)}: {out} × {width}" for (out, width), names in shapes.items())
            problems.append(Problem(shown(module), f"the adapters do not have the same shape ({said})"))
    return problems
