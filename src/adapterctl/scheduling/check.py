"""What a job may say for which scheduler; every fault at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from zoneinfo import ZoneInfo

from adapterctl.errors import Problem, UsageError
from adapterctl.scheduling.job import GITHUB_TIME_LIMIT, Job, Target
from adapterctl.scheduling.quoting import is_plain

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
LONGEST_NAME = 52
"""Kubernetes adds eleven characters to the name of a CronJob, and takes 63."""

_ONLY: dict[str, tuple[Target, ...]] = {
    "on_calendar": ("systemd",),
    "timezone": ("systemd", "k8s", "airflow", "github-actions"),
    "user": ("systemd",),
    "image": ("k8s", "github-actions"),
    "namespace": ("k8s",),
    "claim": ("k8s",),
    "storage": ("k8s",),
    "runner": ("github-actions",),
    "gpu": ("k8s",),
    "cpu": ("systemd", "k8s"),
    "memory": ("systemd", "k8s"),
    "retries": ("systemd", "k8s", "airflow"),
}
"""Options that not every scheduler knows."""
_WHY = {
    ("timezone", "cron"): "cron goes by the machine's own zone; use --target systemd, or write the time in that zone",
    ("retries", "cron"): "cron does not try again; the next night goes on where this one ended",
    ("retries", "github-actions"): "GitHub does not try again; the next run goes on where this one ended",
}
_PATTERNS = {
    "name": (_LABEL, "lower-case letters, digits and dashes, such as adapterctl-demo"),
    "user": (r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "the name or the number of a user"),
    "image": (r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", "an image such as registry.example.com/adapterctl:1.0"),
    "namespace": (_LABEL, "lower-case letters, digits and dashes"),
    "claim": (rf"{_LABEL}(?:\.{_LABEL})*", "the name of a PersistentVolumeClaim"),
    "storage": (r"[1-9][0-9]*[MGT]i", "a size such as 50Gi"),
    "runner": (r"[A-Za-z0-9][A-Za-z0-9._-]*", "one label of a runner, such as self-hosted"),
    "cpu": (r"[1-9][0-9]*m?", "a number of cores such as 4, or thousandths such as 500m"),
    "memory": (r"[1-9][0-9]*[MG]i", "a size such as 32Gi"),
    "max_age": (r"[1-9][0-9]{0,4}[mhdw]", "an age such as 30d"),
    "on_calendar": (r"[A-Za-z0-9*:,./~_+ -]+", "a time of systemd, such as 'Mon..Fri 03:17'; see man systemd.time"),
}
_SECRETS: dict[Target, tuple[str, str]] = {
    "cron": (r"/.*[^\s\\]", "the absolute path of a file with lines NAME=value"),
    "systemd": (r"/[^*?\[]*[^*?\[\s\\]", "the absolute path of a file with lines NAME=value, without *, ? and ["),
    "k8s": (rf"{_LABEL}(?:\.{_LABEL})*", "the name of a Secret"),
    "airflow": (r"[A-Za-z0-9_.-]+", "the id of a connection"),
    "github-actions": (r"[A-Za-z0-9][A-Za-z0-9 _.-]*", "the name of an environment"),
}
_LONGEST = {"namespace": 63, "claim": 253, "secret": 250, "name": LONGEST_NAME}
_SHORTEST_OF_GITHUB = timedelta(minutes=5)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _misplaced(job: Job, target: Target) -> Iterator[Problem]:
    for name, targets in _ONLY.items():
        if getattr(job, name) is not None and target not in targets:
            why = _WHY.get((name, target), f"it is for {', '.join(targets)}")
            yield Problem(_flag(name), f"has no meaning for {target}", why)
    if target == "k8s" and job.image is None:
        yield Problem("--image", "is missing: a pod needs an image with adapterctl", "build one with the Dockerfile")
    if job.claim is not None and job.storage is not None:
        yield Problem("--storage", "is the size of a new volume, and --claim names an existing one", "give one of them")


def _malformed(job: Job, target: Target) -> Iterator[Problem]:
    patterns = {**_PATTERNS, "secret": _SECRETS[target]}
    for name, (pattern, wanted) in patterns.items():
        value = getattr(job, name)
        if value is None:
            continue
        if not re.fullmatch(pattern, value) or not is_plain(value):
            yield Problem(_flag(name), f"{value!r} cannot be used", f"write {wanted}")
        elif len(value) > _LONGEST.get(name, 1000):
            yield Problem(_flag(name), f"{value!r} is longer than {_LONGEST[name]} characters", "choose a shorter one")
    if job.timezone is not None and not _known_zone(job.timezone):
        yield Problem("--timezone", f"{job.timezone!r} is no time zone", "write an IANA name such as Europe/Berlin")


def _known_zone(name: str) -> bool:
    if not re.fullmatch(r"[A-Za-z0-9_+/-]+", name):
        return False
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        return False
    return True


def _unwritable(job: Job, target: Target) -> Iterator[Problem]:
    """Yield what this scheduler's format cannot hold."""
    for flag, path in (("--workspace-path", job.workspace), ("--program", job.program), ("--out", job.folder)):
        if not is_plain(path):
            yield Problem(flag, f"{path!r} holds a line end or another character that no file here can hold")
    own = target in ("cron", "systemd", "airflow")
    if own and not job.workspace.startswith("/"):
        yield Problem("--workspace-path", f"'{job.workspace}' is no absolute path", "write the whole path")
    if target in ("cron", "systemd") and not job.program.startswith("/"):
        yield Problem("--program", f"'{job.program}' is no absolute path", "write it as 'command -v adapterctl' says")
    if target == "systemd" and set(job.program) & set("\"'\\"):
        yield Problem("--program", f"'{job.program}' holds a quote or a backslash, which systemd refuses in a program")
    if target == "cron" and "\\" in job.folder:
        yield Problem("--out", f"the folder '{job.folder}' holds a backslash, which crons read differently")
    if target == "k8s" and not job.workspace.startswith("/"):
        yield Problem("--workspace-path", f"'{job.workspace}' is no absolute path", "write one such as /workspace")
    if target == "k8s" and ":" in job.workspace:
        yield Problem("--workspace-path", f"'{job.workspace}' holds a colon, which no path of a mount can")
    if target == "github-actions" and job.workspace.startswith("/"):
        yield Problem("--workspace-path", f"'{job.workspace}' is not a path in the repository", "write one such as .")


def _times(job: Job, target: Target) -> Iterator[Problem]:
    if target != "github-actions":
        return
    if job.cron is not None and job.cron.shortest_gap < _SHORTEST_OF_GITHUB:
        yield Problem("--cron", f"'{job.cron.text}' comes more often than every 5 minutes, which GitHub does not do")
    if job.runner is None and job.seconds > GITHUB_TIME_LIMIT and job.time_limit is not None:
        yield Problem("--time-limit", "GitHub's own runners end a job after 6 hours", "name your own with --runner")


def check(job: Job, target: Target) -> None:
    """Refuse a job that cannot be written down for a scheduler.

    Raises:
        UsageError: ``problems`` names every reason.
    """
    found = [problem for judge in (_misplaced, _malformed, _unwritable, _times) for problem in judge(job, target)]
    if found:
        raise UsageError(
            f"no files for {target} can be made of this",
            problems=found,
            hint="correct these options; all of them are listed by: adapterctl schedule emit --help",
        )
