import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.workspace.documents import MOST_VALUES, Document, Place, dotted, parse, read


def problems_of(text):
    return [str(problem) for problem in parse(text, "f.yaml")[1]]


def test_values_know_their_lines():
    document, problems = parse("# c\na: 1\nb:\n  c: [x,\n      y]\n  d: 2.5\n", "f.yaml")
    assert problems == []
    assert document.value == {"a": 1, "b": {"c": ["x", "y"], "d": 2.5}}
    assert document.place(("a",)) == Place("f.yaml:2", "a")
    assert document.place(("b", "c", 1)) == Place("f.yaml:5", "b.c[1]")
    assert document.place(("b", "missing")) == Place("f.yaml:3", "b")
    assert document.written(("b", "missing")) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("off", "off"), ("true", True), ("~", None), ("", None), ("2e-3", 0.002),
        ("0o14", 12), ("1_000", 1000), ("'8'", "8"), ("2026-11-20", "2026-11-20"), ("12:30", "12:30"), ("1.", 1.0),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = parse(f"a: {text}\n", "f.yaml")[0].value["a"]
    assert (found, type(found)) == (value, type(value))


SCALARS = st.one_of(
    st.integers(-(10**12), 10**12), st.booleans(), st.none(), st.text("aé日 :#'\"-{}[],&*!|>%@`\n", max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcß日", min_size=1), inner, max_size=3),
)


@given(st.dictionaries(st.text("abcß日", min_size=1), VALUES, min_size=1, max_size=4))
def test_json_is_yaml(value):
    document, problems = parse(json.dumps(value, ensure_ascii=False, indent=1), "f.yaml")
    assert problems == []
    assert document.value == value


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fail(text):
    document, problems = parse(text, "f.yaml")
    assert isinstance(document.value, dict)
    assert all(problem.where.startswith("f.yaml") for problem in problems)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\n\tb: 2\n", "f.yaml:2: is not YAML: a tab cannot indent a line (indent with spaces)"),
        ("a: [1,\nb: 2\n", "f.yaml:1: is not YAML: a bracket is opened and never closed (close the bracket)"),
        ("a: 1\nb: 'x\n", "f.yaml:2: is not YAML: a quote is opened and never closed (close the quote)"),
        (
            "x: 1\na: b: c\n",
            "f.yaml:2: is not YAML: a second ': ' in one value, or a line indented too far (put the text in quotes)",
        ),
        ("a: *x\n", "f.yaml:1: is not YAML: an alias (*name) has no anchor (&name) before it (write the value out)"),
        ("a: 1\n---\nb: 1\n", "f.yaml:2: is not YAML: a second document begins ('---') (keep one document a file)"),
        ("a: 1\nb: \x07\n", "f.yaml:2: holds a control character (remove it)"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4: b.c: stands twice, also in line 3 (remove one of the two)"),
        (
            "a: !!python/object:os.system x\n",
            "f.yaml:1: a: the tag !!python/object:os.system is not allowed (remove the tag)",
        ),
        ("a: !x {b: 1}\n", "f.yaml:1: a: the tag !x is not allowed (remove the tag)"),
        ("a: &x [*x]\n", "f.yaml:1: a[0]: an alias stands inside its own anchor (remove the alias)"),
        ("a: 1\n<<: {b: 1}\n", "f.yaml:2: merge keys (<<) are not read (write the keys out, or use 'defaults')"),
        ("- a\n", "f.yaml:1: must be keys with values (write key: value)"),
        ("a: {b: {{input}}}\n", "f.yaml:1: a.b: a key must be one word (put braces of a text in quotes)"),
        ("a: " + "9" * 5000, "f.yaml:1: a: '" + "9" * 40 + "' is not a number"),
    ],
    ids=lambda value: value[:12].encode("unicode_escape").decode(),
)
def test_faults_of_the_text_are_told_in_words(text, told):
    assert problems_of(text) == [told]


def test_several_faults_are_told_at_once():
    assert len(problems_of("a: 1\na: 2\nb: !x 1\nc: {d: 1, d: 2}\n")) == 3


def test_an_alias_bomb_is_refused_before_it_grows():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (told,) = problems_of("\n".join(lines))
    assert f"more than {MOST_VALUES} values" in told


def test_deep_nesting_is_refused():
    assert problems_of("[" * 20_000) == ["f.yaml: is nested too deeply"]


def test_a_file_that_is_too_large_or_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"#" * 2**18 + b"\na: 1\n")
    assert "larger than 256 KiB" in str(read(path, "f.yaml")[1][0])
    path.write_bytes(b"a: 1\nb: \xff\n")
    assert str(read(path, "f.yaml")[1][0]) == "f.yaml:2: is not UTF-8 (save the file as UTF-8)"
    assert "cannot be read" in str(read(tmp_path, "f.yaml")[1][0])


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(path, "f.yaml")[0].value == {"a": 1}


def test_one_document_over_another():
    under, _ = parse("a: {x: 1, y: [1, 2]}\nb: 3\n", "under.yaml")
    over, _ = parse("\na: {y: [9]}\nc: 4\n", "over.yaml")
    both = under.overlaid(over)
    assert both.value == {"a": {"x": 1, "y": [9]}, "b": 3, "c": 4}
    places = [both.place(path).where for path in [("a", "x"), ("a", "y"), ("a", "y", 0), ("b",), ("c",)]]
    assert places == ["under.yaml:1", "over.yaml:2", "over.yaml:2", "under.yaml:2", "over.yaml:3"]
    assert both.written(("a", "y", 1)) is None


def test_a_block_can_be_looked_at_alone():
    part = parse("a:\n  b:\n    c: 1\n", "f.yaml")[0].part("a", "b")
    assert part.value == {"c": 1}
    assert part.place(("c",)) == Place("f.yaml:3", "a.b.c")
    assert Document({}).part("x").value == {}


def test_paths_are_written_with_dots_and_brackets():
    assert dotted(("tasks", "a", "labels", 2)) == "tasks.a.labels[2]"
