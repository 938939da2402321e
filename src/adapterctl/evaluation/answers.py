"""From rows to answers: rows as token ids, and what an engine makes of them before any metric. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from adapterctl.errors import AdapterError, DataError
from adapterctl.evaluation.engine import Engine, PreparedRow
from adapterctl.examples import Example
from adapterctl.fingerprint import fingerprint, short
from adapterctl.prompts import Encoded, Rendered, encode_all, render
from adapterctl.prompts import answers as answers_of
from adapterctl.tasks import TaskSettings

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Is told the rows answered so far, and the rows in all."""

_DIGITS = 5
"""Decimals of log-likelihoods: what differs by less is rounding of the number format, and counts as equal."""


@dataclass(frozen=True)
class Answer:
    """What an engine made of a row, before any metric.

    Attributes:
        prediction: The chosen label or choice, or the generated text; empty for text that is only read.
        details: Labels and choices: ``log_likelihoods`` in nats and ``lengths`` in characters of the candidates,
            ``chosen`` and ``answer`` as their indices; ``chosen_norm`` by log-likelihood per character for multiple
            choice; ``priors`` where the task is calibrated; ``with_end`` where the end token was scored too. Text:
            ``ended``. Text that is read: ``nats``, ``tokens``, ``bytes``. ``dropped_tokens`` where the prompt was cut.
    """

    prediction: str
    details: Mapping[str, Any] = field(default_factory=dict)


def prepare(
    tokenizer: Any,
    examples: Sequence[Example],
    tasks: Mapping[str, TaskSettings],
    *,
    chat: bool,
    context: int | None,
) -> tuple[PreparedRow, ...]:
    """Return the rows as an engine takes them, in the order given.

    A prompt that does not fit the model's context loses its beginning, but for the start token; a text that is only
    read loses its end. Where the tokens of one candidate are the beginning of another's, the end token is added to
    all candidates of the row: without it the longer one could never be more likely.

    Args:
        tokenizer: The base model's.
        examples: The rows.
        tasks: Settings of every task the rows name.
        chat: Whether prompts are chats.
        context: How many tokens the model reads at most; None where it does not say.

    Raises:
        BaseModelError: A chat is asked for, but the tokenizer has no chat template.
        DataError: A row has an empty prompt or a candidate without tokens, or its task no prompt for its language; or
            a text that is read is too short.
    """
    rendered = [render(example, tasks[example.task], chat=chat) for example in examples]
    encoded = encode_all(tokenizer, rendered)
    priors = _priors(tokenizer, examples, tasks, chat=chat, context=context)
    rows = []
    for example, text, ids in zip(examples, rendered, encoded, strict=True):
        task = tasks[example.task]
        asked = short(fingerprint([text.prompt, text.target, text.candidates]))
        if task.reads:
            rows.append(_reading(tokenizer, example, task, ids.prompt, asked, context))
            continue
        _refuse_empty(example, text, ids)
        candidates, with_end = _told_apart(ids.candidates, tokenizer.eos_token_id)
        prompt = _fitting(ids.prompt, _room(task, candidates), tokenizer, context)
        prior = priors.get((example.task, example.lang), ()) if not (example.prompt or example.messages) else ()
        dropped = len(ids.prompt) - len(prompt)
        rows.append(PreparedRow(example, task, prompt, candidates, dropped, asked, with_end, prior))
    return tuple(rows)


def _place(example: Example) -> str:
    return f"row '{example.id}' ({example.lang}, {example.task})"


def _refuse_empty(example: Example, text: Rendered, ids: Encoded) -> None:
    if not ids.prompt:
        raise DataError(
            f"{_place(example)} has an empty prompt", hint=f"set tasks.{example.task}.prompt in the suite file"
        )
    if not all(ids.candidates):
        raise DataError(
            f"{_place(example)}: the tokenizer makes no token of a candidate: {text.candidates}",
            hint="write another label or choice",
        )


