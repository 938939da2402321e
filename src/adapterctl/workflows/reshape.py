"""Releases of which nothing new is trained: a language is taken out, or held at a version and let go again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adapterctl.errors import UsageError
from adapterctl.registry.names import PINNED, adapter_name, merged_name
from adapterctl.workflows import releases
from adapterctl.workflows.candidates import make_candidate, release_run
from adapterctl.workflows.intention import pin_of_version, pinned_versions, release_id, require_same_base
from adapterctl.workflows.journal import read_pending
from adapterctl.workflows.releases import Pin, Release
from adapterctl.workflows.scoring import Scorer
from adapterctl.workflows.session import Session
from adapterctl.workflows.update import SETUP_FIRST, UpdateOutcome, noted
from adapterctl.workspace import editing
from adapterctl.workspace.data import load_data
from adapterctl.workspace.workspace import Workspace


def _champion_to_begin_with(session: Session, lang: str, name: Callable[[Release], str]) -> Release:
    """Return the champion; an interrupted command goes on from the one it began with.

    Args:
        session: The command at work.
        lang: The language that it is about.
        name: Gives the name of the whole work when it begins with a release.
    """
    registry, project = session.registry, session.project
    champion = releases.require_champion(registry, project, SETUP_FIRST)
    pending = read_pending(session.workspace)
    if pending and (pending.command, pending.langs) == (session.command, (lang,)):
        began = releases.read_release(registry, registry.version(merged_name(project), pending.champion))
        ours = champion.version == pending.champion or champion.update_id == pending.update_id
        if ours and name(began) == pending.update_id:
            champion = began
    require_same_base(session, champion)
    return champion


def _served(session: Session, champion: Release) -> dict[str, Pin]:
    """Return the champion's pins of the workspace's languages, those that a person has pinned in their place."""
    known = {lang: champion.adapters[lang] for lang in session.workspace.languages if lang in champion.adapters}
    return {**known, **{lang: pin for lang, pin in pinned_versions(session).items() if lang in known}}


def _merge_anew(session: Session, champion: Release, pins: Mapping[str, Pin], lang: str, reason: str) -> UpdateOutcome:
    data = load_data(session.workspace, sorted(pins))
    with (
        noted(session, champion, (lang,)) as run_name,
        release_run(session, run_name, reason, {"lang": lang}) as run,
    ):
        candidate = make_candidate(session, Scorer(session, data), pins, champion=champion, run=run, reason=reason)
    return UpdateOutcome((lang,), True, champion, (reason,), (), candidate)


def remove_language(session: Session, lang: str) -> UpdateOutcome:
    """Take a language out of the workspace and out of the merge; its rows and versions stay where they are.

    The remaining languages are merged, evaluated and gated like in any update; nothing is trained.

    Raises:
        UsageError: The workspace does not have the language, or it is the last one.
    """

    def name(began: Release) -> str:
        pins = {other: pin for other, pin in _served(session, began).items() if other != lang}
        return release_id(session, began, pins, {"removed": lang})

    workspace, champion = session.workspace, _champion_to_begin_with(session, lang, name)
    if lang not in workspace.languages and lang not in champion.adapters:
        known = ", ".join(workspace.languages) or "none"
        raise UsageError(f"language '{lang}' is not in this workspace", hint=f"its languages are {known}")
    remaining = [other for other in workspace.languages if other != lang and other in champion.adapters]
    if not remaining:
        raise UsageError(
            f"'{lang}' is the only language; a merge needs at least one other",
            hint="add another language first with: adapterctl add --lang LANG",
        )
    load_data(workspace, remaining)
    # An interrupted removal, or one that the gate refused, has done this already.
    if lang in workspace.languages:
        editing.remove_language(workspace.root, lang)
        session.workspace = Workspace.open(workspace.root)
    if lang not in champion.adapters:
        return UpdateOutcome((lang,), False, champion)
    session.update_id = name(champion)
    pins = {other: pin for other, pin in _served(session, champion).items() if other != lang}
    return _merge_anew(session, champion, pins, lang, f"remove {lang}")


def pin_language(session: Session, lang: str, number: int | None = None) -> UpdateOutcome:
    """Hold a language at a version of its adapter: every merge takes it, and no update trains the language.

    Where the champion serves another version, all are merged anew, evaluated and gated like in any update.

    Args:
        session: The command at work.
        lang: The language.
        number: The version; None for the one that is pinned already, else the one that is served.

    Raises:
        UsageError: There is no champion, it does not serve the language, or there is no such version.
        RegistryError: The version is not what was published.
    """
    registry, name = session.registry, adapter_name(session.project, lang)
    served = releases.require_champion(registry, session.project, SETUP_FIRST).adapters.get(lang)
    if served is None:
        raise UsageError(
            f"the champion does not serve '{lang}', so there is nothing to hold",
            hint=f"train it first: adapterctl update --lang {lang}",
        )
    number = number or registry.aliases(name).get(PINNED) or served.version
    wanted = pin_of_version(session, lang, number)
    registry.require_whole(registry.version(name, number))
    registry.set_alias(name, PINNED, number)

    def named(began: Release) -> str:
        return release_id(session, began, _served(session, began), {"pinned": f"{lang} {wanted.content_hash}"})

    champion = _champion_to_begin_with(session, lang, named)
    if champion.adapters[lang].content_hash == wanted.content_hash:
        return UpdateOutcome((lang,), False, champion)
    session.update_id = named(champion)
    return _merge_anew(session, champion, _served(session, champion), lang, f"pin {lang} to v{number}")


def unpin_language(session: Session, lang: str) -> int:
    """Let a language go that was held at a version, and return that version; the next update may train it.

    Raises:
        UsageError: It is not pinned.
    """
    registry, name = session.registry, adapter_name(session.project, lang)
    number = registry.aliases(name).get(PINNED)
    if number is None:
        raise UsageError(f"'{lang}' is not pinned", hint=f"pin it with: adapterctl pin --lang {lang}")
    registry.drop_alias(name, PINNED)
    return number
