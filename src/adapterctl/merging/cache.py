"""What one merge leaves for the next: inner products of factors and trim thresholds, by content hash, bounded.

A block of inner products belongs to the content of two adapters and a module, a threshold to the content of one
adapter and a way to trim: neither depends on the other languages. When one language changes, only what it touches is
computed again, and the result has the same bits as a merge from nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from adapterctl.errors import AdapterError, StorageError
from adapterctl.files import write_bytes
from adapterctl.fingerprint import canonical_json, fingerprint
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.delta import raw_bytes
from adapterctl.lora.tensorfile import TensorFile
from adapterctl.lora.write import tensor_bytes
from adapterctl.merging.selection import Threshold

BlockKey = tuple[str, str, str, str]
"""Side, module, and the content hashes of two adapters, the smaller first."""

DEFAULT_LIMIT = 1 << 30
"""Bytes a cache may take unless it is told otherwise."""

_LAYOUT = 2
_CHECKSUM = "sha256"
_IDENTITIES = "identities.json"
_MOST_IDENTITIES = 1000
_SETTLED_NS = 2_000_000_000
"""Nanoseconds after which another change of a file shows in its times."""

_OWN_NAME = re.compile(r"[0-9a-f]{64}\.(?:safetensors|json)|" + re.escape(_IDENTITIES))

_log = logging.getLogger(__name__)


class FactorCache:
    """A folder of inner products and thresholds. Several processes may use it; a damaged file counts as absent.

    Args:
        folder: Where it lies; made when something is kept.
        limit_bytes: What its files may take together; those used longest ago are removed.
    """

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()

    def content_hash(self, adapter: Adapter) -> str:
        """Return the content hash of an adapter, without reading tensors that are known not to have changed.

        Files are known by device, inode, size and the times of their last changes, as version control knows them; a
        file that was written this moment could be written again without a change of its times, and is not trusted.

        Raises:
            AdapterError: The tensors cannot be read.
        """
        identity = json.dumps(adapter.identity)
        known = self._read_json(_IDENTITIES)
        name = str(adapter.folder.resolve())
        held = known.get(name)
        if isinstance(held, list) and len(held) == 2 and held[0] == identity and isinstance(held[1], str):
            return held[1]
        digest = adapter.content_hash
        newest = max(times for part in adapter.identity if part is not None for times in part[-2:])
        if time.time_ns() - newest < _SETTLED_NS:
            return digest
        with self._lock, _not_needed():
            known = self._read_json(_IDENTITIES)
            known.pop(name, None)
            rest = list(known.items())[-_MOST_IDENTITIES:]
            self._write_json(_IDENTITIES, {**dict(rest), name: [identity, digest]})
        return digest

    def _read_json(self, name: str) -> dict[str, object]:
        try:
            value = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def _write_json(self, name: str, value: object) -> None:
        # What a crash tears counts as absent: there is no need to wait for the disk.
        write_bytes(self.folder / name, canonical_json(value).encode("utf-8"), sync=False)

    def blocks(self, hashes: Sequence[str]) -> dict[BlockKey, torch.Tensor]:
        """Return every kept block of pairs among these adapters."""
        found: dict[BlockKey, torch.Tensor] = {}
        for first, second in _pairs(hashes):
            path = self._pair_file(first, second)
            try:
                content = bytearray(path.read_bytes())
                file = TensorFile(path)
                tensors = {
                    name: torch.frombuffer(
                        content, dtype=torch.float64, count=math.prod(entry.shape), offset=entry.begin
                    ).view(entry.shape)
                    for name, entry in file.entries.items()
                }
                if file.metadata.get(_CHECKSUM) != _checksum(tensors):
                    continue
                for name, block in tensors.items():
                    side, _, module = name.partition(":")
                    found[side, module, first, second] = block
                os.utime(path)
            except (OSError, ValueError, AdapterError):
                continue
        return found

    def keep_blocks(self, blocks: Mapping[BlockKey, torch.Tensor], before: Mapping[BlockKey, torch.Tensor]) -> None:
        """Keep the blocks of all pairs for which there are new ones."""
        by_pair: dict[tuple[str, str], dict[str, torch.Tensor]] = defaultdict(dict)
        for (side, module, first, second), block in blocks.items():
            by_pair[first, second][f"{side}:{module}"] = block
        changed = {(first, second) for side, module, first, second in blocks.keys() - before.keys()}
        with _not_needed():
            for first, second in sorted(changed):
                tensors = by_pair[first, second]
                content = tensor_bytes(tensors, {"format": "pt", _CHECKSUM: _checksum(tensors)})
                write_bytes(self._pair_file(first, second), content, sync=False)

    def thresholds(self, content_hash: str, way: str) -> Threshold | None:
        """Return the kept threshold of an adapter for a way to trim, which ``way`` is the fingerprint of."""
        held = self._read_json(f"thresholds/{content_hash}.json").get(way)
        if not isinstance(held, list):
            return None
        try:
            value, allowed, equal = held
            return Threshold(float.fromhex(value), int(allowed), int(equal))
        except (ValueError, TypeError):
            return None

    def keep_threshold(self, content_hash: str, way: str, threshold: Threshold) -> None:
        """Keep a threshold."""
        name = f"thresholds/{content_hash}.json"
        with self._lock, _not_needed():
            held = self._read_json(name)
            held[way] = [threshold.value.hex(), threshold.allowed, threshold.equal]
            self._write_json(name, held)

    def _pair_file(self, first: str, second: str) -> Path:
        return self.folder / "pairs" / f"{fingerprint([_LAYOUT, first, second])}.safetensors"

    def shrink(self) -> None:
        """Remove what was used longest ago until the rest is small enough."""
        held = []
        # Only what a cache writes: the folder may be one that a person keeps other things in.
        own = [*self.folder.glob("pairs/*.safetensors"), *self.folder.glob("thresholds/*.json")]
        for path in [*own, self.folder / _IDENTITIES]:
            with contextlib.suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and _OWN_NAME.fullmatch(path.name):
                    held.append((status.st_mtime_ns, path, status.st_size))
        total = sum(size for _, _, size in held)
        for _, path, size in sorted(held):
            if total <= self.limit_bytes:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size


@contextlib.contextmanager
def _not_needed() -> Iterator[None]:
    """Let a merge go on where nothing can be kept: it needs no cache."""
    try:
        yield
    except StorageError as error:
        _log.warning("nothing is kept for the next merge: %s", error.message)


def _checksum(blocks: Mapping[str, torch.Tensor]) -> str:
    """Return SHA-256 of blocks with their names and shapes."""
    digest = hashlib.sha256()
    for name in sorted(blocks):
        digest.update(canonical_json([name, list(blocks[name].shape)]).encode("utf-8"))
        digest.update(raw_bytes(blocks[name]))
    return digest.hexdigest()


def _pairs(hashes: Sequence[str]) -> list[tuple[str, str]]:
    ordered = sorted(set(hashes))
    return [(first, second) for index, first in enumerate(ordered) for second in ordered[index:]]
