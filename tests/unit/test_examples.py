from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterctl.errors import DataError, Problem
from adapterctl.examples import Example, overlap, parse_row, read_rows, refuse
from adapterctl.tasks import TaskSettings, with_instruction

TASKS = with_instruction(
    {
        "mood": TaskSettings(kind="classification", labels={"de": ["gut", "schlecht"]}),
        "quiz": TaskSettings(kind="multiple-choice", prompt="{question}\n{choices}\n"),
        "recap": TaskSettings(kind="generation"),
        "news": TaskSettings(kind="translation"),
        "prose": TaskSettings(kind="perplexity"),
    }
)
MOOD = {"id": "m1", "lang": "de", "task": "mood", "input": "Tolle Suppe", "reference": "gut"}
QUIZ = {"id": "q1", "lang": "de", "task": "quiz", "question": "Wo?", "choices": ["Meer", "Wald"], "reference": "B"}
USER, HELPER = {"role": "user", "content": "Hallo?"}, {"role": "assistant", "content": "Ja."}


def parse(row: Any) -> Example:
    return parse_row(row, lang="de", tasks=TASKS, fallback_id="rows-7")


def fault(row: Any) -> str:
    with pytest.raises(DataError) as caught:
        parse(row)
    return caught.value.message


def read(folder: Path, *contents: bytes) -> tuple[tuple[Example, ...], list[str]]:
    paths = [folder / f"{letter}.jsonl" for letter in string.ascii_lowercase[: len(contents)]]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    examples, problems = read_rows(paths, lang="de", tasks=TASKS)
    return examples, [str(problem) for problem in problems]


def line(row: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({**row, **changes}, ensure_ascii=False).encode() + b"\n"


def test_a_row_in_the_own_form() -> None:
    assert parse(MOOD) == Example("m1", "de", "mood", "gut", input="Tolle Suppe")
    recap = {"id": "r", "lang": "de", "task": "recap", "input": "Lang.", "context": "Zeitung", "reference": "Kurz."}
    assert parse(recap) == Example("r", "de", "recap", "Kurz.", input="Lang.", context="Zeitung")


@pytest.mark.parametrize(("reference", "index"), [("A", 0), ("B", 1), ("Meer", 0), ("Wald", 1)])
def test_a_choice_is_named_by_letter_or_by_text(reference: str, index: int) -> None:
    for extra in ({}, {"answer_index": index}):
        found = parse({**QUIZ, "reference": reference, **extra})
        assert (found.answer_index, found.choices, found.question) == (index, ("Meer", "Wald"), "Wo?")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer_index": 0}, "'answer_index' is 0 but the reference 'B' is choice 1"),
        ({"answer_index": True}, "'answer_index' is True but the reference 'B' is choice 1"),
        ({"answer_index": "1"}, "'answer_index' is '1' but the reference 'B' is choice 1"),
        ({"answer_index": float("nan")}, "'answer_index' is nan but the reference 'B' is choice 1"),
        ({"answer_index": 10**400}, f"'answer_index' is 1{'0' * 400} but the reference 'B' is choice 1"),
        ({"answer_index": None}, "'answer_index' is None but the reference 'B' is choice 1"),
        ({"reference": "C"}, "reference 'C' is neither the letter nor the text of one of the choices"),
        (
            {"choices": ["B", "A"], "reference": "A"},
            "reference 'A' is the letter of one choice and the text of another",
        ),
        ({"choices": "Meer"}, "'choices' must be a list of texts"),
        ({"choices": ["Meer", 3]}, "'choices' must be a list of texts"),
        ({"choices": ["Meer", " "]}, "'choices' must be a list of texts"),
        ({"choices": []}, "'choices' has 0 entries; 2 to 26 are possible"),
        ({"choices": ["Meer"]}, "'choices' has 1 entries; 2 to 26 are possible"),
        ({"choices": [str(i) for i in range(27)]}, "'choices' has 27 entries; 2 to 26 are possible"),
        ({"choices": ["Meer", "Meer"]}, "'choices' names the same choice twice"),
        ({"question": ""}, "field 'question' is empty"),
        ({"lang": "en"}, "the row is in language 'en', the file belongs to 'de'"),
        ({"id": 7}, "'id' must be text, not int"),
        ({"context": ["x"]}, "'context' must be text, not list"),
        ({"question": "\ud83d"}, "holds half of a character (\\ud83d without the other surrogate)"),
    ],
)
def test_a_choice_row_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    assert fault({**QUIZ, **changes}) == message