def _told_apart(candidates: tuple[tuple[int, ...], ...], end: int | None) -> tuple[tuple[tuple[int, ...], ...], bool]:
    """Return the candidates, with the end token where one is the beginning of another; and whether that was so."""
    beginnings = {tokens[:length] for tokens in candidates for length in range(1, len(tokens))}
    if end is None or beginnings.isdisjoint(candidates):
        return candidates, False
    return tuple((*tokens, end) for tokens in candidates), True


def _room(task: TaskSettings, candidates: Sequence[Sequence[int]]) -> int:
    return max(map(len, candidates), default=task.max_new_tokens)


def _fitting(prompt: tuple[int, ...], answer: int, tokenizer: Any, context: int | None) -> tuple[int, ...]:
    """Return the prompt without what is too much at its beginning."""
    if context is None or len(prompt) + answer <= context:
        return prompt
    # An answer that fills the context by itself still gets some of the prompt.
    room = max(context - answer, context // 2)
    if prompt[0] == tokenizer.bos_token_id:
        return (prompt[0], *prompt[1 - room :])
    return prompt[-room:]


def _reading(
    tokenizer: Any, example: Example, task: TaskSettings, prompt: tuple[int, ...], asked: str, context: int | None
) -> PreparedRow:
    """Return a row of text that is read: from the start token on, or the end token where there is no start token."""
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is not None:
        prompt = (tokenizer.eos_token_id, *prompt)
    kept = prompt[:context]
    if len(kept) < 2:
        raise DataError(f"{_place(example)} has too little text to read", hint="remove the row")
    text = example.input
    if len(kept) < len(prompt):
        # Half a character at the cut decodes to replacement characters.
        text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False).rstrip("\ufffd")
    dropped, size = len(prompt) - len(kept), len(text.encode("utf-8"))
    return PreparedRow(example, task, kept, (), dropped, asked, bytes=size)


def _priors(
    tokenizer: Any,
    examples: Sequence[Example],
    tasks: Mapping[str, TaskSettings],
    *,
    chat: bool,
    context: int | None,
) -> dict[tuple[str, str], tuple[int, ...]]:
    """Return the prompts without content of every calibrated task and language.

    Rows that bring their own prompt have none: nobody can tell which part of it is content.
    """
    bare = {
        (example.task, example.lang): replace(example, input="", question="", context="", direction="")
        for example in examples
        if tasks[example.task].calibration == "prior" and not (example.prompt or example.messages)
    }
    texts = [render(example, tasks[example.task], chat=chat) for example in bare.values()]
    prompts = {}
    for example, text, ids in zip(bare.values(), texts, encode_all(tokenizer, texts), strict=True):
        _refuse_empty(example, text, ids)
        candidates, _ = _told_apart(ids.candidates, tokenizer.eos_token_id)
        task = tasks[example.task]
        prompts[example.task, example.lang] = _fitting(ids.prompt, _room(task, candidates), tokenizer, context)
    return prompts


def answer(engine: Engine, rows: Sequence[PreparedRow], progress: Progress | None = None) -> tuple[Answer, ...]:
    """Let an engine answer rows; rows that ask the same are answered once.

    A label or choice is the candidate with the highest Σ log p(token | prompt, tokens before), in multiple choice also
    with the highest per character of its text (``acc_norm`` of lm-evaluation-harness); with calibration ``prior`` the
    highest after the candidate's log-likelihood behind the prompt without content is subtracted (Zhao et al. 2021,
    "Calibrate Before Use", arXiv 2102.09690). Of equal ones it is the first.

    Args:
        engine: What answers.
        rows: As ``prepare`` gives them.
        progress: Is told whenever rows have been answered.

    Returns:
        The answers in the order of ``rows``.

    Raises:
        AdapterError: The model answers with NaN, or finds a candidate or text impossible.
    """
    told = 0

    def tell(count: int) -> None:
        nonlocal told
        told += count
        if progress is not None:
            progress(told, len(rows))

    priors = _priors_of(engine, rows)
    likelihoods = _asked_once(engine.log_likelihoods, rows, [row.task.chooses for row in rows], tell)
    # Texts come last: they take longest, and what is wrong with the model shows before.
    found = {
        place: _chosen(rows[place], values, priors.get((rows[place].prior, rows[place].candidates)))
        for place, values in likelihoods.items()
    }
    readings = _asked_once(engine.readings, rows, [row.task.reads for row in rows], tell)
    found |= {place: _read(rows[place], nats, tokens) for place, (nats, tokens) in readings.items()}
    texts = _asked_once(engine.texts, rows, [row.task.generates for row in rows], tell)
    found |= {place: _answered(rows[place], text.strip(), {"ended": ended}) for place, (text, ended) in texts.items()}
    return tuple(found[place] for place in range(len(rows)))


