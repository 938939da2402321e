"""The steps that workflows are made of: train, register, merge, choose λ. Each is keyed by content and done once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from adapterctl.accounting.ledger import FAILED
from adapterctl.accounting.usage import Usage
from adapterctl.errors import UsageError
from adapterctl.examples import Example
from adapterctl.fingerprint import short
from adapterctl.merging.scale import ScaleChoice, choose_scale
from adapterctl.registry.names import adapter_name, combined_name
from adapterctl.training.job import TrainingJob, row_hashes, rows_hash, training_key
from adapterctl.training.settings import LoraSettings, TrainingSettings
from adapterctl.workflows.descriptions import adapter_description
from adapterctl.workflows.folders import checked_folder
from adapterctl.workflows.reporting import SilentStage
from adapterctl.workflows.scoring import Scorer, Subject
from adapterctl.workflows.session import Session, StepRecord, options_of
from adapterctl.workflows.trained import COMBINED, TrainedAdapter

if TYPE_CHECKING:
    from adapterctl.lora.adapter import Adapter
    from adapterctl.merging.recipe import MergeRecipe
    from adapterctl.merging.report import MergeReport
    from adapterctl.registry.client import RunHandle
    from adapterctl.registry.versions import Version
    from adapterctl.training.result import TrainingResult

ROWS_FILE = "rows.json"
"""Artifact of a training's run: the hashes of its rows."""
TRAINED_TAG = "adapterctl.trained"
"""Tag of an adapter's version: when it was trained."""

MOST_SCALES = 6
"""The most values of λ that are tried."""

_EVERY_MANY_STEPS = 10
_LEAST_LOST_SECONDS = 0.5


class _Progress:
    """Carries a training's steps to whoever watches, and its curve into the registry."""

    def __init__(self, record: StepRecord, run: RunHandle | None) -> None:
        self._record, self._run = record, run
        self._logged = (run.last_step("loss") or 0) if run else 0
        self._losses: list[float] = []

    def on_start(self, lang: str, total_steps: int, done_steps: int) -> None:
        self._record.stage.advance(done_steps, total_steps)

    def on_step(
        self, step: int, total_steps: int, loss: float, learning_rate: float, tokens: int, seconds: float
    ) -> None:
        self._record.stage.advance(step, total_steps, f"loss {loss:.3f}")
        # A resumed training repeats the steps since its checkpoint; the curve has them already.
        if not self._run or step <= self._logged:
            return
        self._losses.append(loss)
        if step % _EVERY_MANY_STEPS == 0 or step in (1, total_steps):
            # Batches of one length, and so often of one task, differ much: a point is the mean since the last one.
            loss, self._losses = fmean(self._losses), []
            self._run.log_metrics({"loss": loss, "learning_rate": learning_rate, "tokens": tokens}, step=step)


def job_for(
    session: Session,
    lang: str,
    examples: Sequence[Example],
    *,
    lora: LoraSettings,
    training: TrainingSettings,
    start_from: Path | None = None,
) -> TrainingJob:
    """Return the training of one language's adapter as a value."""
    tasks = session.workspace.suite.all_tasks
    return TrainingJob(session.base, lang, tuple(examples), tasks, lora, training, start_from)


def language_job(session: Session, lang: str, examples: Sequence[Example]) -> TrainingJob:
    """Return the training of a language's adapter from nothing, with the language's own settings."""
    settings = session.workspace.adapters[lang]
    return job_for(session, lang, examples, lora=settings.lora, training=settings.training)


def train_adapter(session: Session, job: TrainingJob, *, inputs_key: str, parent: RunHandle | None) -> TrainedAdapter:
    """Train an adapter, or take the one that this very training made before; log its curve below ``parent``."""
    from adapterctl.lora.adapter import Adapter
    from adapterctl.training.figures import loss_curves
    from adapterctl.training.trainer import train

    key = training_key(job)
    folder = session.workspace.paths.adapter(key)
    with session.registry.run(f"train:{key}", f"train {job.lang}", parent=parent, tags={"lang": job.lang}) as run:
        with session.step("train", job.lang, key, f"train {job.lang}") as record:
            result = train(job, folder, session.workspace.paths.checkpoints, _Progress(record, run))
            record.reused = result.reused
            record.stage.advance(result.steps, result.steps, f"{result.steps} steps, loss {result.final_loss:.3f}")
            if not result.reused:
                record.meter.count(
                    tokens=result.tokens,
                    row_epochs=len(job.examples) * job.training.epochs,
                    steps=result.steps,
                    flops=result.flops,
                )
        _book_killed_attempts(session, job.lang, key, result, record)
        if not result.reused:
            _log_training(run, job, key, result, loss_curves({job.lang: result.history}))
    return TrainedAdapter(
        lang=job.lang,
        folder=folder,
        content_hash=Adapter.open(folder, job.lang).content_hash,
        training_key=key,
        inputs_key=inputs_key,
        result=result,
        rows=len(job.examples),
        data_hash=rows_hash(job.examples),
        begun=Adapter.open(job.start_from).content_hash if job.start_from else "",
    )


