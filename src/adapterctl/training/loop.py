"""The transformers ``Trainer``, told what it needs here and nothing more."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from adapterctl.base_model import device_of
from adapterctl.errors import AdapterError, ConfigError
from adapterctl.randomness import integer_seed
from adapterctl.training import checkpoints
from adapterctl.training.batches import Collator, EpochBatches, Plan, answer_loss, answer_positions
from adapterctl.training.checkpoints import Attempts, Checkpoint
from adapterctl.training.job import TrainingJob
from adapterctl.training.result import Step, TrainingObserver
from adapterctl.training.rows import TokenRow

_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw8bit": "adamw_bnb_8bit", "paged_adamw8bit": "paged_adamw_8bit"}
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
_SECONDS_WITHOUT_CHECKPOINT = 300.0


def arguments(job: TrainingJob, steps: int, folder: Path) -> TrainingArguments:
    """Return the Trainer's arguments: it neither logs, saves nor reports; ``Progress`` does.

    Raises:
        ConfigError: The device is a GPU other than the first, or cannot do what the settings ask for.
    """
    training, device = job.training, device_of(job.base.settings)
    if device not in ("cpu", "mps", "cuda", "cuda:0"):
        raise ConfigError(
            f"training takes the first visible GPU, not base_model.device: {device}",
            hint=f"set device: auto and run with CUDA_VISIBLE_DEVICES={device.partition(':')[2]}",
        )
    try:
        made = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=training.epochs,
            learning_rate=training.learning_rate,
            lr_scheduler_type=_SCHEDULES[training.schedule],
            # As a number of steps: a share of 1 step and 1 step are both written 1.
            warmup_steps=training.warmup_of(steps),
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=training.gradient_accumulation,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            optim=_OPTIMIZERS[training.optimizer],
            bf16=training.mixed_precision == "bf16",
            use_cpu=device == "cpu",
            seed=training.seed,
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            log_level="error",
            logging_nan_inf_filter=False,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            skip_memory_metrics=True,
        )
    except ValueError as error:
        raise ConfigError(
            f"these training settings cannot be used on this machine: {error}",
            hint="set training.mixed_precision: none, or base_model.device: cpu",
        ) from error
    if made.device.type == "cuda":
        # One adapter is trained on one GPU; with more the Trainer would split each batch over all of them.
        made._n_gpu = 1
    return made


class Progress(TrainerCallback):  # type: ignore[misc] # the library is not typed
    """Follows the Trainer: order of rows, dropout, history, checkpoints and the observer."""

    def __init__(
        self,
        job: TrainingJob,
        key: str,
        order: EpochBatches,
        root: Path,
        attempts: Attempts,
        observer: TrainingObserver,
        resumed: Checkpoint | None,
        started: float,
    ) -> None:
        self.job, self.key, self.order, self.root = job, key, order, root
        self.attempts, self.observer, self.resumed, self.started = attempts, observer, resumed, started
        self.tokens, _ = order.plan.tokens_by_step()
        self.history: list[Step] = list(resumed.history) if resumed else []
        self.loss = 0.0
        self._rate = 0.0
        self._first = self._saved = time.monotonic()
        self._before = self.history[-1].seconds if self.history else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put back what the Trainer does not know of."""
        if self.resumed is not None:
            kwargs["optimizer"].load_state_dict(self.resumed.optimizer_state())
            kwargs["lr_scheduler"].load_state_dict(self.resumed.scheduler)
        self.observer.on_start(self.job.lang, self.order.plan.steps, len(self.history))
        self._first = self._saved = time.monotonic()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Choose the epoch's order before its batches are asked for."""
        self.order.epoch = state.global_step // self.order.plan.steps_per_epoch

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed dropout by the step: an interrupted training then needs no random state to go on exactly."""
        seed = integer_seed("training dropout", self.job.training.seed, state.global_step)
        if args.device.type == "cpu":
            # What torch.manual_seed does beyond this, preparing every other kind of device, takes a millisecond.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        self.loss = 0.0
        self._rate = float(kwargs["lr_scheduler"].get_last_lr()[0])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the step, keep a checkpoint when one is due, and tell the observer."""
        step, now = int(state.global_step), time.monotonic()
        seconds = self._before + now - self._first
        entry = Step(step, self.loss, self._rate, self.tokens[step - 1], seconds)
        self.history.append(entry)
        if self._due(step, now):
            checkpoints.save(
                self.root,
                key=self.key,
                model=kwargs["model"],
                optimizer=kwargs["optimizer"],
                scheduler=kwargs["lr_scheduler"],
                trainer_state=state,
                history=self.history,
            )
            self._saved = time.monotonic()
        self.attempts.note(now - self.started)
        self.observer.on_step(step, self.order.plan.steps, entry.loss, entry.learning_rate, entry.tokens, seconds)

    def _due(self, step: int, now: float) -> bool:
        plan, every = self.order.plan, self.job.training.checkpoint_every_steps
        if step == plan.steps:
            return True
        if every:
            return step % every == 0
        return step % plan.steps_per_epoch == 0 or now - self._saved >= _SECONDS_WITHOUT_CHECKPOINT


