"""What a reviewer is told about a release: what changed, what the gate found, what it cost, and what to do now.

The same text stands at the version and at its run; whole parts of it are left out where there is no room.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from adapterctl.accounting.comparison import Comparison, Side
from adapterctl.accounting.formats import format_money, format_seconds
from adapterctl.markdown import code, plain
from adapterctl.workflows.descriptions import score_of, scores_markdown
from adapterctl.workflows.releases import Pin, Release

if TYPE_CHECKING:
    from adapterctl.evaluation.verdict import Verdict
    from adapterctl.workflows.predictions import Predictions

VERDICT_FILE = "verdict.md"
"""The artifact with everything that a description has no room for."""

OF_A_VERSION, OF_A_RUN = 5000, 8000
"""Characters that a description may have: PostgreSQL takes so many for a version, MLflow for a tag of a run."""

_SIZES = (16, 10, 6, 4, 2)
"""How many languages are shown: nobody reads fifty lines; fewer until the text is short enough."""
_MOST_NAMED = 4
_MOST_REASONS = 5


@dataclass(frozen=True)
class ReleaseNote:
    """What a reviewer is told about a release.

    Attributes:
        release: The release.
        verdict: The gate's; None for a first release.
        champion: What it was compared with; None for a first release.
        policy: ``promotion`` of the workspace.
        cost: The update against retraining everything; None where nothing can be compared.
        spent: What was spent on it; None where that is not known.
        rows: How the single rows came out; None where they were not compared.
        pictures: The figures among the run's artifacts.
    """

    release: Release
    verdict: Verdict | None
    champion: Release | None
    policy: str
    cost: Comparison | None = None
    spent: Side | None = None
    rows: Predictions | None = None
    pictures: Sequence[str] = ()

    @property
    def trained(self) -> tuple[str, ...]:
        """The languages whose adapter is not the champion's."""
        before = self.champion.adapters if self.champion else {}
        pins = self.release.adapters
        return tuple(
            lang for lang in sorted(pins) if lang not in before or before[lang].content_hash != pins[lang].content_hash
        )

    @property
    def run_name(self) -> str:
        """What the run is called once it has made a version."""
        told = {"first": "first release", "inconclusive": "undecided"}.get(self.release.gate, self.release.gate)
        return f"{self.release.reason}: v{self.release.version} {told}"

    def text(self, longest: int) -> str:
        """Return the description, whole sections of it left out so that it is not longer than that."""
        parts: list[str] = []
        for most in _SIZES:
            parts = self._parts(most)
            if len("\n\n".join(parts)) <= longest:
                break
        told = f"All of it: artifact `{VERDICT_FILE}` of the run."
        for details in (*self._details(_SIZES[0]), *self._cells()):
            if len("\n\n".join([*parts, details, told])) <= longest:
                parts.append(details)
        parts.append(told)
        # Names of a page each leave no room for all of it: what is left out is a whole part, never half of a table.
        while len(parts) > 1 and len("\n\n".join(parts)) > longest:
            del parts[-2]
        return "\n\n".join(parts)

    def whole(self) -> str:
        """Return everything that there is to say."""
        parts = [f"# {plain(self.run_name, 300)}", *self._parts(None), *self._details(None)]
        if self.verdict is not None:
            from adapterctl.evaluation.report import verdict_report

            parts += ["## The gate", verdict_report(self.verdict)]
        return "\n\n".join(parts).rstrip() + "\n"

    def _parts(self, most: int | None) -> list[str]:
        """Return what every reviewer needs, in the order of the questions."""
        parts = [f"{self._answer()} {self._changed()}", self._scores(most)]
        parts += [part for part in (self._reasons(), self._rows(), self._cost()) if part]
        return [*parts, self._pinned(most), *self._commands()]

    def _answer(self) -> str:
        if self.verdict is None:
            return "First release."
        from adapterctl.evaluation.report import answer

        return f"Gate {answer(self.verdict)}."

    def _changed(self) -> str:
        release, before = self.release, self.champion
        pins = release.adapters
        if before is None:
            recipe = f"merged with {code(str(release.recipe['method']))}"
            return f"{_named(pins)}, trained on {_rows_of(pins)}, {recipe}, λ {release.scale:g}."
        told = [_trained(pins[lang], before.adapters.get(lang)) for lang in self.trained[:_MOST_NAMED]]
        if more := len(self.trained) - _MOST_NAMED:
            told += [f"{more} more languages"] if more > 0 else []
        gone = sorted(set(before.adapters) - set(pins))
        if gone:
            told.append(f"{_named(gone)} removed")
        changes = _recipe_changes(before.recipe, release.recipe)
        told.append(changes or f"recipe as before ({code(str(release.recipe['method']))})")
        told.append(
            f"λ {release.scale:g}" + (" as before" if release.scale == before.scale else f" ({before.scale:g} before)")
        )
        return f"{'; '.join(told)}. Compared with version {before.version}."

    def _scores(self, most: int | None) -> str:
        if self.verdict is None:
            return scores_markdown(self.release, most)
        from adapterctl.evaluation.report import change_table

        shown = change_table(self.verdict, trained=self.trained, most=most)
        left_out = 0 if most is None else max(0, len(self.verdict.languages) - most)
        notes = [f"▲ ▼: the {self.verdict.confidence:.0%} interval excludes 0; =: it does not."]
        if self.trained:
            notes.insert(0, "Bold: changed in this release.")
        if left_out:
            notes.append(f"{left_out} languages between the worst and the best are left out.")
        added = [lang for lang in self.trained if self.champion and lang not in self.champion.adapters]
        for lang in added[:_MOST_NAMED]:
            score = score_of(self.release.scores["languages"], lang)
            notes.append(f"New: **{plain(lang)}** with {score or 'no mean'}.")
        return f"{shown}\n\n{' '.join(notes)}"

    def _reasons(self) -> str:
        if self.verdict is None:
            return ""
        from adapterctl.evaluation.report import gain_sentence, why

        cells = [*self.verdict.failed, *self.verdict.undecided]
        lines = [f"- {plain(why(cell), 400)}" for cell in cells[:_MOST_REASONS]]
        if len(cells) > _MOST_REASONS:
            lines.append(f"- and {len(cells) - _MOST_REASONS} more")
        if self.verdict.gain is not None and self.verdict.gain.outcome != "pass":
            lines.insert(0, f"- {plain(gain_sentence(self.verdict.gain), 400)}")
        return "\n".join(["**Why:**", "", *lines]) if lines else ""

    def _rows(self) -> str:
        from adapterctl.workflows.predictions import FILE

        rows = self.rows
        if rows is None or self.champion is None:
            return ""
        counts = f"**Rows:** {rows.worse} answered worse, {rows.better} better, {rows.alike} alike"
        room = f"; it shows {rows.shown}" if rows.shown < rows.worse + rows.better + rows.alone else ""
        where = f" Table `{FILE}` of the run: the worst on top{room}." if rows.shown else ""
        return f"{counts}.{where}"

    def _cost(self) -> str:
        if self.cost is None:
            return f"**Cost:** {_amounts(self.spent)}." if self.spent else ""
        update, retrain = self.cost.update, self.cost.retrain
        text = f"**Cost:** {_amounts(update)}; retraining everything: {_amounts(retrain)}."
        shares = []
        for what, ratio in (("time", self.cost.time_ratio), ("money", self.cost.money_ratio)):
            if ratio is not None:
                shares.append(f"{plain(ratio.shown(lambda value: f'{value * 100:.0f} %'))} of the {what}")
        return f"{text} That is {' and '.join(shares)}." if shares else text

    def _pinned(self, most: int | None) -> str:
        pins, before = self.release.adapters, self.champion.adapters if self.champion else {}
        changed = [lang for lang in self.trained if self.champion]
        told = []
        for lang in changed[:most]:
            was = f" (was v{before[lang].version})" if lang in before else " (new)"
            told.append(f"**{plain(lang)} v{pins[lang].version}**{was}")
        same = [lang for lang in sorted(pins) if lang not in changed]
        shown = same if most is None else same[:most]
        told += [f"{plain(lang)} v{pins[lang].version}" for lang in shown]
        left_out = len(pins) - len(told)
        more = f" and {left_out} more (artifact `release.json`)" if left_out else ""
        return f"**Adapters pinned:** {', '.join(told)}{more}."

    def _commands(self) -> list[str]:
        number = self.release.version
        if self.champion is None:
            return []
        reject = ["# refuse it", f'adapterctl reject --version {number} --reason "…"']
        back = ["# once it serves: back to the release before it", "adapterctl rollback"]
        if self.policy == "auto" and self.release.passed:
            head = f"**Version {number} becomes the champion at once** (`promotion: auto`). To undo it:"
            return [head, _fenced(["# back to the release before it", "adapterctl rollback"])]
        over = "" if self.release.passed or self.release.waits else ' --override-gate --reason "…"'
        promote = [
            "# make it the champion" + (" against the gate's verdict" if over else ""),
            f"adapterctl promote --version {number}{over}",
        ]
        if over:
            return [
                f"**Version {number} is not promoted; version {self.champion.version} goes on serving.** What a person "
                "may decide:",
                _fenced([*reject, *promote, *back]),
            ]
        return [
            f"**Version {number} waits for a person.** Either set the tag `review` to `approved` or `rejected` on its "
            "page here, which the next `adapterctl promote --approved` carries out, or run:",
            _fenced([*promote, *reject, *back]),
        ]

    def _details(self, most: int | None) -> list[str]:
        parts = []
        if self.verdict is not None:
            parts.append(
                "**Beside the base model and each language's own adapter**\n\n" + scores_markdown(self.release, most)
            )
        if self.pictures:
            parts.append(
                "**Figures** (artifacts of the run): " + ", ".join(f"`{name}`" for name in self.pictures) + "."
            )
        return parts

    def _cells(self) -> list[str]:
        if self.verdict is None:
            return []
        from adapterctl.evaluation.report import verdict_table

        return ["**Cell by cell**\n\n" + verdict_table(self.verdict)]


