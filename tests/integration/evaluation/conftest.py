"""A small model, behind a server of its own and in this process, and rows to ask it about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.completion_server import CompletionServer, Serve
from tests.support.tiny_llama import save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterctl.evaluation.engine import PreparedRow
from adapterctl.evaluation.openai_engine import OpenAIEngine
from adapterctl.examples import Example
from adapterctl.tasks import TaskSettings

CHOICE = TaskSettings(kind="multiple-choice", prompt="{question}")
TEXT = TaskSettings(kind="generation", max_new_tokens=12)
SHORT = TaskSettings(kind="generation", max_new_tokens=3)
READ = TaskSettings(kind="perplexity")

PROMPTS = [
    "the soup was",
    "the sea is blue, the fire is red, the grass is",
    "おいしい",
    "a",
    "where does it live? ",
    "night",
]
CANDIDATES = [(" warm", " long and cold"), (" green", " 青い", " good"), (" good", " bad"), (" b", " c", " d", " e")]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def model(folder: Path, tokenizer: Any) -> Any:
    """A model that ends some of its texts by itself: with a token that it likes to write."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    written = []
    for text in PROMPTS:
        given = torch.tensor([ids(tokenizer, text, start=True)])
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False)
        written.append(made[0, given.shape[1] :].tolist())
    late = [token for text in written for token in text[2:] if sum(token in other for other in written) < len(PROMPTS)]
    model.generation_config.eos_token_id = [2, late[0]]
    return model


def ids(tokenizer: Any, text: str, *, start: bool = False) -> tuple[int, ...]:
    found = tokenizer(text, add_special_tokens=False)["input_ids"]
    return (1, *found) if start else tuple(found)


def row(tokenizer: Any, number: int, task: TaskSettings, candidates: tuple[str, ...] = ()) -> PreparedRow:
    example = Example(id=f"r{number}", lang="en", task="t", reference="x", input=PROMPTS[number])
    prompt = ids(tokenizer, PROMPTS[number], start=True)
    return PreparedRow(example, task, prompt, tuple(ids(tokenizer, text) for text in candidates), 0, f"asked-{number}")


@pytest.fixture(scope="session")
def choosing(tokenizer: Any) -> list[PreparedRow]:
    return [row(tokenizer, number, CHOICE, texts) for number, texts in enumerate(CANDIDATES)]


@pytest.fixture(scope="session")
def writing(tokenizer: Any) -> list[PreparedRow]:
    return [row(tokenizer, number, SHORT if number == 1 else TEXT) for number in range(len(PROMPTS))]


@pytest.fixture(scope="session")
def reading(tokenizer: Any) -> list[PreparedRow]:
    return [row(tokenizer, number, READ) for number in range(len(PROMPTS))]


@pytest.fixture
def serve(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start servers that end with the test."""
    monkeypatch.setattr("adapterctl.endpoint._FIRST_PAUSE", 0.001)
    monkeypatch.setattr("adapterctl.endpoint._LONGEST_PAUSE", 0.002)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    started: list[CompletionServer] = []

    def start(**settings: Any) -> CompletionServer:
        started.append(CompletionServer(model, tokenizer, **settings).__enter__())
        return started[-1]

    yield start
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture
def engine() -> Iterator[Callable[..., OpenAIEngine]]:
    made: list[OpenAIEngine] = []

    def make(server: CompletionServer, model: str = "tiny", **settings: Any) -> OpenAIEngine:
        made.append(OpenAIEngine(server.url, model, **{"timeout": 30.0, **settings}))
        return made[-1]

    yield make
    for one in made:
        one.close()
