from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.tiny_llama import save_tiny_llama, tiny_base

from adapterctl.base_model import load_tokenizer
from adapterctl.errors import BaseModelError, DataError
from adapterctl.examples import Example
from adapterctl.pocket.world import LANGUAGES, tables
from adapterctl.prompts import choice_lines, encode, encode_all, render
from adapterctl.tasks import TaskSettings

MOOD = TaskSettings(kind="classification", prompt={"de": "Kritik: {input}\nUrteil:"}, labels=["gut", "schlecht"])
TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def quiz(**settings: Any) -> TaskSettings:
    return TaskSettings(kind="multiple-choice", prompt="{context}|{question}\n{choices}\n{{A}}:", **settings)


def asked(**fields: Any) -> Example:
    return Example(
        "1", "de", "quiz", "B", question="Wo?", choices=("Meer", "Wald", "{input}"), answer_index=1, **fields
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer that would put the start token itself, and has a chat template that writes it."""
    loaded = load_tokenizer(tiny_base(save_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")))
    loaded.chat_template = TEMPLATE
    return loaded


def test_slots_are_filled_and_written_braces_stay() -> None:
    made = render(asked(context="Karte"), quiz())
    assert made.prompt == "Karte|Wo?\nA: Meer\nB: Wald\nC: {input}\n{A}:"
    assert (made.target, made.candidates, made.answer) == (" Wald", (" Meer", " Wald", " {input}"), 1)


def test_a_choice_may_be_answered_by_its_letter() -> None:
    made = render(asked(), quiz(answer="letter", separator=""))
    assert (made.target, made.candidates, made.answer) == ("B", ("A", "B", "C"), 1)


@settings(deadline=None)
@given(st.text())
def test_what_a_row_says_is_never_a_template(text: str) -> None:
    made = render(Example("1", "de", "mood", "gut", input=text), MOOD)
    assert made.prompt == f"Kritik: {text}\nUrteil:"


def test_a_label_and_a_free_text() -> None:
    made = render(Example("1", "de", "mood", "schlecht", input="Fade."), MOOD)
    assert (made.target, made.candidates, made.answer) == (" schlecht", (" gut", " schlecht"), 1)
    free = render(Example("1", "de", "recap", "Kurz.", input="Lang."), TaskSettings(kind="generation", separator="\n"))
    assert (free.prompt, free.target, free.candidates, free.answer) == ("Lang.", "\nKurz.", (), -1)


def test_there_are_as_many_letters_as_choices_may_be() -> None:
    lines = choice_lines(tuple(str(i) for i in range(26))).split("\n")
    assert (lines[0], lines[25], len(lines)) == ("A: 0", "Z: 25", 26)


def test_in_a_chat_the_prompt_is_the_users_turn_and_nothing_separates() -> None:
    made = render(Example("1", "de", "mood", "gut", input="Toll."), MOOD, chat=True)
    assert made.prompt == (("user", "Kritik: Toll.\nUrteil:"),)
    assert (made.target, made.candidates) == ("gut", ("gut", "schlecht"))


def test_rows_with_their_own_prompt_are_taken_as_they_are() -> None:
    text = Example("1", "de", "instruction", " ja", prompt="Sag {ja}:")
    made = render(text, TaskSettings(kind="generation"))
    assert (made.prompt, made.target) == ("Sag {ja}:", " ja")
    assert render(text, TaskSettings(kind="generation"), chat=True).prompt == (("user", "Sag {ja}:"),)
    turns = (("system", "Kurz."), ("user", "Hallo?"))
    for chat in (False, True):
        made = render(
            Example("1", "de", "instruction", "Ja.", messages=turns), TaskSettings(kind="generation"), chat=chat
        )
        assert (made.prompt, made.target) == (turns, "Ja.")


def test_a_language_without_prompt_is_told_with_the_key_that_mends_it() -> None:
    task = TaskSettings(kind="generation", prompt={"de": "{input}"})
    with pytest.raises(DataError, match="task 'recap' has no prompt for language 'ja'") as caught:
        render(Example("1", "ja", "recap", "x", input="y"), task)
    assert caught.value.hint == "add tasks.recap.prompt.ja to the suite file"


def test_plain_prompts_start_once_targets_end_and_candidates_do_not(tokenizer: Any) -> None:
    made = encode(tokenizer, render(Example("1", "de", "mood", "schlecht", input="Fade."), MOOD))
    start, end = tokenizer.convert_tokens_to_ids("<s>"), tokenizer.convert_tokens_to_ids("</s>")
    assert made.prompt[0] == start
    assert made.prompt.count(start) == 1
    assert tokenizer.decode(made.prompt[1:]) == "Kritik: Fade.\nUrteil:"
    assert made.target[-1] == end
    assert made.target[:-1] == made.candidates[1]
    assert [tokenizer.decode(ids) for ids in made.candidates] == [" gut", " schlecht"]
    assert end not in made.candidates[0] + made.candidates[1]
    assert made.answer == 1


def test_a_chat_starts_once_and_ends_where_the_answer_begins(tokenizer: Any) -> None:
    made = encode(tokenizer, render(Example("1", "de", "mood", "gut", input="Toll."), MOOD, chat=True))
    assert tokenizer.decode(made.prompt) == "<s><user>Kritik: Toll.\nUrteil:<assistant>"
    assert made.prompt.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(made.target) == "gut</s>"


def test_a_chat_needs_a_template(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    made = render(Example("1", "de", "mood", "gut", input="Toll."), MOOD, chat=True)
    with pytest.raises(BaseModelError, match="tokenizer has no chat template") as caught:
        encode(tokenizer, made)
    assert "base_model.prompt_format: plain" in caught.value.hint


class _WithoutMarks:
    """Ids are code points; there is no token of start or end, as with some tokenizers."""

    bos_token_id = eos_token_id = None
    chat_template = None

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        self.seen += texts
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def test_tokenizers_without_start_and_end() -> None:
    made = encode(_WithoutMarks(), render(Example("1", "de", "x", "b", input="a"), TaskSettings(kind="generation")))
    assert (made.prompt, made.target) == ((97,), (32, 98))


def test_every_text_is_tokenised_once_for_all_rows() -> None:
    rows = [Example("1", "de", "mood", label, input=text) for text in ("a", "b", "a") for label in ("gut", "schlecht")]
    tokenizer = _WithoutMarks()
    rendered = [render(row, MOOD) for row in rows]
    assert encode_all(tokenizer, rendered) == [encode(_WithoutMarks(), one) for one in rendered]
    assert sorted(tokenizer.seen) == [" gut", " schlecht", "Kritik: a\nUrteil:", "Kritik: b\nUrteil:"]
    assert encode_all(tokenizer, []) == []


def test_a_direction_fills_its_slot() -> None:
    task = TaskSettings(kind="translation", prompt="{direction}: {input} ->")
    made = render(Example("1", "ja", "t", "雨", input="rain", direction="en-ja"), task)
    assert (made.prompt, made.target, made.candidates) == ("en-ja: rain ->", " 雨", ())


@pytest.mark.parametrize("chat", [False, True])
def test_text_that_is_read_stands_as_it_is(chat: bool) -> None:
    made = render(Example("1", "de", "t", "", input="Regen {input}"), TaskSettings(kind="perplexity"), chat=chat)
    assert (made.prompt, made.target, made.candidates, made.answer) == ("Regen {input}", "", (), -1)


def test_the_pocket_labels_are_single_tokens_in_every_language(pocket_assets: Path) -> None:
    from transformers import AutoTokenizer

    pocket = AutoTokenizer.from_pretrained(pocket_assets)
    for lang in LANGUAGES:
        words = list(tables()["labels"][lang].values())
        task = TaskSettings(kind="classification", labels=words)
        made = encode(pocket, render(Example("1", lang, "sentiment", words[0], input="x"), task))
        assert [len(candidate) for candidate in made.candidates] == [1, 1, 1], lang
        assert len(set(made.candidates)) == 3
