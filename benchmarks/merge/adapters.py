"""LoRA adapters of a Llama's shapes, made from a seed, and the models that whole-model merges need.

Every language's A and B are a mix of a part that all languages share and a part of its own, with singular values that
fall as j^-0.8 and a rotation between A and B that hides their order, as training would. Numbers are drawn for each
language and module apart: a set with more languages, layers or kinds has the same numbers where both have the module.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from adapterctl.files import staged_folder
from adapterctl.fingerprint import fingerprint
from adapterctl.randomness import generator

BASE_NAME = "meta-llama/Llama-3.1-8B"
LANGUAGES = (
    *("de", "en", "fr", "ja", "zh", "ar", "es", "hi", "id", "it"),
    *("ko", "nl", "pl", "pt", "ru", "sw", "th", "tr", "uk", "vi"),
)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

SHARED_A, OWN_A, SHARED_B, OWN_B = 0.5, 0.87, 0.3, 0.95
DECAY, SIZE = 0.8, 0.02


@dataclass(frozen=True)
class Shapes:
    """The widths that decide every projection's shape; a head is 128 wide, or all of a narrower model."""

    hidden: int
    key_value: int
    intermediate: int

    def of(self, kind: str) -> tuple[int, int]:
        """Return (out, in) of a projection."""
        if kind == "down_proj":
            return self.hidden, self.intermediate
        out = {"q_proj": self.hidden, "o_proj": self.hidden, "k_proj": self.key_value, "v_proj": self.key_value}
        return out.get(kind, self.intermediate), self.hidden


LLAMA_8B = Shapes(4096, 1024, 14336)
SMALL = Shapes(64, 32, 160)


def module_path(layer: int, kind: str) -> str:
    return f"model.layers.{layer}.{'self_attn' if kind in ATTENTION else 'mlp'}.{kind}"


