"""Airflow's DAG, run with stand-ins for Airflow's names: what it hands to Airflow, and what a shell makes of it.

That Airflow itself takes it was tried by hand; docs/scheduling.md says with which version.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.support.scheduled import HOSTILE, make_job

from adapterctl.scheduling.emit import emit


class FailException(Exception):
    """Stands for AirflowFailException."""


class Task:
    """Stands for BashOperator."""

    def __init__(self, **values: Any) -> None:
        self.values = values
        self.before: list[Task] = []

    def __rshift__(self, after: Task) -> Task:
        after.before.append(self)
        return after


class Dag:
    """Stands for DAG."""

    made: list[dict[str, Any]]

    def __init__(self, **values: Any) -> None:
        Dag.made.append(values)

    def __enter__(self) -> Dag:
        return self

    def __exit__(self, *_: object) -> None:
        pass


Load = Callable[..., tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Run a DAG file; return what it asked Airflow for, and its own names."""

    def module(name: str, **names: Any) -> None:
        made = ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)

    Dag.made = []
    module("pendulum", datetime=lambda *day, tz: datetime(*day, tzinfo=ZoneInfo(tz)))
    for name in ("airflow", "airflow.providers", "airflow.providers.standard", "airflow.providers.standard.operators"):
        module(name)
    module("airflow.providers.standard.operators.bash", BashOperator=Task)
    module("airflow.sdk", DAG=Dag, literal=lambda text: ("literal", text))
    module("airflow.sdk.exceptions", AirflowFailException=FailException)

    def run(**values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        (file,) = emit(make_job(**values), "airflow")
        assert file.path == "adapterctl_demo.py"
        names: dict[str, Any] = {}
        exec(compile(file.text, file.path, "exec"), names)
        (dag,) = Dag.made
        return dag, names

    return run


def test_the_dag(load: Load) -> None:
    dag, names = load(timezone="Asia/Tokyo", retries=5, time_limit=3600)
    assert dag["dag_id"] == "adapterctl-demo"
    assert dag["schedule"] == "17 3 * * *"
    assert dag["start_date"].tzinfo == ZoneInfo("Asia/Tokyo")
    assert dag["catchup"] is False
    assert dag["max_active_runs"] == 1
    given = dag["default_args"]
    assert (given["retries"], given["execution_timeout"]) == (5, timedelta(hours=1))
    assert given["retry_exponential_backoff"] == 2.0
    update = names["update"].values
    assert update["task_id"] == "update"
    assert update["skip_on_exit_code"] == 99
    assert update["append_env"] is True
    assert "promote" not in names


def test_the_promotion_comes_first(load: Load) -> None:
    _, names = load(approve=True)
    assert names["update"].before == [names["promote"]]
    assert "promote --approved" in names["promote"].values["bash_command"][1]


def test_secrets_are_references(load: Load) -> None:
    _, names = load(secret="team-mlflow", state_dir="/srv/{{ x }}")
    assert names["ENVIRONMENT"] == {
        "ADAPTERCTL_STATE_DIR": ("literal", "/srv/{{ x }}"),
        "MLFLOW_TRACKING_URI": "{{ conn.get('team-mlflow').host or '' }}",
        "MLFLOW_TRACKING_USERNAME": "{{ conn.get('team-mlflow').login or '' }}",
        "MLFLOW_TRACKING_PASSWORD": "{{ conn.get('team-mlflow').password or '' }}",
    }


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 7, 99, 130])
def test_what_the_script_makes_of_an_exit_code(load: Load, tmp_path: Path, code: int) -> None:
    program = tmp_path / "it's {{ mine }}" / "adapterctl"
    program.parent.mkdir()
    text = f'#!/bin/sh\nprintf "%s\\n" "$@" >"{tmp_path}/args"\nprintf "no line end"\nexit {code}\n'
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    _, names = load(program=str(program), workspace=HOSTILE)
    kind, script = names["update"].values["bash_command"]
    assert kind == "literal"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (tmp_path / "args").read_text(encoding="utf-8").splitlines()[:3] == ["-C", HOSTILE, "update"]
    judge, last_line = names["update"].values["output_processor"], done.stdout.splitlines()[-1]
    if code in (2, 3, 6, 7):
        # Airflow hands the last line to the judge only where the script ends with 0.
        assert done.returncode == 0
        with pytest.raises(FailException, match=f"cannot change: {code}$"):
            judge(last_line)
    else:
        assert done.returncode == code
        assert judge(last_line) is None