def _book_killed_attempts(session: Session, lang: str, key: str, result: TrainingResult, record: StepRecord) -> None:
    """Put on the books what killed attempts at this training took: a killed process cannot do so itself.

    The training's own clock goes on with its checkpoints; what it knows beyond this attempt and the failed ones in the
    ledger was lost to kills. CPU seconds are taken to be wall seconds of one core, accelerators to be held as in this
    attempt.
    """
    if result.reused:
        return
    failed = session.ledger.entries(step="train", key=key, outcome=FAILED)
    own = record.meter.usage
    lost = result.seconds - own.wall_seconds - sum(entry.usage.wall_seconds for entry in failed)
    if lost > _LEAST_LOST_SECONDS:
        devices = {kind: seconds / own.wall_seconds * lost for kind, seconds in own.devices.items()}
        used = Usage(wall_seconds=lost, cpu_seconds=lost, devices=devices)
        entry = session.entry("train", lang, key, used, outcome=FAILED)
        # They were other processes: the seconds must not be taken out of the remainder of this one.
        session.ledger.append(replace(entry, process=""))


def _log_training(run: RunHandle, job: TrainingJob, key: str, result: TrainingResult, curve: bytes) -> None:
    lora, training = options_of(job.lora), options_of(job.training)
    run.log_params({f"lora.{name}": value for name, value in lora.items()})
    run.log_params({f"training.{name}": value for name, value in training.items()})
    run.log_params({"rows": len(job.examples), "base_model": job.base.name, "training_key": short(key)})
    # The final loss comes with the registered adapter.
    run.log_metrics({"train_seconds": result.seconds, "train_tokens": result.tokens})
    run.log_figure("loss.png", curve)
    run.log_input_dataset(
        f"{job.lang} rows",
        rows_hash(job.examples),
        path="adapters",
        rows=len(job.examples),
        context="training",
    )
    # Hashes alone: which rows are new, a later update can tell; what they say stays in the workspace.
    run.log_json(ROWS_FILE, row_hashes(job.examples))


def register_adapter(session: Session, trained: TrainedAdapter, parent: RunHandle | None) -> Version:
    """Register a trained adapter as a version of its language, once."""
    combined = trained.lang == COMBINED
    name = combined_name(session.project) if combined else adapter_name(session.project, trained.lang)
    key = f"train:{trained.training_key}"
    with (
        session.step("register", trained.lang, trained.content_hash, f"register {trained.lang}") as record,
        session.registry.run(key, f"train {trained.lang}", parent=parent) as run,
    ):
        known = session.registry.version_by_hash(name, trained.content_hash)
        record.reused = known is not None
        return known or session.registry.publish(
            name,
            trained.folder,
            content_hash=trained.content_hash,
            run=run,
            model_type="lora-adapter",
            params={"rows": trained.rows, "steps": trained.result.steps},
            tags={
                "lang": trained.lang,
                "adapterctl.training_key": trained.training_key,
                "adapterctl.inputs_key": trained.inputs_key,
                "adapterctl.base_model": session.base.name,
                "adapterctl.base_identity": session.base.identity,
                "adapterctl.data_sha256": trained.data_hash,
                "adapterctl.rows": trained.rows,
                TRAINED_TAG: datetime.now(UTC).isoformat(timespec="seconds"),
            },
            description=adapter_description(trained, session.base.name),
            inputs=_begun(session, name, trained),
            metrics={"final_loss": trained.result.final_loss},
            lineage=adapter_lineage(session, trained),
        )


def _begun(session: Session, name: str, trained: TrainedAdapter) -> list[Version]:
    """Return the version of the adapter that the training went on from."""
    found = session.registry.version_by_hash(name, trained.begun) if trained.begun else None
    return [found] if found else []


def adapter_lineage(session: Session, trained: TrainedAdapter) -> dict[str, Any]:
    """Return what an adapter was made from, beside the adapter that its training went on from."""
    rows = {"name": f"{trained.lang} rows", "sha256": trained.data_hash, "rows": trained.rows}
    return {"base": {"name": session.base.name, "identity": session.base.identity}, "datasets": [rows]}


def recipe_of(session: Session) -> MergeRecipe:
    """Return the workspace's recipe; files that it names are meant relative to the workspace."""
    recipe, root = session.workspace.config.merge, session.workspace.root
    return recipe.model_copy(update={"grams": {lang: str(root / file) for lang, file in recipe.grams.items()}})


