"""Folders that look like adapters and mean harm, written byte by byte and never by the code they are to test.

``python -m tests.hostile.build`` writes them anew into ``tests/hostile/cases``. Every folder is one case; a module of
the well-formed ones is ``model.layers.0.self_attn.q_proj``, A 2 × 3 and B 4 × 2 in float32, α = 3.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent / "cases"
MODULE = "model.layers.0.self_attn.q_proj"
A, B = f"base_model.model.{MODULE}.lora_A.weight", f"base_model.model.{MODULE}.lora_B.weight"
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny-base",
    "r": 2,
    "lora_alpha": 3,
    "target_modules": ["q_proj"],
    "bias": "none",
}
NUMBERS = struct.pack("<14f", *(0.25 * number - 1.5 for number in range(14)))

# What unpickling does with it: call os.system. Nobody may ever find out.
PICKLE = b"\x80\x02cposix\nsystem\nX\x15\x00\x00\x00touch adapterctl-owned\x85R."


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADER: dict[str, Any] = {"__metadata__": {"format": "pt"}, A: entry([2, 3], 0, 24), B: entry([4, 2], 24, 56)}


def tensors(header: Any = None, data: bytes = NUMBERS, *, length: int | None = None) -> bytes:
    """Return a safetensors file; a header that is not bytes is written as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(HEADER if header is None else header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def changed(**fields: Any) -> dict[str, Any]:
    """Return the header with other fields for A."""
    return {**HEADER, A: {**HEADER[A], **fields}}


def renamed(name: str) -> bytes:
    """Return the tensors with another name for A."""
    return tensors({"__metadata__": {"format": "pt"}, name: HEADER[A], B: HEADER[B]})


def config(**fields: Any) -> bytes:
    return json.dumps({**CONFIG, **fields}, indent=1).encode()


def archive(name: bytes, content: bytes) -> bytes:
    """Return a ZIP archive with one stored file, as ``torch.save`` writes them."""
    common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(name), 0)
    local = b"PK\x03\x04" + common + name + content
    central = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


def numbers(place: int, value: bytes) -> bytes:
    """Return the numbers with another one at ``place``."""
    return NUMBERS[: 4 * place] + value + NUMBERS[4 * place + 4 :]


NAN, INFINITY = struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))

TENSOR_FILES: dict[str, bytes] = {
    "empty-file": b"",
    "seven-bytes": b"\x10\x00\x00\x00\x00\x00\x00",
    "truncated-header": tensors()[:60],
    "truncated-numbers": tensors()[:-10],
    "numbers-after-the-end": tensors(data=NUMBERS + b"more"),
    "header-length-beyond-the-file": tensors(length=1 << 20),
    "header-length-of-9-exabytes": tensors(length=1 << 63),
    "header-not-utf8": tensors(b'{"\xff\xfe": {}}'),
    "header-not-an-object": tensors(b"[]", b""),
    "header-nested-deeply": tensors(b'{"__metadata__": ' + b'{"a":' * 3000 + b"0" + b"}" * 3001, b""),
    "header-with-nan": tensors(json.dumps(HEADER).replace("[2, 3]", "[2, NaN]").encode()),
    "metadata-not-text": tensors({**HEADER, "__metadata__": {"format": ["pt"]}}),
    "entry-not-an-object": tensors({**HEADER, A: 3}),
    "entry-with-a-field-more": tensors(changed(href="file:///etc/passwd")),
    "offsets-outside-the-file": tensors({**HEADER, B: entry([4, 2000], 24, 32_024)}),
    "offsets-overlapping": tensors({A: entry([2, 3], 0, 24), B: entry([4, 2], 16, 48)}, NUMBERS[:48]),
    "offsets-with-a-hole": tensors({A: entry([2, 3], 0, 24), B: entry([4, 2], 28, 60)}, NUMBERS + b"hole"),
    "offsets-backwards": tensors(changed(data_offsets=[24, 0])),
    "offsets-negative": tensors(changed(data_offsets=[-24, 0])),
    "offsets-not-whole": tensors(changed(data_offsets=[0.0, 24.0])),
    "size-of-another-shape": tensors(changed(shape=[2, 4])),
    "shape-negative": tensors(changed(shape=[-2, -3])),
    "shape-overflows": tensors(changed(shape=[1 << 62, 8])),
    "shape-zero-times-huge": tensors({A: entry([0, 1 << 62, 1 << 62], 0, 0), B: entry([4, 2], 0, 32)}, NUMBERS[:32]),
    "shape-of-a-thousand-ones": tensors(changed(shape=[1] * 1000 + [2, 3])),
    "shape-of-rank-zero": tensors({A: entry([0, 3], 0, 0), B: entry([4, 0], 0, 0)}, b""),
    "shape-one-number": tensors({A: entry([], 0, 4), B: entry([4, 2], 4, 36)}, NUMBERS[:36]),
    "type-unknown": tensors(changed(dtype="F99")),
    "type-int64": tensors(changed(dtype="I64", shape=[1, 3])),
    "type-bool": tensors(changed(dtype="BOOL", shape=[2, 12])),
    "type-float8": tensors({A: entry([2, 3], 0, 6, "F8_E4M3"), B: entry([4, 2], 6, 38)}, NUMBERS[:38]),
    "tensor-twice": tensors(
        json.dumps(HEADER).replace("}}", '}, "' + A + '": ' + json.dumps(entry([2, 3], 8, 32)) + "}", 1).encode() + b"}"
    ),
    "name-walks-out": renamed("base_model.model.../../../../tmp/adapterctl-owned.lora_A.weight"),
    "name-is-absolute": renamed("/etc/passwd"),
    "name-with-terminal-codes": renamed("base_model.model.\x1b]0;owned\x07\x1b[2J.lora_A.weight"),
    "name-empty": renamed(""),
    "nan": tensors(data=numbers(4, NAN)),
    "infinity": tensors(data=numbers(6, INFINITY)),
    "pickle": PICKLE,
    "zip": archive(b"archive/data.pkl", PICKLE),
}
"""Cases whose tensor file is odd."""