@dataclass(frozen=True)
class AdapterSet:
    """What a set of adapters is made from; α is twice the rank."""

    shapes: Shapes
    layers: int = 32
    kinds: tuple[str, ...] = ATTENTION + MLP
    rank: int = 16
    dtype: str = "bfloat16"
    seed: int = 0

    @property
    def modules(self) -> tuple[tuple[str, str], ...]:
        """Path and kind of every module."""
        return tuple((module_path(layer, kind), kind) for layer in range(self.layers) for kind in self.kinds)

    @property
    def config(self) -> dict[str, Any]:
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": BASE_NAME,
            "r": self.rank,
            "lora_alpha": 2 * self.rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": list(self.kinds),
            "fan_in_fan_out": False,
            "inference_mode": True,
            "modules_to_save": None,
            "use_rslora": False,
            "use_dora": False,
        }

    def factors(self, lang: str, module: str, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A (r × in) and B (out × r) of one language in one module, float32."""
        out, width = self.shapes.of(kind)

        def normal(name: str, factor: str, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
            drawn = generator("benchmark-adapter", self.seed, name, module, factor)
            return drawn.standard_normal(shape, dtype=np.float32)

        a = SHARED_A * normal("shared", "A", self.rank, width) + OWN_A * normal(lang, "A", self.rank, width)
        b = SHARED_B * normal("shared", "B", out, self.rank) + OWN_B * normal(lang, "B", out, self.rank)
        spectrum = SIZE * np.arange(1, self.rank + 1, dtype=np.float32) ** -DECAY
        rotation = np.linalg.qr(normal(lang, "rotation", self.rank, self.rank))[0]
        a, b = rotation @ (a / np.float32(width**0.5)), (b * spectrum) @ rotation.T
        return torch.from_numpy(a), torch.from_numpy(b)

    def make(self, work: Path, languages: tuple[str, ...]) -> dict[str, Path]:
        """Write the adapters that are not there yet, one at a time, and return every language's folder.

        A name like ``ja@2`` is another adapter of ``ja``, with the same shared part.
        """
        parameters = json.loads(json.dumps(asdict(self)))
        home = work / "adapters" / f"r{self.rank}-{len(self.modules)}-{fingerprint(parameters)[:12]}"
        home.mkdir(parents=True, exist_ok=True)
        manifest = home / "made-from.json"
        text = json.dumps({**parameters, "config": self.config}, indent=2) + "\n"
        if manifest.is_file() and manifest.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{home} was made by another version of this generator; remove it")
        manifest.write_text(text, encoding="utf-8")
        for lang in languages:
            if not (home / lang).is_dir():
                with staged_folder(home / lang) as folder:
                    self._write(lang, folder)
        return {lang: home / lang for lang in languages}

    def _write(self, lang: str, folder: Path) -> None:
        tensors = {}
        for module, kind in self.modules:
            for name, factor in zip("AB", self.factors(lang, module, kind), strict=True):
                tensors[f"base_model.model.{module}.lora_{name}.weight"] = factor.to(DTYPES[self.dtype]).contiguous()
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class ModelSet:
    """A bf16 Llama of the adapters' shapes, and the same model with each adapter added to it."""

    adapters: AdapterSet
    vocabulary: int = 256

    @property
    def config(self) -> dict[str, Any]:
        shapes = self.adapters.shapes
        head = min(128, shapes.key_value)
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": shapes.hidden,
            "intermediate_size": shapes.intermediate,
            "num_hidden_layers": self.adapters.layers,
            "num_attention_heads": shapes.hidden // head,
            "num_key_value_heads": shapes.key_value // head,
            "head_dim": head,
            "hidden_act": "silu",
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": self.vocabulary,
        }

    def make(self, work: Path, languages: tuple[str, ...]) -> tuple[Path, dict[str, Path]]:
        """Write the models that are not there yet; return the base's folder and every language's."""
        parameters = fingerprint({"adapters": json.loads(json.dumps(asdict(self.adapters))), **self.config})[:12]
        home = work / "models" / f"{self.adapters.layers}-layers-{parameters}"
        home.mkdir(parents=True, exist_ok=True)
        base = home / "base"
        if not base.is_dir():
            with staged_folder(base) as folder:
                self._save(self._base(), folder)
        for lang in languages:
            if not (home / lang).is_dir():
                with staged_folder(home / lang) as folder:
                    self._save(self._changed(lang, base), folder)
        return base, {lang: home / lang for lang in languages}

    def _base(self) -> dict[str, torch.Tensor]:
        shapes, layers = self.adapters.shapes, range(self.adapters.layers)
        table = (self.vocabulary, shapes.hidden)
        tensors = {name: self._drawn(name, table) for name in ("model.embed_tokens.weight", "lm_head.weight")}
        for name in ["model.norm", *(f"model.layers.{layer}.{part}" for layer in layers for part in _NORMS)]:
            tensors[f"{name}.weight"] = torch.ones(shapes.hidden, dtype=torch.bfloat16)
        for layer in layers:
            for kind in ATTENTION + MLP:
                name = f"{module_path(layer, kind)}.weight"
                tensors[name] = self._drawn(name, shapes.of(kind))
        return tensors

    def _changed(self, lang: str, base: Path) -> dict[str, torch.Tensor]:
        tensors = load_file(base / "model.safetensors")
        scale = self.adapters.config["lora_alpha"] / self.adapters.rank
        for module, kind in self.adapters.modules:
            a, b = (part.to(DTYPES[self.adapters.dtype]).float() for part in self.adapters.factors(lang, module, kind))
            name = f"{module}.weight"
            tensors[name] = torch.addmm(tensors[name].float(), b, a, alpha=scale).bfloat16()
        return tensors

    def _save(self, tensors: dict[str, torch.Tensor], folder: Path) -> None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")

    def _drawn(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        drawn = generator("benchmark-model", self.adapters.seed, name).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(SIZE * drawn).bfloat16()


_NORMS = ("input_layernorm", "post_attention_layernorm")
