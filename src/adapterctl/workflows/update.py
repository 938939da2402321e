"""``adapterctl update --lang ja``: the whole sentence, from new rows to a promoted release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adapterctl.errors import DataError, UsageError
from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.examples import Example
from adapterctl.registry.names import merged_name
from adapterctl.workflows import releases
from adapterctl.workflows.books import log_comparison
from adapterctl.workflows.candidates import (
    Candidate,
    make_candidate,
    pin,
    release_run,
    subject_of,
)
from adapterctl.workflows.intention import Intention, intend, release_id, require_same_base
from adapterctl.workflows.journal import Pending, forget, read_pending, under_way
from adapterctl.workflows.releases import Release
from adapterctl.workflows.scoring import Scorer, score_subject
from adapterctl.workflows.session import Session, options_of
from adapterctl.workflows.steps import register_adapter, train_adapter
from adapterctl.workflows.trained import TrainedAdapter
from adapterctl.workspace import editing
from adapterctl.workspace.data import LanguageData, load_data
from adapterctl.workspace.workspace import Workspace

SETUP_FIRST = "train and release every language first with: adapterctl setup"


@dataclass(frozen=True)
class UpdateOutcome:
    """What an update did.

    Attributes:
        lang: The language.
        changed: False where neither rows nor settings were new, so that there was nothing to train.
        before: The champion before.
        trained: The new adapter; None where nothing was trained.
        candidate: The release that came of it; None where nothing was changed.
        checked: The champion's scorecard on the present rows, where nothing was changed and that was asked for.
    """

    lang: str
    changed: bool
    before: Release
    trained: TrainedAdapter | None = None
    candidate: Candidate | None = None
    checked: Scorecard | None = None


def _intention(session: Session, lang: str, examples: tuple[Example, ...]) -> Intention:
    """Return what is to be done: an interrupted update of the same rows goes on from the champion it began with."""
    registry, project = session.registry, session.project
    pending = read_pending(session.workspace)
    if pending and (pending.command, pending.lang) == ("update", lang):
        began = releases.read_release(registry, registry.version(merged_name(project), pending.champion))
        intention = intend(session, lang, examples, began)
        if intention.update_id == pending.update_id:
            return intention
    champion = releases.require_champion(registry, project, SETUP_FIRST)
    return intend(session, lang, examples, champion)


def update(session: Session, lang: str, *, if_changed: bool = False) -> UpdateOutcome:
    """Retrain one language, merge all again, evaluate all, gate, and promote where it may be.

    No other language is trained. Run again after an interruption, it goes on where it was; run again after it has
    ended, it finds nothing to do.

    Args:
        session: The command at work.
        lang: The language to retrain; one that the champion does not serve yet joins it.
        if_changed: Where nothing is new, do nothing at all; else the champion is scored on the present rows.

    Raises:
        UsageError: There is no champion yet.
        DataError: Rows that cannot be used.
    """
    champion = releases.current(session.registry, session.project)
    if champion is None:
        raise UsageError(f"project '{session.project}' has no champion yet", hint=_setup_first(session))
    served = [other for other in session.workspace.languages if other == lang or other in champion.adapters]
    data = load_data(session.workspace, served)
    intention = _intention(session, lang, data[lang].train)
    if not intention.changed:
        forget(session.workspace, "update", lang)
        checked = None if if_changed else _check(session, data, intention.champion)
        return UpdateOutcome(lang, changed=False, before=intention.champion, checked=checked)

    # Only now: what finds nothing to do is no update on the books.
    session.update_id = intention.update_id
    with (
        _noted(session, intention.champion, lang) as run_name,
        release_run(session, run_name, f"update {lang}", {"lang": lang}) as run,
    ):
        known = intention.champion.adapters.get(lang)
        trained = None
        if known and known.inputs_key == intention.inputs_key:
            # The recipe is new, not the rows: continuing the adapter on them once more would change it for nothing.
            pinned = known
        else:
            trained = train_adapter(session, intention.job, inputs_key=intention.inputs_key, parent=run)
            pinned = pin(trained, register_adapter(session, trained, run).version)
        candidate = make_candidate(
            session,
            Scorer(session, data),
            {**intention.others, lang: pinned},
            champion=intention.champion,
            run=run,
            reason=f"update {lang}",
            settled_scale=_kept_scale(session, intention),
            # A new recipe alone teaches the language nothing.
            updated=lang if trained else None,
        )
        log_comparison(session, run)
    return UpdateOutcome(lang, True, intention.champion, trained, candidate)


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
    same_languages = {*intention.others, intention.job.lang} == set(champion.adapters)
    same = same_languages and champion.recipe == options_of(config.merge)
    return champion.scale if same and config.update.scale == "keep" else None


def _check(session: Session, data: dict[str, LanguageData], champion: Release) -> Scorecard:
    """Score the champion on the present rows."""
    langs = [lang for lang in data if lang in champion.adapters]
    return score_subject(session, Scorer(session, data), subject_of(session, champion, "champion"), langs, "test")


@contextmanager
def _noted(session: Session, champion: Release, lang: str) -> Iterator[str]:
    """Keep a note of the command until it has ended; give the key of its run."""
    pending = Pending(command=session.command, lang=lang, update_id=session.update_id, champion=champion.version)
    with under_way(session.workspace, pending):
        yield f"{session.command}:{session.update_id}"


def interrupted_language(workspace: Workspace) -> str:
    """Return the language of the update that was interrupted, for ``update --continue``.

    Raises:
        UsageError: None was.
    """
    pending = read_pending(workspace)
    if pending is None or pending.command != "update":
        raise UsageError(
            "no update was interrupted in this workspace", hint="start one with: adapterctl update --lang LANG"
        )
    return pending.lang


def _removal_id(session: Session, champion: Release, lang: str) -> str:
    pins = {other: champion.adapters[other] for other in session.workspace.languages if other in champion.adapters}
    pins.pop(lang, None)
    return release_id(session, champion, pins, {"removed": lang})


def _champion_to_remove_from(session: Session, lang: str) -> Release:
    """Return the champion; an interrupted removal goes on from the one it began with."""
    registry, project = session.registry, session.project
    champion = releases.require_champion(registry, project, SETUP_FIRST)
    pending = read_pending(session.workspace)
    if pending and (pending.command, pending.lang) == ("remove", lang):
        began = releases.read_release(registry, registry.version(merged_name(project), pending.champion))
        if _removal_id(session, began, lang) == pending.update_id:
            champion = began
    require_same_base(session, champion)
    return champion


def remove_language(session: Session, lang: str) -> UpdateOutcome:
    """Take a language out of the workspace and out of the merge; its rows and versions stay where they are.

    The remaining languages are merged, evaluated and gated like in any update; nothing is trained.

    Raises:
        UsageError: The workspace does not have the language, or it is the last one.
    """
    workspace, champion = session.workspace, _champion_to_remove_from(session, lang)
    if lang not in workspace.languages and lang not in champion.adapters:
        known = ", ".join(workspace.languages) or "none"
        raise UsageError(f"language '{lang}' is not in this workspace", hint=f"its languages are {known}")
    remaining = [other for other in workspace.languages if other != lang and other in champion.adapters]
    if not remaining:
        raise UsageError(
            f"'{lang}' is the only language; a merge needs at least one other",
            hint="add another language first with: adapterctl add --lang LANG",
        )
    data = load_data(workspace, remaining)
    # An interrupted removal, or one that the gate refused, has done this already.
    if lang in workspace.languages:
        editing.remove_language(workspace.root, lang)
        session.workspace = Workspace.open(workspace.root)
    if lang not in champion.adapters:
        return UpdateOutcome(lang, changed=False, before=champion)
    pins = {other: champion.adapters[other] for other in remaining}
    session.update_id = _removal_id(session, champion, lang)
    with (
        _noted(session, champion, lang) as run_name,
        release_run(session, run_name, f"remove {lang}", {"lang": lang}) as run,
    ):
        candidate = make_candidate(
            session, Scorer(session, data), pins, champion=champion, run=run, reason=f"remove {lang}"
        )
    return UpdateOutcome(lang, True, champion, None, candidate)
