"""A model behind an OpenAI-compatible endpoint, as vLLM and SGLang serve it, in place of one in this process.

Prompts go to ``/v1/completions`` as token ids, so that the model reads exactly what it would read here: the tokenizer
stays ours, and nothing is added at the beginning or the end. Texts are asked for with temperature 0 and without
penalties. Log-likelihoods come from ``echo`` with ``logprobs``: the server returns log p of every token it was given;
those of the answer are added up. One further token is asked for, since most servers refuse to make none; it is not
looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from types import TracebackType
from typing import Any, TypeVar

from adapterctl.endpoint import Endpoint
from adapterctl.errors import AdapterError, EndpointError, UsageError
from adapterctl.evaluation.engine import PreparedRow

Result = TypeVar("Result")

_MOST_NAMES = 10
_ROUNDING = 1e-3
_AS_IT_IS = {"temperature": 0.0, "top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
# A server may take penalties from the model's generation_config.json unless a request says its own.
_NO_PENALTY = {"repetition_penalty": 1.0}
_ECHO_HINT = (
    "log-likelihoods need a server that answers 'echo' with 'logprobs' for the prompt, as vLLM does; "
    "or evaluate the model in this process, without --engine openai"
)
_HINTS = {
    401: "set the environment variable {key} to the endpoint's key",
    403: "set the environment variable {key} to a key that may use this model",
    404: "check the URL; it is the part before /v1, and the server must offer /v1/completions, not only chats",
    413: "score fewer or shorter rows, or raise the server's limit on the size of a request",
}
_OTHER_HINT = (
    "check that the server takes prompts as token ids and 'echo' with 'logprobs' (vLLM does), and that its context "
    "(vLLM: --max-model-len) holds the longest row"
)


class OpenAIEngine:
    """A model that answers over HTTP; an ``Engine``.

    Attributes:
        signature: ``openai``.
    """

    signature = "openai"

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> None:
        """Prepare to ask; the first question asks whether the server knows the model.

        Args:
            url: ``http://host:port``, with or without ``/v1``.
            model: The name that the server serves the model under.
            api_key_env: The environment variable that holds the key; no key is sent where it is not set.
            concurrency: The most requests at a time.
            timeout: Seconds to wait for one answer.
            retries: How often a request is made again where the server is too busy, broken or out of reach.

        Raises:
            UsageError: ``url`` is not an address.
        """
        self._model, self._concurrency = model, concurrency
        self._endpoint = Endpoint(
            url,
            api_key_env=api_key_env,
            connections=concurrency,
            timeout=timeout,
            retries=retries,
            hints=_HINTS,
            other_hint=_OTHER_HINT,
        )

    def __enter__(self) -> OpenAIEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._endpoint.close()

    def check(self) -> None:
        """Ask whether the server knows the model; once.

        Raises:
            EndpointError: The server cannot be reached.
            UsageError: It does not serve the model, or is no such server.
        """
        _ = self._served

    @property
    def context(self) -> int | None:
        """The most tokens of prompt and answer that fit, where the server tells (vLLM does); else None."""
        longest = self._served.get("max_model_len")
        # One less than the server's own: it makes a token of its own even where it only reads.
        return longest - 1 if isinstance(longest, int) and longest > 1 else None

    def log_likelihoods(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Give Σ log p(token | prompt, tokens before) of every candidate, in nats; one request a row.

        Raises:
            AdapterError: The model answers with NaN.
            EndpointError: The server cannot be reached or does not answer in the form of its protocol.
            UsageError: It refuses the request, or gives no log-likelihoods of the prompt.
        """
        return self._each(rows, self._candidates)

    def texts(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[str, bool]]]:
        """Give each row's greedy continuation, without spaces at its ends, and whether it ended by itself.

        Raises:
            EndpointError: The server cannot be reached or does not answer in the form of its protocol.
            UsageError: It refuses the request.
        """
        return self._each(rows, self._text)

    def readings(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[float, int]]]:
        """Give −Σ log p of the tokens of ``prompt`` after the first, in nats, and how many tokens that are.

        Raises:
            AdapterError: The model answers with NaN.
            EndpointError: The server cannot be reached or does not answer in the form of its protocol.
            UsageError: It refuses the request, or gives no log-likelihoods of the prompt.
        """
        return self._each(rows, self._reading)

    @cached_property
    def _served(self) -> dict[str, Any]:
        """What the server says about the model."""
        known = _listed(self._endpoint)
        if self._model not in known:
            names = sorted(known)
            listed = ", ".join(names[:_MOST_NAMES]) or "none"
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            raise UsageError(
                f"{self._endpoint.shown} does not serve a model '{self._model}'; it serves {listed}{more}",
                hint="name one of these; vLLM names a model by --served-model-name, an adapter by --lora-modules",
            )
        return known[self._model]

    def _each(
        self, rows: Sequence[PreparedRow], answer: Callable[[PreparedRow], Result]
    ) -> Iterator[tuple[int, Result]]:
        """Give the answers to all rows as they come; after a failure nothing more is asked."""
        if not rows:
            return
        self.check()
        failures: list[BaseException] = []

        def asked(row: PreparedRow) -> Result | None:
            if failures:
                return None
            try:
                return answer(row)
            except BaseException as error:
                failures.append(error)
                self._endpoint.stop()
                raise

        self._endpoint.go()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="adapterctl-openai") as pool:
            # Longest first: what the server cannot take fails at once.
            order = sorted(range(len(rows)), key=lambda index: len(rows[index].prompt), reverse=True)
            places = {pool.submit(asked, rows[index]): index for index in order}
            try:
                for done in as_completed(places):
                    result = done.result() if not failures else None
                    if result is None:
                        # Others fail after the first one, because no more is asked.
                        raise failures[0]
                    yield places[done], result
            except BaseException as error:
                failures.append(error)
                self._endpoint.stop()
                pool.shutdown(cancel_futures=True)
                raise

    def _candidates(self, row: PreparedRow) -> tuple[float, ...]:
        sequences = [[*row.prompt, *tokens] for tokens in row.candidates]
        start = len(row.prompt)
        return tuple(sum(values[start:]) for values in self._log_probabilities(row, sequences))

    def _reading(self, row: PreparedRow) -> tuple[float, int]:
        if len(row.prompt) < 2:
            return 0.0, 0
        values = self._log_probabilities(row, [list(row.prompt)])[0][1:]
        return -sum(values), len(values)

    def _text(self, row: PreparedRow) -> tuple[str, bool]:
        asked = {"prompt": list(row.prompt), "max_tokens": row.task.max_new_tokens}
        choice = self._choices({**asked, **_AS_IT_IS, **_NO_PENALTY}, 1)[0]
        text, reason = choice.get("text"), choice.get("finish_reason")
        if not isinstance(text, str) or reason not in ("stop", "length"):
            raise EndpointError(
                f"{self._endpoint.shown} does not finish {_name(row)}: finish_reason is {reason!r}",
                hint="look into the log of the server",
            )
        # Half of a surrogate pair, which JSON can write, can stand in no file.
        return text.encode("utf-8", "replace").decode("utf-8").strip(), reason == "stop"

    def _log_probabilities(self, row: PreparedRow, sequences: Sequence[list[int]]) -> list[list[float]]:
        """Return log p of every token of every sequence; the first of each is 0, since nothing stands before it."""
        prompt = sequences[0] if len(sequences) == 1 else list(sequences)
        asked = {"prompt": prompt, "max_tokens": 1, "echo": True, "logprobs": 1}
        choices = self._choices({**asked, **_AS_IT_IS}, len(sequences))
        return [self._of_prompt(row, choice, len(tokens)) for choice, tokens in zip(choices, sequences, strict=True)]

    def _of_prompt(self, row: PreparedRow, choice: dict[str, Any], length: int) -> list[float]:
        logprobs = choice.get("logprobs")
        values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        if not isinstance(values, list) or not length <= len(values) <= length + 1:
            found = len(values) if isinstance(values, list) else "no"
            raise UsageError(
                f"{self._endpoint.shown} gives {found} log-likelihoods for the {length} tokens of {_name(row)}",
                hint=_ECHO_HINT,
            )
        numbers = [_number(value) for value in values[1:length]]
        read = [value for value in numbers if value is not None]
        if len(read) < len(numbers):
            raise UsageError(
                f"{self._endpoint.shown} leaves out the log-likelihood of a token of {_name(row)}", hint=_ECHO_HINT
            )
        if any(math.isnan(value) for value in read):
            raise AdapterError(
                f"the model behind {self._endpoint.shown} answers {_name(row)} with NaN (not a number)",
                hint="train or merge the adapter again; where it is served in float16, serve it in bfloat16 or float32",
            )
        if any(value > _ROUNDING for value in read):
            raise UsageError(
                f"{self._endpoint.shown} gives a log-likelihood above 0 for a token of {_name(row)}", hint=_ECHO_HINT
            )
        return [0.0, *read]

    def _choices(self, body: dict[str, Any], count: int) -> list[dict[str, Any]]:
        """Return the choices of one completion request, in the order of its prompts."""
        said = self._endpoint.post("completions", {"model": self._model, **body})
        found = said.get("choices") if isinstance(said, dict) else None
        choices = [choice for choice in found if isinstance(choice, dict)] if isinstance(found, list) else []
        by_index = {choice["index"]: choice for choice in choices if isinstance(choice.get("index"), int)}
        if len(choices) != count or set(by_index) != set(range(count)):
            raise EndpointError(
                f"{self._endpoint.shown}/completions does not answer with one choice for each prompt",
                hint="look into the log of the server",
            )
        return [by_index[index] for index in range(count)]


