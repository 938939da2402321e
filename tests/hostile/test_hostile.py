"""Folders that mean harm: each is refused for its own reason, at once, in little memory, and nothing in it is run."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.hostile.build import CASES, cases, config, good, tensors
from tests.support.cli import invoke

from adapterctl.lora.compatibility import check
from adapterctl.lora.naming import name_adapters

REASONS = {
    "empty-file": "it has 0 bytes, fewer than its header",
    "seven-bytes": "it has 7 bytes, fewer than its header",
    "truncated-header": "it has 60 bytes, fewer than its header",
    "truncated-numbers": r"its tensors end at byte \d+, the file at byte \d+",
    "numbers-after-the-end": r"its tensors end at byte \d+, the file at byte \d+",
    "header-length-beyond-the-file": "fewer than its header is said to have",
    "header-length-of-9-exabytes": "fewer than its header is said to have",
    "header-not-utf8": "can't decode byte 0xff",
    "header-not-an-object": "header is not a JSON object",
    "header-nested-deeply": "recursion|metadata in its header are not text",
    "header-with-nan": "NaN is not a JSON number",
    "metadata-not-text": "metadata in its header are not text",
    "entry-not-an-object": "not described by dtype, shape and data_offsets",
    "entry-with-a-field-more": "not described by dtype, shape and data_offsets",
    "offsets-outside-the-file": r"its tensors end at byte \d+, the file at byte \d+",
    "offsets-overlapping": r"lora_B\.weight does not begin where the tensor before it ends",
    "offsets-with-a-hole": r"lora_B\.weight does not begin where the tensor before it ends",
    "offsets-backwards": r"the offsets \[24, 0\]",
    "offsets-negative": r"the offsets \[-24, 0\]",
    "offsets-not-whole": r"the offsets \[0\.0, 24\.0\]",
    "size-of-another-shape": r"of shape \[2, 4\] does not have 24 bytes",
    "shape-negative": r"the shape \[-2, -3\]",
    "shape-overflows": "which no memory holds",
    "shape-zero-times-huge": "which no memory holds",
    "shape-of-a-thousand-ones": "are not factors of one matrix",
    "shape-of-rank-zero": "are not the factors of a linear layer",
    "shape-one-number": r"A \(\) and B \(4, 2\) are not factors of one matrix",
    "type-unknown": "stored in 'F99', which is not known",
    "type-int64": "are not factors of one matrix",
    "type-bool": r"holds torch\.bool, not floating-point",
    "type-float8": r"holds torch\.float8_e4m3fn, not floating-point",
    "tensor-twice": r"lora_A\.weight' is there twice",
    "name-walks-out": r"not A or B of a linear layer: base_model\.model\.\.\./\.\./",
    "name-is-absolute": r"do not begin with base_model\.model\.: /etc/passwd",
    "name-with-terminal-codes": r"\\x1b\]0;owned\\x07\\x1b\[2J",
    "name-empty": r"do not begin with base_model\.model\.: ''",
    "nan": r"lora_A\.weight: 1 of 6 numbers are NaN or infinite",
    "infinity": r"lora_B\.weight: 1 of 8 numbers are NaN or infinite",
    "pickle": "a pickle with another name; it is never loaded",
    "zip": "a pickle with another name; it is never loaded",
    "pickle-beside-no-tensors": "a pickle, which is never loaded",
    "no-files-of-an-adapter": r"it has no adapter_config\.json",
    "config-empty": "not valid JSON: Expecting value",
    "config-cut": "not valid JSON: Unterminated string",
    "config-a-list": "is not a JSON object",
    "config-nested-deeply": "recursion|r is ",
    "config-not-utf8": "can't decode byte 0xff",
    "config-with-nan": "NaN is not a JSON number",
    "config-with-infinity": "not JSON compliant",
    "config-with-half-a-letter": "surrogates not allowed",
    "config-key-twice": "the key 'r' is there twice",
    "rank-of-400-digits": r"r is 10{150,}\.\.\., not a positive whole number",
    "alpha-of-400-digits": r"lora_alpha is 10{150,}\.\.\., not a number",
    "rank-of-9999-digits": r"Exceeds the limit|integer string conversion",
    "rank-pattern-without-end": "rank_pattern holds regular expressions that would take too long",
    "rank-pattern-many-wildcards": "alpha_pattern holds regular expressions that would take too long",
    "rank-pattern-unfinished": "is not a regular expression",
    "base-model-not-text": r"base_model_name_or_path is \{'path': '/etc/passwd'\}, not text",
    "initialisation-with-terminal-codes": r"init_lora_weights is '\\x1b\[2Jpissax+\.\.\.: that initialisation",
    "type-of-another-kind": r"an adapter of type '\.\./\.\./LORA', not LORA",
}
"""Why each case is refused."""

USABLE = {"paths-that-walk-out", "tokenizer-cut"}
"""What looks like harm and is text that nobody follows, or a file that nobody needs."""


def problems_of(folder: Path) -> str:
    adapters, problems = name_adapters([f"ja={folder}"])
    return "\n".join(map(str, problems + check(adapters)))


def test_the_files_are_those_that_the_builder_writes() -> None:
    written = {
        folder.name: {path.name: path.read_bytes() for path in folder.iterdir()} for folder in sorted(CASES.iterdir())
    }
    assert written == cases()


def test_every_case_has_its_reason() -> None:
    assert set(cases()) == set(REASONS) | USABLE


@pytest.mark.parametrize("name", sorted(REASONS))
def test_each_is_refused_for_its_own_reason(name: str) -> None:
    started = time.monotonic()
    told = problems_of(CASES / name)
    assert re.search(REASONS[name], told)
    assert time.monotonic() - started < 5
    assert len(told) < 2000
    assert all(letter.isprintable() or letter == "\n" for letter in told)


@pytest.mark.parametrize("name", sorted(USABLE))
def test_text_that_nobody_follows_does_no_harm(name: str) -> None:
    assert problems_of(CASES / name) == ""


def test_all_at_once_with_one_that_is_sound(tmp_path: Path) -> None:
    languages = iter(["de", "en", "fr", "it", "ko", "zh", "ru"])
    bad = ["empty-file", "nan", "config-key-twice", "pickle", "shape-overflows", "name-walks-out"]
    arguments = [f"{next(languages)}={CASES / name}" for name in bad]
    result = invoke("adapter", "check", *arguments, good(tmp_path / "ja"), "--json")
    assert result.exit_code == 6
    assert result.json["error"]["type"] == "AdapterError"
    told = "\n".join(f"{problem['where']} {problem['message']}" for problem in result.json["error"]["problems"])
    for name in bad:
        assert re.search(REASONS[name], told)
    assert "Traceback" not in result.err


@pytest.mark.parametrize("name", sorted(REASONS))
def test_the_program_says_so_on_one_screen(name: str) -> None:
    result = invoke("--quiet", "adapter", "inspect", f"ja={CASES / name}")
    assert (result.exit_code, result.out) == (6, "")
    assert "Traceback" not in result.err
    assert "should not happen" not in result.err
    assert "\x1b]" not in result.err
    assert result.err.count("\n") < 12


def test_nothing_is_run_written_or_reached_and_memory_stays_small(tmp_path: Path) -> None:
    """In a process of its own, whose every file, program and unpickling is watched."""
    code = f"""
