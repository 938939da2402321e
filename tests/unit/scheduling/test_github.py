"""GitHub's workflow, held against the schema that editors use, and its script run by a shell."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.support.scheduled import HOSTILE, make_job

from adapterctl.scheduling.emit import emit

VARIANTS: dict[str, dict[str, Any]] = {
    "self-hosted": {"workspace": "."},
    "full": {
        "workspace": "models/my adapters",
        "image": "ghcr.io/team/adapterctl:1.0",
        "secret": "nightly",
        "timezone": "Europe/Berlin",
        "approve": True,
        "server_needed": True,
    },
    "own-runner": {"workspace": ".", "runner": "gpu-box", "image": "a", "time_limit": 86400},
    "hostile": {"workspace": HOSTILE[1:], "name": "123"},
}


def workflow(**values: Any) -> dict[str, Any]:
    (file,) = emit(make_job(**values), "github-actions")
    read: dict[str, Any] = YAML(typ="safe").load(file.text)
    return read


def steps(**values: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow(**values)["jobs"]["update"]["steps"]
    return found


def test_the_schema_takes_them(tmp_path: Path) -> None:
    paths = []
    for name, values in VARIANTS.items():
        (file,) = emit(make_job(**values), "github-actions")
        path = tmp_path / name / file.path
        path.parent.mkdir(parents=True)
        path.write_text(file.text, encoding="utf-8")
        paths.append(path)
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(paths[0].read_text(encoding="utf-8").replace("timeout-minutes", "timeout"), encoding="utf-8")
    assert _check(*paths).returncode == 0, _check(*paths).stdout
    assert _check(wrong).returncode == 1


def _check(*paths: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    return subprocess.run([*program, *map(str, paths)], capture_output=True, text=True, check=False)


def test_what_the_workflow_says() -> None:
    read = workflow(**VARIANTS["full"])
    assert read["on"] == {
        "schedule": [{"cron": "17 3 * * *", "timezone": "Europe/Berlin"}],
        "workflow_dispatch": {},
    }
    assert read["permissions"] == {"contents": "read"}
    assert read["concurrency"] == {"group": "adapterctl-demo", "cancel-in-progress": False}
    job = read["jobs"]["update"]
    assert job["runs-on"] == "ubuntu-latest"
    assert job["timeout-minutes"] == 360
    assert job["environment"] == "nightly"
    assert job["container"]["image"] == "ghcr.io/team/adapterctl:1.0"
    assert job["env"] == {"WORKSPACE": "models/my adapters"}


@pytest.mark.parametrize(
    ("variant", "runner", "minutes"), [("self-hosted", "self-hosted", 720), ("own-runner", "gpu-box", 1440)]
)
def test_runners_of_ones_own(variant: str, runner: str, minutes: int) -> None:
    job = workflow(**VARIANTS[variant])["jobs"]["update"]
    assert (job["runs-on"], job["timeout-minutes"]) == (runner, minutes)
    assert "environment" not in job


def test_state_is_cached_where_the_runner_does_not_keep_it() -> None:
    def uses(variant: str) -> list[str]:
        return [step["uses"].partition("@")[0] for step in steps(**VARIANTS[variant]) if "uses" in step]

    assert uses("self-hosted") == ["actions/checkout"]
    assert uses("full") == ["actions/checkout", "actions/cache/restore", "actions/cache/save"]
    (save,) = [step for step in steps(**VARIANTS["full"]) if step.get("uses", "").startswith("actions/cache/save")]
    assert save["if"] == "always()"


@pytest.mark.parametrize("variant", VARIANTS)
def test_secrets_are_references_of_single_steps(variant: str) -> None:
    values = VARIANTS[variant]
    job = workflow(**values)["jobs"]["update"]
    assert list(job["env"]) == ["WORKSPACE"]
    for step in job["steps"]:
        environment = step.get("env", {})
        if "uses" in step:
            # No action of somebody else sees them.
            assert environment == {}
        for name, value in environment.items():
            assert re.fullmatch(r"\$\{\{ secrets\.MLFLOW_TRACKING_[A-Z]+ \}\}", value), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_value_stands_in_a_script(variant: str) -> None:
    for step in steps(**VARIANTS[variant]):
        assert "${{" not in step.get("run", "")
    (update,) = [step for step in steps(**VARIANTS[variant]) if step.get("name", "").startswith("Update")]
    assert '-C "$WORKSPACE"' in update["run"]
    assert VARIANTS[variant]["workspace"] == "." or VARIANTS[variant]["workspace"] not in update["run"]


@pytest.mark.parametrize(
    ("code", "ends", "told"),
    [
        (0, 0, ""),
        (99, 0, "::notice title=adapterctl::Nothing has changed."),
        (2, 2, "::error title=adapterctl, exit code 2::The configuration"),
        (3, 3, "::error title=adapterctl, exit code 3::The gate said no."),
        (5, 5, "::error title=adapterctl, exit code 5::The registry"),
        (143, 143, "::error title=adapterctl, exit code 143::It was interrupted"),
        (137, 137, "::error title=adapterctl, exit code 137::An error nobody foresaw."),
    ],
)
def test_the_script(tmp_path: Path, code: int, ends: int, told: str) -> None:
    program = tmp_path / "adapterctl"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{tmp_path}/args"\nexit {code}\n', encoding="utf-8")
    program.chmod(0o755)
    (update,) = [s for s in steps(workspace=".", program="adapterctl") if s.get("name", "").startswith("Update")]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "WORKSPACE": HOSTILE}
    # GitHub runs it so.
    done = subprocess.run(
        ["sh", "-e", "-c", update["run"]], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == ends
    assert done.stdout.startswith(told)
    words = (tmp_path / "args").read_text(encoding="utf-8").splitlines()
    assert words == [
        "-C", HOSTILE, "update", "--all-changed", "--if-changed", "--skip-exit-code", "99", "--json",
    ]  # fmt: skip


@pytest.mark.parametrize(("address", "code"), [("", 2), ("https://mlflow.example.com", 0)])
def test_a_registry_without_an_address_is_told_at_once(address: str, code: int) -> None:
    first = steps(**VARIANTS["full"])[0]
    done = subprocess.run(
        ["sh", "-e", "-c", first["run"]], env={"ADDRESS": address}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert ("MLFLOW_TRACKING_URI is not set" in done.stdout) is (code != 0)
