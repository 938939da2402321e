"""``adapterctl plan``: what an update would do and why, what is reused, and what it would cost. Nothing is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from adapterctl.accounting import comparison as compare
from adapterctl.accounting import projection
from adapterctl.accounting.comparison import Amount, Comparison, Line, Side
from adapterctl.accounting.ledger import PROCESS, Entry, attempts
from adapterctl.accounting.prices import cost
from adapterctl.accounting.throughput import projected_training
from adapterctl.accounting.usage import Usage
from adapterctl.errors import UsageError
from adapterctl.evaluation.power import CellPower, power
from adapterctl.fingerprint import canonical_json
from adapterctl.training.job import TrainingJob, training_key
from adapterctl.training.trainer import stored_result
from adapterctl.workflows import releases
from adapterctl.workflows.baseline import combined_job
from adapterctl.workflows.books import BASELINE, BESIDES, RETRAIN_ALL, SETUP, UPDATE, trainings
from adapterctl.workflows.candidates import subject_of
from adapterctl.workflows.intention import Intention, Part, intend
from adapterctl.workflows.releases import Release
from adapterctl.workflows.scoring import Scorer
from adapterctl.workflows.session import Session
from adapterctl.workflows.steps import language_job
from adapterctl.workflows.triggers import Due, Triggers, due_languages
from adapterctl.workspace.data import LanguageData, load_data

_ALIKE = ("choose scale", "merge", "evaluate", "register", "alias")
_UNMEASURED = "from the arithmetic speed of this machine; nothing was measured here yet"


@dataclass(frozen=True)
class PlannedStep:
    """One step of the plan.

    Attributes:
        step: What is done.
        subject: To what.
        reason: Why it is done, or why its result can be taken as it is.
        reused: Whether nothing has to be done.
        seconds: How long it would take; None where nothing is known.
    """

    step: str
    subject: str
    reason: str
    reused: bool
    seconds: Amount | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the step as plain values."""
        return asdict(self) | {"seconds": self.seconds.as_dict() if self.seconds else None}


@dataclass(frozen=True)
class Plan:
    """What a command would do.

    Attributes:
        command: ``update`` or ``setup``.
        lang: The languages of an update, with commas.
        champion: Version of the champion; None where there is none.
        changed: Whether there is anything to do.
        steps: In order.
        comparison: Projected cost against retraining everything, which is measured where a baseline was.
        basis: What the projection rests on.
        power: What the evaluation rows can show.
        changes: What is new since the champion, in words; empty for a set-up.
    """

    command: str
    lang: str
    champion: int | None
    changed: bool
    steps: tuple[PlannedStep, ...]
    comparison: Comparison
    basis: str
    power: tuple[CellPower, ...]
    changes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "command": self.command,
            "lang": self.lang,
            "champion": self.champion,
            "changed": self.changed,
            "changes": list(self.changes),
            "steps": [step.as_dict() for step in self.steps],
            "comparison": self.comparison.as_dict(),
            "basis": self.basis,
            "power": [asdict(cell) | {"enough": cell.enough} for cell in self.power],
        }


def plan_update(session: Session, langs: Sequence[str] | None, triggers: Triggers | None = None) -> Plan:
    """Return what ``update`` would do; without a champion, what ``setup`` would.

    Args:
        session: The command at work.
        langs: The languages to retrain; None for every language that is due.
        triggers: What has to be so for an update to begin.

    Raises:
        DataError: Rows that cannot be used.
    """
    champion, triggers = releases.current(session.registry, session.project), triggers or Triggers()
    if champion is None:
        return plan_setup(session)
    data = load_data(session.workspace, session.workspace.languages)
    due: tuple[Due, ...] = ()
    if langs is None or triggers.conditional:
        due = due_languages(session, langs or session.workspace.languages, data, champion, triggers)
        langs = [one.lang for one in due if one.due]
    intention = intend(session, langs, data, champion)
    steps, lines = [], []
    for part in intention.parts:
        known = stored_result(session.workspace.paths.adapter(training_key(part.job)), training_key(part.job))
        usage = _train_usage(session, part.job)
        steps.append(_training_step(part, champion, known is not None, usage))
        if part.trains and not known:
            lines.append(Line("train", _seconds(usage), _money(session, usage)))
    alike, basis = _alike(session, (UPDATE, SETUP))
    if session.workspace.config.update.scale == "keep":
        alike = [line for line in alike if line.step != "choose scale"]
    update_side = Side(UPDATE, (*_together(lines), *alike) if intention.changed else (), _currency(session))
    return Plan(
        command="update",
        lang=", ".join(intention.langs),
        champion=champion.version,
        changed=intention.changed,
        steps=(*steps, *_other_steps(session, intention, due)),
        comparison=Comparison(update_side, _retrain(session, data, alike)),
        basis=basis,
        power=_power(session, data, champion),
        changes=intention.changes,
    )


