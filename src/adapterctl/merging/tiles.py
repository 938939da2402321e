"""Coordinates of one module in any space, formed tile by tile from two thin factors of every language."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from adapterctl.merging import kernels
from adapterctl.merging.arena import arena
from adapterctl.merging.backend import CPU, Backend
from adapterctl.randomness import generator

TILE_ENTRIES = 1 << 17
"""Entries of one language in a tile: the best of the powers of two from 2^14 to 2^18 that were tried with five."""

DEVICE_TILE_ENTRIES = 1 << 22
"""The same where whole tiles are worked on at once: enough to keep a GPU busy, and 16 MiB."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """``rows × width`` coordinates of every member: ``lefts[i] @ rights[i]``, never more than a tile at once.

    Attributes:
        langs: The members' languages.
        lefts: ``rows × r`` of every member, scale included.
        rights: ``r × width`` of every member.
        backend: For which kernels entries are formed, on its device.
    """

    langs: tuple[str, ...]
    lefts: Sequence[torch.Tensor]
    rights: Sequence[torch.Tensor]
    backend: Backend = CPU

    @property
    def rows(self) -> int:
        """Rows of the coordinates."""
        return self.lefts[0].shape[0]

    @property
    def width(self) -> int:
        """Columns of the coordinates."""
        return self.rights[0].shape[1]

    @property
    def size(self) -> int:
        """Entries of one language."""
        return self.rows * self.width

    @property
    def step(self) -> int:
        """Rows of a tile."""
        entries = TILE_ENTRIES if self.backend.compiled else DEVICE_TILE_ENTRIES
        return max(1, min(self.rows, entries // max(1, self.width)))

    @property
    def dtype(self) -> Any:
        """The entries' type, as numpy calls it."""
        return np.dtype(np.float64 if self.rights[0].dtype == torch.float64 else np.float32)

    def blocks(self) -> Iterator[tuple[slice, Any]]:
        """Give the rows of every tile and its entries, ``members × entries``; the next tile overwrites them.

        The same tile has the same bits whenever it is formed.
        """
        dtype, device = self.rights[0].dtype, self.backend.device
        buffer = arena().take("tile", (len(self.lefts), self.step * self.width), dtype, device)
        for start in range(0, self.rows, self.step):
            rows = slice(start, min(start + self.step, self.rows))
            count = rows.stop - rows.start
            if count < self.step:
                buffer = arena().take("tile", (len(self.lefts), count * self.width), dtype, device)
            for target, left, right in zip(buffer, self.lefts, self.rights, strict=True):
                torch.mm(left[rows], right, out=target.view(count, self.width))
            yield rows, self.backend.entries(buffer)

    def only(self, langs: Collection[str]) -> Tiles:
        """Return the coordinates of some of the members; those of others are not formed then."""
        at = [index for index, lang in enumerate(self.langs) if lang in langs]
        return Tiles(
            tuple(self.langs[i] for i in at), [self.lefts[i] for i in at], [self.rights[i] for i in at], self.backend
        )

    def sample(self, module: str, count: int) -> Any:
        """Return about ``count`` entries of every member at the same random places, ``members × count``."""
        numbers = generator("threshold sample", module, self.rows, self.width)
        rows, columns = numbers.integers(0, self.rows, count), numbers.integers(0, self.width, count)
        found = np.empty((len(self.lefts), count), self.dtype)
        for values, left, right in zip(found, self.lefts, self.rights, strict=True):
            if self.backend.compiled:
                kernels.dot_at(left.numpy(), right.numpy(), rows, columns, values)
            else:
                places = [torch.from_numpy(index).to(self.backend.device) for index in (rows, columns)]
                values[:] = (left[places[0]] * right[:, places[1]].T).sum(dim=1).cpu().numpy()
        return found
