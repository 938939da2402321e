from typing import Literal

import pytest
from pydantic import Field

from adapterctl.settings import Settings
from adapterctl.workspace.documents import parse
from adapterctl.workspace.validation import model_at, nearest_key, validate


class Inner(Settings):
    learning_rate: float = Field(default=0.1, gt=0)
    batch_size: int = 8
    kind: Literal["label", "choice"] = "label"


class Outer(Settings):
    name: str
    inner: Inner = Inner()
    by_name: dict[str, Inner] = Field(default_factory=dict)
    scale: Literal["auto"] | float = Field(default="auto", alias="lambda")
    words: str | dict[str, str] = ""
    flag: bool = False
    weights: dict[str, float] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("inner: {learning_rat: 1}", "f.yaml:2: inner.learning_rat: unknown key (did you mean 'learning_rate'?)"),
        ("inner: {lr: 1}", "f.yaml:2: inner.lr: unknown key (did you mean 'learning_rate'?)"),
        ("inner: {Batch-Size: 1}", "f.yaml:2: inner.Batch-Size: unknown key (did you mean 'batch_size'?)"),
        ("batch_size: 3", "f.yaml:2: batch_size: unknown key (it belongs under 'inner')"),
        (
            "inner: {qqq: 1}",
            "f.yaml:2: inner.qqq: unknown key (the keys are learning_rate, batch_size, kind)",
        ),
        ("by_name: {x: {kidn: label}}", "f.yaml:2: by_name.x.kidn: unknown key (did you mean 'kind'?)"),
        ("lambada: 1", "f.yaml:2: lambada: unknown key (did you mean 'lambda'?)"),
        ("inner: {batch_size: many}", "f.yaml:2: inner.batch_size: must be a whole number, not 'many'"),
        ("inner: {batch_size: 1.5}", "f.yaml:2: inner.batch_size: must be a whole number, not 1.5"),
        ("inner: {batch_size: true}", "f.yaml:2: inner.batch_size: must be a number, not true or false"),
        ("inner: {learning_rate: 0}", "f.yaml:2: inner.learning_rate: must be above 0, not 0"),
        ("inner: {learning_rate: .nan}", "f.yaml:2: inner.learning_rate: must be a finite number, not nan"),
        (
            "inner: {kind: lable}",
            "f.yaml:2: inner.kind: must be one of label, choice, not 'lable' (did you mean 'label'?)",
        ),
        ("lambda: atuo", "f.yaml:2: lambda: must be auto or a number, not 'atuo' (did you mean 'auto'?)"),
        ("words: {en: [1]}", "f.yaml:2: words.en: must be text, not a list"),
        ("words: 3", "f.yaml:2: words: must be text or a block of keys, not 3"),
        ("flag: maybe", "f.yaml:2: flag: must be true or false, not 'maybe'"),
        ("weights: {ja: true}", "f.yaml:2: weights.ja: must be a number, not true or false"),
        ("tags: [a, {b: 1}]", "f.yaml:2: tags[1]: must be text, not a block of keys"),
        ("tags: a", "f.yaml:2: tags: must be a list, not 'a'"),
        (
            "inner:",
            "f.yaml:2: inner: must be a block of keys, not empty (give it a value, or remove the key; "
            "what belongs to a block is indented below it)",
        ),
    ],
)
def test_faults_are_told_with_their_line_and_the_nearest_key(text, told):
    document, problems = parse(f"name: x\n{text}\n", "f.yaml")
    assert problems == []
    settings, found = validate(Outer, document)
    assert settings is None
    assert [str(problem) for problem in found] == [told]
    assert "pydantic" not in told


def test_all_faults_are_told_at_once():
    document, _ = parse("inner: {lr: 1, kind: 3}\nlambda: x\nzzz: 1\n", "f.yaml")
    _, found = validate(Outer, document)
    assert {str(problem).partition(" (")[0] for problem in found} == {
        "f.yaml:1: name: is missing",
        "f.yaml:1: inner.lr: unknown key",
        "f.yaml:1: inner.kind: must be one of label, choice, not 3",
        "f.yaml:2: lambda: must be auto or a number, not 'x'",
        "f.yaml:3: zzz: unknown key",
    }


def test_a_valid_document_becomes_the_object():
    document, _ = parse("name: x\nlambda: 2\nby_name: {y: {kind: choice}}\n", "f.yaml")
    settings, found = validate(Outer, document)
    assert found == []
    assert (settings.scale, settings.by_name["y"].kind) == (2.0, "choice")


def test_models_are_found_through_mappings_and_unions():
    assert model_at(Outer, ("by_name", "x")) is Inner
    assert model_at(Inner | None, ()) is Inner
    assert model_at(Outer, ("words", "en")) is None
    assert nearest_key(Outer, ("words",), "x") == ""
