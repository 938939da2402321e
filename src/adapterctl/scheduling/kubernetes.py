"""For Kubernetes: a CronJob, and the claim on the volume that keeps the workspace between two of its pods."""

from __future__ import annotations

from collections.abc import Sequence

from adapterctl.scheduling import quoting
from adapterctl.scheduling.job import CPU, EXIT_CODES, HOPELESS, MEMORY, STORAGE, EmittedFile, Job, comment
from adapterctl.scheduling.templates import fill

_ADDRESS = "MLFLOW_TRACKING_URI"
_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def files(job: Job) -> tuple[EmittedFile, ...]:
    """Return the CronJob and, where no claim is named, a claim."""
    assert job.cron is not None
    claim = job.claim or f"{job.name}-workspace"
    promotion = job.promotion()
    containers = f"containers:\n{_indent(_container(job, 'update', job.update(skip=False)))}"
    first = f"initContainers:\n{_indent(_container(job, 'promote', promotion))}\n" if promotion else ""
    values = {
        "name": job.name,
        "namespace": f"namespace: {quoting.yaml(job.namespace)}" if job.namespace else "",
        "in_namespace": f" -n {job.namespace}" if job.namespace else "",
        "exit_codes": comment(EXIT_CODES),
        "secret": comment(_about_secret(job)),
        "volume": "" if job.claim else f"#   kubectl apply -f {job.name}-volume.yaml",
        "claim": quoting.yaml(claim),
        "schedule": quoting.yaml(job.cron.text),
        "timezone": quoting.yaml(job.timezone or "Etc/UTC"),
        "retries": str(job.tries_again),
        "limit": str(job.seconds),
        "hopeless": ", ".join(map(str, HOPELESS)),
        "containers": first + containers,
        "storage": quoting.yaml(job.storage or STORAGE),
    }
    made = [EmittedFile(f"{job.name}-cronjob.yaml", fill("cronjob.yaml", values))]
    if job.claim is None:
        made.append(EmittedFile(f"{job.name}-volume.yaml", fill("volume.yaml", values)))
    return tuple(made)


def _about_secret(job: Job) -> str:
    if job.secret is None:
        return (
            "Without --secret the registry is what adapterctl.yaml says: a server without login, or the volume itself."
        )
    space = f" -n {job.namespace}" if job.namespace else ""
    return (
        f"The registry, from a file with lines {_ADDRESS}=..., {_LOGIN[0]}=..., {_LOGIN[1]}=...:\n"
        f"  kubectl create secret generic {job.secret}{space} --from-env-file=mlflow.env"
    )


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _container(job: Job, name: str, command: Sequence[str]) -> str:
    program, *arguments = command
    values = {
        "name": name,
        "image": quoting.yaml(job.image or ""),
        "command": quoting.kubernetes_list([program]),
        "arguments": quoting.kubernetes_list(arguments),
        "models": quoting.kubernetes(f"{job.workspace.rstrip('/')}/.cache/huggingface"),
        "secret": "\n".join(_from_secret(job.secret)) if job.secret else "",
        "cpu": quoting.yaml(job.cpu or CPU),
        "memory": quoting.yaml(job.memory or MEMORY),
        "gpu": f"nvidia.com/gpu: {job.gpu}" if job.gpu else "",
        "workspace": quoting.yaml(job.workspace),
    }
    return fill("container.yaml", values).rstrip("\n")


def _from_secret(secret: str) -> list[str]:
    lines = []
    for variable in (_ADDRESS, *_LOGIN):
        lines += [f"- name: {variable}", "  valueFrom:", "    secretKeyRef:"]
        lines += [f"      name: {quoting.yaml(secret)}", f"      key: {variable}"]
        # A registry without login, or with a token, has not all of them; without an address there is none.
        lines += ["      optional: true"] if variable != _ADDRESS else []
    return lines
