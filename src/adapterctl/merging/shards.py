"""The safetensors files of a full model, and what lies beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from adapterctl.errors import AdapterError, BaseModelError, Problem
from adapterctl.files import disk_errors
from adapterctl.fingerprint import fingerprint
from adapterctl.lora.tensorfile import Entry, TensorFile
from adapterctl.lora.untrusted import identity_of, open_regular, parse_json, read_small, shown
from adapterctl.merging.arena import arena

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
LARGEST_TEXT = 1 << 26
"""Bytes of an index or a configuration that are still read."""

_SAMPLE = 4096
_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".pkl", ".pickle")
_COPIED = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
_LEGAL = ("license", "notice", "use_policy")
_NOT_COPIED = ("adapter_config.json", "merge_report.json", "training_args.json", "trainer_state.json")
_HINT = "copy or download the base model again"


@dataclass(frozen=True, eq=False)
class FullModel:
    """A model in a folder as ``save_pretrained`` writes it: ``config.json``, and one safetensors file or several.

    Attributes:
        folder: Where it lies.
        config: What its ``config.json`` says.
        config_bytes: How it says it.
        shards: Its open files by name.
        index: The bytes of the index; None where there is one file.
        where: The name of the file that every tensor lies in.
    """

    folder: Path
    config: Mapping[str, Any]
    config_bytes: bytes
    shards: Mapping[str, TensorFile]
    index: bytes | None
    where: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path) -> FullModel:
        """Open a model's files; headers are read and checked, numbers are not.

        As in transformers, one file of the usual name goes before an index.

        Raises:
            BaseModelError: It has no readable configuration or no safetensors files, or they are not complete.
        """
        config_bytes, config = _document(folder, CONFIG)
        index = None
        if (folder / SINGLE).is_file():
            shards, problems = _opened(folder, [SINGLE])
            where = {name: SINGLE for shard in shards.values() for name in shard.entries}
        elif (folder / INDEX).exists():
            index, document = _document(folder, INDEX)
            where = _weight_map(folder, document)
            shards, problems = _opened(folder, sorted(set(where.values())))
            problems += _unlisted(where, shards)
        else:
            raise _no_weights(folder)
        if problems:
            count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            raise BaseModelError(f"the base model {folder} cannot be used: {count}", problems=problems, hint=_HINT)
        return cls(folder, config, config_bytes, shards, index, where)

    def entry(self, name: str) -> Entry:
        """Return where one of its tensors lies in its file."""
        return self.shards[self.where[name]].entries[name]

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration, the header of every file and the first 4 KiB of every tensor.

        Hashing all of it would take longer than many merges.
        """
        digests = {}
        with as_base_error():
            for name, shard in self.shards.items():
                size = size_of(shard)
                starts = sorted((entry.begin, entry.size) for entry in shard.entries.values())
                digest = sha256(read_bytes(shard, 0, starts[0][0] if starts else size))
                for begin, length in starts:
                    digest.update(read_bytes(shard, begin, min(length, _SAMPLE)))
                digests[name] = digest.hexdigest()
        return fingerprint({"config": sha256(self.config_bytes).hexdigest(), "shards": digests})

    def require_unchanged(self) -> None:
        """Raise if a file has been written to since it was opened.

        Raises:
            BaseModelError: One has.
        """
        for name, shard in self.shards.items():
            if identity_of(os.fstat(shard.fileno())) != shard.identity:
                raise BaseModelError(f"{self.folder / name} was changed during the merge", hint="merge again")

    def copy_documents(self, out: Path) -> None:
        """Copy configuration, index, tokenizer, chat templates, code and licence; never a pickle, never other weights.

        Raises:
            BaseModelError: A file cannot be read.
            StorageError: The disk is full.
        """
        known = {CONFIG: self.config_bytes} | ({INDEX: self.index} if self.index is not None else {})
        for name, content in known.items():
            with disk_errors(out / name):
                (out / name).write_bytes(content)
        for path in sorted(self.folder.iterdir()):
            if path.name not in known and path.is_file() and _is_document(path.name):
                _copy_file(path, out / path.name)
        templates = self.folder / "additional_chat_templates"
        for path in sorted(templates.glob("*.jinja")):
            _copy_file(path, out / templates.name / path.name)


