"""Scoring against a naive reference: one row at a time, full logits, everything computed anew for every token."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from adapterctl.errors import AdapterError, BaseModelError, DataError
from adapterctl.evaluation.scoring import score
from adapterctl.examples import Example, parse_row
from adapterctl.tasks import TaskSettings, with_instruction


def naive_log_likelihood(model: Any, prompt: list[int], candidate: list[int]) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + candidate])).logits[0].double()
    logs = torch.log_softmax(logits, dim=-1)
    return sum(float(logs[len(prompt) + place - 1, token]) for place, token in enumerate(candidate))


def naive_greedy(model: Any, prompt: list[int], most: int, ends: set[int]) -> tuple[list[int], bool]:
    text: list[int] = []
    while len(text) < most:
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([prompt + text])).logits[0, -1].argmax())
        if token in ends:
            return text, True
        text.append(token)
    return text, False


def prompt_text(example: Example) -> str:
    """Write the prompts of conftest's tasks down a second time, by hand."""
    lines = "\n".join(f"{'ABC'[place]}: {choice}" for place, choice in enumerate(example.choices))
    return {
        "sentiment": f"{example.input}\nSentiment:",
        "reasoning": f"{example.question}\n{lines}\nAnswer:",
        "letters": f"{example.question}\n{lines}\nAnswer:",
        "summary": f"{example.input}\nSummary:",
        "headline": f"{example.input}\nHeadline:",
    }[example.task]


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def candidates_of(example: Example, tasks: dict[str, TaskSettings]) -> list[str]:
    if example.task == "sentiment":
        return list(tasks["sentiment"].labels[example.lang])
    return list("ABC"[: len(example.choices)]) if example.task == "letters" else list(example.choices)


def check_against_naive(model: Any, tokenizer: Any, examples: Any, tasks: Any, scores: Any, ends: set[int]) -> None:
    for example, got in zip(examples, scores, strict=True):
        prompt = [tokenizer.bos_token_id, *ids(tokenizer, prompt_text(example))]
        assert (got.id, got.lang, got.task) == (example.id, example.lang, example.task)
        if tasks[example.task].kind == "text":
            text, ended = naive_greedy(model, prompt, tasks[example.task].max_new_tokens, ends)
            assert got.prediction == tokenizer.decode(text, skip_special_tokens=True).strip()
            assert got.details["ended"] is ended
            assert got.reference == example.reference
            continue
        texts = candidates_of(example, tasks)
        wanted = [naive_log_likelihood(model, prompt, ids(tokenizer, " " + text)) for text in texts]
        assert got.details["log_likelihoods"] == pytest.approx(wanted, abs=2e-4)
        assert got.prediction == texts[wanted.index(max(wanted))]
        right = texts.index(example.reference) if example.task == "sentiment" else example.answer_index
        assert got.reference == texts[right]
        assert got.score == (1.0 if got.prediction == got.reference else 0.0)


def test_every_row_scores_as_in_a_naive_reference(model, tokenizer, examples, tasks):
    scores = score(model, tokenizer, examples, tasks, batch_size=8)
    check_against_naive(model, tokenizer, examples, tasks, scores, {2})


def test_the_rows_cover_single_and_several_tokens_and_different_numbers_of_candidates(tokenizer, examples, tasks):
    lengths = [
        [len(ids(tokenizer, " " + text)) for text in candidates_of(one, tasks)] for one in examples if one.choices
    ]
    assert any(set(row) == {1} for row in lengths)
    assert any(len(set(row)) > 1 for row in lengths)
    assert {len(row) for row in lengths} == {2, 3}
    assert [len(ids(tokenizer, word)) for word in (" good", " bad")] == [1, 1]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_and_order_change_nothing(model, tokenizer, examples, tasks, batch_size):
    known = score(model, tokenizer, examples, tasks, batch_size=8)
    again = score(model, tokenizer, examples[::-1], tasks, batch_size=batch_size)[::-1]
    assert [one.prediction for one in again] == [one.prediction for one in known]
    for one, other in zip(again, known, strict=True):
        assert one.row == other.row
        assert one.details.get("log_likelihoods", []) == pytest.approx(
            other.details.get("log_likelihoods", []), abs=1e-4
        )


