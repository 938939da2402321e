"""Rows of examples: read, checked line by line, every bad line named.

Three forms of row are taken, one JSON object a line:

* the project's own: ``id, lang, task, reference`` with ``input``, or with ``question`` and ``choices``;
* TRL's ``prompt``/``completion``, as text or as lists of turns;
* ``messages``, whose last turn is the assistant's and becomes the reference.

Text that is only read, for a task of kind ``perplexity``, is a row of the own form without ``reference``, its text in
``input`` or ``text``. Fields that are not named here, such as a row's source, are passed over.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapterctl.errors import DataError, Problem
from adapterctl.tasks import INSTRUCTION, TaskSettings

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOST_SHOWN = 50
_MEND = "mend or remove these lines, then run the same command again"


@dataclass(frozen=True)
class Example:
    """One row.

    Attributes:
        id: Unique within a language.
        lang: BCP-47 tag of the adapter the row belongs to.
        task: Name of a task of the suite.
        reference: The right answer: a label, a letter or text; empty for text that is only read.
        input, question, context: Parts of the prompt; empty where the row has none.
        choices: What a ``multiple-choice`` row offers.
        answer_index: Which choice is right; -1 for other rows.
        prompt: The whole prompt of a row that brings its own.
        messages: The turns before the answer, of a row that is a chat.
        group: Rows of one group are not independent of one another, such as the two directions of a sentence pair;
            statistics resample groups. A row without one stands for itself.
        direction: Of a translation: ``en-ja``.
    """

    id: str
    lang: str
    task: str
    reference: str
    input: str = ""
    question: str = ""
    context: str = ""
    choices: tuple[str, ...] = ()
    answer_index: int = -1
    prompt: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    group: str = ""
    direction: str = ""

    @property
    def asked(self) -> tuple[Any, ...]:
        """What the row asks, without its id and its answer: equal for rows that overlap.

        Texts are compared without regard to case, width (NFKC) and white space.
        """
        return (
            self.lang,
            self.task,
            self.direction,
            *map(_folded, (self.input, self.question, self.context, self.prompt)),
            tuple(sorted(map(_folded, self.choices))),
            tuple((role, _folded(content)) for role, content in self.messages),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything the row says, for hashing and for storage; what few rows say is left out of the others."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value or name not in ("group", "direction")}


def _folded(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


class _Bad(Exception):
    """What is wrong with one row; the reader adds the place."""


def _turns(value: Any, name: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise _Bad(f"'{name}' must be a list of turns, each with 'role' and 'content'")
    turns = []
    for turn in value:
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise _Bad(f"a turn of '{name}' must be an object with 'role' and 'content'")
        if not isinstance(turn.get("content"), str):
            raise _Bad(f"a turn of '{name}' has no text in 'content'")
        turns.append((turn["role"], turn["content"]))
    return tuple(turns)


def _last_turn(turns: tuple[tuple[str, str], ...], name: str) -> tuple[tuple[tuple[str, str], ...], str]:
    if turns[-1][0] != "assistant":
        raise _Bad(f"the last turn of '{name}' is not the assistant's")
    return turns[:-1], turns[-1][1]


def _own_prompt(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return prompt and reference of a row in one of TRL's forms, None for the project's own form."""
    if "messages" in row:
        before, answer = _last_turn(_turns(row["messages"], "messages"), "messages")
        if not before:
            raise _Bad("'messages' has no turn before the assistant's")
        return {"messages": before, "reference": answer}
    if "completion" not in row:
        return None
    prompt, completion = row.get("prompt"), row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        before, answer = _last_turn(_turns(completion, "completion"), "completion")
        return {"messages": _turns(prompt, "prompt") + before, "reference": answer}
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise _Bad("'prompt' and 'completion' must both be text, or both lists of turns")
    if not prompt.strip():
        raise _Bad("'prompt' is empty")
    return {"prompt": prompt, "reference": completion}


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise _Bad(f"'{name}' must be text, not {type(value).__name__}")
    return value