def merge_adapters(
    session: Session,
    adapters: Mapping[str, Path],
    scale: float | None,
    *,
    recipe: MergeRecipe | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> tuple[Path, str, MergeReport]:
    """Merge one adapter a language; return folder, key and report.

    Args:
        session: The command at work.
        adapters: PEFT folder by language.
        scale: λ where the recipe says ``auto``; None merges at λ = 1, the start of the search.
        recipe: The recipe; None takes the workspace's.
        threads: Modules that are worked on at a time; None leaves it to the engine.
        device: ``cpu`` or ``cuda``.
    """
    from adapterctl.lora.adapter import Adapter
    from adapterctl.merging.cache import FactorCache
    from adapterctl.merging.engine import merge, merge_key

    recipe = recipe or recipe_of(session)
    cache = FactorCache(session.workspace.paths.factors)
    opened: list[Adapter] = [Adapter.open(folder, lang) for lang, folder in sorted(adapters.items())]
    key = merge_key(opened, recipe, scale, cache=cache)
    folder = session.workspace.paths.merged(key)
    title = f"merge {len(opened)} adapters ({recipe.method}, λ {recipe.resolved_lambda(scale):g})"
    with session.step("merge", "merged", key, title) as record:
        report = _kept_report(folder)
        record.reused = report is not None
        if report is None:
            report = merge(
                opened,
                recipe,
                folder,
                scale=scale,
                progress=record.stage.advance,
                threads=threads,
                device=device,
                cache=cache,
            )
    return folder, key, report


def _kept_report(folder: Path) -> MergeReport | None:
    """Return the report of a merge that was done before; one whose tensors are damaged counts as not done."""
    from adapterctl.errors import AdapterError
    from adapterctl.lora.adapter import Adapter
    from adapterctl.merging.report import read_report

    try:
        report = read_report(folder)
        Adapter.open(folder).tensor_names  # noqa: B018 (opens the file)
        return report
    except (OSError, ValueError, KeyError, TypeError, AdapterError):
        return None


def find_scale(
    session: Session,
    scorer: Scorer,
    adapters: Mapping[str, Path],
    start: float | None,
    *,
    least_gain: float = 0.0,
    recipe: MergeRecipe | None = None,
) -> ScaleChoice:
    """Choose λ on the dev split, for recipes that say ``lambda: auto``; a fixed λ is taken as it is.

    Args:
        session: The command at work.
        scorer: Scores the dev rows.
        adapters: PEFT folder by language.
        start: Where the walk begins, such as the champion's λ; None begins where the norms of merged and individual
            adapters are alike.
        least_gain: What another λ than ``start`` must gain on dev.
        recipe: The recipe; None takes the workspace's.
    """
    recipe = recipe or recipe_of(session)
    if recipe.lambda_ != "auto":
        return ScaleChoice(recipe.lambda_, float("nan"), ())
    folder, key, report = merge_adapters(session, adapters, None, recipe=recipe)
    langs = sorted(adapters)
    without = [lang for lang in langs if not scorer.data[lang].dev]
    if without:
        raise UsageError(
            f"merge.lambda is auto, but there are no dev rows for {', '.join(without)}",
            hint="add dev rows (evaluation/suite.yaml says where) or set merge.lambda to a number in adapterctl.yaml",
        )
    first = start if start is not None else report.suggested_scale or 1.0
    with session.step("choose scale", "merged", key, "choose λ on the dev split") as record:
        tried: list[bool] = []

        def value_at(scale: float) -> float:
            # Progress is counted in values of λ, not in rows.
            inner = StepRecord(SilentStage(), record.meter)
            card = scorer.score(Subject(f"merged at λ {scale:g}", key, folder, scale), langs, "dev", inner)
            tried.append(inner.reused)
            record.stage.advance(len(tried), MOST_SCALES, f"λ {scale:g}: {card.average:.3f}")
            return card.average

        choice = choose_scale(value_at, first, most=MOST_SCALES, least_gain=least_gain)
        record.stage.advance(MOST_SCALES, MOST_SCALES, f"λ {choice.scale:g}")
        record.reused = all(tried)
    return choice


def pinned_folder(session: Session, lang: str, training: str, content_hash: str, version: int) -> Path:
    """Return the folder of a pinned adapter: the local one where its content is right, else fetched and checked."""
    return checked_folder(
        session,
        content_hash,
        [session.workspace.paths.adapter(training)],
        lambda: session.registry.version(adapter_name(session.project, lang), version),
        hint=f"train it again with: adapterctl update --lang {lang}",
    )


def as_dict(choice: ScaleChoice) -> dict[str, Any]:
    """Return a choice of λ as JSON values."""
    return {"scale": choice.scale, "tried": [list(pair) for pair in choice.tried]}
