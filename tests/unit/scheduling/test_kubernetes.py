"""Kubernetes' objects, held against the official schemas of several of its versions."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML
from tests.support.scheduled import HOSTILE, make_job

from adapterctl.scheduling.emit import emit

VERSIONS = ["1.31", "1.34", "1.37"]
FULL = {
    "image": "registry.example.com:5000/team/adapterctl:1.0@sha256:" + "0" * 64,
    "namespace": "ml",
    "secret": "mlflow",
    "gpu": 2,
    "cpu": "7500m",
    "memory": "32Gi",
    "timezone": "Europe/Berlin",
    "approve": True,
    "max_age": "30d",
    "min_new_rows": 100,
    "retries": 4,
    "time_limit": 3600,
    "workspace": "/workspace",
    "program": "adapterctl",
}
LEAST = {"image": "adapterctl", "workspace": "/workspace"}


def objects(**values: Any) -> list[dict[str, Any]]:
    return [YAML(typ="safe").load(file.text) for file in emit(make_job(**values), "k8s")]


def pod_of(cronjob: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "values",
    [LEAST, FULL, {**LEAST, "workspace": HOSTILE.replace(":", "")}, {**LEAST, "name": "123", "namespace": "null"}],
    ids=["least", "full", "hostile", "numbers"],
)
def test_the_official_schema_takes_them(version: str, values: dict[str, Any]) -> None:
    for found in objects(**values):
        assert kubernetes_validate.validate(found, version, strict=True) == version


def test_the_schema_would_refuse_a_mistake() -> None:
    cronjob, _ = objects(**LEAST)
    wrong = copy.deepcopy(cronjob)
    wrong["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"] = ["two"]
    misspelt = copy.deepcopy(cronjob)
    misspelt["spec"]["concurencyPolicy"] = "Forbid"
    for one in (wrong, misspelt):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(one, "1.34", strict=True)


def test_what_the_cronjob_says() -> None:
    cronjob, volume = objects(**FULL)
    spec = cronjob["spec"]
    assert (cronjob["apiVersion"], cronjob["kind"]) == ("batch/v1", "CronJob")
    assert (spec["schedule"], spec["timeZone"]) == ("17 3 * * *", "Europe/Berlin")
    assert spec["concurrencyPolicy"] == "Forbid"
    # Below 10 seconds the controller may never get round to it.
    assert spec["startingDeadlineSeconds"] >= 10
    job = spec["jobTemplate"]["spec"]
    assert (job["backoffLimit"], job["activeDeadlineSeconds"]) == (4, 3600)
    ignored, failed = job["podFailurePolicy"]["rules"]
    assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert failed == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 3, 6, 7]}}
    pod = pod_of(cronjob)
    # podFailurePolicy is refused with any other.
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 15
    (claim,) = [entry["persistentVolumeClaim"]["claimName"] for entry in pod["volumes"] if entry["name"] == "workspace"]
    assert volume["metadata"]["name"] == claim == "adapterctl-demo-workspace"
    assert {one["metadata"]["namespace"] for one in (cronjob, volume)} == {"ml"}


def test_what_the_containers_are() -> None:
    pod = pod_of(objects(**FULL)[0])
    (promote,), (update,) = pod["initContainers"], pod["containers"]
    assert promote["args"] == ["-C", "/workspace", "promote", "--approved", "--json"]
    # Every code but 0 is a failure to Kubernetes: nothing to do has to be 0.
    assert update["args"] == [
        "-C", "/workspace", "update", "--all-changed", "--if-changed", "--max-age", "30d", "--min-new-rows", "100",
        "--json",
    ]  # fmt: skip
    for container in (promote, update):
        assert container["command"] == ["adapterctl"]
        assert container["image"] == FULL["image"]
        asked = {"cpu": "7500m", "memory": "32Gi"}
        assert container["resources"] == {"requests": asked, "limits": {**asked, "nvidia.com/gpu": 2}}
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"workspace": "/workspace", "tmp": "/tmp"}
        assert {mount["name"] for mount in pod["volumes"]} == set(mounts)
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_secrets_are_references() -> None:
    (container,) = pod_of(objects(**LEAST, secret="mlflow")[0])["containers"]
    by_name = {entry["name"]: entry for entry in container["env"]}
    references = {
        name: entry["valueFrom"]["secretKeyRef"] for name, entry in by_name.items() if name.startswith("MLFLOW")
    }
    optional = {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"}
    assert set(references) == {"MLFLOW_TRACKING_URI"} | optional
    for name, reference in references.items():
        assert (reference["name"], reference["key"]) == ("mlflow", name)
        assert reference.get("optional", False) is (name in optional)
    (without,) = pod_of(objects(**LEAST)[0])["containers"]
    assert [entry["name"] for entry in without["env"]] == ["HOME", "HF_HOME"]


def test_a_claim_that_exists_is_used() -> None:
    (cronjob,) = objects(**LEAST, claim="team-volume")
    volumes = pod_of(cronjob)["volumes"]
    assert {"name": "workspace", "persistentVolumeClaim": {"claimName": "team-volume"}} in volumes


def test_a_hostile_path_is_one_argument() -> None:
    path = HOSTILE.replace(":", "")
    (container,) = pod_of(objects(image="a", workspace=path)[0])["containers"]
    # $$ stands for $ in arguments, and for itself in the path of a mount.
    assert container["args"][1].replace("$$", "$") == path
    assert "$(" not in container["args"][1].replace("$$", "")
    assert container["volumeMounts"][0]["mountPath"] == path
