from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adapterctl
from adapterctl.fingerprint import canonical_json, file_hash, fingerprint, short
from adapterctl.randomness import generator, integer_seed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
)


def _turned(value: Any) -> Any:
    """Return the same value with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in reversed(list(value))}
    return [_turned(entry) for entry in value] if isinstance(value, list) else value


def test_known_digests(tmp_path: Path) -> None:
    # printf abc | sha256sum; printf '{"a":[1,true,null],"ü":"日"}' | sha256sum
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_hash(tmp_path / "abc") == abc
    value = {"ü": "日", "a": [1, True, None]}
    assert canonical_json(value) == '{"a":[1,true,null],"ü":"日"}'
    assert fingerprint(value) == "f6ee474ff01f4a826178ea2b13a6b9f9b43105d68358b628ffc36ad0d105a55c"
    assert short(abc) == "ba7816bf8f01"


@settings(deadline=None)
@given(VALUES)
def test_the_order_of_keys_is_irrelevant(value: Any) -> None:
    assert fingerprint(value) == fingerprint(_turned(value))


def test_what_differs_in_kind_or_order_differs_in_digest() -> None:
    values = [1, "1", [1], [1, 2], [2, 1], {"1": 1}, {}, [], None, False, 0, ""]
    assert len({fingerprint(value) for value in values}) == len(values)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_know_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint({"a": [number]})


def test_a_stream_is_a_function_of_its_names() -> None:
    first = generator("rows", "ja", 0).random(4)
    np.random.seed(1)
    generator("rows", "de", 0).random(1000)
    again = generator("rows", "ja", 0)
    assert np.array_equal(again.random(4), first)
    assert not np.array_equal(again.random(4), first)
    code = "from adapterctl.randomness import *; print(generator('rows', 'ja', 0).random(), integer_seed('x', 1))"
    source = Path(adapterctl.__file__).parents[1]
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=source)
    assert told.stdout.split() == [str(first[0]), str(integer_seed("x", 1))]


def test_the_key_is_the_hash_of_the_names() -> None:
    digest = hashlib.sha256(b"rows\x1fja\x1f0").digest()
    reference = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    assert np.array_equal(generator("rows", "ja", 0).integers(1 << 60, size=5), reference.integers(1 << 60, size=5))


def test_names_do_not_run_together() -> None:
    names = [("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), ("ab", "c", ""), ("ab", "c", 0)]
    assert len({generator(*name).random() for name in names}) == len(names)
    assert len({integer_seed(*name) for name in names}) == len(names)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")) | st.integers(), max_size=3))
def test_seeds_fit_into_31_bits(names: list[str | int]) -> None:
    assert 0 <= integer_seed(*names) < 2**31
