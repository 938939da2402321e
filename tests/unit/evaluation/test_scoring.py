"""The local engine against a naive reference: one row at a time, full logits, everything computed anew every token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from adapterctl.errors import AdapterError
from adapterctl.evaluation import scoring
from adapterctl.evaluation.answers import Answer, answer, prepare
from adapterctl.evaluation.likelihood import text_log_likelihoods
from adapterctl.evaluation.scoring import LocalEngine
from adapterctl.examples import Example, parse_row
from adapterctl.tasks import TaskSettings, with_instruction

CONTEXT = 400


def answers_of(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    tasks: dict[str, TaskSettings],
    *,
    chat: bool = False,
    batch_size: int = 8,
    batch_tokens: int = 16384,
    progress: Any = None,
) -> tuple[Answer, ...]:
    engine = LocalEngine(model, tokenizer, batch_size=batch_size, batch_tokens=batch_tokens)
    return answer(engine, prepare(tokenizer, examples, tasks, chat=chat, context=CONTEXT), progress)


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


def check_against_naive(model: Any, tokenizer: Any, examples: Any, tasks: Any, answers: Any, ends: set[int]) -> None:
    for example, got in zip(examples, answers, strict=True):
        prompt = [tokenizer.bos_token_id, *ids(tokenizer, prompt_text(example))]
        if tasks[example.task].generates:
            text, ended = naive_greedy(model, prompt, tasks[example.task].max_new_tokens, ends)
            assert got.prediction == tokenizer.decode(text, skip_special_tokens=True).strip()
            assert got.details == {"ended": ended}
            continue
        texts = candidates_of(example, tasks)
        tokens = [ids(tokenizer, " " + text) for text in texts]
        with_end = any(one != other and other[: len(one)] == one for one in tokens for other in tokens)
        wanted = [naive_log_likelihood(model, prompt, one + [2] * with_end) for one in tokens]
        assert got.details["log_likelihoods"] == pytest.approx(wanted, abs=2e-4)
        assert got.details.get("with_end", False) == with_end
        assert got.prediction == texts[wanted.index(max(wanted))]
        assert got.details["chosen"] == wanted.index(max(wanted))
        right = texts.index(example.reference) if example.task == "sentiment" else example.answer_index
        assert got.details["answer"] == right


def test_every_row_is_answered_as_in_a_naive_reference(model, tokenizer, examples, tasks):
    answers = answers_of(model, tokenizer, examples, tasks)
    check_against_naive(model, tokenizer, examples, tasks, answers, {2})


def test_the_rows_cover_single_and_several_tokens_and_different_numbers_of_candidates(tokenizer, examples, tasks):
    lengths = [
        [len(ids(tokenizer, " " + text)) for text in candidates_of(one, tasks)] for one in examples if one.choices
    ]
    assert any(set(row) == {1} for row in lengths)
    assert any(len(set(row)) > 1 for row in lengths)
    assert {len(row) for row in lengths} == {2, 3}
    assert [len(ids(tokenizer, word)) for word in (" good", " bad")] == [1, 1]


@pytest.mark.parametrize(
    ("batch_size", "batch_tokens"), [(1, 16384), (3, 16384), (64, 16384), (64, 300), (64, 1), (5, 150)]
)
def test_size_of_batches_and_order_change_nothing(model, tokenizer, examples, tasks, batch_size, batch_tokens):
    known = answers_of(model, tokenizer, examples, tasks)
    again = answers_of(model, tokenizer, examples[::-1], tasks, batch_size=batch_size, batch_tokens=batch_tokens)[::-1]
    assert [one.prediction for one in again] == [one.prediction for one in known]
    for one, other in zip(again, known, strict=True):
        assert one.details.get("log_likelihoods", []) == pytest.approx(
            other.details.get("log_likelihoods", []), abs=1e-4
        )


@pytest.fixture(scope="module")
def gpt2(tokenizer: Any) -> Any:
    """A model that knows absolute positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=400, vocab_size=len(tokenizer), initializer_range=0.3,
            bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        return GPT2LMHeadModel(config).eval()