@contextmanager
def as_base_error() -> Iterator[None]:
    """Tell of a file that cannot be used as of the base model's."""
    try:
        yield
    except AdapterError as error:
        raise BaseModelError(error.message, hint=_HINT) from error


def size_of(shard: TensorFile) -> int:
    """Return how many bytes a file had when it was opened."""
    return shard.identity[2]


def read_bytes(shard: TensorFile, begin: int, count: int) -> memoryview:
    """Return bytes of a file, in the thread's buffer; the next call overwrites them."""
    view: Any = arena().take("file bytes", (count,), torch.uint8).numpy()
    shard.fill(memoryview(view), begin)
    return memoryview(view)


def _document(folder: Path, name: str) -> tuple[bytes, dict[str, Any]]:
    path = folder / name
    try:
        content, _ = read_small(path, LARGEST_TEXT)
        document = parse_json(content)
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or shown(str(error))
        raise BaseModelError(
            f"the base model {folder} has no readable {name}: {reason}",
            hint="give the folder that transformers' save_pretrained wrote",
        ) from None
    return content, document


def _weight_map(folder: Path, document: Mapping[str, Any]) -> dict[str, str]:
    """Return the file of every tensor as an index tells it; only plain names of files in the same folder count."""
    found = document.get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise BaseModelError(f"{folder / INDEX} does not say which file each tensor lies in", hint=_HINT)
    problems = [
        Problem(INDEX, f"it names {shown(name)}, which is not the name of a safetensors file beside it")
        for name in sorted(set(found.values()))
        if not _is_plain(name)
    ]
    if problems:
        raise BaseModelError(f"the base model {folder} cannot be used", problems=problems, hint=_HINT)
    return found


def _is_plain(name: str) -> bool:
    return (
        name.endswith(".safetensors") and name.isprintable() and not name.startswith(".") and not set("/\\") & {*name}
    )


def _opened(folder: Path, names: Sequence[str]) -> tuple[dict[str, TensorFile], list[Problem]]:
    shards, problems = {}, []
    for name in names:
        try:
            shards[name] = TensorFile(folder / name)
        except FileNotFoundError:
            problems.append(Problem(name, "the index names it, and there is no such file"))
        except AdapterError as error:
            problems.append(Problem(name, error.message))
    return shards, problems


def _unlisted(where: Mapping[str, str], shards: Mapping[str, TensorFile]) -> list[Problem]:
    lost = [tensor for tensor, name in where.items() if name in shards and tensor not in shards[name].entries]
    return [
        Problem(where[tensor], f"it does not hold {shown(tensor)}, which the index says it does") for tensor in lost
    ]


def _no_weights(folder: Path) -> BaseModelError:
    others = sorted(path.name for path in folder.iterdir() if path.name.endswith(_WEIGHTS))
    if not others:
        return BaseModelError(
            f"the base model {folder} has neither {SINGLE} nor {INDEX}",
            hint="give the folder that transformers' save_pretrained wrote",
        )
    return BaseModelError(
        f"the base model {folder} has no safetensors files, only {shown(', '.join(others))}; a pickle is never loaded",
        hint="save it again with save_pretrained, which writes safetensors",
    )


def _is_document(name: str) -> bool:
    small = name.lower()
    if name in _NOT_COPIED or name.startswith(".") or small.endswith(".index.json"):
        return False
    return small.endswith(_COPIED) or (small.startswith(_LEGAL) and not small.endswith(_WEIGHTS))


def _copy_file(path: Path, target: Path) -> None:
    try:
        descriptor, _ = open_regular(path)
    except OSError as error:
        raise BaseModelError(f"cannot read {path}: {error.strerror or error}") from error
    with disk_errors(target), open(descriptor, "rb") as source:
        target.parent.mkdir(exist_ok=True)
        with target.open("wb") as sink:
            while content := source.read(1 << 20):
                sink.write(content)
