"""One PEFT folder of a LoRA adapter, read lazily and without running anything it contains."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from adapterctl.errors import AdapterError
from adapterctl.fingerprint import canonical_json
from adapterctl.lora.delta import LowRankDelta, raw_bytes
from adapterctl.lora.peft_config import canonical_config, config_problems, rank_of, scale_of

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE = "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the path of a module in the names of tensors."""

_FACTOR = re.compile(re.escape(PEFT_PREFIX) + r"(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of one language: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Attributes:
        folder: Where it lies.
        config: The parsed ``adapter_config.json``.
        lang: BCP-47 tag of the language, or None where it does not matter.
    """

    folder: Path
    config: dict[str, Any] = field(hash=False)
    lang: str | None = None

    @classmethod
    def open(cls, folder: Path, lang: str | None = None) -> Adapter:
        """Read the configuration of an adapter; its tensors are read when they are asked for.

        Raises:
            AdapterError: The folder or its configuration is missing or unreadable.
        """
        folder = Path(folder)
        path = folder / CONFIG_FILE
        try:
            config = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
            canonical_json(config).encode("utf-8")
        except FileNotFoundError:
            reason = (
                f"{folder} is not an adapter: it has no {CONFIG_FILE}" if folder.is_dir() else f"no folder {folder}"
            )
            raise AdapterError(reason, hint="give the folder that PEFT's save_pretrained wrote") from None
        except (ValueError, RecursionError) as error:
            raise AdapterError(f"{path} is not valid JSON: {error}", hint="save the adapter again") from None
        except OSError as error:
            raise AdapterError(f"cannot read {path}: {error.strerror}") from error
        if not isinstance(config, dict):
            raise AdapterError(f"{path} is not a JSON object", hint="save the adapter again")
        return cls(folder, config, lang)

    @property
    def name(self) -> str:
        """What to call the adapter in a message: its language and folder."""
        return f"{self.lang} ({self.folder})" if self.lang else str(self.folder)

    @property
    def base_model(self) -> str | None:
        """The base model's path or hub id, as recorded."""
        return self.config.get("base_model_name_or_path")

    @property
    def revision(self) -> str | None:
        """The revision of the base model, as recorded."""
        return self.config.get("revision")

    @cached_property
    def _file(self) -> Any:
        """The memory-mapped tensors.

        Raises:
            AdapterError: The file is missing, truncated, or not safetensors.
        """
        path = self.folder / TENSOR_FILE
        try:
            return safe_open(path, framework="pt", device="cpu")
        except FileNotFoundError:
            pickled = (self.folder / "adapter_model.bin").exists()
            raise AdapterError(
                f"{self.folder} has no {TENSOR_FILE}"
                + (", only adapter_model.bin, a pickle, which is never loaded" if pickled else ""),
                hint="save the adapter again with safe_serialization=True",
            ) from None
        except (SafetensorError, ValueError, OverflowError) as error:
            # Only now: the length that a safetensors file begins with can look like the start of a pickle.
            with path.open("rb") as handle:
                pickled = handle.read(4).startswith(_PICKLE_STARTS)
            if pickled:
                raise AdapterError(
                    f"{path} is a pickle with another name; it is never loaded, because a pickle can run code",
                    hint="save the adapter again with safe_serialization=True",
                ) from None
            raise AdapterError(
                f"{path} is not a complete safetensors file: {error}", hint="copy or train the adapter again"
            ) from None
        except OSError as error:
            raise AdapterError(f"cannot read {path}: {error.strerror or error}") from error

    @cached_property
    def tensor_names(self) -> tuple[str, ...]:
        """The names of all tensors, sorted."""
        return tuple(sorted(self._file.keys()))

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The free text in the header of the tensor file."""
        return dict(self._file.metadata() or {})

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor as it is stored.

        Raises:
            AdapterError: There is no such tensor, or the file is damaged.
        """
        try:
            value: torch.Tensor = self._file.get_tensor(name)
        except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
            raise AdapterError(f"{self.name}: cannot read tensor {name}: {error}") from None
        return value

    @cached_property
    def factors(self) -> Mapping[str, Mapping[str, str]]:
        """The tensor names of A and B of every module: ``{module: {"A": name, "B": name}}``."""
        found: dict[str, dict[str, str]] = {}
        for name in self.tensor_names:
            if match := _FACTOR.fullmatch(name):
                found.setdefault(match["module"], {})[match["factor"]] = name
        return found

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The modules it changes, sorted, such as ``model.layers.0.self_attn.q_proj``."""
        return tuple(sorted(self.factors))

    @cached_property
    def unknown_tensors(self) -> tuple[str, ...]:
        """The tensors that are neither A nor B of a module."""
        return tuple(name for name in self.tensor_names if not _FACTOR.fullmatch(name))

    def rank(self, module: str) -> int:
        """Return r of a module, as configured."""
        return rank_of(self.config, module)

    def shape(self, module: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of A and B of a module without reading their numbers."""
        pair = self._pair(module)
        a, b = (tuple(self._file.get_slice(pair[factor]).get_shape()) for factor in "AB")
        return a, b

    def _pair(self, module: str) -> Mapping[str, str]:
        pair = self.factors.get(module, {})
        if missing := [f"lora_{factor}" for factor in "AB" if factor not in pair]:
            raise AdapterError(f"{self.name}: {module} has no {' and no '.join(missing)}")
        return pair

    def delta(self, module: str, dtype: torch.dtype = torch.float32) -> LowRankDelta:
        """Return ΔW of one module as factors, with the scale of that module.

        Raises:
            AdapterError: The module is missing, or its configuration or tensors cannot be used.
        """
        if problems := config_problems(self.config, self.name):
            raise AdapterError(f"the adapter {self.name} cannot be used", problems=problems)
        pair = self._pair(module)
        a, b = (self.tensor(pair[factor]).to(dtype) for factor in "AB")
        try:
            return LowRankDelta(a, b, scale_of(self.config, module))
        except ValueError as error:
            raise AdapterError(f"{self.name}: {module}: {error}") from None

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of what the adapter computes: canonical configuration, names, types, shapes and bytes of the tensors.

        It does not depend on where the folder lies, which PEFT wrote it, in which order names were written, nor on
        the text in the header of the tensor file.

        Raises:
            AdapterError: The tensors cannot be read.
        """
        digest = hashlib.sha256(canonical_json(canonical_config(self.config)).encode("utf-8"))
        for name in self.tensor_names:
            tensor = self.tensor(name)
            digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode("utf-8"))
            digest.update(raw_bytes(tensor))
        return digest.hexdigest()
