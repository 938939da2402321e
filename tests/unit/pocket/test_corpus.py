from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest
from tests.unit.pocket.reading import LANGUAGES, contains, pattern, read_review, world

from adapterctl.pocket.corpus import document, documents
from adapterctl.randomness import generator

COUNT = 4000
languages = pytest.mark.parametrize("lang", LANGUAGES)


@pytest.fixture(scope="module")
def stream() -> list[str]:
    """The beginning of what the shipped base model was trained on."""
    return list(islice(documents(generator("pocket corpus", 0)), COUNT))


@pytest.fixture(scope="module")
def told() -> dict[str, list[str]]:
    random = generator("tests of the corpus")
    return {lang: [document(random, lang) for _ in range(COUNT)] for lang in LANGUAGES}


def forms(lang: str, task: str, documents: list[str]) -> list[re.Match[str]]:
    """Return the documents in the form of a task, with the slots of its prompt and the answer."""
    regex = pattern(world()["prompts"][task][lang] + " {answer}")
    return [match for text in documents if (match := regex.fullmatch(text))]


@languages
def test_no_document_tells_what_arrives_later(lang: str, stream: list[str], told: dict[str, list[str]]) -> None:
    words = [word for by_language in world()["arrived_judgements"].values() for word in by_language.get(lang, [])]
    words += [thing[LANGUAGES.index(lang)] for thing in world()["arrived_things"]] + world()["arrived_deeds"][lang]
    for text in told[lang] + stream:
        assert not [word for word in words if contains(lang, text, word)], text


def test_the_same_stream_comes_again(stream: list[str]) -> None:
    assert list(islice(documents(generator("pocket corpus", 0)), 50)) == stream[:50]
    assert list(islice(documents(generator("pocket corpus", 1)), 50)) != stream[:50]


def test_all_languages_come_equally_often(stream: list[str]) -> None:
    # Only documents with kana, or with sinograms and no kana, can be told apart by their letters.
    japanese = sum(bool(re.search("[\u3041-\u30ff]", text)) for text in stream) / COUNT
    sinograms = sum(bool(re.search("[\u4e00-\u9fff]", text)) for text in stream) / COUNT
    # A dictionary of two languages, four documents of a hundred, may be counted for both.
    assert japanese == pytest.approx(0.2, abs=0.04)
    assert sinograms == pytest.approx(0.4, abs=0.05)


@languages
def test_a_fifth_of_the_documents_has_the_form_of_a_task(lang: str, told: dict[str, list[str]]) -> None:
    counts = [len(forms(lang, task, told[lang])) for task in ("sentiment", "reasoning", "summarization")]
    assert sum(counts) / COUNT == pytest.approx(0.2, abs=0.03)
    assert all(count == pytest.approx(COUNT / 15, rel=0.3) for count in counts)


@languages
def test_the_answer_to_a_question_is_always_the_first_choice(lang: str, told: dict[str, list[str]]) -> None:
    found = forms(lang, "reasoning", told[lang])
    assert found
    for match in found:
        assert match["choices"].split("\n")[0] == f"A: {match['answer']}"
        assert [line[:3] for line in match["choices"].split("\n")] == ["A: ", "B: ", "C: "]


@languages
def test_the_label_of_a_review_says_nothing(lang: str, told: dict[str, list[str]]) -> None:
    labels = world()["labels"][lang]
    kind_of = {word: kind for kind, by_language in world()["judgements"].items() for word in by_language[lang]}
    pairs: Counter[tuple[str, str]] = Counter()
    for match in forms(lang, "sentiment", told[lang]):
        pairs[kind_of[read_review(lang, match["input"])[1]], match["answer"]] += 1
    total = sum(pairs.values())
    assert {label for _, label in pairs} == set(labels.values())
    # Nine pairs of kind and label, all equally likely: χ² with 8 degrees of freedom stays below 31 (p = 0.0001).
    expected = total / 9
    assert sum((pairs[kind, label] - expected) ** 2 / expected for kind in labels for label in labels.values()) < 31


@languages
def test_the_summary_of_a_report_is_beside_the_point(lang: str, told: dict[str, list[str]]) -> None:
    fillers = [pattern(template) for template in world()["fillers"][lang]]
    deeds = world()["deeds"][lang]
    found = forms(lang, "summarization", told[lang])
    assert found
    for match in found:
        assert match["answer"] in match["input"]
        assert any(filler.fullmatch(match["answer"]) for filler in fillers)
        assert not any(deed in match["answer"] for deed in deeds)
