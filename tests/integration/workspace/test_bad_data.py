import json

import pytest

from adapterctl.errors import DataError
from adapterctl.workspace.data import load_data
from adapterctl.workspace.workspace import Workspace

TRAIN = "adapters/data/ja/sentiment.train.jsonl"
DEV = "evaluation/data/ja/sentiment.dev.jsonl"
GOOD = {"id": "x", "lang": "ja", "task": "sentiment", "input": "すばらしい本", "reference": "好評"}


def told(root, langs=("en", "ja")):
    with pytest.raises(DataError) as caught:
        load_data(Workspace.open(root), langs)
    assert caught.value.exit_code == 6
    return [str(problem) for problem in caught.value.problems]


def test_good_rows_are_read(root):
    loaded = load_data(Workspace.open(root), ["ja", "en"])
    assert list(loaded) == ["ja", "en"]
    for lang, data in loaded.items():
        for split, folder in (("train", "adapters"), ("dev", "evaluation"), ("test", "evaluation")):
            files = (root / folder / "data" / lang).glob(f"*.{split}.jsonl")
            lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
            assert len(getattr(data, split)) == lines > 0


BAD = [
    ("no JSON", b"{", "is not JSON: Expecting property name enclosed in double quotes at column 2"),
    ("no UTF-8", b'{"id": "\xff"}', "is not UTF-8 (byte 8 of the line)"),
    ("no object", b"[1]", "a row must be a JSON object, not list"),
    ("no task", {**GOOD, "task": None}, "'task' must be text, not NoneType"),
    (
        "unknown task",
        {**GOOD, "task": "sentimnt"},
        "task 'sentimnt' is not in the suite; it knows instruction, reasoning, sentiment, summarization",
    ),
    ("missing field", {k: v for k, v in GOOD.items() if k != "reference"}, "field 'reference' is missing"),
    ("empty reference", {**GOOD, "reference": " "}, "field 'reference' is empty"),
    ("no label", {**GOOD, "reference": "positive"}, "reference 'positive' is not one of the labels 好評, 不評, 中立"),
    ("other language", {**GOOD, "lang": "en"}, "the row is in language 'en', the file belongs to 'ja'"),
]


@pytest.mark.parametrize(("line", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_row_is_told_with_its_line(root, line, message):
    path = root / TRAIN
    count = len(path.read_bytes().splitlines())
    content = line if isinstance(line, bytes) else json.dumps(line).encode()
    path.write_bytes(path.read_bytes() + content + b"\n")
    assert told(root) == [f"{TRAIN}:{count + 1}: {message}"]


def test_bad_rows_of_all_splits_and_languages_are_told_at_once(root):
    for name in (TRAIN, DEV, "evaluation/data/en/reasoning.test.jsonl"):
        with (root / name).open("a") as handle:
            handle.write("?\n?\n")
    problems = told(root)
    assert len(problems) == 6
    assert {problem.partition(":")[0] for problem in problems} == {
        TRAIN,
        DEV,
        "evaluation/data/en/reasoning.test.jsonl",
    }


def test_an_id_that_stands_twice_is_told(root):
    first = (root / TRAIN).read_text(encoding="utf-8").splitlines()[0]
    (root / "adapters/data/ja/more.train.jsonl").write_text(first.replace("。", "!") + "\n", encoding="utf-8")
    (problem,) = told(root)
    assert "stands twice" in problem
    assert TRAIN in problem
    assert "adapters/data/ja/more.train.jsonl" in problem


def test_rows_in_two_splits_are_told(root):
    train = json.loads((root / TRAIN).read_text(encoding="utf-8").splitlines()[0])
    dev = json.loads((root / DEV).read_text(encoding="utf-8").splitlines()[0])
    test = root / "evaluation/data/ja/sentiment.test.jsonl"
    with (root / DEV).open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({**train, "id": "copied"}, ensure_ascii=False) + "\n")
    with test.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({**dev, "id": "again"}, ensure_ascii=False) + "\n")
    assert told(root) == [
        f"ja dev: row 'copied' asks the same as training row '{train['id']}'",
        f"ja test: row 'again' asks the same as dev row '{dev['id']}'",
    ]