def _required(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise _Bad(f"field '{name}' is missing")
    text = _text(row, name)
    if not text.strip():
        raise _Bad(f"field '{name}' is empty")
    return text


def _choice_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    choices = row.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise _Bad("'choices' must be a list of texts")
    if not 2 <= len(choices) <= len(LETTERS):
        raise _Bad(f"'choices' has {len(choices)} entries; 2 to {len(LETTERS)} are possible")
    if len(set(choices)) != len(choices):
        raise _Bad("'choices' names the same choice twice")
    reference = _required(row, "reference")
    found = [i for i, choice in enumerate(choices) if reference in (LETTERS[i], choice)]
    if len(found) > 1:
        raise _Bad(f"reference '{reference}' is the letter of one choice and the text of another")
    if not found:
        raise _Bad(f"reference '{reference}' is neither the letter nor the text of one of the choices")
    index = row.get("answer_index", found[0])
    if index != found[0] or isinstance(index, bool):
        raise _Bad(f"'answer_index' is {index!r} but the reference '{reference}' is choice {found[0]}")
    return {"question": _required(row, "question"), "choices": tuple(choices), "answer_index": found[0]}


def parse_row(row: Any, *, lang: str, tasks: Mapping[str, TaskSettings], fallback_id: str) -> Example:
    """Return the example a JSON value describes.

    Args:
        row: What one line holds.
        lang: The language the file belongs to.
        tasks: The suite's tasks.
        fallback_id: The id of a row in one of TRL's forms that has none.

    Raises:
        DataError: The row cannot be used; the message says why.
    """
    try:
        return _parse(row, lang, tasks, fallback_id)
    except _Bad as bad:
        raise DataError(str(bad)) from None


def _require_unicode(value: Any) -> None:
    """Refuse half of a surrogate pair, which JSON can write and neither a tokenizer nor a file can take."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise _Bad(f"holds half of a character (\\u{half:04x} without the other surrogate)") from None


def _parse(row: Any, lang: str, tasks: Mapping[str, TaskSettings], fallback_id: str) -> Example:
    if not isinstance(row, dict):
        raise _Bad(f"a row must be a JSON object, not {type(row).__name__}")
    _require_unicode(row)
    own = _own_prompt(row)
    if own is None:
        name, said, row_id = _required(row, "task"), _required(row, "lang"), _required(row, "id")
    else:
        name, said = _text(row, "task") or INSTRUCTION, _text(row, "lang") or lang
        row_id = _text(row, "id") or fallback_id
    if said != lang:
        raise _Bad(f"the row is in language '{said}', the file belongs to '{lang}'")
    task = tasks.get(name)
    if task is None:
        raise _Bad(f"task '{name}' is not in the suite; it knows {', '.join(sorted(tasks))}")
    place: dict[str, Any] = {"id": row_id, "lang": lang, "task": name, "group": _text(row, "group")}
    if own is not None:
        if task.reads:
            raise _Bad(f"task '{name}' reads text as it stands; write it as 'text', without prompt and answer")
        if not own["reference"].strip():
            raise _Bad("the answer is empty")
        if task.chooses and own["reference"] not in task.labels_for(lang):
            raise _Bad(f"a row with its own prompt cannot answer a task of kind '{task.kind}' outside its labels")
        return Example(**place, **own)
    if task.reads:
        return Example(**place, reference="", input=_required(row, "text" if "text" in row else "input"))
    fields: dict[str, Any] = {"reference": _required(row, "reference")}
    fields |= {part: _text(row, part) for part in ("context", "direction")}
    if task.kind == "multiple-choice":
        fields |= _choice_fields(row)
    else:
        fields["input"] = _required(row, "input")
        labels = task.labels_for(lang)
        if task.kind == "classification" and fields["reference"] not in labels:
            raise _Bad(f"reference '{fields['reference']}' is not one of the labels {', '.join(labels) or '(none)'}")
    return Example(**place, **fields)


def _name_of(path: Path, root: Path | None) -> str:
    """Return how a file is called in messages: by its path from ``root`` where it lies there, else by its name."""
    return path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else path.name


def _read_file(
    path: Path, name: str, lang: str, tasks: Mapping[str, TaskSettings], training: bool
) -> tuple[list[tuple[str, Example]], list[Problem]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        return [], [Problem(str(path), f"cannot be read: {error.strerror}")]
    examples: list[tuple[str, Example]] = []
    problems: list[Problem] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        where = f"{name}:{number}"
        try:
            text = line.decode("utf-8").strip("\ufeff \t\r")
            if not text:
                continue
            example = _parse(json.loads(text), lang, tasks, f"{path.stem}-{number}")
            if training and tasks[example.task].reads:
                raise _Bad(f"a row of task '{example.task}' has no answer to learn; it belongs to dev or test")
        except UnicodeDecodeError as error:
            problems.append(Problem(where, f"is not UTF-8 (byte {error.start} of the line)"))
        except json.JSONDecodeError as error:
            problems.append(Problem(where, f"is not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"))
        except ValueError:
            problems.append(Problem(where, "holds a number with too many digits"))
        except RecursionError:
            problems.append(Problem(where, "is nested too deeply"))
        except _Bad as bad:
            problems.append(Problem(where, str(bad)))
        else:
            examples.append((where, example))
    return examples, problems


def _repeated(sources: Iterable[tuple[str, Example]]) -> list[Problem]:
    first: dict[tuple[str, str], str] = {}
    problems = []
    for where, example in sources:
        key = (example.task, example.id)
        if key in first:
            problems.append(
                Problem(where, f"id '{example.id}' of task '{example.task}' stands twice (also in {first[key]})")
            )
        first.setdefault(key, where)
    return problems


def read_rows(
    paths: Sequence[Path],
    *,
    lang: str,
    tasks: Mapping[str, TaskSettings],
    root: Path | None = None,
    training: bool = False,
) -> tuple[tuple[Example, ...], tuple[Problem, ...]]:
    """Read the rows of one language's split from JSONL files.

    Args:
        paths: The files.
        lang: The language they belong to.
        tasks: The suite's tasks.
        root: Problems name files by their path from this folder; by their bare name when not given.
        training: Whether the rows are to be learnt from, so that text without an answer is a problem.

    Returns:
        The good rows in the order of the files, and every problem found; the caller decides when to give up, so that
        the problems of all splits can be shown at once.
    """
    sources: list[tuple[str, Example]] = []
    problems: list[Problem] = []
    for path in paths:
        name = _name_of(path, root)
        examples, found = _read_file(path, name, lang, tasks, training)
        sources += examples
        problems += found
    problems += _repeated(sources)
    return tuple(example for _, example in sources), tuple(problems)


def overlap(
    train: Iterable[Example], held_out: Iterable[Example], split: str, *, other: str = "training"
) -> list[Problem]:
    """Return one problem for every held-out row that is also trained on: equal prompts, whatever the ids.

    Args:
        train: The rows that must not come again.
        held_out: The rows that are looked through.
        split: How the held-out rows are called in messages.
        other: How the rows of ``train`` are called.
    """
    known = {example.asked: example.id for example in train}
    looked_up = ((example, known.get(example.asked)) for example in held_out)
    return [
        Problem(split, f"row '{example.id}' asks the same as {other} row '{found}'")
        for example, found in looked_up
        if found is not None
    ]


def refuse(problems: Sequence[Problem], what: str, *, hint: str = _MEND) -> None:
    """Raise one error for all problems of the data, if there are any.

    Args:
        problems: What was found.
        what: The data, for the message.
        hint: What mends it.

    Raises:
        DataError: ``problems`` is not empty.
    """
    if not problems:
        return
    shown = list(problems[:_MOST_SHOWN])
    if len(problems) > _MOST_SHOWN:
        shown.append(Problem("", f"and {len(problems) - _MOST_SHOWN} more"))
    rows = "row" if len(problems) == 1 else "rows"
    raise DataError(
        f"{what}: {len(problems)} bad {rows}; nothing was trained or scored",
        problems=shown,
        hint=hint,
    )
