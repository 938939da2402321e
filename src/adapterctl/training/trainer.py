"""Training one adapter, from the job to the published folder."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adapterctl.base_model import document_hashes, load_model, load_tokenizer
from adapterctl.errors import AdapterError
from adapterctl.files import disk_errors, staged_folder, write_json
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.origin import BASE_CONFIG_KEY, TOKENIZER_KEY
from adapterctl.training import checkpoints as saved
from adapterctl.training.batches import Plan
from adapterctl.training.job import TrainingJob, training_key
from adapterctl.training.peft_model import parameter_counts, with_adapter, write_peft_folder
from adapterctl.training.result import Silent, TrainingObserver, TrainingResult, closing_loss, training_flops
from adapterctl.training.rows import refuse_long, token_rows
from adapterctl.training.surroundings import cpu_threads, quiet_libraries, untouched_random_state

RESULT_FILE = "training.json"

_RECORDED = {"config.json": BASE_CONFIG_KEY, "tokenizer.json": TOKENIZER_KEY}
"""What adapters record of the base model they were trained on, so that a merge can tell another one."""


def stored_result(out: Path, key: str) -> TrainingResult | None:
    """Return the result that lies in ``out``, if it belongs to this key and its adapter is whole."""
    try:
        stored = json.loads((out / RESULT_FILE).read_text(encoding="utf-8"))
        if stored["key"] != key or Adapter.open(out).content_hash != stored.pop("content_hash"):
            return None
        return TrainingResult.from_dict(out, stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AdapterError):
        return None


def train(job: TrainingJob, out: Path, checkpoints: Path, observer: TrainingObserver | None = None) -> TrainingResult:
    """Train an adapter, or return it where it has been trained already.

    The same job gives the same bytes of tensors and configuration on the same machine with the same number of
    threads, also when it was interrupted and called again.

    Args:
        job: What to train.
        out: The PEFT folder; it appears when all is done, and then replaces an earlier one of another job.
        checkpoints: Where checkpoints lie meanwhile, in a folder of their own for each key.
        observer: Hears of every step.

    Raises:
        DataError: There are no rows, a row is too long, or a row's task or prompt is missing.
        BaseModelError: The base model cannot be loaded.
        AdapterError: ``start_from`` cannot be used, the loss is not finite, or memory does not suffice.
        ConfigError: The settings do not fit the base model or the machine.
        StorageError: The disk is full, read-only or not permitted.
    """
    started = time.monotonic()
    key = training_key(job)
    root = checkpoints / key[:12]
    if (stored := stored_result(out, key)) is not None:
        # A process killed at the very end leaves them behind.
        saved.remove(root)
        return stored
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    result = _train(job, key, out, root, observer or Silent(), started)
    saved.remove(root)
    if torch.cuda.is_available():
        # The Trainer's objects refer to one another: without this the next model is loaded beside this one.
        gc.collect()
        torch.cuda.empty_cache()
    return result


def _train(
    job: TrainingJob, key: str, out: Path, root: Path, observer: TrainingObserver, started: float
) -> TrainingResult:
    # Not at the top: what has been trained already is returned without waiting for the Trainer to be imported.
    from adapterctl.training.loop import run

    training, attempts = job.training, saved.Attempts(root)
    with quiet_libraries(), untouched_random_state(), cpu_threads(training.threads), _enough_memory(job):
        tokenizer = load_tokenizer(job.base)
        rows = token_rows(job, tokenizer)
        model = load_model(job.base)
        refuse_long(rows, job.lang, training.max_length, getattr(model.config, "max_position_embeddings", None))
        model = with_adapter(model, job)
        plan = Plan(
            lengths=tuple(len(row.ids) for row in rows),
            batch_size=training.batch_size,
            accumulation=training.gradient_accumulation,
            epochs=training.epochs,
            grouped=training.length_grouped,
            seed=training.seed,
        )
        history, resumed_from = run(
            job, key, model, rows, tokenizer.pad_token_id or 0, plan, root, attempts, observer, started
        )
        base_parameters, trained = parameter_counts(model)
        sums, padded = plan.tokens_by_step()
        result = TrainingResult(
            folder=out,
            key=key,
            steps=plan.steps,
            tokens=sums[-1],
            padded_tokens=padded,
            final_loss=closing_loss(history),
            history=history,
            seconds=attempts.total(time.monotonic() - started),
            reused=False,
            resumed_from_step=resumed_from,
            trainable_parameters=trained,
            flops=training_flops(base_parameters, trained, sums[-1], checkpointing=training.gradient_checkpointing),
        )
        _publish(model, job, result)
    return result


@contextmanager
def _enough_memory(job: TrainingJob) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # Only the GPU's allocator has an exception class of its own.
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
            reason = next(iter(str(error).splitlines()), "no more to be had")
            raise AdapterError(
                f"training of '{job.lang}' ran out of memory: {reason}",
                hint="lower training.batch_size and raise training.gradient_accumulation by as much, set "
                "training.gradient_checkpointing: true, or base_model.quantization: nf4",
            ) from error
        raise


def _publish(model: Any, job: TrainingJob, result: TrainingResult) -> None:
    with staged_folder(result.folder) as staging:
        known = document_hashes(job.base)
        provenance = {
            "adapterctl.training_key": result.key,
            "adapterctl.lang": job.lang,
            **{key: known[name] for name, key in _RECORDED.items() if name in known},
        }
        write_peft_folder(model, staging, provenance)
        stored = result.as_dict() | {
            "content_hash": Adapter.open(staging).content_hash,
            "lang": job.lang,
            "rows": len(job.examples),
            "base_model": job.base.name,
            "base_identity": job.base.identity,
        }
        write_json(staging / RESULT_FILE, stored)
