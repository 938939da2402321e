"""Running ``adapterctl merge`` and looking at what it leaves."""

from __future__ import annotations

from pathlib import Path

from tests.support.cli import Result, invoke


def done(*args: str | Path) -> Result:
    """Merge, and find that it went well."""
    result = invoke("--quiet", "merge", *args)
    assert result.exit_code == 0, result.err
    return result


def refused(*args: str | Path, code: int = 2) -> str:
    """Merge, find that it is refused, and return what is told."""
    result = invoke("--quiet", "merge", *args)
    assert (result.exit_code, result.out) == (code, ""), result.err
    return result.err


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def numbers(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()