def test_a_choice_that_is_its_own_letter_is_no_conflict() -> None:
    assert parse({**QUIZ, "choices": ["A", "B"], "reference": "B"}).answer_index == 1


def test_a_label_outside_of_the_labels_is_refused() -> None:
    assert fault({**MOOD, "reference": "prima"}) == "reference 'prima' is not one of the labels gut, schlecht"
    with pytest.raises(DataError, match=r"is not one of the labels \(none\)"):
        parse_row({**MOOD, "lang": "fr"}, lang="fr", tasks=TASKS, fallback_id="x")


@pytest.mark.parametrize("row", [None, 1, 1.5, "text", [MOOD], True])
def test_a_row_must_be_an_object(row: Any) -> None:
    assert fault(row) == f"a row must be a JSON object, not {type(row).__name__}"


def test_prompt_and_completion_as_text() -> None:
    row = {"prompt": "Sag ja: ", "completion": " ja"}
    assert parse(row) == Example("rows-7", "de", "instruction", " ja", prompt="Sag ja: ")
    assert parse({**row, "id": "p", "task": "recap"}) == Example("p", "de", "recap", " ja", prompt="Sag ja: ")
    assert parse({**row, "task": "mood", "completion": "gut"}).task == "mood"


def test_prompt_and_completion_as_turns_and_messages_mean_the_same() -> None:
    expected = Example("rows-7", "de", "instruction", "Ja.", messages=(("user", "Hallo?"),))
    assert parse({"prompt": [USER], "completion": [HELPER]}) == expected
    assert parse({"messages": [USER, HELPER]}) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "'messages' must be a list of turns, each with 'role' and 'content'"),
        ({"messages": "Hallo"}, "'messages' must be a list of turns, each with 'role' and 'content'"),
        ({"messages": [HELPER]}, "'messages' has no turn before the assistant's"),
        ({"messages": [HELPER, USER]}, "the last turn of 'messages' is not the assistant's"),
        ({"messages": ["Hallo", HELPER]}, "a turn of 'messages' must be an object with 'role' and 'content'"),
        ({"messages": [{"role": 1}, HELPER]}, "a turn of 'messages' must be an object with 'role' and 'content'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, HELPER]},
            "a turn of 'messages' has no text in 'content'",
        ),
        ({"messages": [USER, {**HELPER, "content": " "}]}, "the answer is empty"),
        (
            {"prompt": "x", "completion": [HELPER]},
            "'prompt' and 'completion' must both be text, or both lists of turns",
        ),
        ({"completion": "x"}, "'prompt' and 'completion' must both be text, or both lists of turns"),
        ({"prompt": " ", "completion": "x"}, "'prompt' is empty"),
        ({"prompt": "x", "completion": ""}, "the answer is empty"),
        (
            {"prompt": "x", "completion": "A", "task": "quiz"},
            "a row with its own prompt cannot answer a task of kind 'multiple-choice' outside its labels",
        ),
        ({"prompt": "x", "completion": "y", "lang": "en"}, "the row is in language 'en', the file belongs to 'de'"),
        ({"prompt": "x"}, "field 'task' is missing"),
    ],
)
def test_a_row_in_a_foreign_form_that_cannot_be_used(row: dict[str, Any], message: str) -> None:
    assert fault(row) == message


def test_byte_order_mark_line_ends_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + line(MOOD).replace(b"\n", b"\r\n") + b"\r\n  \t\n\n" + line(QUIZ).rstrip()
    examples, problems = read(tmp_path, content)
    assert [example.id for example in examples] == ["m1", "q1"]
    assert problems == []


def test_line_separators_inside_a_text_do_not_end_the_row(tmp_path: Path) -> None:
    examples, problems = read(tmp_path, line(MOOD, input="a\u2028b\u0085c"))
    assert [example.input for example in examples] == ["a\u2028b\u0085c"]
    assert problems == []