def test_positions_count_from_each_rows_own_beginning(gpt2, tokenizer, examples, tasks):
    answers = answers_of(gpt2, tokenizer, examples, tasks)
    check_against_naive(gpt2, tokenizer, examples, tasks, answers, {2})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_with_an_adapter_the_adapter_answers(model, tokenizer, examples, tasks):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj", "lm_head"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        adapted = get_peft_model(copy.deepcopy(model), config).eval()
    answers = answers_of(adapted, tokenizer, examples, tasks)
    check_against_naive(adapted, tokenizer, examples, tasks, answers, {2})
    plain = answers_of(model, tokenizer, examples, tasks)
    assert [one.details for one in plain] != [one.details for one in answers]


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
    texts = [one for one in examples if tasks[one.task].generates]
    answers = answers_of(ending, tokenizer, texts, tasks)
    assert {one.details["ended"] for one in answers} == {True, False}
    check_against_naive(ending, tokenizer, texts, tasks, answers, set(ending.generation_config.eos_token_id))


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
        assert answers_of(ending, tokenizer, [example], tasks)[0].prediction == text


def test_what_a_model_folder_says_about_sampling_does_not_matter(model, tokenizer, examples, tasks):
    texts = [one for one in examples if one.task == "summary"]
    other = copy.deepcopy(model)
    other.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=9.0, max_new_tokens=2)
    assert answers_of(other, tokenizer, texts, tasks) == answers_of(model, tokenizer, texts, tasks)


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
    for got, (_, prompt) in zip(answers_of(model, tokenizer, examples, known), rows, strict=True):
        text, _ = naive_greedy(model, prompt, 64, {2})
        assert got.prediction == tokenizer.decode(text, skip_special_tokens=True).strip()


def test_a_label_with_its_own_prompt_is_chosen_among_the_labels(model, tokenizer, tasks):
    row = {"prompt": "warm soup ->", "completion": "good", "task": "sentiment"}
    (got,) = answers_of(model, tokenizer, [parse_row(row, lang="en", tasks=tasks, fallback_id="r")], tasks)
    prompt = [1, *ids(tokenizer, "warm soup ->")]
    wanted = [naive_log_likelihood(model, prompt, ids(tokenizer, word)) for word in ("good", "bad")]
    assert got.details["log_likelihoods"] == pytest.approx(wanted, abs=2e-4)


def test_calibration_subtracts_what_the_labels_are_worth_behind_the_empty_template(model, tokenizer, examples, tasks):
    calibrated = {"sentiment": tasks["sentiment"].model_copy(update={"calibration": "prior"})}
    rows = [one for one in examples if one.task == "sentiment"]
    plain = answers_of(model, tokenizer, rows, tasks)
    answers = answers_of(model, tokenizer, rows, calibrated)
    for example, got in zip(rows, answers, strict=True):
        labels = tasks["sentiment"].labels[example.lang]
        empty = [1, *ids(tokenizer, "\nSentiment:")]
        priors = [naive_log_likelihood(model, empty, ids(tokenizer, " " + label)) for label in labels]
        assert got.details["priors"] == pytest.approx(priors, abs=2e-4)
        gains = [value - prior for value, prior in zip(got.details["log_likelihoods"], priors, strict=True)]
        assert got.prediction == labels[gains.index(max(gains))]
    assert [one.details["log_likelihoods"] for one in answers] == [one.details["log_likelihoods"] for one in plain]
    assert [one.prediction for one in answers] != [one.prediction for one in plain]


def test_chat_prompts_become_turns_without_separator(model, tokenizer, examples, tasks):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m.role }}: {{ m.content }}{% endfor %}<turn>assistant:"
    example = next(one for one in examples if one.task == "sentiment" and one.lang == "de")
    (got,) = answers_of(model, tokenizer, [example], tasks, chat=True)
    prompt = ids(tokenizer, f"<turn>user: {example.input}\nSentiment:<turn>assistant:")
    wanted = [naive_log_likelihood(model, prompt, ids(tokenizer, word)) for word in ("gut", "schlecht")]
    assert got.details["log_likelihoods"] == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("task", ["sentiment", "summary"])