class AdapterTrainer(Trainer):  # type: ignore[misc] # the library is not typed
    """A Trainer with the project's batches and a loss that computes logits only where an answer stands."""

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        rows: list[TokenRow],
        pad: int,
        order: EpochBatches,
        progress: Progress,
    ) -> None:
        self._loader: DataLoader[Any] = DataLoader(
            rows,  # type: ignore[arg-type] # a list is a dataset
            batch_sampler=order,
            collate_fn=Collator(pad),
            generator=torch.Generator(),
        )
        self._progress = progress
        super().__init__(model=model, args=args, train_dataset=rows, callbacks=[progress])
        self.remove_callback(PrinterCallback)
        # The loss below is a sum divided by the answer tokens of the whole step, however many batches it has.
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> Any:
        """Return the batches; nothing to prepare on one device."""
        return self._loader

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the result counts them once, at the end."""
        return 0

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the batch's share of the step's mean cross-entropy over answer tokens.

        Raises:
            AdapterError: It is not a finite number.
        """
        labels = inputs["labels"]
        positions = answer_positions(labels)
        outputs = model(input_ids=inputs["input_ids"], logits_to_keep=positions, use_cache=False)
        assert num_items_in_batch is not None
        loss = answer_loss(outputs.logits, labels, positions, num_items_in_batch)
        value = loss.item()
        if not math.isfinite(value):
            settings = self._progress.job.training
            raise AdapterError(
                f"training of '{self._progress.job.lang}' diverged: the loss is {value} in step "
                f"{self.state.global_step + 1}",
                hint=f"lower training.learning_rate (it is {settings.learning_rate:g}) or max_grad_norm",
            )
        self._progress.loss += value
        return (loss, outputs) if return_outputs else loss


def run(
    job: TrainingJob,
    key: str,
    model: Any,
    rows: list[TokenRow],
    pad: int,
    plan: Plan,
    root: Path,
    attempts: Attempts,
    observer: TrainingObserver,
    started: float,
) -> tuple[tuple[Step, ...], int]:
    """Train the adapter that is on ``model``, from the newest complete checkpoint under ``root`` if there is one.

    Returns:
        Every step, and the step that was resumed from (0: none).
    """
    resumed = checkpoints.newest(root, key)
    order = EpochBatches(plan)
    progress = Progress(job, key, order, root, attempts, observer, resumed, started)
    trainer = AdapterTrainer(model, arguments(job, plan.steps, root), rows, pad, order, progress)
    trainer.train(resume_from_checkpoint=str(resumed.folder) if resumed else None)
    return tuple(progress.history), resumed.step if resumed else 0