def _asked_once(
    ask: Callable[[Sequence[PreparedRow]], Iterator[tuple[int, T]]],
    rows: Sequence[PreparedRow],
    wanted: Sequence[bool],
    tell: Callable[[int], None],
) -> dict[int, T]:
    """Return what ``ask`` says of the wanted rows, by their place; rows that are the same to it are asked once."""
    same: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(rows):
        if wanted[place]:
            same.setdefault((row.prompt, row.candidates, row.task.max_new_tokens), []).append(place)
    groups = list(same.values())
    found: dict[int, T] = {}
    if groups:
        for index, result in ask([rows[places[0]] for places in groups]):
            found |= dict.fromkeys(groups[index], result)
            tell(len(groups[index]))
    return found


def _priors_of(engine: Engine, rows: Sequence[PreparedRow]) -> dict[tuple[Any, ...], tuple[float, ...]]:
    """Return, by prompt without content and candidates, the log-likelihoods that calibration subtracts."""
    bare = {(row.prior, row.candidates): replace(row, prompt=row.prior) for row in rows if row.prior}
    found = dict(engine.log_likelihoods(list(bare.values()))) if bare else {}
    return {key: _rounded(row, found[place]) for place, (key, row) in enumerate(bare.items())}


def _rounded(row: PreparedRow, values: Iterable[float]) -> tuple[float, ...]:
    rounded = tuple(round(value, _DIGITS) for value in values)
    for value in rounded:
        if not math.isfinite(value):
            raise not_a_number(row, value)
    return rounded


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])


def _chosen(row: PreparedRow, values: tuple[float, ...], priors: tuple[float, ...] | None) -> Answer:
    values = _rounded(row, values)
    texts, right = answers_of(row.example, row.task)
    lengths = [len(text) for text in texts]
    compared = values
    details: dict[str, Any] = {"log_likelihoods": list(values), "lengths": lengths}
    if priors is not None:
        compared = tuple(round(value - prior, _DIGITS) for value, prior in zip(values, priors, strict=True))
        details["priors"] = list(priors)
    chosen = _best(compared)
    details |= {"chosen": chosen, "answer": right}
    if row.task.kind == "multiple-choice":
        details["chosen_norm"] = _best([value / length for value, length in zip(values, lengths, strict=True)])
    if row.with_end:
        details["with_end"] = True
    return _answered(row, texts[chosen], details)


def _read(row: PreparedRow, nats: float, tokens: int) -> Answer:
    (nats,) = _rounded(row, [nats])
    return _answered(row, "", {"nats": nats, "tokens": tokens, "bytes": row.bytes})


def _answered(row: PreparedRow, prediction: str, details: Mapping[str, Any]) -> Answer:
    return Answer(prediction, {**details, **({"dropped_tokens": row.dropped} if row.dropped else {})})


def not_a_number(row: PreparedRow, value: float = math.nan) -> AdapterError:
    """Return the error of a model that answers a row with NaN or an infinite log-likelihood."""
    what = "NaN (not a number)" if math.isnan(value) else f"a log-likelihood of {value}"
    return AdapterError(
        f"the model answers {_place(row.example)} with {what}",
        hint="train or merge the adapter again; with base_model.dtype float16 choose bfloat16 or float32",
    )
