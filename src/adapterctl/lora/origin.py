"""What an adapter says about the base model it was trained on, beyond its name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from adapterctl.errors import AdapterError, Problem
from adapterctl.fingerprint import fingerprint
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.untrusted import parse_json, read_small, shown

BASE_CONFIG_KEY = "adapterctl.base_config"
"""In the header of the tensor file: SHA-256 of the base model's ``config.json``."""

TOKENIZER_KEY = "adapterctl.tokenizer"
"""In the header of the tensor file: SHA-256 of the base model's ``tokenizer.json``."""

TOKENIZER_FILE = "tokenizer.json"
LARGEST_TOKENIZER = 1 << 27

_OF_THE_DATA = ("truncation", "padding")
"""What a tokenizer was last asked to do with rows; PEFT users save it along, and it changes no token."""

_HINT = "merge only adapters of one base model; train the others on it again"


def recorded(adapter: Adapter, key: str) -> str | None:
    """Return what the header of the tensor file says under a key; None where it, or the file, says nothing."""
    try:
        return adapter.metadata.get(key)
    except AdapterError:
        return None  # Told by those who need its tensors.


def disagreement(what: str, told: Iterable[tuple[str, object]], hint: str = _HINT) -> list[Problem]:
    """Return a problem where the adapters do not all say the same.

    Args:
        what: What they should have in common.
        told: What each of them says.
        hint: What mends it.
    """
    holders: dict[str, list[str]] = {}
    for holder, value in told:
        holders.setdefault(value if isinstance(value, str) else repr(value), []).append(holder)
    if len(holders) < 2:
        return []
    said = "; ".join(f"{', '.join(names)}: {shown(value, 80)}" for value, names in holders.items())
    return [Problem("", f"the adapters do not have the same {what} ({said})", hint)]


def origin_problems(adapters: Sequence[Adapter]) -> list[Problem]:
    """Return where adapters record different configurations of the base model or different tokenizers.

    A hash is compared with others of its kind only, and an adapter without one agrees with all: the header of the
    tensor file as training writes it, and the tokenizer that may lie in the folder.
    """
    problems: list[Problem] = []
    for key, what in ((BASE_CONFIG_KEY, "configuration of the base model"), (TOKENIZER_KEY, "tokenizer")):
        told = [(name_of(adapter), value) for adapter in adapters if (value := recorded(adapter, key)) is not None]
        problems += disagreement(what, told)
    lying = [adapter for adapter in adapters if (adapter.folder / TOKENIZER_FILE).exists()]
    try:
        # Parsing takes a second and much memory, and is needed only where the bytes differ.
        if len({sha256(_tokenizer(adapter)).digest() for adapter in lying}) > 1:
            meanings = [(name_of(adapter), _meaning(_tokenizer(adapter))) for adapter in lying]
            problems += disagreement(f"tokenizer in {TOKENIZER_FILE}", meanings)
    except OSError as error:
        problems.append(Problem("", f"cannot read {error.filename}: {error.strerror or error}", "remove the file"))
    return problems


def _tokenizer(adapter: Adapter) -> bytes:
    path = adapter.folder / TOKENIZER_FILE
    try:
        return read_small(path, LARGEST_TOKENIZER)[0]
    except OSError as error:
        error.filename = str(path)
        raise


def _meaning(text: bytes) -> str:
    """Return the hash of a tokenizer without what it was last asked to do with rows."""
    try:
        parsed = parse_json(text)
        if not isinstance(parsed, dict):
            raise ValueError("it is not a JSON object")
        return fingerprint({key: value for key, value in parsed.items() if key not in _OF_THE_DATA})
    except (ValueError, RecursionError) as error:
        return f"not a tokenizer: {error}"


def name_of(adapter: Adapter) -> str:
    """Return the shortest name of an adapter: its language, else its folder."""
    return adapter.lang or str(adapter.folder)
