"""From one adapter a language to a release: merge, choose λ, evaluate, gate, register, and promote where it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.fingerprint import short
from adapterctl.markdown import plain
from adapterctl.merging.scale import ScaleChoice
from adapterctl.registry.names import adapter_name, merged_name
from adapterctl.workflows import releases
from adapterctl.workflows.code import code_versions
from adapterctl.workflows.descriptions import merged_model_description
from adapterctl.workflows.folders import checked_folder
from adapterctl.workflows.newrows import NewRows, new_rows
from adapterctl.workflows.placing import place
from adapterctl.workflows.presentation import Evidence, release_note, scorecards, show, tell
from adapterctl.workflows.release_note import OF_A_VERSION, ReleaseNote
from adapterctl.workflows.releases import Pin, Release
from adapterctl.workflows.reporting import StageShare
from adapterctl.workflows.scoring import BASE, Scorer, Subject, score_subject
from adapterctl.workflows.session import Session, options_of
from adapterctl.workflows.steps import as_dict, find_scale, merge_adapters, pinned_folder
from adapterctl.workflows.summaries import release_lineage, release_tags
from adapterctl.workflows.trained import TrainedAdapter

if TYPE_CHECKING:
    from adapterctl.evaluation.gate import Verdict
    from adapterctl.registry.client import RunHandle

_LEAST_GAIN_TO_MOVE = 0.01
"""What another λ than the champion's must gain on dev: below that it is noise, felt by every language."""


@dataclass(frozen=True)
class Candidate:
    """What came of a merge.

    Attributes:
        release: The release as registered.
        verdict: The gate's verdict; None where there was no champion.
        promoted: Whether it is the champion now.
        card: The full scorecard on the test split.
        run_id: The MLflow run to review.
        new_rows: What became of the test rows that are new since the champion was released.
        refused: Why it is not even a candidate: a person has rejected this very adapter; empty otherwise.
    """

    release: Release
    verdict: Verdict | None
    promoted: bool
    card: Scorecard
    run_id: str
    new_rows: tuple[NewRows, ...] = ()
    refused: str = ""


def pin(trained: TrainedAdapter, version: int) -> Pin:
    """Return the pin of a registered adapter."""
    return Pin(
        lang=trained.lang,
        version=version,
        content_hash=trained.content_hash,
        training_key=trained.training_key,
        inputs_key=trained.inputs_key,
        data_hash=trained.data_hash,
        rows=trained.rows,
    )


def folder_of(session: Session, pinned: Pin) -> Path:
    """Return the folder of a pinned adapter, fetched from the registry where it is not here."""
    return pinned_folder(session, pinned.lang, pinned.training_key, pinned.content_hash, pinned.version)


def subject_of(session: Session, release: Release, label: str) -> Subject:
    """Return a release's merged adapter as something to be scored, fetched where it is not here.

    Raises:
        RegistryError: The registry holds another adapter than the release names.
    """
    folder = checked_folder(
        session,
        release.content_hash,
        [session.workspace.paths.merged(release.merge_key)],
        lambda: session.registry.version(merged_name(session.project), release.version),
        hint="promote another version: adapterctl history, then adapterctl promote --version N",
    )
    return Subject(label, release.content_hash, folder)


def make_candidate(
    session: Session,
    scorer: Scorer,
    pins: Mapping[str, Pin],
    *,
    champion: Release | None,
    run: RunHandle,
    reason: str,
    settled_scale: float | None = None,
    updated: Sequence[str] = (),
) -> Candidate:
    """Merge the pinned adapters, measure the result and register it as candidate; promote it where it may be.

    Args:
        session: The command at work.
        scorer: Scores models on the workspace's rows.
        pins: One adapter for every language.
        champion: What the candidate is compared with; None for a first release.
        run: The MLflow run everything is logged into.
        reason: What the release is made for, such as ``update ja``.
        settled_scale: λ where it was chosen before and is not to be chosen again.
        updated: The languages that were trained anew, of which the gate may require a gain.
    """
    from adapterctl.lora.adapter import Adapter

    langs = sorted(pins)
    folders = {lang: folder_of(session, pinned) for lang, pinned in pins.items()}
    same_recipe = champion is not None and champion.recipe == options_of(session.workspace.config.merge)
    if settled_scale is None:
        start = champion.scale if champion and same_recipe else None
        least_gain = _LEAST_GAIN_TO_MOVE if same_recipe else 0.0
        choice = find_scale(session, scorer, folders, start, least_gain=least_gain)
    else:
        choice = ScaleChoice(settled_scale, float("nan"), ())
    folder, key, report = merge_adapters(session, folders, choice.scale)
    content_hash = Adapter.open(folder).content_hash

    card = score_subject(session, scorer, Subject("candidate", content_hash, folder), langs, "test")
    own_scores, base_scores = _references(session, scorer, pins)
    verdict, before = _compare(session, scorer, card, champion, langs, updated)
    arrived = new_rows(session, card, before, champion) if champion and before else ()

    release = Release(
        version=0,
        created="",
        reason=reason,
        base=session.base.name,
        base_identity=session.base.identity,
        recipe=options_of(session.workspace.config.merge),
        scale=choice.scale,
        adapters=dict(pins),
        content_hash=content_hash,
        merge_key=key,
        scores=card.summary(),
        verdict=verdict.as_dict() if verdict else None,
        run_id=run.run_id,
        compared_with=champion.version if champion else None,
        update_id=session.update_id,
        code=code_versions(),
        own_scores=own_scores,
        base_scores=base_scores,
    )
    shown = Evidence(verdict, champion, card, before, scorer.data, folders)
    with session.step("register", "merged", content_hash, "register the candidate"):
        files = scorecards(session, shown) | {"scale.json": as_dict(choice) | {"rank": report.rank}}
        note = release_note(session, release, shown)
        note = replace(note, pictures=show(session, run, note, shown))
        release = _register(session, note, folder, run, files)
    placed = place(session, release, champion)
    return Candidate(release, verdict, placed.promoted, card, run.run_id, arrived, placed.refused)


