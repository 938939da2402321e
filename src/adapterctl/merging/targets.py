"""Which tensor of a full model belongs to which module of the adapters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256

from adapterctl.errors import MergeError, Problem
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.origin import BASE_CONFIG_KEY, name_of, recorded
from adapterctl.lora.tensorfile import NUMBERS
from adapterctl.lora.untrusted import shown
from adapterctl.merging.plan import ModulePlan, Plan
from adapterctl.merging.shards import FullModel

_PREFIXES = ("base_model.", "model.")
"""What some programs put before the path of a module and others do not."""

_OUTPUT_LAYERS = ("lm_head", "embed_out")
_FULL_PRECISION = "give the base model in bfloat16, float16 or float32"


def find_targets(plan: Plan, model: FullModel, *, turned: bool) -> dict[str, str]:
    """Return the name of the weight that every module's ΔW is added to.

    It is the module's path and ``.weight``; where there is no such tensor, the only one whose name ends so, or the one
    of the path without its leading ``model.``.

    Args:
        plan: The modules and shapes.
        model: The base model.
        turned: Whether weights are stored ``in × out`` (PEFT's fan_in_fan_out).

    Raises:
        MergeError: A module has no such weight, or one of another shape, or one that is not made of floating-point
            numbers; with every module of which that is true.
    """
    problems = _origin_problems(plan.adapters, model)
    targets: dict[str, str] = {}
    for module in plan.modules:
        found = _candidates(module.module, model)
        if len(found) == 1:
            targets[module.module] = found[0]
            problems += _weight_problems(module, found[0], model, turned=turned)
        else:
            problems.append(_not_found(module.module, found, model))
    owners = defaultdict(list)
    for path, name in targets.items():
        owners[name].append(path)
    for name, paths in owners.items():
        if len(paths) > 1:
            problems.append(Problem(shown(name), f"several modules would change it: {', '.join(paths)}"))
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise MergeError(f"the base model {model.folder} does not fit the adapters: {count}", problems=problems)
    return targets


def _candidates(module: str, model: FullModel) -> Sequence[str]:
    name = f"{module}.weight"
    if name in model.where:
        return [name]
    if ending := sorted(known for known in model.where if known.endswith(f".{name}")):
        return ending
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
        if name in model.where:
            return [name]
    return []


def _not_found(module: str, found: Sequence[str], model: FullModel) -> Problem:
    if found:
        message = f"the base has several tensors that could be its weight: {shown(', '.join(found))}"
        return Problem(module, message, "give the base model that the adapters were trained on")
    message = f"the base has no tensor {module}.weight"
    if "quantization_config" in model.config or any(name.startswith(f"{module}.") for name in model.where):
        return Problem(module, f"{message}; it seems to be quantised", _FULL_PRECISION)
    if _is_output(module):
        return Problem(module, f"{message}: its output layer is the embedding, and cannot change alone")
    return Problem(module, message, "give the base model that the adapters were trained on")


def _weight_problems(module: ModulePlan, name: str, model: FullModel, *, turned: bool) -> list[Problem]:
    entry = model.entry(name)
    problems = []
    if entry.dtype not in NUMBERS:
        kind = str(entry.dtype).removeprefix("torch.")
        problems.append(Problem(module.module, f"{shown(name)} of the base is stored in {kind}", _FULL_PRECISION))
    elif entry.shape != ((module.width, module.out) if turned else (module.out, module.width)):
        is_, wanted = _times(entry.shape), _times((module.out, module.width))
        hint = "give the base model that the adapters were trained on"
        if not turned and entry.shape == (module.width, module.out):
            hint = "if its layers store weights transposed, set fan_in_fan_out in adapter_config.json"
        message = f"{shown(name)} of the base is {is_}, ΔW is {wanted}{', stored transposed' if turned else ''}"
        problems.append(Problem(module.module, message, hint))
    if _is_output(module.module) and model.config.get("tie_word_embeddings") is True:
        message = (
            "the base's output layer is tied to its embedding, and would be replaced by it when the model is loaded"
        )
        problems.append(Problem(module.module, message, "set tie_word_embeddings to false in a copy of the base"))
    return problems


def _origin_problems(adapters: Sequence[Adapter], model: FullModel) -> list[Problem]:
    """Return a problem for every adapter that records another configuration of its base model than this one's."""
    known = sha256(model.config_bytes).hexdigest()
    return [
        Problem(name_of(adapter), f"it was trained on a base model with another config.json ({shown(told, 80)})")
        for adapter in adapters
        if (told := recorded(adapter, BASE_CONFIG_KEY)) is not None and told != known
    ]


def _is_output(module: str) -> bool:
    return module.rsplit(".", 1)[-1] in _OUTPUT_LAYERS


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "one number"
