"""Rows on their way to an engine and back, with an engine that says what a test tells it to."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from adapterctl.errors import AdapterError, BaseModelError, DataError
from adapterctl.evaluation.answers import Answer, answer, prepare
from adapterctl.evaluation.engine import PreparedRow
from adapterctl.examples import Example, parse_row
from adapterctl.tasks import TaskSettings

QUIZ = TaskSettings(kind="multiple-choice", prompt="{question}")
MOOD = TaskSettings(kind="classification", prompt="Review: {input} ->", labels=["good", "bad"])
RECAP = TaskSettings(kind="generation", prompt="{input}\n", max_new_tokens=20)
READ = TaskSettings(kind="perplexity")
TASKS = {"quiz": QUIZ, "mood": MOOD, "recap": RECAP, "read": READ}


class Scripted:
    """Answers rows backwards, by functions of the row, and remembers what it was asked."""

    signature = "scripted"

    def __init__(
        self,
        values: Callable[[PreparedRow], Sequence[float]] = lambda row: [0.0] * len(row.candidates),
        text: str = "rain",
        nats: float = 7.0,
    ) -> None:
        self.values, self.text, self.nats = values, text, nats
        self.calls: list[tuple[str, list[PreparedRow]]] = []

    def _backwards(self, name: str, rows: Sequence[PreparedRow]) -> Iterator[int]:
        self.calls.append((name, list(rows)))
        return iter(range(len(rows) - 1, -1, -1))

    def log_likelihoods(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[float, ...]]]:
        for place in self._backwards("choose", rows):
            yield place, tuple(self.values(rows[place]))

    def texts(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[str, bool]]]:
        for place in self._backwards("write", rows):
            yield place, (self.text, place % 2 == 0)

    def readings(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[float, int]]]:
        for place in self._backwards("read", rows):
            yield place, (self.nats, len(rows[place].prompt) - 1)


@pytest.fixture
def ids(tokenizer: Any) -> Callable[[str], list[int]]:
    return lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.fixture
def prepared(tokenizer: Any) -> Callable[..., tuple[PreparedRow, ...]]:
    def prepare_all(*examples: Example, tasks: Any = TASKS, chat: bool = False, context: int | None = 400) -> Any:
        return prepare(tokenizer, examples, tasks, chat=chat, context=context)

    return prepare_all


def quiz(row_id: str = "q", *choices: str, right: int = 0, question: str = "what?") -> Example:
    return Example(
        row_id, "en", "quiz", "A", question=question, choices=choices or ("rain", "film"), answer_index=right
    )


def mood(row_id: str = "m", text: str = "warm soup", reference: str = "good") -> Example:
    return Example(row_id, "en", "mood", reference, input=text)


def recap(row_id: str = "r", text: str = "two trains met") -> Example:
    return Example(row_id, "en", "recap", "trains", input=text)


def reading(text: str, row_id: str = "t") -> Example:
    return Example(row_id, "en", "read", "", input=text)


def test_rows_become_token_ids_in_their_order(prepared, ids):
    rows = prepared(recap(), mood(), quiz(), reading("rain"))
    assert [row.example.id for row in rows] == ["r", "m", "q", "t"]
    assert rows[0].prompt == (1, *ids("two trains met\n"))
    assert rows[1].prompt == (1, *ids("Review: warm soup ->"))
    assert rows[1].candidates == (tuple(ids(" good")), tuple(ids(" bad")))
    assert rows[2].candidates == (tuple(ids(" rain")), tuple(ids(" film")))
    assert rows[3].prompt == (1, *ids("rain"))
    assert (rows[0].candidates, rows[3].candidates) == ((), ())
    assert [row.bytes for row in rows] == [0, 0, 0, 4]


def test_the_hash_says_what_is_asked_and_offered(prepared):
    def asked(example: Example, **changes: Any) -> str:
        (row,) = prepared(example, **changes)
        return row.asked

    same = asked(mood())
    assert same == asked(mood("other id"))
    others = [
        asked(mood(text="cold soup")),
        asked(mood(reference="bad")),
        asked(mood(), tasks={"mood": MOOD.model_copy(update={"labels": ["good", "poor"]})}),
        asked(mood(), tasks={"mood": MOOD.model_copy(update={"separator": ""})}),
    ]
    assert len({same, *others}) == 5


def test_a_chat_asks_something_else_and_needs_a_template(tokenizer):
    with pytest.raises(BaseModelError, match="no chat template"):
        prepare(tokenizer, [mood()], TASKS, chat=True, context=None)
    chatting = copy.deepcopy(tokenizer)
    chatting.chat_template = "{% for m in messages %}<turn>{{ m.content }}{% endfor %}"
    (chat,) = prepare(chatting, [mood()], TASKS, chat=True, context=None)
    (plain,) = prepare(tokenizer, [mood()], TASKS, chat=False, context=None)
    assert chat.asked != plain.asked
    # Text that is read is no chat, whatever the base model.
    rows = [prepare(chatting, [reading("rain")], TASKS, chat=chat, context=None) for chat in (True, False)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("bos", ["<s>", None])
def test_a_prompt_beyond_the_context_loses_its_beginning_but_not_the_start_token(tokenizer, ids, bos):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = bos
    (row,) = prepare(tokenizer, [recap(text="rain film " * 40)], TASKS, chat=False, context=50)
    whole = ids("rain film " * 40 + "\n")
    start = [1] if bos else []
    assert row.prompt == (*start, *whole[len(start) - 30 :])
    assert row.dropped == len(whole) + len(start) - 30


def test_an_answer_as_long_as_the_context_leaves_half_of_it_to_the_prompt(prepared):
    task = RECAP.model_copy(update={"max_new_tokens": 64})
    (row,) = prepared(recap(text="rain film " * 40), tasks={"recap": task}, context=40)
    assert (len(row.prompt), row.prompt[0]) == (20, 1)


def test_candidates_that_begin_alike_get_the_end_token(prepared, ids):
    (apart,) = prepared(quiz("a", "good", "bad"))
    (alike,) = prepared(quiz("b", "good", "good film", "rain"))
    assert not apart.with_end
    assert alike.with_end
    assert alike.candidates == tuple((*ids(f" {text}"), 2) for text in ("good", "good film", "rain"))


def test_candidates_that_begin_alike_stay_where_there_is_no_end_token(tokenizer, ids):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = None
    (row,) = prepare(tokenizer, [quiz("b", "good", "good film")], TASKS, chat=False, context=None)
    assert not row.with_end
    assert row.candidates == (tuple(ids(" good")), tuple(ids(" good film")))


def test_an_empty_prompt_is_refused(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = None
    empty = {"recap": RECAP.model_copy(update={"prompt": ""})}
    with pytest.raises(DataError, match=r"row 'r' \(en, recap\) has an empty prompt") as caught:
        prepare(tokenizer, [recap()], empty, chat=False, context=None)
    assert caught.value.hint == "set tasks.recap.prompt in the suite file"


def test_a_calibrated_task_whose_template_is_all_content_needs_a_start_token(tokenizer):
    task = {"mood": TaskSettings(kind="classification", prompt="{input}", labels=["good", "bad"], calibration="prior")}
    (row,) = prepare(tokenizer, [mood()], task, chat=False, context=None)
    assert row.prior == (1,)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = None
    with pytest.raises(DataError, match="has an empty prompt"):
        prepare(tokenizer, [mood()], task, chat=False, context=None)


def test_a_candidate_without_tokens_is_refused(prepared):
    bare = {"quiz": QUIZ.model_copy(update={"separator": ""})}
    with pytest.raises(DataError, match="no token of a candidate"):
        prepared(quiz("q", "good", ""), tasks=bare)


def test_text_is_read_from_the_start_token_or_the_end_token_on(tokenizer, ids):
    (with_start,) = prepare(tokenizer, [reading("rain")], TASKS, chat=False, context=None)
    assert with_start.prompt == (1, *ids("rain"))
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = None
    (without,) = prepare(tokenizer, [reading("rain")], TASKS, chat=False, context=None)
    assert without.prompt == (2, *ids("rain"))
    tokenizer.eos_token = None
    (bare,) = prepare(tokenizer, [reading("rain film")], TASKS, chat=False, context=None)
    assert bare.prompt == tuple(ids("rain film"))


def test_text_is_cut_at_its_end_and_counted_in_whole_characters(prepared, ids):
    """Every kana is three tokens of one byte each."""
    (row,) = prepared(reading("すすすす"), context=9)
    assert ids("す") == list(row.prompt[1:4])
    assert len(row.prompt) == 9
    assert row.dropped == 4
    assert row.bytes == len("すす".encode())


def test_text_of_one_token_is_refused(prepared):
    with pytest.raises(DataError, match=r"row 't' \(en, read\) has too little text to read"):
        prepared(reading("rain"), context=1)


def test_the_candidate_with_the_highest_log_likelihood_is_chosen(prepared):
    rows = prepared(quiz("a", "rain", "film", right=1), mood("b", reference="bad"))
    likely = {2: (-1.2345678, -1.5)}
    answers = answer(Scripted(lambda row: likely[len(row.candidates)]), rows)
    assert answers[0] == Answer(
        "rain",
        {"log_likelihoods": [-1.23457, -1.5], "lengths": [4, 4], "chosen": 0, "answer": 1, "chosen_norm": 0},
    )
    assert answers[1] == Answer(
        "good", {"log_likelihoods": [-1.23457, -1.5], "lengths": [4, 3], "chosen": 0, "answer": 1}
    )


def test_per_character_a_longer_choice_may_win(prepared):
    """-4 / 4 = -1 is less than -9 / 18 = -0.5."""
    rows = prepared(quiz("a", "rain", "a film about rain.", right=1))
    (got,) = answer(Scripted(lambda row: (-4.0, -9.0)), rows)
    assert (got.prediction, got.details["chosen"], got.details["chosen_norm"]) == ("rain", 0, 1)
    assert got.details["lengths"] == [4, 18]


def test_letters_are_one_character_long(prepared):
    letters = {"quiz": QUIZ.model_copy(update={"answer": "letter"})}
    (got,) = answer(Scripted(lambda row: (-4.0, -3.0)), prepared(quiz("a", "rain", "film"), tasks=letters))
    assert (got.prediction, got.details["lengths"], got.details["chosen_norm"]) == ("B", [1, 1], 1)


def test_of_equal_candidates_it_is_the_first_though_rounding_differs(prepared):
    rows = prepared(mood())
    for values in ((-1.5, -1.5), (-1.5000001, -1.5)):
        (got,) = answer(Scripted(lambda row, values=values: values), rows)
        assert got.details["chosen"] == 0


def test_with_end_is_told(prepared):
    (got,) = answer(Scripted(), prepared(quiz("b", "good", "good film")))
    assert got.details["with_end"] is True
    (got,) = answer(Scripted(), prepared(quiz("b", "good", "bad")))
    assert "with_end" not in got.details


def test_a_prior_is_asked_once_for_a_task_and_language_and_subtracted(tokenizer, ids):
    calibrated = TaskSettings(
        kind="classification",
        prompt={"en": "Review: {input} ->", "de": "Kritik: {input} {context} ->"},
        labels=["good", "bad"],
        calibration="prior",
    )
    examples = [mood("a", "warm"), mood("b", "cold"), replace(mood("c", "warm"), lang="de")]
    rows = prepare(tokenizer, examples, {"mood": calibrated}, chat=False, context=None)
    english, german = (1, *ids("Review:  ->")), (1, *ids("Kritik:   ->"))
    assert [row.prior for row in rows] == [english, english, german]
    empty = {english: (-1.0, -4.0), german: (-6.0, -2.0)}
    engine = Scripted(lambda row: empty.get(row.prompt, (-2.0, -3.0)))
    answers = answer(engine, rows)
    assert [len(asked) for _, asked in engine.calls] == [2, 3]
    assert [one.details["priors"] for one in answers] == [[-1.0, -4.0], [-1.0, -4.0], [-6.0, -2.0]]
    assert [one.details["log_likelihoods"] for one in answers] == [[-2.0, -3.0]] * 3
    # -2 + 1 = -1 against -3 + 4 = 1; -2 + 6 = 4 against -3 + 2 = -1.
    assert [one.prediction for one in answers] == ["bad", "bad", "good"]


def test_a_row_with_its_own_prompt_is_not_calibrated(tokenizer):
    calibrated = {"mood": MOOD.model_copy(update={"calibration": "prior"})}
    row = {"prompt": "warm soup ->", "completion": "good", "task": "mood"}
    own = parse_row(row, lang="en", tasks=calibrated, fallback_id="r")
    (made,) = prepare(tokenizer, [own], calibrated, chat=False, context=None)
    engine = Scripted()
    (got,) = answer(engine, [made])
    assert made.prior == ()
    assert "priors" not in got.details
    assert len(engine.calls) == 1


def test_rows_that_ask_the_same_are_answered_once(prepared):
    told: list[tuple[int, int]] = []
    rows = prepared(
        mood("a", reference="good"),
        mood("b", reference="bad"),
        mood("c", "rain"),
        recap("d"),
        recap("e"),
        reading("x y"),
    )
    engine = Scripted(lambda row: (-1.0, -2.0))
    answers = answer(engine, rows, lambda done, of: told.append((done, of)))
    assert [(name, len(asked)) for name, asked in engine.calls] == [("choose", 2), ("read", 1), ("write", 1)]
    assert [one.details.get("answer") for one in answers] == [0, 1, 0, None, None, None]
    assert answers[3] == answers[4]
    assert told == [(1, 6), (3, 6), (4, 6), (6, 6)]


def test_the_same_prompt_with_another_longest_text_is_another_question(prepared):
    tasks = {"recap": RECAP, "short": RECAP.model_copy(update={"max_new_tokens": 3})}
    rows = prepared(recap("a"), replace(recap("b"), task="short"), tasks=tasks)
    engine = Scripted()
    answer(engine, rows)
    assert [len(asked) for _, asked in engine.calls] == [2]


@pytest.mark.parametrize(("text", "prediction"), [("", ""), (" \n", ""), (" two trains\n", "two trains")])
def test_a_text_may_be_empty_and_loses_white_space_around_it(prepared, text, prediction):
    (got,) = answer(Scripted(text=text), prepared(recap()))
    assert got == Answer(prediction, {"ended": True})


def test_a_reading_says_nats_tokens_and_bytes(prepared, ids):
    (got,) = answer(Scripted(nats=3.1234567), prepared(reading("Größe")))
    assert got == Answer("", {"nats": 3.12346, "tokens": len(ids("Größe")), "bytes": 7})


def test_what_was_cut_off_is_told(prepared):
    rows = prepared(recap(text="rain film " * 40), reading("すすすす"), context=30)
    assert [one.details.get("dropped_tokens") for one in answer(Scripted(), rows)] == [rows[0].dropped, None]
    assert rows[0].dropped > 0


@pytest.mark.parametrize(
    ("value", "message"), [(math.nan, "NaN \\(not a number\\)"), (-math.inf, "a log-likelihood of -inf")]
)
def test_what_is_no_log_likelihood_is_refused_with_the_row(prepared, value, message):
    for example in (mood(), quiz("m")):
        with pytest.raises(AdapterError, match=rf"row 'm' \(en, {example.task}\) with {message}") as caught:
            answer(Scripted(lambda row: (-1.0, value)), prepared(example))
        assert "bfloat16" in caught.value.hint
    with pytest.raises(AdapterError, match=r"row 't'"):
        answer(Scripted(nats=-value), prepared(reading("x y")))


def test_a_prior_that_is_not_a_number_is_refused(prepared):
    calibrated = {"mood": MOOD.model_copy(update={"calibration": "prior"})}
    rows = prepared(mood(), tasks=calibrated)
    with pytest.raises(AdapterError, match="NaN"):
        answer(Scripted(lambda row: (math.nan, 0.0) if row.prompt == rows[0].prior else (0.0, 0.0)), rows)


def test_no_rows_ask_nothing(prepared):
    engine = Scripted()
    assert prepared() == ()
    assert answer(engine, ()) == ()
    assert engine.calls == []
