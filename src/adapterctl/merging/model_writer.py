"""Writing the files of a full model again with some tensors changed, in any order and from several threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from pathlib import Path

from adapterctl.files import disk_errors
from adapterctl.lora.write import reserve, write_at
from adapterctl.merging.shards import FullModel, as_base_error, read_bytes, size_of

_PIECE = 32 << 20
"""Bytes that are copied in one step."""

_THROUGH_MEMORY = 1 << 20
_KERNEL_CANNOT = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


class ModelWriter:
    """Writes the files of a model again: the same names, headers, order and types, with other numbers in some tensors.

    The files have their full size from the beginning: a disk that is too small is known before the work.

    Args:
        model: The model.
        folder: An existing folder; the caller makes it final.
        changed: The tensors that :meth:`write` will be given; all others are copied byte by byte.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """

    def __init__(self, model: FullModel, folder: Path, changed: Collection[str]) -> None:
        self._model, self._folder, self._changed = model, folder, frozenset(changed)
        self._descriptors: dict[str, int] = {}
        try:
            for name, shard in model.shards.items():
                with disk_errors(folder / name):
                    descriptor = os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o644)
                    self._descriptors[name] = descriptor
                    reserve(descriptor, size_of(shard))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> ModelWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    @property
    def untouched(self) -> list[tuple[str, int, int]]:
        """File, first byte and end of everything that is copied, headers included, in pieces."""
        pieces = []
        for name, shard in self._model.shards.items():
            changed = [entry for tensor, entry in shard.entries.items() if self._is_changed(tensor, name)]
            position = 0
            for begin, end in [
                *sorted((entry.begin, entry.begin + entry.size) for entry in changed),
                (size_of(shard),) * 2,
            ]:
                pieces += [(name, at, min(at + _PIECE, begin)) for at in range(position, begin, _PIECE)]
                position = end
        return pieces

    def _is_changed(self, tensor: str, shard: str) -> bool:
        return tensor in self._changed and self._model.where[tensor] == shard

    def copy(self, piece: tuple[str, int, int]) -> None:
        """Copy bytes of a file as they are.

        Raises:
            BaseModelError: The file cannot be read.
            StorageError: The disk is full.
        """
        name, begin, end = piece
        position = begin
        shard, target = self._model.shards[name], self._descriptors[name]
        with disk_errors(self._folder / name):
            try:
                while position < end and hasattr(os, "copy_file_range"):
                    done = os.copy_file_range(shard.fileno(), target, end - position, position, position)
                    if not done:
                        break
                    position += done
            except OSError as error:
                if error.errno not in _KERNEL_CANNOT:
                    raise
            # What the kernel does not copy, such as between two kinds of disk, goes through memory.
            while position < end:
                content = read_bytes(shard, position, min(end - position, _THROUGH_MEMORY))
                write_at(target, content, position)
                position += len(content)
            _to_disk(target, begin, end - begin)

    def copy_tensor(self, name: str) -> None:
        """Copy one tensor as it is.

        Raises:
            BaseModelError: The file cannot be read.
            StorageError: The disk is full.
        """
        entry = self._model.entry(name)
        self.copy((self._model.where[name], entry.begin, entry.begin + entry.size))

    def read(self, name: str, begin: int, into: memoryview) -> None:
        """Read bytes of one of the model's tensors.

        Raises:
            BaseModelError: The file cannot be read.
        """
        with as_base_error():
            self._model.shards[self._model.where[name]].fill(into, self._model.entry(name).begin + begin)

    def write(self, name: str, begin: int, content: memoryview) -> None:
        """Write bytes of one of the changed tensors, of which those at its end come last.

        Raises:
            StorageError: The disk is full.
        """
        shard, entry = self._model.where[name], self._model.entry(name)
        with disk_errors(self._folder / shard):
            write_at(self._descriptors[shard], content, entry.begin + begin)
            if begin + len(content) == entry.size:
                _to_disk(self._descriptors[shard], entry.begin, entry.size)


def _to_disk(descriptor: int, begin: int, count: int) -> None:
    """Let the disk begin with what is written, so that there is less to wait for at the end."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, begin, count, os.POSIX_FADV_DONTNEED)