def _together(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Return one line for all trainings."""
    if not lines:
        return ()
    seconds, money = (sum(getattr(line, name).value for line in lines) for name in ("seconds", "money"))
    return (Line("train", Amount(seconds, False), Amount(money, False)),)


def plan_setup(session: Session, *, require_none: bool = False) -> Plan:
    """Return what ``setup`` would do.

    Args:
        session: The command at work.
        require_none: Refuse where there is a champion, which a set-up does not replace.

    Raises:
        UsageError: There is a champion already, and that was asked about.
        DataError: Rows that cannot be used.
    """
    if require_none and releases.current(session.registry, session.project) is not None:
        raise UsageError(
            f"project '{session.project}' has a champion already, so there is no set-up to plan",
            hint="plan an update: adapterctl plan --lang TAG",
        )
    data = load_data(session.workspace, session.workspace.languages)
    steps, lines = [], []
    for lang, rows in data.items():
        job = language_job(session, lang, rows.train)
        key = training_key(job)
        reused = stored_result(session.workspace.paths.adapter(key), key) is not None
        usage = Usage() if reused else _train_usage(session, job)
        reason = "trained already" if reused else f"{len(rows.train)} rows, no champion yet"
        steps.append(PlannedStep("train", lang, reason, reused, _seconds(usage)))
        lines.append(Line("train", _seconds(usage), _money(session, usage)))
    steps += [PlannedStep(step, "merged", "after every training", False) for step in ("merge", "evaluate", "register")]
    alike, basis = _alike(session, (SETUP, UPDATE))
    side = Side(SETUP, (*_together(lines), *alike), _currency(session))
    return Plan(
        "setup", "", None, True, tuple(steps), Comparison(side, _retrain(session, data, alike)), basis,
        _power(session, data, None),
    )  # fmt: skip


def _training_step(part: Part, champion: Release, trained: bool, usage: Usage) -> PlannedStep:
    if not part.trains:
        return PlannedStep("train", part.lang, f"neither rows nor settings changed since v{champion.version}", True)
    rows = f"{len(part.job.examples)} rows"
    if trained:
        return PlannedStep("train", part.lang, f"{rows}: trained already by an earlier attempt", True)
    why = "not served yet" if part.known is None else f"{part.change} changed since v{champion.version}"
    return PlannedStep("train", part.lang, f"{rows}: {why}", False, _seconds(usage))


def _other_steps(session: Session, intention: Intention, due: Sequence[Due]) -> list[PlannedStep]:
    config, why = session.workspace.config, {one.lang: one.why for one in due if not one.due}
    steps = [
        PlannedStep("train", other, why.get(other) or f"pinned: version {pinned.version} of the champion", True)
        for other, pinned in sorted(intention.others.items())
    ]
    if not intention.changed:
        return steps
    count, champion = len(intention.others) + len(intention.parts), intention.champion.version
    return [
        *steps,
        PlannedStep("merge", "merged", f"{count} adapters, {config.merge.method}, λ {config.merge.lambda_}", False),
        PlannedStep("evaluate", "merged", "test rows of every language; the champion's scores are kept", False),
        PlannedStep("gate", "merged", f"against champion version {champion}", False),
        PlannedStep("register", "merged", f"as candidate; promotion is {config.promotion}", False),
    ]


def _currency(session: Session) -> str:
    return session.workspace.config.prices.currency


def _seconds(usage: Usage) -> Amount:
    return Amount(usage.wall_seconds, False)


def _money(session: Session, usage: Usage) -> Amount:
    return Amount(cost(usage, session.workspace.config.prices).amount, False)


def _train_usage(session: Session, job: TrainingJob) -> Usage:
    """Project a training from trainings measured here, else from the machine's arithmetic speed."""
    measured = trainings(session.ledger.entries())
    work = len(job.examples) * job.training.epochs
    if measured:
        return projection.project_training([entry.usage for entry in measured], work=work, unit="row_epochs")
    # About four bytes of UTF-8 make a token in any language; the projection is rough and says so.
    tokens = sum(len(canonical_json(row.as_dict()).encode()) for row in job.examples) / 4
    return projected_training(session.base.parameters, tokens * job.training.epochs, row_epochs=work)


def _alike(session: Session, commands: Iterable[str]) -> tuple[list[Line], str]:
    """Return what the steps around a training took the last time, as projections, and where that is known from."""
    for command in commands:
        update_id = session.ledger.last_update_id(command)
        if update_id is None:
            continue
        entries = [entry for entry in attempts(session.ledger.entries(), update_id) if _counts(entry)]
        side = compare.side(command, entries, session.workspace.config.prices)
        lines = [
            Line(line.step, Amount(line.seconds.value, False), Amount(line.money.value, False))
            for line in side.lines
            if line.step in (*_ALIKE, compare.REMAINDER)
        ]
        return lines, f"from the steps of the last {command}"
    return [], _UNMEASURED


def _counts(entry: Entry) -> bool:
    return entry.step == PROCESS or not entry.reused


def _retrain(session: Session, data: dict[str, LanguageData], alike: list[Line]) -> Side:
    """Return what retraining everything costs: measured where a baseline was, else projected."""
    baseline_id = session.ledger.last_update_id(BASELINE)
    if baseline_id is not None:
        entries = attempts(session.ledger.entries(), baseline_id)
        return compare.side(RETRAIN_ALL, entries, session.workspace.config.prices, without=BESIDES)
    usage = _train_usage(session, combined_job(session, data))
    others = [line for line in alike if line.step in ("evaluate", "register", compare.REMAINDER)]
    return projection.projected_side(RETRAIN_ALL, usage, session.workspace.config.prices, others)


def _power(session: Session, data: dict[str, LanguageData], champion: Release | None) -> tuple[CellPower, ...]:
    units = {
        (example.lang, example.task, example.group, "" if example.group else example.id)
        for one in data.values()
        for example in one.test
    }
    rows = Counter((lang, task) for lang, task, *_ in units)
    card = None
    if champion is not None:
        langs = [lang for lang in data if lang in champion.adapters]
        scorer, subject = Scorer(session, data), subject_of(session, champion, "champion")
        # Scores that are not kept, of rows that are new, are not worth loading a model for: a plan is to be quick.
        card = scorer.kept(subject, langs, "test")
    metrics = {name: task.primary_metric for name, task in session.workspace.suite.all_tasks.items()}
    return power(rows, session.workspace.config.gate, card, metrics)
