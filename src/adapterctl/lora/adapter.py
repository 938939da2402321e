"""One PEFT folder of a LoRA adapter, read lazily and without running anything it contains."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from adapterctl.errors import AdapterError, Problem
from adapterctl.fingerprint import canonical_json
from adapterctl.lora.delta import LowRankDelta
from adapterctl.lora.peft_config import canonical_config, config_problems, rank_of, scale_of
from adapterctl.lora.tensorfile import TensorFile
from adapterctl.lora.untrusted import Identity, parse_json, read_small, shown

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE = "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the path of a module in the names of tensors."""

LARGEST_CONFIG = 1 << 23
"""Bytes of a configuration that are still read."""

_FACTOR = re.compile(
    re.escape(PEFT_PREFIX) + r"(?P<module>[\w-]+(?:\.[\w-]+)*)\.lora_(?P<factor>[AB])\.weight", re.ASCII
)
"""A module's path has nothing in it that a file's path could be made of."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of one language: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Attributes:
        folder: Where it lies.
        config: The parsed ``adapter_config.json``.
        lang: BCP-47 tag of the language, or None where it does not matter.
        config_identity: What told the configuration's file from others when it was read.
    """

    folder: Path
    config: dict[str, Any] = field(hash=False)
    lang: str | None = None
    config_identity: Identity | None = field(default=None, compare=False, repr=False)

    @classmethod
    def open(cls, folder: Path, lang: str | None = None) -> Adapter:
        """Read the configuration of an adapter; its tensors are read when they are asked for.

        Raises:
            AdapterError: The folder or its configuration is missing or unreadable.
        """
        folder = Path(folder)
        path = folder / CONFIG_FILE
        try:
            text, identity = read_small(path, LARGEST_CONFIG)
            config = parse_json(text)
            canonical_json(config).encode("utf-8")
        except FileNotFoundError:
            reason = (
                f"{folder} is not an adapter: it has no {CONFIG_FILE}" if folder.is_dir() else f"no folder {folder}"
            )
            raise AdapterError(reason, hint="give the folder that PEFT's save_pretrained wrote") from None
        except (ValueError, RecursionError) as error:
            reason = f"{path} is not valid JSON: {shown(str(error))}"
            raise AdapterError(reason, hint="save the adapter again") from None
        except OSError as error:
            raise AdapterError(f"cannot read {path}: {error.strerror}") from error
        if not isinstance(config, dict):
            raise AdapterError(f"{path} is not a JSON object", hint="save the adapter again")
        return cls(folder, config, lang, identity)

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
    def _file(self) -> TensorFile:
        """The file of its tensors, open.

        Raises:
            AdapterError: The file is missing, truncated, or not safetensors.
        """
        try:
            return TensorFile(self.folder / TENSOR_FILE)
        except FileNotFoundError:
            pickled = (self.folder / "adapter_model.bin").exists()
            raise AdapterError(
                f"{self.folder} has no {TENSOR_FILE}"
                + (", only adapter_model.bin, a pickle, which is never loaded" if pickled else ""),
                hint="save the adapter again with safe_serialization=True",
            ) from None

    @cached_property
    def tensor_names(self) -> tuple[str, ...]:
        """The names of all tensors, sorted."""
        return tuple(sorted(self._file.entries))

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The free text in the header of the tensor file."""
        return dict(self._file.metadata)

    @property
    def identity(self) -> tuple[Identity, Identity | None]:
        """What tells the files of tensors and configuration from all others and from their former selves.

        Device, inode, size and times of change of each: as long as they are the same, so is :attr:`content_hash`, and
        a cache need not read the tensors to know it. As with git's index, a file that is changed in place twice within
        one tick of the disk's clock looks the same: distrust an identity younger than that.

        Raises:
            AdapterError: The tensors cannot be read.
        """
        return self._file.identity, self.config_identity

    def require_unchanged(self) -> None:
        """Raise if the tensor file has been written to since the adapter was opened.

        Raises:
            AdapterError: It has.
        """
        if self._file.changed():
            raise AdapterError(
                f"{self.name}: {TENSOR_FILE} was changed while it was in use",
                hint="run the same command again when nothing writes there",
            )

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor as it is stored.

        Raises:
            AdapterError: There is no such tensor, or the file is damaged.
        """
        return self._file.read(name)

    def dtype(self, name: str) -> torch.dtype:
        """Return what the numbers of a tensor are stored in, without reading them.

        Raises:
            AdapterError: There is no such tensor, or the file is damaged.
        """
        return self._file.entry(name).dtype

    def not_finite(self, name: str) -> tuple[int, int] | None:
        """Return how many numbers of a tensor are NaN or infinite, and how many it has; None where all are finite.

        Raises:
            AdapterError: There is no such tensor, or the file is damaged.
        """
        bad = self._file.count_not_finite(name)
        return (bad, math.prod(self._file.entry(name).shape)) if bad else None

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
        a, b = (self._file.entry(pair[factor]).shape for factor in "AB")
        return a, b

    def _pair(self, module: str) -> Mapping[str, str]:
        pair = self.factors.get(module, {})
        if missing := [f"lora_{factor}" for factor in "AB" if factor not in pair]:
            raise AdapterError(f"{self.name}: {module} has no {' and no '.join(missing)}")
        return pair

    @cached_property
    def _config_problems(self) -> tuple[Problem, ...]:
        return tuple(config_problems(self.config, self.name))

    def scale(self, module: str) -> float:
        """Return the factor on B·A of a module: α/r, or α/√r for rsLoRA.

        Raises:
            AdapterError: The configuration does not describe plain LoRA.
        """
        if problems := self._config_problems:
            raise AdapterError(f"the adapter {self.name} cannot be used", problems=problems)
        return scale_of(self.config, module)

    def read_into(self, module: str, factor: Literal["A", "B"], out: torch.Tensor) -> None:
        """Read A (``rank × in``) or B (``out × rank``) of a module into ``out``, whose type its numbers take.

        Nothing is mapped, and no memory is taken that grows with the tensor; several threads may read at once. The
        scale is not applied, and NaN is not looked for.

        Args:
            module: One of :attr:`modules`.
            factor: Which of the two.
            out: A float32 or float64 tensor of the factor's shape, on any device.

        Raises:
            AdapterError: The module has no such factor of numbers, its shape is another, or it cannot be read.
        """
        try:
            self._file.read_into(self._pair(module)[factor], out)
        except ValueError as error:
            raise AdapterError(f"{self.name}: {error}") from None

    def delta(self, module: str, dtype: torch.dtype = torch.float32) -> LowRankDelta:
        """Return ΔW of one module as factors, with the scale of that module.

        Raises:
            AdapterError: The module is missing, or its configuration or tensors cannot be used.
        """
        scale, pair = self.scale(module), self._pair(module)
        a, b = (self.tensor(pair[factor]).to(dtype) for factor in "AB")
        try:
            return LowRankDelta(a, b, scale)
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
            entry = self._file.entry(name)
            digest.update(canonical_json([name, str(entry.dtype), list(entry.shape)]).encode("utf-8"))
            for piece in self._file.pieces(name):
                digest.update(piece)
        return digest.hexdigest()