def served_models(
    url: str, *, api_key_env: str = "OPENAI_API_KEY", timeout: float = 60.0, retries: int = 4
) -> tuple[str, ...]:
    """Return the names of the models that an endpoint serves, sorted; arguments as of ``OpenAIEngine``.

    Raises:
        EndpointError: The server cannot be reached, or answers with something else.
        UsageError: ``url`` is not an address, or the server refuses to tell.
    """
    endpoint = Endpoint(
        url,
        api_key_env=api_key_env,
        connections=1,
        timeout=timeout,
        retries=retries,
        hints=_HINTS,
        other_hint=_OTHER_HINT,
    )
    try:
        return tuple(sorted(_listed(endpoint)))
    finally:
        endpoint.close()


def _listed(endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """Return what a server says about each model it serves, by name."""
    said = endpoint.get("models")
    entries = said.get("data") if isinstance(said, dict) else None
    if not isinstance(entries, list):
        raise EndpointError(
            f"{endpoint.shown}/models does not answer with a list of models",
            hint="check the URL; another program may answer there",
        )
    return {entry["id"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)}


def _name(row: PreparedRow) -> str:
    return f"row '{row.example.id}' ({row.example.lang}, {row.example.task})"


def _number(value: Any) -> float | None:
    """Return a JSON number as float; None for anything else, and for whole numbers that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