_DEEP = b'{"peft_type": "LORA", "r": ' + b"[" * 3000 + b"]" * 3000 + b"}"

CONFIGS: dict[str, bytes] = {
    "config-empty": b"",
    "config-cut": config()[:40],
    "config-a-list": b"[]",
    "config-nested-deeply": _DEEP,
    "config-not-utf8": b'{"peft_type": "\xff\xfe"}',
    "config-with-nan": config().replace(b'"lora_alpha": 3', b'"lora_alpha": NaN'),
    "config-with-infinity": config().replace(b'"lora_alpha": 3', b'"lora_alpha": 1e999'),
    "config-with-half-a-letter": config().replace(b"tiny-base", b"\\ud800"),
    "config-key-twice": config().replace(b'"r": 2', b'"r": 2,\n "r": 64'),
    "rank-of-400-digits": config(r=10**400),
    "alpha-of-400-digits": config(lora_alpha=10**400),
    "rank-of-9999-digits": config().replace(b'"r": 2', b'"r": ' + b"9" * 9999),
    "rank-pattern-without-end": config(rank_pattern={r"([\w.]+)+$x": 2}),
    "rank-pattern-many-wildcards": config(alpha_pattern={".*" * 30 + "x": 2}),
    "rank-pattern-unfinished": config(rank_pattern={"(" * 50: 2}),
    "base-model-not-text": config(base_model_name_or_path={"path": "/etc/passwd"}),
    "initialisation-with-terminal-codes": config(init_lora_weights="\x1b[2Jpissa" + "x" * 5000),
    "type-of-another-kind": config(peft_type="../../LORA"),
}
"""Cases whose configuration is odd."""

HARMLESS: dict[str, bytes] = {
    "paths-that-walk-out": config(
        base_model_name_or_path="../../../../etc/passwd",
        target_modules=["../../x", "/etc/passwd"],
        auto_mapping={"parent_library": "os", "base_model_class": "system"},
    ),
}
"""Configurations in which what looks like harm is text that nobody follows: these adapters can be used."""


def cases() -> dict[str, dict[str, bytes]]:
    """Return every case: its files by name."""
    made = {
        name: {"adapter_config.json": config(), "adapter_model.safetensors": text}
        for name, text in TENSOR_FILES.items()
    }
    for name, text in (CONFIGS | HARMLESS).items():
        made[name] = {"adapter_config.json": text, "adapter_model.safetensors": tensors()}
    made["pickle-beside-no-tensors"] = {"adapter_config.json": config(), "adapter_model.bin": PICKLE}
    made["no-files-of-an-adapter"] = {"README.md": b"# Nothing\n"}
    tokenizer = b'{"model": {"type": "BPE"'
    made["tokenizer-cut"] = {
        "adapter_config.json": config(),
        "adapter_model.safetensors": tensors(),
        "tokenizer.json": tokenizer,
    }
    return made


def write(folder: Path) -> None:
    """Write every case as a folder of its own."""
    for name, files in cases().items():
        (folder / name).mkdir(parents=True)
        for file, content in files.items():
            (folder / name / file).write_bytes(content)


def good(folder: Path) -> Path:
    """Write the adapter that every case is a variation of."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes(config())
    (folder / "adapter_model.safetensors").write_bytes(tensors())
    return folder


if __name__ == "__main__":
    shutil.rmtree(CASES, ignore_errors=True)
    write(CASES)
