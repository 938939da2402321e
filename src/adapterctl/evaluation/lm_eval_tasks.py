"""Tasks of lm-evaluation-harness on a model in this process, without network.

Tasks are named as the harness names them, or by the path of a task's YAML file or of a folder of such files. The
harness decides everything: prompts, metrics and their values. A task's files may name Python code, which then runs.

Paper: Biderman et al. 2024, "Lessons from the Trenches on Reproducible Evaluation of Language Models",
arXiv 2405.14782.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adapterctl.errors import ConfigError, DataError, Problem, UsageError
from adapterctl.evaluation.lm_eval_samples import cell_of, language_of
from adapterctl.evaluation.scorecard import Cell
from adapterctl.fingerprint import short

_SEEDS = (0, 1234, 1234, 1234)
"""Of Python, NumPy, torch and the choice of examples in prompts: the harness's own defaults."""

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")
_MOST_SAID = 300


def run_lm_eval(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    batch_size: int,
    limit: int | None = None,
    langs: Sequence[str] = (),
) -> tuple[Cell, ...]:
    """Run tasks of lm-evaluation-harness and return one cell for each, in the order of the tasks.

    Metric values are as the harness gives them, and equal those of its own command line on the same model, without
    chat template. Nothing is downloaded: data lie in local files that the tasks name, or in the cache of the datasets
    library.

    Args:
        model: A causal language model of transformers, with or without PEFT adapter.
        tokenizer: Its tokenizer; it stays as it is.
        tasks: Names, or paths of YAML files or of folders of them.
        batch_size: Rows in one forward pass.
        limit: The most rows of each task; all where not given.
        langs: The languages that a task's name may end with; a task without one is of language ``und``.

    Raises:
        ConfigError: A task's file cannot be used.
        DataError: A task's data are not here, or the task cannot be carried out on them.
        UsageError: The harness is not installed, there is no such task, or an argument makes no sense.
    """
    if not tasks:
        raise UsageError("no task of lm-evaluation-harness is named", hint="name some: --lm-eval TASK,TASK or a folder")
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} rows leaves nothing to measure", hint="give 1 or more")
    training = model.training
    with _offline_environment(), ExitStack() as stack:
        _require_harness()
        stack.enter_context(_offline_libraries())
        stack.enter_context(_quietly())
        stack.enter_context(_own_randomness())
        stack.callback(model.train, training)
        found = _loaded(tasks)
        harness = _harness_model(model, copy.deepcopy(tokenizer), batch_size)
        return tuple(_cell(harness, task, limit=limit, langs=langs) for task in found.values())


def _require_harness() -> None:
    try:
        import lm_eval.evaluator
        import lm_eval.models.huggingface  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"lm-evaluation-harness is not installed: {error}", hint="run: pip install 'adapterctl[lm-eval]'"
        ) from error