def _fenced(lines: Sequence[str]) -> str:
    return "\n".join(["```", *lines, "```"])


def _named(langs: Collection[str]) -> str:
    shown = [plain(lang) for lang in sorted(langs)[: 2 * _MOST_NAMED]]
    more = len(langs) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _rows_of(pins: Mapping[str, Pin]) -> str:
    rows = [pinned.rows for pinned in pins.values()]
    return f"{sum(rows)} rows" if all(rows) else "their rows"


def _trained(pinned: Pin, before: Pin | None) -> str:
    name, rows = plain(pinned.lang), f" on {pinned.rows} rows" if pinned.rows else ""
    if before is None:
        return f"{name} added{', trained' if rows else ''}{rows}"
    if pinned.version < before.version:
        return f"{name} back to version {pinned.version} (was {before.version})"
    was = f" ({before.rows} before)" if rows and before.rows else ""
    return f"{name} trained anew{rows}{was}"


def _recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in dict.fromkeys((*now, *before)) if now.get(key) != before.get(key)]
    told = [f"{code(key, 40)} {_value(before, key)} → {_value(now, key)}" for key in keys[:_MOST_NAMED]]
    more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
    return f"recipe: {', '.join(told)}{more}" if told else ""


def _value(recipe: Mapping[str, Any], key: str) -> str:
    return code(str(recipe[key]), 60) if key in recipe else "unset"


def _amounts(side: Side) -> str:
    money: Callable[[float], str] = partial(format_money, currency=side.currency)
    parts = [side.seconds.shown(format_seconds), *([side.money.shown(money)] if side.money.value else [])]
    measured = side.seconds.measured and side.money.measured
    # A range stands in brackets: in front of others they would make a link.
    return f"{plain(' and '.join(parts), 300)} ({'measured' if measured else 'projected'})"