def test_every_bad_line_is_named_and_the_good_ones_are_kept(tmp_path: Path) -> None:
    bad = [
        (b'{"id": "\xff"}\n', "is not UTF-8 (byte 8 of the line)"),
        (b"{]\n", "is not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b"NaN\n", "a row must be a JSON object, not float"),
        (b"[" * 100_000 + b"\n", "is nested too deeply"),
        (b'{"a":' * 100_000 + b"\n", "is nested too deeply"),
        (b'{"id": ' + b"9" * 5000 + b"}\n", "holds a number with too many digits"),
        (b'{"id": "\\udc00"}\n', "holds half of a character (\\udc00 without the other surrogate)"),
        (line(MOOD, input=3), "'input' must be text, not int"),
        (
            line(MOOD, task="modo"),
            "task 'modo' is not in the suite; it knows instruction, mood, news, prose, quiz, recap",
        ),
    ]
    content = line(MOOD) + b"".join(text for text, _ in bad) + line(QUIZ)
    examples, problems = read(tmp_path, content)
    assert [example.id for example in examples] == ["m1", "q1"]
    assert problems == [f"a.jsonl:{number}: {message}" for number, (_, message) in enumerate(bad, start=2)]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60).filter(lambda text: b"\n" not in text), max_size=5))
def test_bytes_of_any_kind_become_problems_with_a_line(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]):
    folder = tmp_path_factory.mktemp("bytes")
    examples, problems = read(folder, b"\n".join(lines))
    assert examples == ()
    shown = [text.decode("utf-8", "replace").strip("\ufeff \t\r") for text in lines]
    assert [problem.split(": ")[0] for problem in problems] == [
        f"a.jsonl:{number}" for number, text in enumerate(shown, start=1) if text
    ]


def test_ids_that_stand_twice_are_told_with_both_places(tmp_path: Path) -> None:
    other_task = line(MOOD, task="recap")
    examples, problems = read(tmp_path, line(MOOD) + other_task + line(MOOD, input="Neu"), b"\n" + line(MOOD))
    assert len(examples) == 4
    assert problems == [
        "a.jsonl:3: id 'm1' of task 'mood' stands twice (also in a.jsonl:1)",
        "b.jsonl:2: id 'm1' of task 'mood' stands twice (also in a.jsonl:1)",
    ]


def test_rows_without_id_are_named_by_file_and_line(tmp_path: Path) -> None:
    examples, _ = read(tmp_path, b'\n{"prompt": "x", "completion": "y"}\n')
    assert [example.id for example in examples] == ["a-2"]


def test_files_that_cannot_be_read_are_problems_and_files_are_named_from_the_root(tmp_path: Path) -> None:
    (tmp_path / "data" / "de").mkdir(parents=True)
    bad = tmp_path / "data" / "de" / "bad.jsonl"
    bad.write_bytes(b"?")
    _, problems = read_rows([tmp_path / "none.jsonl", tmp_path, bad], lang="de", tasks=TASKS, root=tmp_path)
    assert [str(problem) for problem in problems] == [
        f"{tmp_path / 'none.jsonl'}: cannot be read: No such file or directory",
        f"{tmp_path}: cannot be read: Is a directory",
        "data/de/bad.jsonl:1: is not JSON: Expecting value at column 1",
    ]


def test_rows_that_ask_the_same_overlap_whatever_spaces_ids_and_order_of_choices() -> None:
    train = [parse(MOOD), parse(QUIZ)]
    held = [
        parse({**MOOD, "id": "other", "input": " Tolle \n\u3000Suppe", "reference": "schlecht"}),
        parse({**QUIZ, "id": "turned", "choices": ["Wald", "Meer"]}),
        parse({**MOOD, "id": "free", "input": "TolleSuppe"}),
        parse({**MOOD, "id": "task", "task": "recap"}),
    ]
    assert [str(problem) for problem in overlap(train, held, "de dev")] == [
        "de dev: row 'other' asks the same as training row 'm1'",
        "de dev: row 'turned' asks the same as training row 'q1'",
    ]
    assert overlap(train, held[2:], "de dev") == []


def news(row_id: str, text: str, direction: str = "en-de") -> Example:
    row = {"id": row_id, "lang": "de", "task": "news", "direction": direction, "input": text, "reference": "x"}
    return parse(row)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Große Straße", "GROSSE STRASSE"),
        ("Gro\u0308ße", "Gr\u00f6ße"),
        ("ＡＢＣ１２３", "abc123"),
        ("ｶﾞｿﾘﾝ", "ガソリン"),
        ("ﬁnden", "finden"),
        ("Tolle\u00a0\u2003Suppe\t", "tolle suppe"),
    ],
)
def test_case_width_and_composition_do_not_hide_an_overlap(one: str, other: str) -> None:
    assert len(overlap([news("a", one)], [news("b", other)], "de dev")) == 1