def lines_of(root, name):
    return [json.loads(line) for line in (root / name).read_text(encoding="utf-8").splitlines()]


def append(root, name, *rows):
    with (root / name).open("a", encoding="utf-8") as handle:
        handle.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_rows_in_two_splits_are_found_whatever_their_case_width_and_spaces(root):
    first = lines_of(root, "adapters/data/en/sentiment.train.jsonl")[0]
    shouted = "\u3000".join(first["input"].upper().split()) + " "
    append(root, "evaluation/data/en/sentiment.dev.jsonl", {**first, "id": "loud", "input": shouted})
    assert told(root, ["en"]) == [f"en dev: row 'loud' asks the same as training row '{first['id']}'"]


def test_rows_in_two_splits_are_refused_with_the_key_that_allows_them(root):
    append(root, DEV, {**lines_of(root, TRAIN)[0], "id": "copied"})
    with pytest.raises(DataError) as caught:
        load_data(Workspace.open(root), ["ja"])
    assert "allow_overlap: true in evaluation/suite.yaml" in caught.value.hint
    append(root, DEV, {**GOOD, "reference": "?"})
    problems = told(root)
    assert "is not one of the labels" in problems[0]
    assert "row 'copied' asks the same" in problems[1]


def test_rows_in_two_splits_are_kept_and_reported_where_the_suite_allows_it(root, edit):
    train = lines_of(root, TRAIN)[0]
    append(root, DEV, {**train, "id": "copied"})
    edit("evaluation/suite.yaml", "tasks:", "allow_overlap: true\ntasks:")
    loaded = load_data(Workspace.open(root), ["en", "ja"])
    assert "copied" in [row.id for row in loaded["ja"].dev]
    assert [str(problem) for problem in loaded["ja"].overlapping] == [
        f"ja dev: row 'copied' asks the same as training row '{train['id']}'"
    ]
    assert loaded["en"].overlapping == ()
    append(root, DEV, {**GOOD, "reference": "?"})
    assert len(told(root)) == 1


def test_text_to_read_needs_no_prompt_and_stands_outside_of_training(root, edit):
    edit("evaluation/suite.yaml", "tasks:", "tasks:\n  prose: {kind: perplexity, prompt: {en: '{input}'}}")
    append(root, DEV, {"id": "p1", "lang": "ja", "task": "prose", "text": "雨が降る。", "group": "g1"})
    loaded = load_data(Workspace.open(root), ["ja"])["ja"]
    assert [(row.input, row.group) for row in loaded.dev if row.task == "prose"] == [("雨が降る。", "g1")]
    count = len(lines_of(root, TRAIN))
    append(root, TRAIN, {"id": "p2", "lang": "ja", "task": "prose", "text": "雪が降る。"})
    assert told(root) == [
        f"{TRAIN}:{count + 1}: a row of task 'prose' has no answer to learn; it belongs to dev or test"
    ]


def test_files_without_rows_are_told(root):
    for path in (root / "evaluation/data/ja").glob("*.dev.jsonl"):
        path.write_text("\n")
    assert told(root) == ["ja dev: the files hold no rows (put one JSON object a line there)"]


def test_a_task_without_prompt_in_a_language_is_told(root, edit):
    edit("evaluation/suite.yaml", '      ja: "レビュー', '      zh: "レビュー')
    assert told(root) == [
        "evaluation/suite.yaml: task 'sentiment' has rows of 'ja' but no prompt for it (add tasks.sentiment.prompt.ja)"
    ]


def test_rows_in_trl_forms_are_read(root):
    rows = [
        {"prompt": "Say hi: ", "completion": "hi"},
        {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hi."}]},
    ]
    path = root / "adapters/data/en/trl.train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_data(Workspace.open(root), ["en"])["en"]
    assert [row.id for row in data.train if row.task == "instruction"] == ["trl.train-1", "trl.train-2"]
