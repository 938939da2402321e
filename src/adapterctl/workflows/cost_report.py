"""What the last update used, and the books as a report with pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.formats import format_bytes, format_count, format_money, format_seconds, format_small
from adapterctl.accounting.ledger import PROCESS, Entry, attempts
from adapterctl.accounting.prices import PriceSheet, cost
from adapterctl.accounting.report import Picture, Section, Table, html, markdown
from adapterctl.accounting.scenarios import BreakEven, Point, Quantity, ScenarioCosts
from adapterctl.accounting.usage import Usage, total
from adapterctl.files import write_bytes, write_text
from adapterctl.workflows.books import UPDATE, CostReport
from adapterctl.workflows.costs import CostComparison
from adapterctl.workflows.session import Session

WHOLE = "whole command"


@dataclass(frozen=True)
class StepUsage:
    """What one step of a command used, all attempts together."""

    step: str
    usage: Usage
    money: float
    kwh: float
    measured_kwh: float
    co2_kg: float

    def as_dict(self) -> dict[str, Any]:
        """Return the step as plain values."""
        return {
            "step": self.step,
            "usage": self.usage.as_dict(),
            "money": self.money,
            "kwh": self.kwh,
            "measured_kwh": self.measured_kwh,
            "co2_kg": self.co2_kg,
        }


def last_update_usage(session: Session) -> tuple[StepUsage, ...]:
    """Return what the last update used, step by step."""
    update_id, sheet = session.ledger.last_update_id(UPDATE), session.workspace.config.prices
    by_step: dict[str, list[Entry]] = {}
    for entry in attempts(session.ledger.entries(), update_id) if update_id else ():
        by_step.setdefault(WHOLE if entry.step == PROCESS else entry.step, []).append(entry)
    found = []
    for step, entries in by_step.items():
        costs, used = [cost(entry.usage, sheet) for entry in entries], total(entry.usage for entry in entries)
        if step == WHOLE:
            # Only steps know what went through the model.
            counted = total(entry.usage for name, others in by_step.items() if name != WHOLE for entry in others)
            used = replace(
                used, tokens=counted.tokens, row_epochs=counted.row_epochs, steps=counted.steps, flops=counted.flops
            )
        found.append(
            StepUsage(
                step,
                used,
                sum(one.amount for one in costs),
                sum(one.kwh for one in costs),
                sum(one.measured_kwh for one in costs),
                sum(one.co2_kg for one in costs),
            )
        )
    return tuple(sorted(found, key=lambda one: one.step == WHOLE))


def _money(sheet: PriceSheet) -> Callable[[float], str]:
    return partial(format_money, currency=sheet.currency)


def percent(value: float) -> str:
    """Return a share as people read it."""
    return f"{100 * value:.1f} %"


def terms(sheet: PriceSheet) -> str:
    """Return what the money rests on, in one sentence."""
    day = f"of {sheet.as_of.isoformat()}" if sheet.as_of else "without a date"
    spot = f", spot machines at {sheet.spot_factor:.0%} of the price" if sheet.spot_factor != 1 else ""
    billing = (
        "hours that were worked are paid"
        if sheet.billing == "busy"
        else "machines are reserved and paid for as long as the work lasts"
    )
    machines = "one machine" if sheet.workers == 1 else f"{sheet.workers} machines side by side"
    return f"Prices {day} in {sheet.currency}{spot}; {machines}; {billing}."


def difference(saved: Amount | None) -> str:
    """Return a saving in words: ``38.9 % less``, or ``12.0 % more`` where there is none."""
    if saved is None:
        return "–"
    if saved.value >= 0:
        return f"{saved.shown(percent)} less"
    ends = (-saved.most, -saved.least) if saved.has_interval else (None, None)
    return f"{Amount(-saved.value, saved.measured, *ends).shown(percent)} more"


def savings_sentence(one: ScenarioCosts) -> str:
    """Return what a scenario saves in time and money, in words."""
    parts = [
        f"{difference(saved)} {what}" for what, saved in (("time", one.time_saved), ("money", one.money_saved)) if saved
    ]
    return f"{_capital(one.name)}: merging takes {' and '.join(parts)} than one combined adapter." if parts else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def even_sentence(quantity: Quantity, even: BreakEven) -> str:
    """Return from which update on merging is cheaper, in words."""
    what = "money" if quantity == "money" else "time"
    alike = "if every update is like the last"
    if even.first is None:
        return f"In {what}, merging never makes up for its set-up, {alike}."
    if even.first == 0:
        until = "" if even.last is None else f", up to update {even.last}"
        return f"In {what}, merging is ahead from the set-up on{until}, {alike}."
    return f"In {what}, merging is ahead from update {even.first} on, the set-up included, {alike}."


def scenario_table(costs: Sequence[ScenarioCosts], sheet: PriceSheet) -> Table:
    """Return set-up, update and added language in both ways, every cell marked measured or projected."""
    money = _money(sheet)
    rows = []
    for one in costs:
        rows += [
            (f"{one.name}, merged", *_cells(one.merged.wall, one.merged.busy, one.merged.money, money)),
            (f"{one.name}, combined", *_cells(one.combined.wall, one.combined.busy, one.combined.money, money)),
            (f"{one.name}, merged takes", difference(one.time_saved), "", difference(one.money_saved)),
        ]
    return Table(("", "wall time", "busy time", "money"), tuple(rows))


def _cells(wall: Amount, busy: Amount, money: Amount, form: Callable[[float], str]) -> tuple[str, str, str]:
    return wall.shown(format_seconds), busy.shown(format_seconds), money.shown(form)


def usage_table(steps: Sequence[StepUsage], sheet: PriceSheet) -> Table:
    """Return what every step used."""
    money = _money(sheet)
    head = ("step", "wall", "CPU", "accelerators", "tokens", "FLOPs", "peak memory", "read", "written", "energy", "CO2")
    rows = []
    for one in steps:
        used = one.usage
        rows.append(
            (
                one.step,
                format_seconds(used.wall_seconds),
                format_seconds(used.cpu_seconds),
                ", ".join(f"{kind} {format_seconds(seconds)}" for kind, seconds in used.devices.items()) or "–",
                format_count(used.tokens) if used.tokens else "–",
                format_count(used.flops) if used.flops else "–",
                format_bytes(used.peak_memory_bytes),
                format_bytes(used.bytes_read),
                format_bytes(used.bytes_written),
                _about(one) + format_small(1000 * one.kwh, "Wh"),
                _about(one) + format_small(1000 * one.co2_kg, "g"),
                money(one.money),
            )
        )
    return Table((*head, "cost"), tuple(rows))


def _about(one: StepUsage) -> str:
    """Return ``~`` where no meter read all of the energy."""
    return "" if one.kwh and one.measured_kwh >= one.kwh * (1 - 1e-9) else "~"


def point_table(points: Mapping[Quantity, Sequence[Point]], label: str, sheet: PriceSheet) -> Table:
    """Return a cumulative series, at most a dozen of its points."""
    money = _money(sheet)
    wall, paid = points["wall"], points["money"]
    every = max(1, -(-len(wall) // 12))
    kept = sorted({*range(0, len(wall), every), len(wall) - 1})
    rows = [
        (
            str(wall[place].at),
            wall[place].merged.shown(format_seconds),
            wall[place].combined.shown(format_seconds),
            paid[place].merged.shown(money),
            paid[place].combined.shown(money),
        )
        for place in kept
    ]
    return Table((label, "time, merged", "time, combined", "money, merged", "money, combined"), tuple(rows))


def write_report(
    out: Path, project: str, steps: Sequence[StepUsage], found: CostComparison, report: CostReport | None
) -> tuple[Path, ...]:
    """Write the books as ``report.md`` with pictures beside it, and as ``report.html``, one file with all in it.

    Args:
        out: The folder.
        project: Name of the project.
        steps: What the last update used.
        found: Merging against one combined adapter.
        report: The last update against retraining everything; None without an update.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    with tempfile.TemporaryDirectory() as folder:
        sections = _sections(Path(folder), steps, found, report)
    title = f"What {project} costs"
    pictures = [section.picture for section in sections if section.picture]
    for picture in pictures:
        write_bytes(out / picture.file, picture.png)
    write_text(out / "report.md", markdown(title, sections))
    write_text(out / "report.html", html(title, sections))
    return (out / "report.md", out / "report.html", *(out / picture.file for picture in pictures))