@pytest.mark.parametrize(("one", "other"), [("Größe", "Grüße"), ("Größe", "Grosse"), ("はは", "ばば"), ("か", "カ")])
def test_marks_and_scripts_keep_texts_apart(one: str, other: str) -> None:
    assert overlap([news("a", one)], [news("b", other)], "de dev") == []


def test_the_other_direction_is_another_question() -> None:
    assert overlap([news("a", "Regen")], [news("b", "Regen", "de-en")], "de dev") == []


def test_chats_and_prompts_overlap_too() -> None:
    rows = [{"messages": [USER, HELPER]}, {"prompt": "Sag ja:", "completion": "ja"}]
    again = [{"messages": [{**USER, "content": "hallo? "}, HELPER]}, {"prompt": "SAG JA:", "completion": "nein"}]
    found = overlap(map(parse, rows), map(parse, again), "de dev")
    assert [problem.message for problem in found] == ["row 'rows-7' asks the same as training row 'rows-7'"] * 2


def test_rows_with_group_direction_and_fields_of_their_own() -> None:
    row = {
        "id": "pud-1", "lang": "de", "task": "news", "direction": "en-de", "input": "rain", "reference": "Regen",
        "group": "w05", "source": "UD-PUD", "title": 7,
    }  # fmt: skip
    found = parse(row)
    assert found == Example("pud-1", "de", "news", "Regen", input="rain", group="w05", direction="en-de")
    assert found.as_dict()["group"] == "w05"
    assert "group" not in parse({**row, "group": ""}).as_dict()
    assert parse({"prompt": "x", "completion": "y", "group": "g"}).group == "g"
    assert fault({**row, "group": 5}) == "'group' must be text, not int"
    assert fault({**row, "direction": ["en", "de"]}) == "'direction' must be text, not list"


PROSE = {"id": "p", "lang": "de", "task": "prose"}


@pytest.mark.parametrize("name", ["input", "text"])
def test_text_that_is_read_has_no_reference(name: str) -> None:
    assert parse({**PROSE, name: "Es regnet.", "group": "g"}) == Example(
        "p", "de", "prose", "", input="Es regnet.", group="g"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PROSE, "field 'input' is missing"),
        ({**PROSE, "text": " "}, "field 'text' is empty"),
        ({**PROSE, "text": None}, "'text' must be text, not NoneType"),
        (
            {**PROSE, "prompt": "Es", "completion": "regnet."},
            "task 'prose' reads text as it stands; write it as 'text', without prompt and answer",
        ),
    ],
)
def test_text_that_cannot_be_read(row: dict[str, Any], message: str) -> None:
    assert fault(row) == message


@pytest.mark.parametrize("task", ["mood", "recap", "news", "quiz"])
def test_a_row_without_reference_is_refused(task: str) -> None:
    row = {**QUIZ, **MOOD, "task": task}
    del row["reference"]
    assert fault(row) == "field 'reference' is missing"


def test_text_that_is_read_teaches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(MOOD) + line(PROSE, text="Es regnet."))
    examples, problems = read_rows([path], lang="de", tasks=TASKS, training=True)
    assert [example.id for example in examples] == ["m1"]
    assert [str(problem) for problem in problems] == [
        "a.jsonl:2: a row of task 'prose' has no answer to learn; it belongs to dev or test"
    ]
    examples, problems = read_rows([path], lang="de", tasks=TASKS)
    assert ([example.id for example in examples], problems) == (["m1", "p"], ())


def test_fifty_problems_are_shown_and_the_rest_is_counted() -> None:
    refuse([], "rows")
    problems = [Problem(f"a.jsonl:{number}", "is bad") for number in range(1, 54)]
    with pytest.raises(DataError) as caught:
        refuse(problems, "the rows of de")
    assert caught.value.message == "the rows of de: 53 bad rows; nothing was trained or scored"
    assert caught.value.problems == (*problems[:50], Problem("", "and 3 more"))
    with pytest.raises(DataError) as caught:
        refuse(problems[:50], "rows")
    assert caught.value.problems == tuple(problems[:50])
    with pytest.raises(DataError, match="1 bad row;"):
        refuse(problems[:1], "rows")
