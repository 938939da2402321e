"""What ``adapter_config.json`` of a LoRA adapter means: rank, scale, and what cannot be expressed as B · A.

Pure functions on the parsed JSON; nothing here needs torch or PEFT.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from adapterctl.errors import Problem
from adapterctl.lora.patterns import LARGEST_EFFORT, effort
from adapterctl.lora.untrusted import shown

PLAIN_INITIALISATIONS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Ways to start A and B that leave the base model's own weights alone, so that ΔW = s·B·A says everything."""

_INFORMATIVE = frozenset(
    {"peft_version", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "runtime_config"}
)
"""Keys that say where an adapter came from or how it was loaded, not what it computes."""

_NOT_A_PLAIN_DELTA = {
    "use_dora": "DoRA rescales the base weights by a learned magnitude, which is not a sum",
    "lora_bias": "it trains a bias beside B",
    "modules_to_save": "it carries whole modules, which cannot be merged as low-rank deltas",
    "trainable_token_indices": "it carries rows of the embedding",
    "target_parameters": "it changes parameters that are not linear layers",
    "layer_replication": "it changes the number of layers of the base model",
    "alora_invocation_tokens": "activated LoRA acts on a part of the tokens only",
    "use_qalora": "QA-LoRA pools the input, so A does not have the width of the layer",
    "use_bdlora": "block-diagonal LoRA needs its own runtime",
    "kasa_config": "KaSA changes the base weights",
    "monteclora_config": "MonteCLoRA draws its factors at random",
    "arrow_config": "Arrow routes between adapters at run time",
}

_PLAIN_LORA = "train the adapter as plain LoRA"


_LARGEST_RANK = 1 << 20
_LARGEST_ALPHA = 1e30


@lru_cache(1 << 14)
def _matcher(key: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        # A set like [a||b] will mean something else in a later Python; what it means now is what PEFT reads.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(rf"(.*\.)?({key})$")


def pattern_value(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """Return what ``rank_pattern`` or ``alpha_pattern`` says about a module, as PEFT reads it.

    A key is a regular expression for the end of the module path; the first match in file order wins.
    """
    for key, value in patterns.items():
        if _matcher(key).match(module):
            return value
    return patterns.get(module, default)


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """Return r of a module."""
    return int(pattern_value(config.get("rank_pattern") or {}, module, config.get("r", 8)))


def alpha_of(config: Mapping[str, Any], module: str) -> float:
    """Return α of a module."""
    return float(pattern_value(config.get("alpha_pattern") or {}, module, config.get("lora_alpha", 8)))


def scale_of(config: Mapping[str, Any], module: str) -> float:
    """Return the factor on B·A of a module: α/r, or α/√r for rsLoRA (Kalajdzievski 2023, arXiv 2312.03732)."""
    rank, alpha = rank_of(config, module), alpha_of(config, module)
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _is_number(value: Any) -> bool:
    # Not math.isfinite, which overflows at whole numbers of more than 308 digits.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_ALPHA


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_RANK


def _pattern_problems(config: Mapping[str, Any], name: str, where: str) -> list[Problem]:
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        return [Problem(where, f"{name} is not a mapping of module patterns to numbers")]
    valid, kind = (_is_rank, "a positive whole number") if name == "rank_pattern" else (_is_number, "a number")
    problems = [
        Problem(where, f"{name}: {shown(repr(key))} has the value {shown(repr(value))}, which is not {kind}")
        for key, value in patterns.items()
        if not valid(value)
    ]
    efforts = 0.0
    for key in patterns:
        try:
            _matcher(key)
        except (re.error, RecursionError, OverflowError) as error:
            problems.append(Problem(where, f"{name}: {shown(repr(key))} is not a regular expression: {error}"))
        efforts += effort(key)
    if efforts > LARGEST_EFFORT:
        message = f"{name} holds regular expressions that would take too long to match"
        problems.append(Problem(where, message, "name the modules without repeated groups and many wildcards"))
    return problems


def config_problems(config: Mapping[str, Any], where: str) -> list[Problem]:
    """Return every reason why a configuration does not describe plain ΔW = s·B·A."""
    if (kind := config.get("peft_type")) != "LORA":
        return [Problem(where, f"it is an adapter of type {shown(repr(kind))}, not LORA", _PLAIN_LORA)]
    problems = [
        Problem(where, f"{key} is {shown(repr(config[key]))}, not text", "write what PEFT wrote there")
        for key in ("base_model_name_or_path", "revision", "task_type")
        if not isinstance(config.get(key), str | None)
    ]
    if not _is_rank(config.get("r", 8)):
        problems.append(Problem(where, f"r is {shown(repr(config.get('r')))}, not a positive whole number"))
    if not _is_number(config.get("lora_alpha", 8)):
        problems.append(Problem(where, f"lora_alpha is {shown(repr(config.get('lora_alpha')))}, not a number"))
    problems += _pattern_problems(config, "rank_pattern", where) + _pattern_problems(config, "alpha_pattern", where)
    for key, reason in _NOT_A_PLAIN_DELTA.items():
        if config.get(key):
            problems.append(Problem(where, f"{key} is set: {reason}", _PLAIN_LORA))
    if (bias := config.get("bias", "none")) not in ("none", None):
        problems.append(
            Problem(where, f"bias is {shown(repr(bias))}: trained biases are not part of B·A", 'train with bias="none"')
        )
    start = config.get("init_lora_weights", True)
    if (start.lower() if isinstance(start, str) else start) not in PLAIN_INITIALISATIONS:
        problems.append(
            Problem(
                where,
                f"init_lora_weights is {shown(repr(start))}: that initialisation changes the base weights, so B·A "
                "alone is not the whole difference",
                "save it with PEFT's path_initial_model_for_weight_conversion",
            )
        )
    return problems


def canonical_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that has meaning, in one form whatever order it was written in.

    Keys without a value are left out, so that an adapter keeps its identity when a newer PEFT adds an unused key.
    Lists of names are sets in PEFT and are sorted. The order of a pattern decides which key wins: it is kept, as pairs.
    """
    canonical: dict[str, Any] = {}
    for key, value in config.items():
        if key in _INFORMATIVE or value is None or value == {} or value == []:
            continue
        if key in ("rank_pattern", "alpha_pattern") and isinstance(value, dict):
            canonical[key] = [[name, number] for name, number in value.items()]
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            canonical[key] = sorted(value)
        else:
            canonical[key] = value
    return canonical