def draw_updates(found: CostComparison, path: Path) -> Path:
    """Draw what both ways have cost so far, after every update.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    from adapterctl.accounting.curves import draw_cumulative

    return draw_cumulative(
        found.updates,
        title="What has been spent, update after update",
        axis_label="updates",
        start_label="set-up",
        currency=found.sheet.currency,
        path=path,
        even=found.break_even,
    )


def draw_growth(found: CostComparison, path: Path) -> Path:
    """Draw what both ways have cost so far, with every added language.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    from adapterctl.accounting.curves import draw_cumulative

    return draw_cumulative(
        found.growth,
        title="What has been spent, language after language",
        axis_label="languages",
        start_label=f"set-up of {found.languages}",
        currency=found.sheet.currency,
        path=path,
    )


def _picture(path: Path, says: str) -> Picture:
    return Picture(path.name, path.read_bytes(), says)


def _sections(
    folder: Path, steps: Sequence[StepUsage], found: CostComparison, report: CostReport | None
) -> list[Section]:
    from adapterctl.accounting.curves import draw_scenarios

    sheet = found.sheet
    summary = Section(
        "In short",
        (
            *(sentence for sentence in map(savings_sentence, found.scenarios) if sentence),
            *(even_sentence(quantity, even) for quantity, even in found.break_even.items()),
            terms(sheet),
            "Merged: one adapter a language, merged into one. Combined: one adapter trained on all languages, and "
            "trained again whenever one of them changes.",
            "Numbers with ~ are projected from what was measured; in brackets stands between what they lie, where "
            "measurements differed. All other numbers were measured in this workspace.",
        ),
    )
    scenarios = Section(
        "Set-up, update, added language",
        tuple(f"{_capital(one.name)}: {one.basis}." for one in found.scenarios),
        _picture(
            draw_scenarios(found.scenarios, sheet.currency, folder / "scenarios.png"),
            "Time and money of set-up, update and added language, merged and combined",
        ),
        scenario_table(found.scenarios, sheet),
    )
    updates = Section(
        "Update after update",
        ("Every further update is taken to be like the last.",),
        _picture(draw_updates(found, folder / "updates.png"), "What both ways have cost so far, after every update"),
        point_table(found.updates, "updates", sheet),
    )
    growth = Section(
        "Language after language",
        (
            "Every further language is taken to have as many rows as the present ones. The combined adapter is trained "
            "anew each time, on all of them; of the merged ones only the new language's is trained.",
        ),
        _picture(
            draw_growth(found, folder / "languages.png"), "What both ways have cost so far, with every added language"
        ),
        point_table(found.growth, "languages", sheet),
    )
    return [summary, scenarios, updates, growth, *_last_update(folder, steps, sheet, report)]


def _last_update(
    folder: Path, steps: Sequence[StepUsage], sheet: PriceSheet, report: CostReport | None
) -> list[Section]:
    from adapterctl.accounting.figures import draw_comparison

    if report is None:
        return []
    path = draw_comparison(report.comparison, folder / "last_update.png")
    says = "Time and money of the last update and of retraining everything, by step"
    return [
        Section(
            f"The last update: '{report.lang}', {report.time[:16].replace('T', ' ')} UTC",
            ("Energy and CO2 with ~ are computed from seconds and watts of the price sheet; no meter read all of it.",),
            _picture(path, says),
            usage_table(steps, sheet),
        )
    ]
