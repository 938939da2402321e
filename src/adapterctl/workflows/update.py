"""``adapterctl update --lang ja``: the whole sentence, from new rows to a promoted release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from adapterctl.errors import DataError, UsageError
from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.registry.names import merged_name
from adapterctl.training.job import training_key
from adapterctl.workflows import releases
from adapterctl.workflows.books import log_comparison
from adapterctl.workflows.candidates import Candidate, make_candidate, pin, release_run, subject_of
from adapterctl.workflows.intention import Intention, intend
from adapterctl.workflows.journal import Pending, forget, read_pending, under_way
from adapterctl.workflows.releases import UPDATE_TAG, Release
from adapterctl.workflows.scoring import Scorer, score_subject
from adapterctl.workflows.session import Session, options_of
from adapterctl.workflows.steps import register_adapter, train_adapter
from adapterctl.workflows.trained import TrainedAdapter
from adapterctl.workflows.triggers import Due, Triggers, due_languages
from adapterctl.workspace.data import LanguageData, load_data
from adapterctl.workspace.workspace import Workspace

SETUP_FIRST = "train and release every language first with: adapterctl setup"


@dataclass(frozen=True)
class UpdateOutcome:
    """What an update did.

    Attributes:
        langs: The languages it was about.
        changed: False where there was nothing to do.
        before: The champion before.
        changes: What was new, in words.
        trained: The new adapters; none where a recipe or a pin alone was new.
        candidate: The release that came of it; None where nothing was changed.
        checked: The champion's scorecard on the present rows, where nothing was changed and that was asked for.
        due: What was asked of every language before anything began; empty where nothing was asked.
        settled: A version that came of these very inputs before and waits for a person, or was refused; None where
            there is none.
    """

    langs: tuple[str, ...]
    changed: bool
    before: Release
    changes: tuple[str, ...] = ()
    trained: tuple[TrainedAdapter, ...] = ()
    candidate: Candidate | None = None
    checked: Scorecard | None = None
    due: tuple[Due, ...] = ()
    settled: Release | None = None


def update(
    session: Session, langs: Sequence[str] | None, triggers: Triggers | None = None, *, resume: bool = True
) -> UpdateOutcome:
    """Retrain languages, merge all once, evaluate all, gate, and promote where it may be.

    No other language is trained. Run again after an interruption, it goes on where it was; run again after it has
    ended, it finds nothing to do.

    Args:
        session: The command at work.
        langs: The languages to retrain, which need not be served yet; None for every language that the triggers find
            due.
        triggers: What has to be so for an update to begin. Without any, and with nothing to do, the champion is scored
            on the present rows.
        resume: Go on where an interrupted attempt was; else its checkpoints are thrown away first.

    Raises:
        UsageError: There is no champion yet, or a language is pinned to a version.
        DataError: Rows that cannot be used.
        LockHeld: The champion is another one by the time the candidate would take its place.
    """
    champion = releases.current(session.registry, session.project)
    if champion is None:
        raise UsageError(f"project '{session.project}' has no champion yet", hint=_setup_first(session))
    asked, triggers = langs, triggers or Triggers()
    wanted = session.workspace.languages if langs is None else langs
    served = [lang for lang in session.workspace.languages if lang in wanted or lang in champion.adapters]
    data = load_data(session.workspace, served)
    due: tuple[Due, ...] = ()
    if triggers.conditional or asked is None:
        due = due_languages(session, wanted, data, champion, triggers)
        langs = [one.lang for one in due if one.due]
    assert langs is not None
    intention = _interrupted(session, asked, langs, data, champion) if resume else None
    if intention is None:
        intention = intend(session, langs, data, champion)
    if not intention.changed:
        forget(session.workspace, "update", asked)
        # What is old is looked at, even though training it again would give the same.
        look = not due or any(one.aged for one in due)
        checked = _check(session, data, champion) if look else None
        return UpdateOutcome(tuple(wanted), False, champion, checked=checked, due=due)
    if due and (settled := _settled(session, intention)):
        return UpdateOutcome(intention.langs, False, champion, intention.changes, due=due, settled=settled)
    if not resume:
        _begin_anew(session, intention)
    return _carry_out(session, intention, data, due)


def _interrupted(
    session: Session,
    asked: Sequence[str] | None,
    langs: Sequence[str],
    data: Mapping[str, LanguageData],
    champion: Release,
) -> Intention | None:
    """Return what an interrupted update of the same rows was about, from the champion that it began with.

    None where there is none, where rows or settings have changed since, and where somebody else has changed the
    champion: then it is done anew, and what is finished is found by its key.
    """
    pending = read_pending(session.workspace)
    if pending is None or pending.command != "update" or not set(pending.langs) <= set(data):
        return None
    same = set(langs) <= set(pending.langs) if asked is None else pending.langs == tuple(sorted(asked))
    if not same or (champion.version != pending.champion and champion.update_id != pending.update_id):
        return None
    began = releases.read_release(
        session.registry, session.registry.version(merged_name(session.project), pending.champion)
    )
    intention = intend(session, pending.langs, data, began)
    return intention if intention.update_id == pending.update_id else None


def _settled(session: Session, intention: Intention) -> Release | None:
    """Return the release that came of this very update before: a job need not make it every night.

    It was refused by the gate or by a person, or waits for one.
    """
    pending = read_pending(session.workspace)
    if pending is not None and pending.update_id == intention.update_id:
        return None
    for version in reversed(session.registry.versions(merged_name(session.project))):
        if version.tags.get(UPDATE_TAG) == intention.update_id:
            return releases.read_release(session.registry, version)
    return None


def _carry_out(
    session: Session, intention: Intention, data: Mapping[str, LanguageData], due: tuple[Due, ...]
) -> UpdateOutcome:
    # Only now: what finds nothing to do is no update on the books.
    session.update_id, langs = intention.update_id, intention.langs
    reason = f"update {', '.join(langs)}" if langs else f"merge again ({', '.join(intention.changes)})"
    if intention.changes:
        session.reporter.note(f"changed: {', '.join(intention.changes)}")
    trained: list[TrainedAdapter] = []
    with (
        noted(session, intention.champion, langs) as run_name,
        release_run(session, run_name, reason, {"lang": " ".join(langs)}) as run,
    ):
        pins = dict(intention.others)
        for part in intention.parts:
            if part.trains or part.known is None:
                made = train_adapter(session, part.job, inputs_key=part.inputs_key, parent=run)
                pins[part.lang] = pin(made, register_adapter(session, made, run).version)
                trained.append(made)
            else:
                # The recipe is new, not the rows: continuing on them once more would change it for nothing.
                pins[part.lang] = part.known
        candidate = make_candidate(
            session,
            Scorer(session, data),
            pins,
            champion=intention.champion,
            run=run,
            reason=reason,
            settled_scale=_kept_scale(session, intention),
            # A new recipe alone teaches no language anything.
            updated=[made.lang for made in trained],
        )
        log_comparison(session, run)
    return UpdateOutcome(langs, True, intention.champion, intention.changes, tuple(trained), candidate, due=due)


def _begin_anew(session: Session, intention: Intention) -> None:
    """Throw away what interrupted attempts left of the trainings; what is finished stays, it would be the same."""
    from adapterctl.training.checkpoints import remove

    for part in intention.parts:
        remove(session.workspace.paths.checkpoints / training_key(part.job)[:12])
    forget(session.workspace, "update")


def _setup_first(session: Session) -> str:
    """Return that a set-up is needed, and what it would take."""
    from adapterctl.accounting.comparison import format_money, format_seconds
    from adapterctl.workflows.plan import plan_setup

    try:
        plan = plan_setup(session)
    except DataError:
        # What a set-up costs is unknown as long as its rows cannot be read; doctor names them.
        return SETUP_FIRST
    side = plan.comparison.update
    seconds, money = side.seconds, side.money
    return (
        f"{SETUP_FIRST}; it takes {seconds.text(format_seconds(seconds.value))} and costs "
        f"{money.text(format_money(money.value, side.currency))}, {plan.basis}"
    )


def _kept_scale(session: Session, intention: Intention) -> float | None:
    """Return the champion's λ where it is to be kept, None where λ is to be chosen."""
    config, champion = session.workspace.config, intention.champion
    same_languages = {*intention.others, *intention.langs} == set(champion.adapters)
    same = same_languages and champion.recipe == options_of(config.merge)
    return champion.scale if same and config.update.scale == "keep" else None


def _check(session: Session, data: Mapping[str, LanguageData], champion: Release) -> Scorecard:
    """Score the champion on the present rows."""
    langs = [lang for lang in data if lang in champion.adapters]
    return score_subject(session, Scorer(session, data), subject_of(session, champion, "champion"), langs, "test")


@contextmanager
def noted(session: Session, champion: Release, langs: Sequence[str]) -> Iterator[str]:
    """Keep a note of the command until it has ended; give the key of its run."""
    pending = Pending(
        command=session.command, langs=tuple(sorted(langs)), update_id=session.update_id, champion=champion.version
    )
    with under_way(session.workspace, pending):
        yield f"{session.command}:{session.update_id}"


def interrupted_languages(workspace: Workspace) -> tuple[str, ...]:
    """Return the languages of the update that was interrupted, for ``update --continue``.

    Raises:
        UsageError: None was.
    """
    pending = read_pending(workspace)
    if pending is None or pending.command != "update":
        raise UsageError(
            "no update was interrupted in this workspace", hint="start one with: adapterctl update --lang LANG"
        )
    return pending.langs