def test_a_prompt_beyond_the_context_loses_its_beginning(model, tokenizer, tasks, task):
    text = " ".join(f"rain {number}" for number in range(400))
    example = Example(id="long", lang="en", task=task, reference="good", input=text)
    (got,) = answers_of(model, tokenizer, [example], tasks)
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
    answers_of(training, tokenizer, examples, tasks, progress=lambda done, of: told.append((done, of)))
    assert training.training
    assert told[-1] == (len(examples), len(examples))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_what_reads_answers_as_they_come_does_so_outside_of_inference_mode(model, tokenizer, examples, tasks):
    rows = prepare(tokenizer, examples, tasks, chat=False, context=CONTEXT)
    engine = LocalEngine(copy.deepcopy(model).train(), tokenizer, batch_size=2, batch_tokens=16384)
    for _ in engine.texts([row for row in rows if row.task.generates]):
        assert not torch.is_inference_mode_enabled()


READ = {"text": TaskSettings(kind="perplexity")}
TEXTS = [
    "rain",
    "the soup was warm and good",
    "東京は日本の首都です。",
    "two trains met " * 9,
    "雨が降り、列車は遅れた。" * 3,
]


def read(*texts: str) -> list[Example]:
    return [Example(f"{number}", "en", "text", "", input=text) for number, text in enumerate(texts)]


def naive_reading(model: Any, tokens: list[int]) -> float:
    return -naive_log_likelihood(model, tokens[:1], tokens[1:])


@pytest.mark.parametrize("batch_tokens", [16384, 200, 1])
@pytest.mark.parametrize("most_logits", [2**28, 320 * 5 * 7, 1])
def test_text_is_read_as_in_a_naive_reference(model, tokenizer, monkeypatch, batch_tokens, most_logits):
    """The last sizes make a piece as short as 7 tokens, and 1."""
    monkeypatch.setattr(scoring, "_MOST_LOGITS", most_logits)
    answers = answers_of(model, tokenizer, read(*TEXTS), READ, batch_tokens=batch_tokens)
    for text, got in zip(TEXTS, answers, strict=True):
        tokens = ids(tokenizer, text)
        assert got.prediction == ""
        assert got.details["nats"] == pytest.approx(naive_reading(model, [1, *tokens]), abs=1e-3)
        assert (got.details["tokens"], got.details["bytes"]) == (len(tokens), len(text.encode()))


def test_pieces_of_a_text_know_absolute_positions(gpt2, tokenizer):
    rows = [[1, *ids(tokenizer, text)] for text in TEXTS]
    with torch.inference_mode():
        found = text_log_likelihoods(gpt2, rows, pad=0, most_logits=11 * len(rows))
    wanted = [(naive_reading(gpt2, row), len(row) - 1) for row in rows]
    assert found == [(pytest.approx(nats, abs=1e-3), count) for nats, count in wanted]


def test_a_text_beyond_the_context_loses_its_end(model, tokenizer):
    text = "雨 rain " * 200
    (got,) = answers_of(model, tokenizer, read(text), READ)
    tokens = ids(tokenizer, text)
    assert got.details["dropped_tokens"] == 1 + len(tokens) - CONTEXT
    assert got.details["tokens"] == CONTEXT - 1
    assert got.details["nats"] == pytest.approx(naive_reading(model, [1, *tokens[: CONTEXT - 1]]), abs=2e-3)
    kept = tokenizer.decode(tokens[: CONTEXT - 1]).rstrip("\ufffd")
    assert text.startswith(kept)
    assert got.details["bytes"] == len(kept.encode())


@pytest.mark.parametrize("task", ["sentiment", "reasoning", "summary", "text"])
def test_a_model_that_answers_with_nan_is_refused(model, tokenizer, examples, tasks, task):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight[3, 3] = float("nan")
    example = next(one for one in (*examples, *read("rain")) if one.task == task)
    with pytest.raises(AdapterError, match=r"NaN \(not a number\)") as caught:
        answers_of(broken, tokenizer, [example], tasks | READ)
    assert f"row '{example.id}'" in caught.value.message


def test_the_row_that_is_answered_with_nan_is_named_though_others_share_its_batch(model, tokenizer, tasks):
    broken = copy.deepcopy(model)
    (token,) = set(ids(tokenizer, " good")) - set(ids(tokenizer, " bad rain"))
    with torch.no_grad():
        broken.model.embed_tokens.weight[token] = float("nan")
    rows = [
        Example(name, "en", "summary", "x", input=text)
        for name, text in (("a", "bad bad rain"), ("b", "rain good"), ("c", "rain and bad bad rain"))
    ]
    with pytest.raises(AdapterError, match=r"row 'b' \(en, summary\) with NaN"):
        answers_of(broken, tokenizer, rows, tasks)