def _references(session: Session, scorer: Scorer, pins: Mapping[str, Pin]) -> tuple[dict[str, float], dict[str, float]]:
    """Return what each language's own adapter, and the base model, score on the test split.

    They say how much of what an adapter learnt survives the merge. Cells that are known are not scored again, so an
    update pays for the changed language alone.
    """
    langs = sorted(pins)
    own: dict[str, float] = {}
    with session.step("evaluate", "own adapters", "", "evaluate each language's own adapter") as record:
        reused, stage = [], record.stage
        for number, lang in enumerate(langs):
            record.stage = StageShare(stage, number, len(langs))
            subject = Subject(f"own {lang}", pins[lang].content_hash, folder_of(session, pins[lang]))
            own |= _means(scorer.score(subject, [lang], "test", record))
            reused.append(record.reused)
        record.reused = all(reused)
    base = score_subject(session, scorer, BASE, langs, "test")
    return own, _means(base)


def _means(card: Scorecard) -> dict[str, float]:
    """Return the mean of every language that has one: text that is only read has none."""
    means: dict[str, float] = card.summary()["languages"]
    return means


def _compare(
    session: Session,
    scorer: Scorer,
    card: Scorecard,
    champion: Release | None,
    langs: list[str],
    updated: Sequence[str],
) -> tuple[Verdict | None, Scorecard | None]:
    """Gate the candidate against the champion on the languages that both serve."""
    from adapterctl.evaluation.gate import gate

    if champion is None:
        return None, None
    shared = [lang for lang in langs if lang in champion.adapters]
    before = score_subject(session, scorer, subject_of(session, champion, "champion"), shared, "test")
    return gate(card.only(shared), before, session.workspace.config.gate, updated=updated), before


def _register(session: Session, note: ReleaseNote, folder: Path, run: RunHandle, files: Mapping[str, Any]) -> Release:
    registry, name, release = session.registry, merged_name(session.project), note.release
    inputs = [
        registry.version(adapter_name(session.project, lang), pinned.version)
        for lang, pinned in sorted(release.adapters.items())
    ]
    version = registry.publish(
        name,
        folder,
        content_hash=release.content_hash,
        run=run,
        model_type="merged-adapter",
        params={"method": release.recipe["method"], "lambda": release.scale},
        tags={"adapterctl.merge_key": release.merge_key, "adapterctl.base_model": release.base},
        # Until the number of the version is known, which its commands name.
        description=f"{plain(release.reason)}: being described",
        inputs=inputs,
        metrics={"average": release.scores["average"]} if release.scores["average"] is not None else {},
        lineage=release_lineage(release),
    )
    release = release.model_copy(update={"version": version.version, "created": version.created})
    releases.publish_release(run, release, files)
    # An equal merge may have been registered by an earlier command: the version then tells its latest measurement.
    registry.set_version_tags(version, release_tags(release, session.project))
    note = replace(note, release=release)
    registry.set_description(version, note.text(OF_A_VERSION))
    registry.set_model_description(name, merged_model_description(session.project, note.policy))
    run.log_params({f"merge.{key}": value for key, value in release.recipe.items()} | {"lambda": release.scale})
    run.set_tags({"adapterctl.content": short(release.content_hash)})
    tell(run, note)
    metrics = {f"{cell['lang']}.{cell['task']}": cell["value"] for cell in release.scores["cells"]}
    run.log_metrics(metrics | {f"{lang}.mean": value for lang, value in release.scores["languages"].items()})
    return release


def release_run(session: Session, key: str, name: str, tags: Mapping[str, str]) -> AbstractContextManager[RunHandle]:
    """Open the parent run of a command that makes a release."""
    return session.registry.run(key, name, tags={"adapterctl.command": session.command, **tags})