@contextmanager
def _offline_environment() -> Iterator[None]:
    """Keep the Hugging Face libraries that are imported meanwhile from the network."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _offline_libraries() -> Iterator[None]:
    """Keep the Hugging Face libraries from the network that were imported before."""
    config, hub = import_module("datasets").config, import_module("huggingface_hub.constants")
    with (
        _replaced(config, "HF_HUB_OFFLINE", True),
        _replaced(config, "HF_DATASETS_OFFLINE", True),
        _replaced(hub, "HF_HUB_OFFLINE", True),
    ):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep bars and remarks off the screen, where the command shows its own progress."""
    import lm_eval.api.task

    datasets = import_module("datasets")
    log = logging.getLogger("lm_eval")
    level, bars = log.level, datasets.are_progress_bars_disabled()
    if not logging.getLogger().isEnabledFor(logging.INFO):
        log.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with _replaced(lm_eval.api.task, "tqdm", _no_bar):
            yield
    finally:
        log.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _no_bar(items: Iterable[Any], **_: Any) -> Iterable[Any]:
    return items


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Give the harness the random numbers it starts with, and everybody else theirs back."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(_SEEDS[0])
        np.random.seed(_SEEDS[1])
        torch.manual_seed(_SEEDS[2])
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _harness_model(model: Any, tokenizer: Any, batch_size: int) -> Any:
    """Return the model in the harness's form, without its bars."""
    from lm_eval.models.huggingface import HFLM

    class Quiet(HFLM):  # type: ignore[misc]
        """Its own methods, each with the bar left out."""

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, **others: Any) -> Any:
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, **others)

    return Quiet(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def _loaded(specs: Sequence[str]) -> dict[str, Any]:
    """Return the tasks by name, each with its data.

    Raises:
        ConfigError: A task's file cannot be used.
        DataError: Data are not here.
        UsageError: There is no such task.
    """
    from lm_eval.tasks import TaskManager

    folders = {spec: TaskManager(include_path=spec, include_defaults=False) for spec in specs if Path(spec).is_dir()}
    local = {name for folder in folders.values() for name in folder.all_tasks}
    # The harness's own tasks are many thousand files; they are looked through only for names that are not here.
    far = any(spec not in folders and spec not in local and not Path(spec).is_file() for spec in specs)
    manager = TaskManager(include_path=list(folders), include_defaults=far)
    wanted: list[str] = []
    unknown: list[str] = []
    for spec in specs:
        named = folders[spec].all_subtasks if spec in folders else [spec]
        known = bool(named) and (spec in folders or Path(spec).is_file() or spec in manager.task_index)
        wanted += named if known else []
        unknown += [] if known else [spec]
    _refuse_unknown(unknown, manager.all_tasks)
    tasks: dict[str, Any] = {}
    problems: list[Problem] = []
    for spec in wanted:
        for name, task in _load(manager, spec, problems).items():
            if name in tasks and (spec in tasks or _source(task) != _source(tasks[name])):
                raise UsageError(
                    f"task '{name}' is named twice", hint="name it once, or give one of the two a new name"
                )
            tasks[name] = task
    if problems:
        raise DataError(
            "the data of these tasks cannot be read, and nothing is downloaded",
            problems=problems,
            hint="name local files under dataset_kwargs.data_files, or load the data once into the cache of 'datasets'",
        )
    return tasks


def _source(task: Any) -> Any:
    return (task.get_config("metadata") or {}).get("config_source")


def _refuse_unknown(unknown: Sequence[str], known: Sequence[str]) -> None:
    if not unknown:
        return
    problems = []
    for spec in unknown:
        close = get_close_matches(spec, known, n=3)
        if Path(spec).is_dir():
            problems.append(Problem(spec, "the folder holds no YAML file of a task"))
        elif os.sep in spec or spec.endswith((".yaml", ".yml")):
            problems.append(Problem(spec, "there is no such file or folder"))
        else:
            hint = f"did you mean {', '.join(close)}?" if close else ""
            problems.append(Problem("", f"lm-evaluation-harness has no task '{spec}'", hint))
    raise UsageError(
        "not all tasks are known",
        problems=problems,
        hint="run: lm-eval ls tasks; or give the path of a task's YAML file",
    )


def _load(manager: Any, spec: str, problems: list[Problem]) -> dict[str, Any]:
    """Return the tasks behind one name or file; adds to ``problems`` where their data are not here."""
    unread = import_module("datasets.exceptions").DatasetGenerationError
    try:
        found: dict[str, Any] = manager.load([spec])["tasks"]
    except (FileNotFoundError, ConnectionError, unread) as error:
        problems.append(Problem(spec, _said(error.__cause__ or error)))
        return {}
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        # A task's file can name any field, template and code, and each fails in a way of its own.
        raise ConfigError(
            f"task '{spec}' of lm-evaluation-harness cannot be loaded: {_said(error)}",
            hint="mend the task's YAML file; its fields are told in docs/task_guide.md of lm-evaluation-harness",
        ) from error
    return found


def _cell(harness: Any, task: Any, *, limit: int | None, langs: Sequence[str]) -> Cell:
    """Run one task.

    Raises:
        DataError: It cannot be carried out.
    """
    import jinja2
    from lm_eval.evaluator import evaluate

    name = task.task_name
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=_SEEDS[3])
    # Not simple_evaluate, which does the same and then collects facts of the machine with programs that write to the
    # terminal.
    try:
        said = evaluate(
            lm=harness,
            task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError, jinja2.TemplateError) as error:
        raise DataError(
            f"task '{name}' of lm-evaluation-harness cannot be carried out: {_said(error)}",
            hint="check the task's YAML file against the fields of its rows",
        ) from error
    parts = (
        f"lm-eval:{version('lm-eval')}",
        f"task:{name}@{said['versions'][name]}",
        f"config:{_config_hash(task)}",
        f"shots:{said['n-shot'][name]}",
        f"rows:{'all' if limit is None else limit}",
        "engine:transformers",
    )
    return cell_of(
        name,
        language_of(name, langs),
        said["results"][name],
        said["samples"][name],
        aggregations=task.aggregation(),
        higher_is_better=said["higher_is_better"][name],
        signature="|".join(parts),
    )


def _config_hash(task: Any) -> str:
    """Return a hash of what a task's file says, without where it and its data lie."""
    config = {name: value for name, value in task.dump_config().items() if name != "dataset_kwargs"}
    config["metadata"] = {key: value for key, value in (config.get("metadata") or {}).items() if key != "config_source"}
    text = json.dumps(config, sort_keys=True, default=_named)
    return short(hashlib.sha256(text.encode()).hexdigest())


def _named(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


def _said(error: BaseException) -> str:
    """Return an error's type and what it says, on one line."""
    said = " ".join(str(error).split())
    told = said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}..."
    return f"{type(error).__name__}: {told}" if told else type(error).__name__
