"""Rows of two models for the gate, made by hand: texts, labels, choices and text that is read."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from adapterctl.evaluation.metrics import make_scorecard
from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.scorecard import ExampleScore, Scorecard
from adapterctl.tasks import TaskSettings

TASKS = {
    "label": TaskSettings(kind="classification", labels=["a", "b", "c"]),
    "choice": TaskSettings(kind="multiple-choice"),
    "read": TaskSettings(kind="perplexity"),
    "text": TaskSettings(kind="generation", metrics=["rouge_l", "rouge_1"]),
}
QUICK = GateSettings(resamples=999)
N = 40


def text_row(lang: str, number: int, value: float) -> ExampleScore:
    value = min(1.0, max(0.0, value))
    details = {"rouge_1": value, "rouge_l": value, "ended": True}
    return ExampleScore(f"{number:03d}", lang, "text", "p", "r", value, f"h{number}", "", details)


def class_row(lang: str, task: str, number: int, answer: int, chosen: int) -> ExampleScore:
    details = {"log_likelihoods": [-1.0] * 3, "chosen": chosen, "chosen_norm": chosen, "answer": answer}
    score = float(answer == chosen)
    return ExampleScore(f"{number:03d}", lang, task, "abc"[chosen], "abc"[answer], score, f"h{number}", "", details)


def read_row(lang: str, number: int, bits: float, task: str = "read") -> ExampleScore:
    """Return a row of 100 bytes and 30 tokens that is read with so many bits a byte."""
    details = {"nats": bits * math.log(2) * 100, "tokens": 30, "bytes": 100}
    return ExampleScore(f"{number:03d}", lang, task, "", "", -bits, f"h{number}", "", details)


def rows(
    loss: float = 0.0, wrong: float = 0.3, seed: int = 0, langs: tuple[str, ...] = ("de", "ja")
) -> list[ExampleScore]:
    random = np.random.default_rng(seed)
    made = []
    for lang in langs:
        for number in range(N):
            made.append(text_row(lang, number, 0.6 + 0.01 * (number % 20) - loss))
            for task in ("label", "choice"):
                answer = number % 3
                made.append(
                    class_row(lang, task, number, answer, answer if random.random() > wrong else (answer + 1) % 3)
                )
    return made


def card(made: list[ExampleScore], name: str = "m") -> Scorecard:
    return make_scorecard(name, made, TASKS)


CHAMPION = card(rows(), "champion")


def accuracy_cards(n: int, losses: int, gains: int, **fields: Any) -> tuple[Scorecard, Scorecard]:
    """Return candidate and champion who differ in so many rows of multiple choice; the first rows are the losses."""
    before, after = [], []
    for number in range(n):
        right = number % 3
        wrong = (right + 1) % 3
        before.append(
            replace(
                class_row("de", "choice", number, right, wrong if losses <= number < losses + gains else right),
                **fields,
            )
        )
        after.append(replace(class_row("de", "choice", number, right, wrong if number < losses else right), **fields))
    return card(after, "candidate"), card(before, "champion")
