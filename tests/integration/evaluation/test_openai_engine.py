"""The engine that asks over HTTP, against a server that serves a small model by its own means."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import httpx
import pytest
import torch
from tests.support.completion_server import Serve, ordered

from adapterctl.errors import AdapterctlError, AdapterError, EndpointError, UsageError
from adapterctl.evaluation.answers import answer, prepare
from adapterctl.evaluation.engine import Engine, PreparedRow
from adapterctl.evaluation.scoring import LocalEngine
from adapterctl.examples import Example
from adapterctl.tasks import TaskSettings


def by_hand(model: Any, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> float:
    """Σ log p of ``tokens`` after ``prompt``, a token at a time."""
    total, so_far = 0.0, list(prompt)
    for token in tokens:
        with torch.inference_mode():
            total += model(torch.tensor([so_far])).logits[0, -1].double().log_softmax(-1)[token].item()
        so_far.append(token)
    return total


def test_log_likelihoods_are_those_of_the_model(serve: Serve, engine: Any, model: Any, choosing: list) -> None:
    found = ordered(engine(serve()).log_likelihoods(choosing), len(choosing))
    for values, asked in zip(found, choosing, strict=True):
        assert values == pytest.approx([by_hand(model, asked.prompt, tokens) for tokens in asked.candidates], abs=1e-4)


def test_readings_are_those_of_the_model(serve: Serve, engine: Any, model: Any, reading: list) -> None:
    found = ordered(engine(serve()).readings(reading), len(reading))
    for (nats, count), asked in zip(found, reading, strict=True):
        assert count == len(asked.prompt) - 1
        assert nats == pytest.approx(-by_hand(model, asked.prompt[:1], asked.prompt[1:]), abs=1e-4)


def test_all_is_as_in_this_process(
    serve: Serve, engine: Any, model: Any, tokenizer: Any, choosing: list, writing: list, reading: list
) -> None:
    local: Engine = LocalEngine(model, tokenizer, batch_size=4, batch_tokens=1024)
    remote: Engine = engine(serve())
    assert (local.signature, remote.signature) == ("transformers", "openai")
    for here, there in zip(
        ordered(local.log_likelihoods(choosing), len(choosing)),
        ordered(remote.log_likelihoods(choosing), len(choosing)),
        strict=True,
    ):
        assert there == pytest.approx(here, abs=1e-4)
    for here, there in zip(
        ordered(local.readings(reading), len(reading)), ordered(remote.readings(reading), len(reading)), strict=True
    ):
        assert there[0] == pytest.approx(here[0], abs=1e-4)
        assert there[1] == here[1]
    texts = ordered(remote.texts(writing), len(writing))
    assert texts == ordered(local.texts(writing), len(writing))
    assert {ended for _, ended in texts} == {True, False}


def test_rows_of_every_kind_are_answered_as_in_this_process(
    serve: Serve, engine: Any, model: Any, tokenizer: Any
) -> None:
    labels = TaskSettings(kind="classification", labels=["good", "good bad", "fair"], calibration="prior")
    tasks = {
        "labels": labels,
        "choices": TaskSettings(kind="multiple-choice", prompt="{question}"),
        "text": TaskSettings(kind="translation", max_new_tokens=9),
        "read": TaskSettings(kind="perplexity", separator=""),
    }
    place = {"lang": "en", "reference": "good"}
    examples = [
        Example(**place, id="1", task="labels", input="the soup was warm"),
        Example(**place, id="2", task="labels", input="おいしい"),
        Example(**place, id="3", task="choices", question="the sea is", choices=("blue", "good"), answer_index=1),
        Example(**place, id="4", task="text", input="the night was long " * 9),
        Example(id="5", lang="en", task="read", reference="", input="the grass is green; where does it live " * 9),
    ]
    rows = prepare(tokenizer, examples, tasks, chat=False, context=60)
    here = answer(LocalEngine(model, tokenizer, batch_size=4, batch_tokens=1024), rows)
    there = answer(engine(serve()), rows)
    assert here[0].details["with_end"]
    assert here[4].details["dropped_tokens"] > 0
    for ours, theirs in zip(here, there, strict=True):
        assert theirs.prediction == ours.prediction
        assert theirs.details.keys() == ours.details.keys()
        for name, value in ours.details.items():
            assert theirs.details[name] == pytest.approx(value, abs=1e-4), name


def test_what_is_asked_leaves_nothing_to_the_server(serve: Serve, engine: Any, writing: list, choosing: list) -> None:
    server = serve()
    list(engine(server).texts(writing[1:2]))
    list(engine(server).log_likelihoods(choosing[:1]))
    text, likelihood = server.bodies
    assert text == {
        "model": "tiny",
        "prompt": list(writing[1].prompt),
        "max_tokens": 3,
        "temperature": 0.0,
        "top_p": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
    }
    assert likelihood["prompt"] == [[*choosing[0].prompt, *tokens] for tokens in choosing[0].candidates]
    assert (likelihood["echo"], likelihood["logprobs"], likelihood["max_tokens"]) == (True, 1, 1)


def test_requests_run_together_but_not_more_than_allowed(serve: Serve, engine: Any, writing: list) -> None:
    server = serve(together=3)
    assert len(list(engine(server, concurrency=3).texts(writing))) == 6
    assert server.most_at_once == 3


def test_a_text_of_one_token_says_nothing(serve: Serve, engine: Any, reading: list) -> None:
    server = serve()
    bare = PreparedRow(reading[0].example, reading[0].task, (1,), (), 0, "")
    assert list(engine(server).readings([bare])) == [(0, (0.0, 0))]
    assert server.bodies == []


def test_half_a_character_at_the_end_can_be_written_to_a_file(
    serve: Serve, engine: Any, writing: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that is cut at its longest may end within a surrogate pair, of which JSON can write one half."""
    one = engine(serve())
    monkeypatch.setattr(one, "_choices", lambda body, count: [{"text": " moon \ud83d", "finish_reason": "length"}])
    assert list(one.texts(writing[:1])) == [(0, ("moon ?", False))]


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ("[" * 200_000, EndpointError, "answers with something that is not JSON"),
        ('{"choices": [{"index": [], "text": "x"}]}', EndpointError, "one choice for each prompt"),
        (
            '{"choices": [{"index": 0, "logprobs": {"token_logprobs": [null, -1' + "0" * 400 + "]}}]}",
            UsageError,
            "leaves out",
        ),
    ],
    ids=["nested", "index", "number"],
)
def test_an_answer_of_no_use_is_told_and_no_surprise(
    serve: Serve, engine: Any, reading: list, said: str, kind: type[AdapterctlError], told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    one, row = engine(serve()), replace(reading[0], prompt=(1, 2))
    one.check()
    answered = httpx.Response(200, content=said)
    monkeypatch.setattr(one._endpoint._client, "request", lambda *_, **__: answered)
    with pytest.raises(kind, match=told):
        list(one.readings([row]))


def test_no_rows_ask_nothing(serve: Serve, engine: Any) -> None:
    server = serve()
    assert list(engine(server).texts([])) == []
    assert server.keys == []


def test_the_context_is_what_the_server_says(serve: Serve, engine: Any) -> None:
    assert engine(serve(context=200)).context == 199
    assert engine(serve()).context is None


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("no-logprobs", UsageError, "gives no log-likelihoods for the"),
        ("not-echoed", UsageError, "gives 1 log-likelihoods for the"),
        ("null", UsageError, "leaves out the log-likelihood of a token of row 'r0' (en, t)"),
        ("nan", AdapterError, "answers row 'r0' (en, t) with NaN"),
    ],
)
def test_log_likelihoods_that_are_none(
    serve: Serve, engine: Any, choosing: list, reading: list, fault: str, kind: type[AdapterctlError], said: str
) -> None:
    one = engine(serve(always=fault))
    with pytest.raises(kind, match=re.escape(said)) as caught:
        list(one.log_likelihoods(choosing[:1]))
    assert ("echo" in caught.value.hint) == (kind is UsageError)
    with pytest.raises(kind):
        list(one.readings(reading[:1]))


def test_another_model_is_refused_before_anything_is_asked(serve: Serve, engine: Any, writing: list) -> None:
    server = serve()
    with pytest.raises(UsageError, match="does not serve a model 'huge'; it serves another, tiny") as caught:
        list(engine(server, "huge").texts(writing))
    assert "--served-model-name" in caught.value.hint
    assert server.bodies == []
