"""PEFT's ``add_weighted_adapter`` on one module, whose base weight is one zero seen out × in times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from benchmarks.merge.clock import Clock
from peft import LoraConfig, inject_adapter_in_model  # noqa: F401 - brings in what PEFT imports late
from peft.tuners.lora import LoraModel
from safetensors.torch import save_file

from adapterctl.lora.adapter import Adapter


def weighted(
    clock: Clock,
    *,
    folders: dict[str, str],
    kind: str,
    weight: float,
    rank: int,
    density: float | None,
    repeats: int,
    result: str,
    full_matrices: bool = True,
) -> dict[str, Any]:
    """Time a combination of all adapters at equal weights; its A and B are left in ``result``."""
    torch.set_num_threads(1)
    adapters = [Adapter.open(Path(folder), lang) for lang, folder in sorted(folders.items())]
    names = [str(adapter.lang) for adapter in adapters]
    (module,) = adapters[0].modules
    (_, width), (out, _) = adapters[0].shape(module)
    name = module.rsplit(".", 1)[-1]
    model = torch.nn.Module()
    with torch.device("meta"):
        linear = torch.nn.Linear(width, out, bias=False)
    linear.weight = torch.nn.Parameter(torch.zeros(1).expand(out, width), requires_grad=False)
    setattr(model, name, linear)
    tuner: Any = None
    for adapter, lang in zip(adapters, names, strict=True):
        config = LoraConfig(r=adapter.rank(module), lora_alpha=adapter.config["lora_alpha"], target_modules=[name])
        if tuner is None:
            tuner = LoraModel(model, {lang: config}, lang)
        else:
            tuner.peft_config[lang] = config
            tuner.inject_adapter(model, lang)
    layer = getattr(model, name)
    for adapter, lang in zip(adapters, names, strict=True):
        delta = adapter.delta(module)
        layer.lora_A[lang].weight.data.copy_(delta.A)
        layer.lora_B[lang].weight.data.copy_(delta.B)

    def run(number: int) -> None:
        tuner.add_weighted_adapter(
            names,
            [weight] * len(names),
            f"merged{number}",
            combination_type=kind,
            svd_rank=rank,
            svd_full_matrices=full_matrices,
            density=density,
        )

    torch.manual_seed(0)
    figures = clock.measure(run, repeats=repeats, warm=0)
    parts = {"A": layer.lora_A["merged0"].weight, "B": layer.lora_B["merged0"].weight}
    if layer.scaling["merged0"] != 1:
        raise SystemExit("PEFT merged with a scale other than 1: the comparison would be of different sums")
    save_file({part: value.detach().contiguous() for part, value in parts.items()}, result)
    return figures
