"""What goes wrong between here and a server: tried again, or told in words that help."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.support.completion_server import Serve, ordered

from adapterctl.errors import EndpointError, UsageError
from adapterctl.evaluation.openai_engine import OpenAIEngine, served_models


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_url_may_end_with_its_version(serve: Serve, ending: str) -> None:
    server = serve()
    with OpenAIEngine(server.url + ending, "tiny") as engine:
        engine.check()
    assert len(server.keys) == 1


@pytest.mark.parametrize("url", ["", "localhost:8000", "http://", "http://[::1", "ftp://host", "http://host/?a=b"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not an address") as caught:
        OpenAIEngine(url, "tiny")
    assert "--url http://localhost:8000" in caught.value.hint


@pytest.mark.parametrize("fault", ["busy", "broken", "down", "cut", "html"])
def test_what_passes_is_tried_again(serve: Serve, engine: Any, model: Any, writing: list, fault: str) -> None:
    calm = ordered(engine(serve()).texts(writing), len(writing))
    troubled = serve(faults=[fault, "", fault, fault])
    assert ordered(engine(troubled).texts(writing), len(writing)) == calm
    assert len(troubled.bodies) == len(writing) + 3


@pytest.mark.parametrize(
    ("fault", "said", "hint"),
    [
        ("busy", "answers with HTTP 429: sorry (3 tries)", "lower concurrency"),
        ("broken", "answers with HTTP 500: sorry (3 tries)", "log of the server"),
        ("down", "answers with HTTP 503: sorry (3 tries)", "log of the server"),
        ("cut", "cannot be reached: peer closed connection", "that the server runs"),
        ("html", "is not JSON: <html>hello</html> (3 tries)", "check the URL"),
        ("list", "one choice for each prompt", "log of the server"),
        ("no-choice", "one choice for each prompt", "log of the server"),
        ("abort", "does not finish row 'r0' (en, t): finish_reason is 'abort'", "log of the server"),
    ],
)
def test_what_stays_is_an_error_of_the_endpoint(
    serve: Serve, engine: Any, writing: list, fault: str, said: str, hint: str
) -> None:
    server = serve(always=fault)
    with pytest.raises(EndpointError, match=re.escape(said)) as caught:
        list(engine(server, retries=2).texts(writing[:1]))
    assert server.url in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 5


def test_silence_is_an_error_of_the_endpoint(serve: Serve, engine: Any, writing: list) -> None:
    server = serve(always="silent")
    with pytest.raises(EndpointError, match=re.escape("does not answer within 0.2 s (2 tries)")) as caught:
        list(engine(server, timeout=0.2, retries=1).texts(writing[:1]))
    assert "longer timeout" in caught.value.hint


def test_nobody_there_is_an_error_of_the_endpoint(serve: Serve, writing: list) -> None:
    server = serve()
    server.__exit__(None, None, None)
    with (
        pytest.raises(EndpointError, match=r"cannot be reached: .*refused.*2 tries") as caught,
        OpenAIEngine(server.url, "tiny", retries=1) as engine,
    ):
        list(engine.texts(writing))
    assert "host and port" in caught.value.hint


@pytest.mark.parametrize(
    ("fault", "status", "hint"), [("refused", 400, "token ids and 'echo'"), ("missing", 404, "/v1/completions")]
)
def test_a_refusal_is_told_at_once(
    serve: Serve, engine: Any, choosing: list, fault: str, status: int, hint: str
) -> None:
    server = serve(always=fault, said="no\n  logprobs here" + "!" * 500)
    with pytest.raises(UsageError, match=rf"HTTP {status}: no logprobs here!+\.\.\.") as caught:
        list(engine(server).log_likelihoods(choosing[:1]))
    assert hint in caught.value.hint
    assert len(caught.value.message) < 400
    assert len(server.bodies) == 1


def test_after_a_failure_nothing_more_is_asked(serve: Serve, engine: Any, writing: list) -> None:
    server = serve(always="refused")
    with pytest.raises(UsageError):
        list(engine(server, concurrency=1).texts(writing * 50))
    assert len(server.bodies) == 1


def test_who_stops_listening_stops_the_asking(serve: Serve, engine: Any, writing: list) -> None:
    server = serve(faults=[""], always="silent")
    answers = engine(server, concurrency=1, timeout=0.5, retries=100).texts(writing * 50)
    next(answers)
    answers.close()
    assert len(server.bodies) <= 3


def test_it_goes_on_after_a_failure(serve: Serve, engine: Any, writing: list) -> None:
    one = engine(serve(faults=["refused"]), concurrency=1)
    with pytest.raises(UsageError):
        list(one.texts(writing))
    assert len(list(one.texts(writing))) == len(writing)


def test_the_models_of_an_endpoint(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served_models(serve().url) == ("another", "tiny")
    server = serve()
    monkeypatch.setattr(server, "models", lambda: ["tiny"])
    with pytest.raises(EndpointError, match="does not answer with a list of models"):
        served_models(server.url)


def test_another_program_at_the_url(serve: Serve) -> None:
    server = serve()
    with (
        OpenAIEngine(f"{server.url}/other", "tiny") as engine,
        pytest.raises(UsageError, match="other/v1/models refuses the request with HTTP 404") as caught,
    ):
        engine.check()
    assert "check the URL" in caught.value.hint


def test_the_key_is_sent_and_never_shown(
    serve: Serve, engine: Any, writing: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(key="sk-right", always="refused", said="the key sk-right may not")
    monkeypatch.setenv("SERVING_KEY", "sk-right\n")
    with pytest.raises(UsageError, match=re.escape("the key *** may not")) as caught:
        list(engine(server, api_key_env="SERVING_KEY").texts(writing[:1]))
    assert set(server.keys) == {"Bearer sk-right"}
    assert "sk-right" not in str(caught.value)
    monkeypatch.setenv("SERVING_KEY", "sk-wrong")
    with pytest.raises(UsageError, match="HTTP 401") as caught:
        engine(server, api_key_env="SERVING_KEY").check()
    assert "sk-wrong" not in str(caught.value)
    assert "SERVING_KEY" in caught.value.hint


def test_without_a_key_none_is_sent(serve: Serve, engine: Any) -> None:
    server = serve(key="sk-right")
    with pytest.raises(UsageError, match="HTTP 401") as caught:
        engine(server).check()
    assert server.keys == [""]
    assert "OPENAI_API_KEY" in caught.value.hint


def test_a_key_that_no_header_takes_is_refused(serve: Serve, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "geheim-ü")
    with pytest.raises(UsageError, match="the key in OPENAI_API_KEY") as caught:
        engine(serve())
    assert "geheim" not in str(caught.value)


def test_a_password_in_the_url_is_not_shown(serve: Serve) -> None:
    server = serve()
    url = server.url.replace("http://", "http://me:secret@")
    with OpenAIEngine(url, "huge") as engine, pytest.raises(UsageError) as caught:
        engine.check()
    assert server.url in caught.value.message
    assert "secret" not in str(caught.value)


def test_pauses_grow_and_the_server_may_ask_for_longer_ones(
    serve: Serve, engine: Any, writing: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterctl.endpoint._FIRST_PAUSE", 0.5)
    monkeypatch.setattr("adapterctl.endpoint._LONGEST_PAUSE", 30.0)
    waited: list[float] = []
    one = engine(serve(faults=["cut", "html", "down", "html"]))
    monkeypatch.setattr(one._endpoint._stopped, "wait", waited.append)
    assert len(list(one.texts(writing[:1]))) == 1
    assert waited == [0.5, 1.0, 3.0, 4.0]
