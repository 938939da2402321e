"""Secrets taken out of a text before it is shown, logged or stored.

Nobody can know every secret. What is known are the ways in which they come into a text: addresses with a user and a
password, parameters that are called so, variables of the environment that are called so, and the forms that the
makers of tokens gave them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "***"

_USERINFO = re.compile(r"://[^/\s'\"]*@")
_NAME = (
    r"(?:(?:aws|x-amz|mlflow|tracking|client|access|auth|security|session|secret|hf|hub|db|s3)[_-]?)*"
    r"(?:password|passwd|pwd|passphrase|token|secret|sig|signature|credentials?|(?:api|access|secret|private)[_-]?key)"
)
_HINTS = ("passw", "pwd", "passphrase", "token", "secret", "sig", "credential", "key")
_PARAMETER = re.compile(rf"(?i)(?<![A-Za-z0-9_-])({_NAME})=[^&\s'\"]+")
_FIELD = re.compile(rf"(?i)(['\"]{_NAME}['\"]\s*:\s*)(['\"])(?:(?!\2).)+\2")
_HEADER = re.compile(
    r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:\w+\s+)?|\bbearer\s+(?=[A-Za-z0-9._~+/=-]{16}))[A-Za-z0-9._~+/=-]+"
)
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[abprs]-[A-Za-z0-9-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})"
)
_SHAPED = ("hf_", "sk-", "gh", "glpat-", "AKIA", "ASIA", "xox", "eyJ")
_SECRET_NAME = re.compile(
    r"(?i)(?:^|_)(?:password|passwd|(?<=_)pwd|passphrase|token|secret|api_?key|access_key|secret_key|private_key|credentials?)"
    r"(?:_id|_key)?$"
)
_URL_NAME = re.compile(r"(?i)(?:^|_)(?:ur[il]|dsn)$")
_SHORTEST = 6
"""Of a variable's value: shorter ones are words that stand in any text."""
_UNMISTAKABLE = 12
"""From so many characters on, a value is masked inside of longer words too."""


def _of_url(text: str) -> Iterator[str]:
    try:
        password = urlsplit(text).password
    except ValueError:
        return
    if password:
        yield from (password, unquote(password))


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of an environment that nobody may see, the longest first."""
    found: set[str] = set()
    for name, value in environment.items():
        if _SECRET_NAME.search(name):
            found.add(value)
        elif _URL_NAME.search(name):
            found.update(_of_url(value))
    # As they stand in an address and in JSON.
    found |= {form for value in found for form in (quote(value, safe=""), json.dumps(value)[1:-1])}
    return tuple(sorted((value for value in found if len(value) >= _SHORTEST), key=lambda value: (-len(value), value)))


@lru_cache(maxsize=8)
def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_found_as, secrets)))


def _found_as(secret: str) -> str:
    inside = len(secret) >= _UNMISTAKABLE
    return re.escape(secret) if inside else rf"(?<!\w){re.escape(secret)}(?!\w)"


def mask(text: str, also: Iterable[str] = ()) -> str:
    """Return ``text`` without the passwords, tokens and keys in it; ``also`` names more secrets, such as an address.

    >>> mask("postgresql://me:geheim@db/x failed, see https://host/?token=abc&x=1")
    'postgresql://***@db/x failed, see https://host/?token=***&x=1'
    """
    secrets = secrets_of(os.environ)
    for one in also:
        secrets += tuple(part for part in _of_url(one) if len(part) >= _SHORTEST)
    # Scorecards are long: what is not there is not looked for at every place.
    if there := tuple(secret for secret in secrets if secret in text):
        text = _pattern(there).sub(HIDDEN, text)
    low = text.lower()
    if "://" in low:
        text = _USERINFO.sub(f"://{HIDDEN}@", text)
    if any(hint in low for hint in _HINTS):
        if "=" in low:
            text = _PARAMETER.sub(rf"\1={HIDDEN}", text)
        text = _FIELD.sub(rf"\1\2{HIDDEN}\2", text)
    if "bearer" in low or "authorization" in low:
        text = _HEADER.sub(rf"\1{HIDDEN}", text)
    if any(start in text for start in _SHAPED):
        text = _SHAPES.sub(HIDDEN, text)
    return text
