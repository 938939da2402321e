"""Merged adapters against one combined adapter, from the books: set-up, update, added language, and later ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapterctl.accounting import comparison as compare
from adapterctl.accounting import projection
from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.ledger import PROCESS, Entry, attempts
from adapterctl.accounting.prices import Billing, PriceSheet, cost
from adapterctl.accounting.scenarios import (
    BreakEven,
    Job,
    Point,
    Quantity,
    Scenario,
    ScenarioCosts,
    Way,
    break_even,
    costs_of,
    over_languages,
    over_updates,
)
from adapterctl.accounting.usage import Usage
from adapterctl.errors import UsageError
from adapterctl.workflows.books import BASELINE, BESIDES, SETUP, UPDATE, all_row_epochs, trainings
from adapterctl.workflows.session import Session
from adapterctl.workflows.trained import COMBINED
from adapterctl.workspace.price_file import load_prices

SET_UP, ONE_UPDATE, ADD = "set-up", "update", "add a language"
_COMBINED_STEPS = ("evaluate", "register", compare.REMAINDER)
_QUANTITIES: tuple[Quantity, ...] = ("wall", "money")
MOST_UPDATES, MOST_LANGUAGES = 1000, 200


@dataclass(frozen=True)
class CostComparison:
    """What merging costs beside one combined adapter, now and later.

    Attributes:
        sheet: The prices, with workers and billing as they were asked for.
        languages: How many languages were set up.
        scenarios: Set-up, update, added language.
        break_even: Updates from which on merging is cheaper, by ``wall`` and, where anything has a price, ``money``.
        updates: What was spent after the set-up and after every update, by ``wall`` and ``money``.
        growth: What was spent once there are so many languages, by ``wall`` and ``money``.
    """

    sheet: PriceSheet
    languages: int
    scenarios: tuple[ScenarioCosts, ...]
    break_even: dict[Quantity, BreakEven]
    updates: dict[Quantity, tuple[Point, ...]]
    growth: dict[Quantity, tuple[Point, ...]]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {
            "currency": self.sheet.currency,
            "prices_as_of": self.sheet.as_of.isoformat() if self.sheet.as_of else None,
            "workers": self.sheet.workers,
            "billing": self.sheet.billing,
            "languages": self.languages,
            "scenarios": [one.as_dict() for one in self.scenarios],
            "break_even": {name: one.as_dict() for name, one in self.break_even.items()},
            "updates": {name: [point.as_dict() for point in points] for name, points in self.updates.items()},
            "growth": {name: [point.as_dict() for point in points] for name, points in self.growth.items()},
        }


def set_prices(
    session: Session, file: Path | None = None, *, workers: int | None = None, billing: Billing | None = None
) -> PriceSheet:
    """Let a command reckon with other prices, workers or billing than the workspace's; return the sheet that holds.

    Args:
        session: The command at work.
        file: A price sheet of its own; None keeps the workspace's.
        workers, billing: What replaces the sheet's own; None keeps it.

    Raises:
        ConfigError: The file is missing or not valid.
    """
    config = session.workspace.config
    sheet = load_prices(file) if file else config.prices
    changes = {name: value for name, value in (("workers", workers), ("billing", billing)) if value is not None}
    sheet = sheet.model_copy(update=changes)
    session.workspace = replace(session.workspace, config=config.model_copy(update={"prices": sheet}))
    return sheet


def compare_costs(session: Session, *, updates: int = 12, languages: int | None = None) -> CostComparison:
    """Return what merging costs beside one combined adapter, from all that was measured in this workspace.

    Args:
        session: The command at work; its workspace's price sheet says workers and billing.
        updates: How many updates the cumulative cost is drawn over.
        languages: How many languages there are to be in the end; None takes five more than there are.

    Raises:
        UsageError: Nothing was measured yet, or the numbers asked for make no series.
        RegistryError: The books cannot be read.
    """
    sheet = session.workspace.config.prices
    found = _Books(session, sheet)
    present = len(found.langs)
    most = present + 5 if languages is None else languages
    if not 1 <= updates <= MOST_UPDATES:
        raise UsageError(f"{updates} updates cannot be projected", hint=f"choose 1 to {MOST_UPDATES}")
    if not present < most <= MOST_LANGUAGES:
        raise UsageError(
            f"growth to {most} languages cannot be projected: the books have {present}",
            hint=f"choose {present + 1} to {MOST_LANGUAGES}",
        )
    scenarios = (found.set_up(), found.update(), found.add())
    costs = tuple(costs_of(one, sheet.workers, sheet.billing) for one in scenarios)
    start, each = costs[0], costs[1]
    return CostComparison(
        sheet=sheet,
        languages=present,
        scenarios=costs,
        break_even={
            name: break_even(*values)
            for name in _QUANTITIES
            if any(values := [getattr(cell, name).value for cell in _cells(start, each)])
        },
        updates={name: over_updates(start, each, updates, name) for name in _QUANTITIES},
        growth={
            name: over_languages(
                scenarios[0],
                scenarios[2],
                present,
                most,
                workers=sheet.workers,
                billing=sheet.billing,
                quantity=name,
            )
            for name in _QUANTITIES
        },
    )


def _cells(start: ScenarioCosts, each: ScenarioCosts) -> tuple[Any, ...]:
    return start.merged, each.merged, start.combined, each.combined


def _subject(entries: Sequence[Entry]) -> str:
    return next(entry.subject for entry in entries if entry.step == PROCESS)


class _Books:
    """The entries of the ledger, sorted by what they tell about the two ways."""

    def __init__(self, session: Session, sheet: PriceSheet) -> None:
        self.session, self.sheet = session, sheet
        self.entries = session.ledger.entries()
        self.setup = self._of(session.ledger.last_update_id(SETUP))
        self.baseline = self._of(session.ledger.last_update_id(BASELINE))
        singles = [entry for entry in trainings(self.entries) if entry.subject != COMBINED]
        latest = {entry.subject: entry for entry in singles if entry.outcome == "done"}
        first = {entry.subject for entry in self.setup if entry.step == "train"} or set(latest)
        self.langs = {lang: latest[lang] for lang in sorted(first) if lang in latest}
        if not self.langs:
            raise UsageError(
                "no training is on the books of this workspace, so nothing can be compared",
                hint="set it up first: adapterctl setup; what a set-up would cost is told by: adapterctl plan",
            )
        done = session.ledger.entries(command=UPDATE, step=PROCESS, outcome="done")
        ids = list(dict.fromkeys(entry.update_id for entry in done if entry.update_id))
        subjects = {entry.update_id: entry.subject for entry in done}
        added_ids, served = [], set(first)
        for one in ids:
            # Only the first update of a language that the set-up did not have has added it.
            if subjects[one] not in served:
                added_ids.append(one)
            served.add(subjects[one])
        plain_ids = [one for one in ids if one not in added_ids]
        self.last_update = self._of(plain_ids[-1] if plain_ids else None)
        self.last_add = self._of(added_ids[-1] if added_ids else None)

    def _of(self, update_id: str | None) -> list[Entry]:
        """Return all attempts at a command; what it took from earlier commands is replaced by what that cost."""
        if update_id is None:
            return []
        own = attempts(self.entries, update_id)
        keys = {(entry.step, entry.key) for entry in own if entry.reused and entry.step in ("train", "merge")}
        made = {(entry.step, entry.key) for entry in own if not entry.reused}
        earlier = [
            # It belongs to no process of this command: its seconds must not be taken out of the command's remainder.
            replace(entry, process="", update_id=update_id)
            for entry in self.entries
            if entry.update_id != update_id and not entry.reused and (entry.step, entry.key) in keys - made
        ]
        return own + earlier

    def _job(self, name: str, entries: Iterable[Entry]) -> Job:
        entries = list(entries)
        measured = all(entry.measured for entry in entries)
        seconds = sum(entry.usage.wall_seconds for entry in entries)
        money = sum(cost(entry.usage, self.sheet).amount for entry in entries)
        return Job(name, Amount(seconds, measured), Amount(money, measured))

    def _steps(
        self, entries: Sequence[Entry], wanted: Sequence[str] = (), *, without: Sequence[str] = ()
    ) -> tuple[Job, ...]:
        """Return everything but the trainings, one job a step."""
        lines = compare.side("", entries, self.sheet, without=without).lines
        return tuple(
            Job(line.step, line.seconds, line.money)
            for line in lines
            if line.step != "train" and (not wanted or line.step in wanted)
        )

    def _language_jobs(self, entries: Sequence[Entry]) -> tuple[Job, ...]:
        by_subject: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.step == "train":
                by_subject.setdefault(entry.subject, []).append(entry)
        return tuple(self._job(subject, found) for subject, found in by_subject.items())

    def _typical_job(self) -> Job:
        """Return the training of a language like those there are: their mean, and from the least to the most."""
        jobs = [self._job(lang, [entry]) for lang, entry in self.langs.items()]
        seconds, money = [job.seconds.value for job in jobs], [job.money.value for job in jobs]
        return Job(
            "one language",
            projection.spread(sum(seconds) / len(jobs), seconds),
            projection.spread(sum(money) / len(jobs), money),
        )

    def _single_steps(self) -> tuple[Job, ...]:
        """Return the steps around one language's training: of the last update, else of the set-up, its share."""
        if self.last_update:
            return self._steps(self.last_update)
        own = [entry for entry in self.setup if entry.subject not in (*self.langs, "own adapters")]
        kept = self.session.workspace.config.update.scale == "keep"
        of_one = [entry for entry in self.setup if entry.subject in self.langs and entry.step == "register"]
        steps = [step for step in self._steps(own) if not (kept and step.name == "choose scale")]
        share = [self._job("register", of_one).times(1 / len(self.langs))] if of_one else []
        # The remainder is what the whole set-up leaves, not what the steps above leave.
        rest = [step for step in self._steps(self.setup) if step.name == compare.REMAINDER]
        kept_steps = [step for step in steps if step.name != compare.REMAINDER]
        return tuple(step.projected() for step in (*kept_steps, *share, *rest))

    def set_up(self) -> Scenario:
        """Return the set-up of all languages."""
        if self.setup:
            merged, basis = (
                Way(self._language_jobs(self.setup), self._steps(self.setup)),
                "merged: measured at the set-up",
            )
        else:
            jobs = tuple(self._job(lang, [entry]) for lang, entry in self.langs.items())
            merged = Way(jobs, tuple(step.projected() for step in self._single_steps()))
            basis = "merged: from the last training of every language"
        config = self.session.workspace.config
        rows = 0.0
        for lang, entry in self.langs.items():
            adapter = self.session.workspace.adapters.get(lang)
            epochs = adapter.training.epochs if adapter else config.defaults.training.epochs
            started = [one for one in self.setup if one.step == "train" and one.subject == lang and not one.reused]
            own = next((one for one in reversed(started) if one.usage.row_epochs), entry)
            rows += own.usage.row_epochs / epochs
        combined, how = self._combined(rows * config.defaults.training.epochs)
        return Scenario(SET_UP, merged, combined, f"{basis}; combined: {how}")

    def update(self) -> Scenario:
        """Return the update of one language."""
        if self.last_update:
            merged = Way(self._language_jobs(self.last_update), self._steps(self.last_update))
            basis = f"merged: measured at the last update ('{_subject(self.last_update)}')"
        else:
            merged, basis = (
                Way((self._typical_job(),), self._single_steps()),
                "merged: projected from the languages' trainings",
            )
        combined, how = self._combined(all_row_epochs(self.session))
        return Scenario(ONE_UPDATE, merged, combined, f"{basis}; combined: {how}")

    def add(self) -> Scenario:
        """Return the addition of one language."""
        count = len(self.langs)
        if self.last_add:
            merged = Way(self._language_jobs(self.last_add), self._steps(self.last_add))
            basis = f"merged: measured when '{_subject(self.last_add)}' was added"
            combined, how = self._combined(all_row_epochs(self.session))
        else:
            grows = (count + 1) / count
            steps = tuple(step.with_languages(grows) for step in self._single_steps())
            merged, basis = Way((self._typical_job(),), steps), "merged: projected from the languages' trainings"
            combined, how = self._combined(all_row_epochs(self.session) * grows)
            combined = Way(combined.jobs, tuple(step.with_languages(grows) for step in combined.steps))
        return Scenario(ADD, merged, combined, f"{basis}; combined: {how}")

    def _combined(self, row_epochs: float) -> tuple[Way, str]:
        """Return the combined adapter's training on so many rows times epochs: measured where it was, else projected.

        The fastest measured throughput is taken, and the slowest for the other end of the interval.
        """
        basis = trainings(self.baseline)
        if self.baseline:
            steps = self._steps(self.baseline, _COMBINED_STEPS, without=BESIDES)
        else:
            steps = self._steps(self.last_update or self.setup, _COMBINED_STEPS)
        if basis and sum(entry.usage.row_epochs for entry in basis) == row_epochs:
            return Way((self._job("combined", basis),), steps), "measured by adapterctl baseline"
        # Every baseline there ever was: several of them have a spread.
        alike = [entry for entry in trainings(self.entries) if entry.command == BASELINE]
        known = [entry.usage for entry in (alike or trainings(self.entries))]
        ends: list[Usage] = [
            projection.project_training(known, work=row_epochs, unit="row_epochs", pace=pace)
            for pace in ("fastest", "slowest")
        ]
        job = Job(
            "combined",
            projection.spread(ends[0].wall_seconds, [usage.wall_seconds for usage in ends]),
            projection.spread(cost(ends[0], self.sheet).amount, [cost(usage, self.sheet).amount for usage in ends]),
        )
        told = "from adapterctl baseline" if alike else "from the trainings there were"
        return Way((job,), tuple(step.projected() for step in steps)), f"projected {told}"
