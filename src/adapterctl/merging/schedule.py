"""Weights that depend on the layer or on the kind of module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapterctl.errors import Problem

Entry = float | dict[str, float]
"""A factor on the merged ΔW, or a factor on the weight of each language that is named."""

_RANGE = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(?P<layer>\d+)(?=\.|$)")


def layer_of(module: str) -> int | None:
    """Return the number of the layer a module belongs to, None for modules outside the layers."""
    match = _LAYER.search(module)
    return int(match["layer"]) if match else None


def parse_range(text: str) -> range | None:
    """Return the layers of ``"7"`` or ``"0-7"`` (both ends included), None where the text is no such range."""
    match = _RANGE.fullmatch(text.strip())
    if not match:
        return None
    first, last = int(match["first"]), int(match["last"] or match["first"])
    return range(first, last + 1) if last >= first else None


@dataclass(frozen=True)
class Schedule:
    """Factors by layer and by kind of module; both apply, one multiplies the other.

    Attributes:
        layers: Factor or factors for ``"7"`` or ``"0-7"``; layers that are not named have 1.
        modules: The same for a part of the module's path, such as ``q_proj``, ``self_attn`` or ``mlp``.
    """

    layers: Mapping[str, Entry]
    modules: Mapping[str, Entry]

    def __bool__(self) -> bool:
        return bool(self.layers or self.modules)

    def _entries(self, module: str) -> list[Entry]:
        layer, parts = layer_of(module), set(module.split("."))
        found = [
            entry
            for text, entry in self.layers.items()
            if layer is not None and (span := parse_range(text)) is not None and layer in span
        ]
        return found + [entry for kind, entry in self.modules.items() if kind in parts]

    def factor(self, module: str) -> float:
        """Return the factor on the merged ΔW of a module."""
        factor = 1.0
        for entry in self._entries(module):
            if not isinstance(entry, dict):
                factor *= entry
        return factor

    def weight_factor(self, module: str, lang: str) -> float:
        """Return the factor on the weight of one language in a module."""
        factor = 1.0
        for entry in self._entries(module):
            if isinstance(entry, dict):
                factor *= entry.get(lang, 1.0)
        return factor

    def problems(self, languages: Iterable[str], where: str = "merge") -> list[Problem]:
        """Return what is wrong with the schedule on its own: bad ranges, ranges that overlap, unknown languages."""
        known = sorted(languages)
        problems = []
        spans: list[tuple[str, range]] = []
        for text in self.layers:
            span = parse_range(text)
            if span is None:
                problems.append(
                    Problem(f"{where}.layers", f"{text!r} is not a range of layers", 'write it like "0-7" or "12"')
                )
                continue
            for other, taken in spans:
                if set(span) & set(taken):
                    problems.append(Problem(f"{where}.layers", f"{other!r} and {text!r} overlap", "name a layer once"))
            spans.append((text, span))
        for key, entries in (("layers", self.layers), ("modules", self.modules)):
            problems += [
                Problem(f"{where}.{key}", f"{lang!r} is none of the languages {', '.join(known)}", "correct the key")
                for entry in entries.values()
                if isinstance(entry, dict)
                for lang in entry
                if known and lang not in known
            ]
        return problems

    def idle(self, modules: Iterable[str]) -> list[Problem]:
        """Return the entries that no module of the adapters matches: a misspelt name would change nothing."""
        paths = list(modules)
        layers = {layer_of(path) for path in paths}
        parts = {part for path in paths for part in path.split(".")}
        numbers = sorted(layer for layer in layers if layer is not None)
        there = f"the adapters have layers {numbers[0]} to {numbers[-1]}" if numbers else "the adapters have no layers"
        problems = [
            Problem("merge.layers", f"no module is in {text!r}; {there}", "correct the range")
            for text in self.layers
            if (span := parse_range(text)) is not None and not layers & set(span)
        ]
        kinds = ", ".join(sorted({path.rsplit(".", 1)[-1] for path in paths}))
        return problems + [
            Problem("merge.modules", f"no module has {kind!r} in its path; there are {kinds}", "correct the name")
            for kind in self.modules
            if kind not in parts
        ]