import os, resource, sys
from pathlib import Path
from adapterctl.lora.compatibility import check
from adapterctl.lora.naming import name_adapters

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 1 << 20)

cases = Path({str(CASES)!r})
name_adapters(["ja=" + str(cases / "paths-that-walk-out")])
before = peak()
events = []

def watch(event, arguments):
    if event in ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"):
        events.append((event, str(arguments)))
    elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or not path.startswith((str(cases), sys.prefix, sys.base_prefix, {str(Path.cwd())!r})):
            events.append((event, path))

sys.addaudithook(watch)
refused = 0
for case in sorted(cases.iterdir()):
    adapters, problems = name_adapters(["ja=" + str(case)])
    refused += bool(problems + check(adapters))
print(refused, events, peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    refused, events, grown = re.fullmatch(r"(\d+) (\[.*\]) (-?\d+)\n", done.stdout).groups()  # type: ignore[union-attr]
    assert (int(refused), events) == (len(REASONS), "[]")
    assert int(grown) < 64
    assert list(tmp_path.iterdir()) == []


class TestWhatNoRepositoryHolds:
    """Pipes, links and files that are large but for their bytes."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return good(tmp_path / "ja")

    @pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
    def test_a_folder_in_place_of_a_file(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()
        assert f"cannot read {folder / file}: it is not a file" in problems_of(folder)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
    @pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
    def test_a_pipe_that_nobody_writes_to(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)
        assert f"cannot read {folder / file}: it is not a file" in problems_of(folder)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
    def test_a_tokenizer_that_is_a_pipe(self, folder: Path) -> None:
        os.mkfifo(folder / "tokenizer.json")
        assert f"cannot read {folder / 'tokenizer.json'}: it is not a file" in problems_of(folder)

    @pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
    def test_a_device_without_end(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to("/dev/zero")
        assert f"cannot read {folder / file}: it is not a file" in problems_of(folder)

    @pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
    def test_links_that_lead_nowhere_or_in_a_circle(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(folder / "nowhere")
        assert file in problems_of(folder)
        (folder / file).unlink()
        (folder / file).symlink_to(folder / file)
        assert f"cannot read {folder / file}" in problems_of(folder)

    def test_a_link_out_of_the_folder_is_read_as_in_a_hub_cache(self, tmp_path: Path, folder: Path) -> None:
        (tmp_path / "blobs").mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / file).rename(tmp_path / "blobs" / file)
            (folder / file).symlink_to(f"../blobs/{file}")
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "blobs").iterdir()}
        assert problems_of(folder) == ""
        assert invoke("--quiet", "adapter", "check", f"ja={folder}").exit_code == 0
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "blobs").iterdir()} == before

    def test_a_link_to_what_is_no_adapter_tells_nothing_of_it(self, tmp_path: Path, folder: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("correct horse battery staple")
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / file).unlink()
            (folder / file).symlink_to(secret)
            told = problems_of(folder)
            assert file in told
            assert "horse" not in told
            (folder / file).unlink()
            (folder / file).write_bytes(config() if file.endswith("json") else tensors())

    def test_a_configuration_of_a_hundred_megabytes(self, folder: Path) -> None:
        os.truncate(folder / "adapter_config.json", 100_000_000)
        assert "it has 100000000 bytes, more than the 8388608 that are read" in problems_of(folder)

    def test_a_header_of_ninety_megabytes(self, folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        path.write_bytes((90_000_000).to_bytes(8, "little") + b"{")
        os.truncate(path, 100_000_000)
        assert "its header has 90000000 bytes, more than the 33554432 that are read" in problems_of(folder)

    def test_a_layer_of_a_terabyte_that_the_disk_does_not_have(self, folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        wide = 1 << 37
        text = tensors(
            {
                "base_model.model.x.lora_A.weight": {
                    "dtype": "F32",
                    "shape": [2, wide],
                    "data_offsets": [0, 8 * wide],
                },
                "base_model.model.x.lora_B.weight": {
                    "dtype": "F32",
                    "shape": [4, 2],
                    "data_offsets": [8 * wide, 8 * wide + 32],
                },
            },
            b"",
        )
        path.write_bytes(text)
        try:
            os.truncate(path, len(text) + 8 * wide + 32)
        except OSError:
            pytest.skip("the file system has no files with holes of this size")
        assert "are not the factors of a linear layer" in problems_of(folder)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_files_that_must_not_be_read(self, folder: Path) -> None:
        for path in folder.iterdir():
            path.chmod(0)
            assert "ermission denied" in problems_of(folder)
            path.chmod(stat.S_IRUSR)

    def test_a_file_as_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "ja").write_text(json.dumps({}))
        assert "cannot read" in problems_of(tmp_path / "ja")
