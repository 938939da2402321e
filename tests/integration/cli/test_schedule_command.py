"""``adapterctl schedule emit``: what it takes from the workspace, what it writes, and what it refuses to overwrite."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.cli import Result, invoke
from tests.support.small_workspace import change

from adapterctl.workflows.init import init_workspace

TARGETS = {
    "cron": ["adapterctl-pocket.sh", "adapterctl-pocket.crontab"],
    "systemd": ["adapterctl-pocket.service", "adapterctl-pocket.timer"],
    "k8s": ["adapterctl-pocket-cronjob.yaml", "adapterctl-pocket-volume.yaml"],
    "airflow": ["adapterctl_pocket.py"],
    "github-actions": [".github/workflows/adapterctl-pocket.yml"],
}
MORE = {"k8s": ["--image", "adapterctl:1.0"]}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("ADAPTERCTL_STATE_DIR", raising=False)
    root = init_workspace(tmp_path / "it's a workspace", "blank", languages=["de"], project="pocket")
    change(root, "adapterctl.yaml", "promotion: review", "promotion: auto")
    return root


def emit(workspace: Path, target: str, *args: str | Path) -> Result:
    return invoke("-C", workspace, "schedule", "emit", "--target", target, *MORE.get(target, []), *args)


def error(result: Result, code: int = 2) -> str:
    assert result.exit_code == code
    assert result.out == ""
    return " ".join(result.err.split())


@pytest.mark.parametrize("target", TARGETS)
def test_files_are_printed_or_written(workspace: Path, tmp_path: Path, target: str) -> None:
    printed = emit(workspace, target)
    assert (printed.exit_code, printed.err) == (0, "")
    found = emit(workspace, target, "--json").json
    assert [file["path"] for file in found["files"]] == TARGETS[target]
    assert (found["target"], found["name"], found["folder"]) == (target, "adapterctl-pocket", None)
    # One file goes into a file as it is; several have their names above them.
    texts = [file["text"] for file in found["files"]]
    if len(texts) == 1:
        assert printed.out == texts[0]
    else:
        for name, text in zip(TARGETS[target], texts, strict=True):
            assert f"# ==> {name} <==\n{text}\n" in printed.out
    out = tmp_path / "new" / "folder"
    written = emit(workspace, target, "--out", out)
    assert written.exit_code == 0
    for file in found["files"]:
        path = out / file["path"]
        assert str(path) in written.out
        assert os.access(path, os.X_OK) is file["executable"]
        if target != "cron":  # The crontab names the folder that the script was written to.
            assert path.read_text(encoding="utf-8") == file["text"]
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == sorted(
        name.rpartition("/")[2] for name in TARGETS[target]
    )


def test_the_same_again_changes_nothing_and_other_options_replace_our_own(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert emit(workspace, "systemd", "--out", out).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert emit(workspace, "systemd", "--out", out).exit_code == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert emit(workspace, "systemd", "--out", out, "--cron", "5 4 * * *").exit_code == 0
    assert "OnCalendar=*-*-* 04:05:00" in (out / "adapterctl-pocket.timer").read_text(encoding="utf-8")


@pytest.mark.parametrize("found", ["#mine\n", None])
def test_what_somebody_else_wrote_or_changed_stays(workspace: Path, tmp_path: Path, found: str | None) -> None:
    out = tmp_path / "out"
    timer = out / "adapterctl-pocket.timer"
    if found is None:
        emit(workspace, "systemd", "--out", out)
        found = timer.read_text(encoding="utf-8").replace("AccuracySec=1min", "AccuracySec=1h")
    out.mkdir(exist_ok=True)
    (out / "adapterctl-pocket.service").unlink(missing_ok=True)
    timer.write_text(found, encoding="utf-8")
    said = error(emit(workspace, "systemd", "--out", out))
    assert f"{timer}: was not written by this command, or was changed since" in said
    assert "--force" in said
    assert timer.read_text(encoding="utf-8") == found
    # All or nothing.
    assert [path.name for path in out.iterdir()] == [timer.name]
    assert emit(workspace, "systemd", "--out", out, "--force").exit_code == 0
    assert "AccuracySec=1min" in timer.read_text(encoding="utf-8")


def test_a_folder_in_the_way_is_never_replaced(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "adapterctl_pocket.py").mkdir(parents=True)
    said = error(emit(workspace, "airflow", "--out", tmp_path / "out", "--force"))
    assert "adapterctl_pocket.py: is a folder" in said


def test_a_link_in_the_way_is_replaced_and_not_followed(workspace: Path, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.write_text("precious", encoding="utf-8")
    (out / "adapterctl_pocket.py").symlink_to(elsewhere)
    assert emit(workspace, "airflow", "--out", out).exit_code == 2
    assert emit(workspace, "airflow", "--out", out, "--force").exit_code == 0
    assert elsewhere.read_text(encoding="utf-8") == "precious"


def test_a_file_where_the_folder_should_be(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("", encoding="utf-8")
    assert "To mend it:" in error(emit(workspace, "airflow", "--out", tmp_path / "out"), code=7)


def test_the_program_and_the_workspace_are_those_of_this_machine(workspace: Path) -> None:
    text = emit(workspace, "systemd").out
    program = Path(sys.executable).with_name("adapterctl")
    # Where the package is not installed, the path has to be given; here it is.
    assert program.is_file()
    assert f'ExecStart="{program}" "-C" "{workspace}" "update"' in text
    assert f"User={workspace.owner()}" in text
    assert f'ReadWritePaths="{workspace}"' in text


def test_where_the_job_runs_elsewhere(workspace: Path) -> None:
    text = emit(workspace, "cron", "--program", "/opt/bin/adapterctl", "--workspace-path", "/srv/w").out
    assert "step /opt/bin/adapterctl -C /srv/w update" in text
    assert "17 3 * * * /srv/w/schedule/adapterctl-pocket.sh" in text


def test_the_crontab_names_the_script_that_was_written(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "100% mine"
    emit(workspace, "cron", "--out", out)
    text = (out / "adapterctl-pocket.crontab").read_text(encoding="utf-8")
    expected = str(out / "adapterctl-pocket.sh").replace("%", r"\%")
    assert text.splitlines()[-1] == f"17 3 * * * '{expected}'"


def test_a_state_elsewhere_is_kept_and_may_be_written(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERCTL_STATE_DIR", str(tmp_path / "state"))
    change(
        workspace,
        "adapterctl.yaml",
        '  uri: ""',
        f"  uri: sqlite:///{tmp_path}/db/mlflow.db\n  artifacts: {tmp_path}/art",
    )
    text = emit(workspace, "systemd").out
    assert f'Environment="ADAPTERCTL_STATE_DIR={tmp_path}/state"' in text
    assert set(re.findall(r'ReadWritePaths="(.*)"', text)) == {
        str(workspace), f"{tmp_path}/state", f"{tmp_path}/db", f"{tmp_path}/art",
    }  # fmt: skip
    assert f"export ADAPTERCTL_STATE_DIR={tmp_path}/state" in emit(workspace, "cron").out


@pytest.mark.parametrize("target", ["cron", "systemd", "k8s"])
def test_a_registry_that_only_this_shell_knows_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:s3cret@registry:5000")
    said = error(emit(workspace, target))
    assert "MLFLOW_TRACKING_URI, which a scheduled job does not have" in said
    assert "registry.uri" in said
    assert "--secret" in said
    secret = "mlflow" if target == "k8s" else "/etc/mlflow.env"
    result = emit(workspace, target, "--secret", secret)
    assert result.exit_code == 0
    assert "s3cret" not in result.out + result.err + said


def test_github_needs_a_server(workspace: Path) -> None:
    assert "The registry has an address" in emit(workspace, "github-actions").out
    change(workspace, "adapterctl.yaml", '  uri: ""', "  uri: sqlite:///registry/mlflow.db")
    assert "no runner of GitHub reaches" in error(emit(workspace, "github-actions"))
    change(workspace, "adapterctl.yaml", "  uri: sqlite:///registry/mlflow.db", "  uri: https://mlflow.example.com")
    assert "The registry has an address" not in emit(workspace, "github-actions").out


def test_github_names_the_workspace_in_its_repository(workspace: Path, tmp_path: Path) -> None:
    assert 'WORKSPACE: "."' in emit(workspace, "github-actions").out
    (tmp_path / ".git").mkdir()
    assert 'WORKSPACE: "it\'s a workspace"' in emit(workspace, "github-actions").out


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "17 3 * * *"),
        (["--every", "hour"], "17 * * * *"),
        (["--every", "week"], "17 3 * * 1"),
        (["--cron", "@daily"], "0 0 * * *"),
    ],
)
def test_when(workspace: Path, args: list[str], line: str) -> None:
    assert f'schedule: "{line}"' in emit(workspace, "k8s", *args).out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--every", "hour", "--cron", "1 * * * *"], "not with both"),
        (["--on-calendar", "daily", "--cron", "1 * * * *"], "give one of them"),
        (["--cron", "1 * * *"], "has 4 fields"),
        (["--cron", "1 2 3 4 5\n* * * * * id"], "has 11 fields"),
        (["--on-calendar", "sometimes"], "is not a time of systemd"),
        (["--time-limit", "soon"], "is not a length of time"),
        (["--retries", "-1"], "--retries"),
        (["--min-new-rows", "0"], "--min-new-rows"),
        (["--gpu", "1", "--image", "x"], "--image"),
    ],
)
def test_what_is_refused(workspace: Path, args: list[str], said: str) -> None:
    if said == "is not a time of systemd" and not Path("/usr/bin/systemd-analyze").exists():
        pytest.skip("systemd-analyze is not installed")
    assert said in error(emit(workspace, "systemd", *args))


def test_faults_in_json_are_a_list(workspace: Path) -> None:
    result = emit(workspace, "airflow", "--name", "A B", "--user", "me", "--gpu", "1", "--json")
    assert result.exit_code == 2
    found = result.json["error"]["problems"]
    assert [problem["where"] for problem in found] == ["--user", "--gpu", "--name"]


def test_review_without_approve_is_noted(workspace: Path) -> None:
    change(workspace, "adapterctl.yaml", "promotion: auto", "promotion: review")
    result = emit(workspace, "airflow")
    assert "Note: promotion is 'review'" in result.err
    assert "Note" not in result.out
    assert len(emit(workspace, "airflow", "--json").json["notes"]) == 1
    approving = emit(workspace, "airflow", "--approve")
    assert approving.err == ""
    assert "promote --approved" in approving.out


def test_a_long_project_has_a_name_that_kubernetes_takes(workspace: Path) -> None:
    change(workspace, "adapterctl.yaml", "project: pocket", f"project: {'a' * 40}-{'b' * 20}")
    name = emit(workspace, "k8s", "--json").json["name"]
    assert len(name) <= 52
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)


def test_without_a_workspace(tmp_path: Path) -> None:
    assert "there is no adapterctl.yaml" in error(emit(tmp_path, "cron"))


def test_cron_runs_what_was_written(workspace: Path, tmp_path: Path) -> None:
    """The emitted script on the program itself: a workspace whose configuration is broken is code 2, and mailed."""
    out = tmp_path / "out"
    assert emit(workspace, "cron", "--out", out).exit_code == 0
    (workspace / "adapterctl.yaml").write_text("project: [\n", encoding="utf-8")
    done = subprocess.run(
        ["sh", str(out / "adapterctl-pocket.sh")],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    first, _, rest = done.stdout.partition("\n")
    assert first.startswith("adapterctl-pocket: the configuration is not valid (exit code 2).")
    told = json.loads(rest[rest.index("\n{") : rest.rindex("}") + 1])
    assert told["exit_code"] == 2
    assert told["error"]["type"] == "ConfigError"
