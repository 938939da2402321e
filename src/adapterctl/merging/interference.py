"""How much the adapters of several languages get in one another's way, from Gram matrices: no ΔW is ever formed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch

from adapterctl.lora.adapter import Adapter
from adapterctl.merging.schedule import layer_of
from adapterctl.randomness import generator

SAMPLED = 4096
"""Entries of a module whose signs are compared; a module that has no more is compared whole."""

_LEAST_DIRECTION = 1e-5
"""Singular values of A or B below this share of the largest span nothing: what is left of rounding."""

_OUTSIDE = "outside the layers"

_LEAST_MODULES = 4
_WORK_OF_A_PAIR = 1e6
"""What the small matrices of a pair take, in multiplications of large ones."""


@dataclass(frozen=True)
class PairInterference:
    """Two languages in a part of the model; None where one of them has no delta there.

    Attributes:
        languages: The two.
        cosine: ``<ΔW_i, ΔW_j> / (‖ΔW_i‖ ‖ΔW_j‖)`` over all entries of the part: 1 same, 0 unrelated, -1 opposite.
        overlap_a: Share of the directions that both read (row spaces of A), ``‖Q_iᵀQ_j‖_F² / min(r_i, r_j)``: 0 to 1.
        overlap_b: Share of the directions that both write to (column spaces of B).
        chance_a: What ``overlap_a`` would be of directions drawn at random.
        chance_b: The same for ``overlap_b``.
        sign_conflict: Share of entries at which the two deltas have opposite signs, estimated without bias from a
            sample; 0.5 where they are unrelated.
        sign_conflict_error: The standard error of that estimate; 0 where every entry was looked at.
    """

    languages: tuple[str, str]
    cosine: float | None
    overlap_a: float | None
    overlap_b: float | None
    chance_a: float | None
    chance_b: float | None
    sign_conflict: float | None
    sign_conflict_error: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class PartInterference:
    """A layer, or the whole model.

    Attributes:
        name: The number of the layer; ``all`` for the model.
        norms: ‖ΔW‖_F of every language in this part.
        energy: The share of each language's ‖ΔW‖² that lies in this part.
        pairs: Every pair of languages.
    """

    name: str
    norms: dict[str, float]
    energy: dict[str, float]
    pairs: tuple[PairInterference, ...]

    def pair(self, one: str, other: str) -> PairInterference:
        """Return what was found for two languages, in either order.

        Raises:
            KeyError: They are not a pair.
        """
        for found in self.pairs:
            if set(found.languages) == {one, other}:
                return found
        raise KeyError((one, other))

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"name": self.name, "norms": self.norms, "energy": self.energy, "pairs": self.pairs}


@dataclass(frozen=True)
class Interference:
    """What :func:`inspect` found.

    Attributes:
        languages: In alphabetical order.
        modules: How many modules were compared.
        entries: How many entries the deltas of one language have.
        sampled: At how many of them signs were compared.
        whole: The whole model.
        layers: Every layer, in order; modules outside the layers come last.
    """

    languages: tuple[str, ...]
    modules: int
    entries: int
    sampled: int
    whole: PartInterference
    layers: tuple[PartInterference, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def inspect(
    adapters: Sequence[Adapter],
    progress: Callable[[int, int], None] | None = None,
    sampled: int = SAMPLED,
    most_work: float | None = None,
) -> Interference:
    """Compare the deltas of every pair of languages, in every layer and in all.

    Inner products come from the Gram matrices of the factors, ``<ΔW_i, ΔW_j> = s_i s_j Σ (B_iᵀB_j) ∘ (A_i A_jᵀ)`` in
    float64, and so do the overlaps, with ``Q = A W`` for the W that makes a basis orthonormal. Signs are compared at
    entries drawn by the module's name alone. A module that a language does not have is zero there.

    Args:
        adapters: Adapters that fit together, each of another language.
        progress: Told how many modules of how many are done.
        sampled: At how many entries of a module signs are compared at most.
        most_work: Multiplications in float64 that it may take, so that a picture of many languages or of high ranks
            does not take minutes: as many modules as that allows are compared, spread evenly over the model, but no
            fewer than four. None compares all of them.

    Raises:
        AdapterError: The tensors cannot be read.
    """
    ordered = sorted(adapters, key=lambda adapter: adapter.lang or "")
    languages = tuple(adapter.lang or "" for adapter in ordered)
    modules = sorted({module for adapter in adapters for module in adapter.modules})
    if most_work is not None:
        modules = _spread(modules, int(most_work / max(1.0, max(_work(ordered, module) for module in modules))))
    whole, layers = _Sums.of(len(languages)), dict[int | None, _Sums]()
    entries = compared = 0
    for done, module in enumerate(modules):
        sums, size, looked = _module_sums(ordered, module, sampled)
        whole.add(sums)
        layers.setdefault(layer_of(module), _Sums.of(len(languages))).add(sums)
        entries, compared = entries + size, compared + looked
        if progress is not None:
            progress(done + 1, len(modules))
    energies = np.diag(whole.inner)
    ranked = sorted(layers, key=lambda layer: math.inf if layer is None else layer)
    return Interference(
        languages=languages,
        modules=len(modules),
        entries=entries,
        sampled=compared,
        whole=whole.part("all", languages, energies),
        layers=tuple(
            layers[layer].part(_OUTSIDE if layer is None else str(layer), languages, energies) for layer in ranked
        ),
    )


def _work(adapters: Sequence[Adapter], module: str) -> float:
    """Return about how many multiplications one module takes: two Gram matrices, and a few small ones for each pair."""
    shapes = [adapter.shape(module) for adapter in adapters if module in adapter.factors]
    ranks, width = sum(a[0] for a, _ in shapes), max(a[1] + b[0] for a, b in shapes)
    return float(ranks**2 * width + len(shapes) ** 2 * _WORK_OF_A_PAIR)


def _spread(modules: list[str], count: int) -> list[str]:
    """Return ``count`` of many modules, from all over the model and of many kinds."""
    count, total = max(_LEAST_MODULES, count), len(modules)
    if count >= total:
        return modules
    step = total // count
    # Drawn within each part: a fixed step of seven would meet the same projection in every layer.
    drawn = generator("interference", "modules").integers(step, size=count).tolist()
    return [modules[place * total // count + within] for place, within in enumerate(drawn)]


@dataclass
class _Sums:
    """What adds up over modules; every array is languages × languages.

    Attributes:
        inner: Inner products of the deltas.
        common: ``‖Q_iᵀQ_j‖²`` of A and of B.
        most: The largest it could be, ``min(r_i, r_j)``.
        chance: What it would be by chance, ``r_i r_j / width``.
        opposed: Entries of opposite sign, and the variance of that estimate.
        compared: Entries of which they are a part.
    """

    inner: np.ndarray
    common: np.ndarray
    most: np.ndarray
    chance: np.ndarray
    opposed: np.ndarray
    compared: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, count: int) -> _Sums:
        square, two = (count, count), (2, count, count)
        return cls(*map(np.zeros, (square, two, two, two, two, square)))

    def add(self, other: _Sums) -> None:
        for name in self.__dataclass_fields__:
            getattr(self, name).__iadd__(getattr(other, name))

    def part(self, name: str, languages: tuple[str, ...], energies: np.ndarray) -> PartInterference:
        own = np.diag(self.inner)
        norms = np.sqrt(own)
        share = np.divide(own, energies, out=np.zeros_like(own), where=energies > 0)
        return PartInterference(
            name=name,
            norms=dict(zip(languages, norms.tolist(), strict=True)),
            energy=dict(zip(languages, share.tolist(), strict=True)),
            pairs=tuple(self._pairs(languages, norms)),
        )

    def _pairs(self, languages: tuple[str, ...], norms: np.ndarray) -> Iterator[PairInterference]:
        for i, j in combinations(range(len(languages)), 2):
            cosine = _ratio(self.inner[i, j], norms[i] * norms[j])
            yield PairInterference(
                languages=(languages[i], languages[j]),
                cosine=None if cosine is None else min(1.0, max(-1.0, cosine)),
                overlap_a=_ratio(self.common[0, i, j], self.most[0, i, j]),
                overlap_b=_ratio(self.common[1, i, j], self.most[1, i, j]),
                chance_a=_ratio(self.chance[0, i, j], self.most[0, i, j]),
                chance_b=_ratio(self.chance[1, i, j], self.most[1, i, j]),
                sign_conflict=_ratio(self.opposed[0, i, j], self.compared[i, j]),
                sign_conflict_error=_ratio(math.sqrt(self.opposed[1, i, j]), self.compared[i, j]),
            )


def _ratio(value: float, of: float) -> float | None:
    return float(value / of) if of > 0 else None


def _module_sums(adapters: Sequence[Adapter], module: str, sampled: int) -> tuple[_Sums, int, int]:
    """Return what one module adds, how many entries it has, and at how many of them signs were compared."""
    sums = _Sums.of(len(adapters))
    there = [place for place, adapter in enumerate(adapters) if module in adapter.factors]
    shapes = {place: adapters[place].shape(module) for place in there}
    (_, width), (out, _) = shapes[there[0]]
    ranks = [shapes[place][0][0] for place in there]
    a = torch.empty(sum(ranks), width, dtype=torch.float64)
    b = torch.empty(out, sum(ranks), dtype=torch.float64)
    ends = np.cumsum(ranks)
    spans = {place: slice(end - rank, end) for place, rank, end in zip(there, ranks, ends, strict=True)}
    for place, span in spans.items():
        adapters[place].read_into(module, "A", a[span])
        adapters[place].read_into(module, "B", b[:, span])
        b[:, span] *= adapters[place].scale(module)
    gram_a, gram_b = (a @ a.T).numpy(), (b.T @ b).numpy()
    for i in there:
        for j in there:
            sums.inner[i, j] = np.sum(gram_a[spans[i], spans[j]] * gram_b[spans[i], spans[j]])
    for side, (gram, length) in enumerate(((gram_a, width), (gram_b, out))):
        bases = {place: _whitening(gram[spans[place], spans[place]]) for place in there}
        for i in there:
            for j in there:
                product = bases[i].T @ gram[spans[i], spans[j]] @ bases[j]
                sums.common[side, i, j] = np.sum(product**2)
                sums.most[side, i, j] = min(product.shape)
                sums.chance[side, i, j] = product.shape[0] * product.shape[1] / length
    looked = _compare_signs(sums, a, b, spans, module, sampled)
    return sums, out * width, looked


def _whitening(gram: np.ndarray) -> np.ndarray:
    """Return W with ``Wᵀ gram W = 1``: the vectors of this Gram matrix, times W, are an orthonormal basis."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > max(values[-1], 0.0) * _LEAST_DIRECTION**2
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))


def _compare_signs(
    sums: _Sums, a: torch.Tensor, b: torch.Tensor, spans: dict[int, slice], module: str, sampled: int
) -> int:
    """Add up the entries of opposite sign, and return at how many entries of the module they were counted."""
    size = b.shape[0] * a.shape[1]
    whole = size <= sampled
    places = np.arange(size) if whole else generator("interference", module).integers(size, size=sampled)
    rows, columns = (torch.from_numpy(part) for part in np.divmod(places, a.shape[1]))
    chosen_a, chosen_b = a[:, columns], b[rows]
    signs = {
        place: np.sign(torch.einsum("nr,rn->n", chosen_b[:, span], chosen_a[span]).numpy())
        for place, span in spans.items()
    }
    for i in spans:
        for j in spans:
            if sums.inner[i, i] > 0 and sums.inner[j, j] > 0:
                share = float(np.mean(signs[i] * signs[j] < 0))
                sums.compared[i, j] = size
                sums.opposed[0, i, j] = size * share
                if not whole:
                    sums.opposed[1, i, j] = size**2 * share * (1 - share) / max(sampled - 1, 1)
    return len(places)
