"""For GitHub Actions: a workflow on a schedule, for a registry that is a server."""

from __future__ import annotations

from dataclasses import replace

from adapterctl.scheduling import quoting
from adapterctl.scheduling.job import EXIT_CODES, GITHUB_TIME_LIMIT, EmittedFile, Job, comment
from adapterctl.scheduling.templates import fill

_SECRETS = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_PLACE = "WORKSPACE"


def files(job: Job) -> tuple[EmittedFile, ...]:
    """Return the workflow: in a container, or with the program of a runner of one's own."""
    assert job.cron is not None
    hosted = job.image is not None and job.runner is None
    seconds = min(job.seconds, GITHUB_TIME_LIMIT) if hosted else job.seconds
    # The path is a value of the environment: in the text of a script it would be a part of the program.
    there = replace(job, workspace=_PLACE)
    promotion = there.promotion()
    login = "\n".join(f"{name}: ${{{{ secrets.{name} }}}}" for name in _SECRETS)
    values = {
        "name": job.name,
        "exit_codes": comment(EXIT_CODES),
        "where": comment(_about_secrets(job)),
        "kept": comment(_about_state(job)),
        "schedule": quoting.yaml(job.cron.text),
        "timezone": f"timezone: {quoting.yaml(job.timezone)}" if job.timezone else "",
        "runner": quoting.yaml(job.runner or ("ubuntu-latest" if hosted else "self-hosted")),
        "minutes": str(-(-seconds // 60)),
        "environment": f"environment: {quoting.yaml(job.secret)}" if job.secret else "",
        "container": _container(job),
        "workspace": quoting.github(job.workspace),
        "address": fill("github_address.yml", {}) if job.server_needed else "",
        "restore": fill("github_restore.yml", {"name": job.name}) if job.image else "",
        "save": fill("github_save.yml", {"name": job.name}) if job.image else "",
        "state": _state(job),
        "promote": fill("github_promote.yml", {"login": login, "command": _command(promotion)}) if promotion else "",
        "login": login,
        "update": _command(there.update()),
    }
    return (EmittedFile(f".github/workflows/{job.name}.yml", fill("workflow.yml", values)),)


def _command(words: tuple[str, ...]) -> str:
    return quoting.shell(words).replace(f"-C {_PLACE}", f'-C "${_PLACE}"', 1)


def _state(job: Job) -> str:
    # What lies beside the checked-out files is removed by the next checkout.
    return '"$GITHUB_WORKSPACE/.adapterctl-state"' if job.image else f'"$HOME/.local/state/adapterctl/{job.name}"'


def _container(job: Job) -> str:
    if job.image is None:
        return ""
    # The runner owns the checked-out files, and the image's user is another one.
    return f"container:\n  image: {quoting.yaml(job.image)}\n  options: --user 0"


def _about_secrets(job: Job) -> str:
    where = f"of the environment '{job.secret}'" if job.secret else "of the repository"
    return (
        f"Secrets {where}: {', '.join(_SECRETS)}.\n"
        "Ones that are not set are empty, which adapterctl takes as not given."
    )


def _about_state(job: Job) -> str:
    text = "The registry has to be a server: the files of a job are not kept. "
    if job.image:
        return (
            f"{text}What is lost with them is time only: what is finished is\n"
            "in the registry, and what is not is kept in GitHub's cache as far as that takes it (10 GB a repository)."
        )
    return (
        f"{text}The runner has to have adapterctl, and keeps\n"
        f"what is not finished in ~/.local/state/adapterctl/{job.name}."
    )
