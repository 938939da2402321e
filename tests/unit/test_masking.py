"""What is taken out of a text before anybody else sees it, and what stays."""

from __future__ import annotations

import pytest

from adapterctl.masking import mask, secrets_of

CANARY = "CanaryBird-7f3a"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("psycopg: postgresql://me:p@ss:w@db:5432/x", "psycopg: postgresql://***@db:5432/x"),
        ("s3?X-Amz-Signature=abc123&X-Amz-Date=1", "s3?X-Amz-Signature=***&X-Amz-Date=1"),
        ("AWS_SECRET_ACCESS_KEY=wJalr/x+y aws configure", "AWS_SECRET_ACCESS_KEY=*** aws configure"),
        ("https://h/?api_key=k&apikey=k&api-key=k", "https://h/?api_key=***&apikey=***&api-key=***"),
        ("{'password': 'x y', \"api_key\": \"q\"}", "{'password': '***', \"api_key\": \"***\"}"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("headers {'Authorization': 'Bearer abc'}", "headers {'Authorization': 'Bearer ***'}"),
        ("sent Bearer abcdefghij0123456789.x", "sent Bearer ***"),
        ("hf_abcdefghijklmnopqrstuvwx!", "***!"),
        ("key AKIAIOSFODNN7EXAMPLE", "key ***"),
        ("sk-proj-abcdefghijklmnop", "***"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijk", "***"),
    ],
)
def test_secrets_are_taken_out(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "the tokenizer's pad_token=</s> and max_new_tokens=24",
        '{"training_key": "abc", "merge_key": "def", "key": "update:0123456789abcdef"}',
        "basic authentication, bearer of news",
        "http://host:5000/a@b",
        "token: expected a text",
        "/srv/shop",
    ],
)
def test_what_is_no_secret_stays(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/srv/shop")
    assert mask(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN",
        "OPENAI_API_KEY", "AWS_SESSION_TOKEN", "DB_PWD", "MLFLOW_FLASK_SERVER_SECRET_KEY", "hub_token",
    ],
)  # fmt: skip
def test_variables_that_are_called_so_are_masked_wherever_they_stand(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, CANARY)
    assert mask(f"refused: '{CANARY}'\n{CANARY}, x{CANARY}y") == "refused: '***'\n***, x***y"


def test_forms_that_a_secret_takes_in_an_address_and_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", 'a/b"c d')
    assert mask('a%2Fb%22c%20d {"said": "a/b\\"c d"}') == '*** {"said": "***"}'


def test_the_password_of_an_address_is_masked_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cr%40t1@host")
    assert mask("login of me with s3cr@t1 (s3cr%40t1) failed") == "login of me with *** (***) failed"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert mask("with s3cr@t1", also=["https://me:s3cr%40t1@host"]) == "with ***"


def test_short_words_and_parts_of_words_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "ja")
    monkeypatch.setenv("OTHER_TOKEN", "merged")
    assert mask("ja was merged; remerged") == "ja was ***; remerged"


def test_paths_and_switches_are_no_secrets() -> None:
    environment = {"HF_TOKEN_PATH": "/home/me/token", "TOKENIZERS_PARALLELISM": "false-ish", "PWD": "/home/me/work"}
    assert secrets_of(environment) == ()
