"""The base model with a fresh or continued adapter on it, and the adapter as files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapterctl.errors import AdapterError, ConfigError, Problem
from adapterctl.files import write_json
from adapterctl.lora.adapter import CONFIG_FILE, PEFT_PREFIX, TENSOR_FILE, Adapter
from adapterctl.lora.write import write_tensors
from adapterctl.randomness import generator
from adapterctl.training.job import TrainingJob
from adapterctl.training.settings import LoraSettings


def initial_a(seed: int, lang: str | None, module: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the start of A (``r × in``): uniform in ±1/√in, as PEFT and ``nn.Linear`` do it.

    Args:
        seed: ``training.seed``.
        lang: None where all languages start alike.
        module: Path of the module.
        shape: ``(r, in)``; a larger r keeps the rows of a smaller one.
    """
    names = ("lora init", seed, module) if lang is None else ("lora init", seed, module, lang)
    bound = 1.0 / math.sqrt(shape[1])
    values = generator(*names).uniform(-bound, bound, size=shape)
    return torch.from_numpy(values.astype(np.float32))


def _linear_names(model: Any) -> set[str]:
    """Return the last part of the names of the linear layers inside the model."""
    head = model.get_output_embeddings()
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def _check_targets(model: Any, lora: LoraSettings) -> None:
    if not isinstance(lora.target_modules, list):
        return
    paths = [name for name, _ in model.named_modules()]
    missing = [
        name for name in lora.target_modules if not any(path == name or path.endswith(f".{name}") for path in paths)
    ]
    if missing:
        raise ConfigError(
            f"lora.target_modules names what the base model does not have: {', '.join(missing)}",
            hint="choose among " + ", ".join(sorted(_linear_names(model))) + ", or write all-linear",
        )


def _checkpoint_activations(model: Any) -> None:
    # Renamed in transformers 5.20; the old name is to vanish in 6.
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def with_adapter(model: Any, job: TrainingJob) -> Any:
    """Return the base model with the job's adapter on it, A and B in float32 and the only parts that learn.

    Raises:
        ConfigError: ``lora.target_modules`` names modules the base model does not have.
        AdapterError: ``start_from`` does not have the job's shape.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    lora = job.lora
    _check_targets(model, lora)
    if job.base.settings.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if job.training.gradient_checkpointing:
        _checkpoint_activations(model)
    peft_model = get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.r,
            # A whole number where it is one: that is how PEFT writes it, and some servers take no other.
            lora_alpha=int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            use_rslora=lora.rslora,
            revision=job.base.settings.revision,
        ),
    )
    config = peft_model.peft_config["default"]
    # Not the folder of this machine that the weights were read from.
    config.base_model_name_or_path = job.base.name
    factors = _factors(peft_model)
    if job.start_from is None:
        for module, (a, b) in factors.items():
            start = initial_a(job.training.seed, None if job.training.shared_init else job.lang, module, tuple(a.shape))
            with torch.no_grad():
                a.copy_(start)
                b.zero_()
    else:
        _continue(factors, job, job.start_from)
    return peft_model


def _factors(peft_model: Any) -> dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """Return the parameters A and B of every module by its path in the base model."""
    found = {}
    for name, module in peft_model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            found[name.removeprefix(PEFT_PREFIX)] = (module.lora_A["default"].weight, module.lora_B["default"].weight)
    return found


def _continue(
    factors: Mapping[str, tuple[torch.nn.Parameter, torch.nn.Parameter]], job: TrainingJob, folder: Path
) -> None:
    adapter = Adapter.open(folder, job.lang)
    lora, where, problems = job.lora, str(folder), []
    wanted = {"r": lora.r, "lora_alpha": lora.alpha, "use_rslora": lora.rslora}
    for key, value in wanted.items():
        if (found := adapter.config.get(key, False)) != value:
            problems.append(Problem(where, f"its {key} is {found}, the configuration says {value}"))
    if adapter.base_model != job.base.name:
        problems.append(Problem(where, f"it belongs to base model '{adapter.base_model}', not '{job.base.name}'"))
    if absent := sorted(set(factors) - set(adapter.modules)):
        problems.append(Problem(where, f"it lacks {len(absent)} modules, such as {absent[0]}"))
    if surplus := sorted(set(adapter.modules) - set(factors)):
        problems.append(Problem(where, f"it has {len(surplus)} modules more, such as {surplus[0]}"))
    if problems:
        raise AdapterError(
            f"training of '{job.lang}' cannot continue from this adapter",
            problems=problems,
            hint="give lora the shape of that adapter, or train anew without it",
        )
    for module, (a, b) in factors.items():
        delta = adapter.delta(module)
        if delta.A.shape != a.shape or delta.B.shape != b.shape:
            raise AdapterError(
                f"{adapter.name}: {module} is {tuple(delta.B.shape)}·{tuple(delta.A.shape)}, "
                f"the base model needs {tuple(b.shape)}·{tuple(a.shape)}",
                hint="train anew without this adapter",
            )
        with torch.no_grad():
            a.copy_(delta.A)
            b.copy_(delta.B)


def parameter_counts(peft_model: Any) -> tuple[int, int]:
    """Return the parameters of the base model outside its embedding, and those of the adapter."""
    trained = sum(a.numel() + b.numel() for a, b in _factors(peft_model).values())
    # The library's own count knows how many numbers a packed 4-bit weight holds.
    return int(peft_model.get_base_model().num_parameters(exclude_embeddings=True)) - trained, trained


def write_peft_folder(peft_model: Any, folder: Path, metadata: Mapping[str, str]) -> None:
    """Write the adapter into an existing folder as PEFT would, with bytes that depend on its content alone.

    PEFT writes lists in the order of a hash table, which differs from run to run.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    tensors = {}
    for module, (a, b) in _factors(peft_model).items():
        tensors[f"{PEFT_PREFIX}{module}.lora_A.weight"] = a.detach().float().cpu().contiguous()
        tensors[f"{PEFT_PREFIX}{module}.lora_B.weight"] = b.detach().float().cpu().contiguous()
    write_tensors(folder / TENSOR_FILE, tensors, {"format": "pt", **metadata})
    config = peft_model.peft_config["default"].to_dict()
    config["inference_mode"] = True
    write_json(folder / CONFIG_FILE, json.loads(json.dumps(config, default=_plain)))


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{value!r} of an adapter's configuration cannot be stored")