def test_positions_count_from_each_rows_own_beginning(tokenizer, examples, tasks):
    """GPT-2 knows absolute positions, so padding on the left would shift them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=400, vocab_size=len(tokenizer), initializer_range=0.3,
            bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        gpt2 = GPT2LMHeadModel(config).eval()
    scores = score(gpt2, tokenizer, examples, tasks, batch_size=8)
    check_against_naive(gpt2, tokenizer, examples, tasks, scores, {2})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_with_an_adapter_the_adapter_answers(model, tokenizer, examples, tasks):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj", "lm_head"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        adapted = get_peft_model(copy.deepcopy(model), config).eval()
    scores = score(adapted, tokenizer, examples, tasks, batch_size=8)
    check_against_naive(adapted, tokenizer, examples, tasks, scores, {2})
    plain = score(model, tokenizer, examples, tasks, batch_size=8)
    assert [one.details for one in plain] != [one.details for one in scores]


@pytest.fixture
def ending(model, tokenizer, examples, tasks) -> Any:
    """The model with a further end token: one that its texts really come to, some early, some never."""
    texts = [one for one in examples if one.task == "summary"]
    written = [naive_greedy(model, [1, *ids(tokenizer, prompt_text(one))], 9, {2})[0] for one in texts]
    later = [token for text in written for token in text[1:]]
    often = max(set(later), key=later.count)
    places = {text.index(often) if often in text else None for text in written}
    assert len(places) >= 3
    assert None in places
    other = copy.deepcopy(model)
    other.generation_config.eos_token_id = [2, often]
    return other


def test_texts_end_at_every_end_token_of_the_model(ending, tokenizer, examples, tasks):
    texts = [one for one in examples if tasks[one.task].kind == "text"]
    scores = score(ending, tokenizer, texts, tasks, batch_size=16)
    assert {one.details["ended"] for one in scores} == {True, False}
    check_against_naive(ending, tokenizer, texts, tasks, scores, set(ending.generation_config.eos_token_id))


def test_texts_are_those_of_generate(ending, tokenizer, examples, tasks):
    for example in (one for one in examples if one.task == "summary"):
        prompt = torch.tensor([[1, *ids(tokenizer, prompt_text(example))]])
        made = ending.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=9,
            pad_token_id=0,
        )[0, prompt.shape[1] :].tolist()
        ends = [place for place, token in enumerate(made) if token in ending.generation_config.eos_token_id]
        text = tokenizer.decode(made[: ends[0]] if ends else made, skip_special_tokens=True).strip()
        assert score(ending, tokenizer, [example], tasks)[0].prediction == text


def test_what_a_model_folder_says_about_sampling_does_not_matter(model, tokenizer, examples, tasks):
    texts = [one for one in examples if one.task == "summary"]
    other = copy.deepcopy(model)
    other.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=9.0, max_new_tokens=2)
    assert score(other, tokenizer, texts, tasks) == score(model, tokenizer, texts, tasks)


def test_text_scores_are_the_primary_metric(model, tokenizer, examples, tasks):
    def perfect(example: Example) -> Example:
        (got,) = score(model, tokenizer, [example], tasks)
        return replace(example, reference="left out " + got.prediction)

    summary, headline = (next(one for one in examples if one.task == task) for task in ("summary", "headline"))
    for example, name in ((perfect(summary), "rouge_l"), (perfect(headline), "rouge_1")):
        (got,) = score(model, tokenizer, [example], tasks)
        assert got.score == got.details[name]
        assert 0 < got.score < 1


def test_rows_in_trls_forms(model, tokenizer, tasks):
    known = with_instruction(tasks)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m.role }}: {{ m.content }}{% endfor %}<turn>assistant:"
    chat = [{"role": "user", "content": "two trains"}, {"role": "assistant", "content": "met"}]
    rows = [
        ({"prompt": "two trains\n", "completion": "met"}, [1, *ids(tokenizer, "two trains\n")]),
        ({"messages": chat}, ids(tokenizer, "<turn>user: two trains<turn>assistant:")),
        ({"prompt": chat[:1], "completion": chat[1:]}, ids(tokenizer, "<turn>user: two trains<turn>assistant:")),
    ]
    examples = [parse_row(row, lang="en", tasks=known, fallback_id=f"r{i}") for i, (row, _) in enumerate(rows)]
    for got, (_, prompt) in zip(score(model, tokenizer, examples, known), rows, strict=True):
        text, _ = naive_greedy(model, prompt, 64, {2})
        assert got.prediction == tokenizer.decode(text, skip_special_tokens=True).strip()
        assert got.reference == "met"


def test_a_label_with_its_own_prompt_is_chosen_among_the_labels(model, tokenizer, tasks):
    row = {"prompt": "warm soup ->", "completion": "good", "task": "sentiment"}
    (got,) = score(model, tokenizer, [parse_row(row, lang="en", tasks=tasks, fallback_id="r")], tasks)
    prompt = [1, *ids(tokenizer, "warm soup ->")]
    wanted = [naive_log_likelihood(model, prompt, ids(tokenizer, word)) for word in ("good", "bad")]
    assert got.details["log_likelihoods"] == pytest.approx(wanted, abs=2e-4)


def test_chat_prompts_become_turns_without_separator(model, tokenizer, examples, tasks):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m.role }}: {{ m.content }}{% endfor %}<turn>assistant:"
    example = next(one for one in examples if one.task == "sentiment" and one.lang == "de")
    (got,) = score(model, tokenizer, [example], tasks, chat=True)
    prompt = ids(tokenizer, f"<turn>user: {example.input}\nSentiment:<turn>assistant:")
    wanted = [naive_log_likelihood(model, prompt, ids(tokenizer, word)) for word in ("gut", "schlecht")]
    assert got.details["log_likelihoods"] == pytest.approx(wanted, abs=2e-4)
    (plain,) = score(model, tokenizer, [example], tasks)
    assert plain.row != got.row


def test_a_chat_needs_a_template(model, tokenizer, examples, tasks):
    with pytest.raises(BaseModelError, match="no chat template"):
        score(model, tokenizer, examples[:1], tasks, chat=True)


@pytest.mark.parametrize("task", ["sentiment", "summary"])
def test_a_prompt_beyond_the_context_loses_its_beginning(model, tokenizer, tasks, task):
    text = " ".join(f"rain {number}" for number in range(400))
    example = Example(id="long", lang="en", task=task, reference="good", input=text)
    (got,) = score(model, tokenizer, [example], tasks)
    whole = ids(tokenizer, text + ("\nSentiment:" if task == "sentiment" else "\nSummary:"))
    room = 400 - (1 if task == "sentiment" else 9)
    cut = [1, *whole[-(room - 1) :]]
    assert got.details["dropped_tokens"] == 1 + len(whole) - room
    if task == "summary":
        text_ids, _ = naive_greedy(model, cut, 9, {2})
        assert got.prediction == tokenizer.decode(text_ids, skip_special_tokens=True).strip()
    else:
        wanted = [naive_log_likelihood(model, cut, ids(tokenizer, word)) for word in (" good", " bad")]
        assert got.details["log_likelihoods"] == pytest.approx(wanted, abs=2e-4)


def test_progress_is_told_and_the_models_mode_restored(model, tokenizer, examples, tasks):
    told: list[tuple[int, int]] = []
    training = copy.deepcopy(model).train()
    score(training, tokenizer, examples, tasks, batch_size=8, progress=lambda done, of: told.append((done, of)))
    assert training.training
    assert told[-1] == (len(examples), len(examples))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_no_rows_give_no_scores(model, tokenizer, tasks):
    assert score(model, tokenizer, [], tasks) == ()


@pytest.mark.parametrize("task", ["sentiment", "reasoning", "summary"])
def test_a_model_that_answers_with_nan_is_refused(model, tokenizer, examples, tasks, task):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight[3, 3] = float("nan")
    example = next(one for one in examples if one.task == task)
    with pytest.raises(AdapterError, match="NaN") as caught:
        score(broken, tokenizer, [example], tasks)
    assert example.id in caught.value.message


def test_an_empty_prompt_is_refused(model, tokenizer, tasks):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = None
    empty = {"summary": TaskSettings(kind="text", prompt="")}
    with pytest.raises(DataError, match=r"row 'x'.*empty prompt"):
        score(model, tokenizer, [Example(id="x", lang="en", task="summary", reference="a", input="b")], empty)


def test_a_candidate_without_tokens_is_refused(model, tokenizer):
    bare = {"s": TaskSettings(kind="choice", prompt="{question}", separator="")}
    row = Example(id="x", lang="en", task="s", reference="A", question="b", choices=("good", ""), answer_index=0)
    with pytest.raises(DataError, match="no token"):
        score(model, tokenizer, [row], bare)
