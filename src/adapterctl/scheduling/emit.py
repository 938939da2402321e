"""From a job to the files of a scheduler, each with a mark by which a later call knows its own work."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace

from adapterctl.scheduling import airflow, crontab, github, kubernetes, systemd
from adapterctl.scheduling.check import check
from adapterctl.scheduling.job import EmittedFile, Job, Target

_MARK = re.compile(r"^# Written by: adapterctl schedule emit \(([0-9a-f]{16})\)\n", re.MULTILINE)

_MAKERS: dict[Target, Callable[[Job], tuple[EmittedFile, ...]]] = {
    "cron": crontab.files,
    "systemd": systemd.files,
    "k8s": kubernetes.files,
    "airflow": airflow.files,
    "github-actions": github.files,
}


def emit(job: Job, target: Target) -> tuple[EmittedFile, ...]:
    """Return the files that make a scheduler run a job.

    Raises:
        UsageError: The job cannot be written down for it; ``problems`` names every reason.
    """
    check(job, target)
    return tuple(replace(file, text=_marked(file.text)) for file in _MAKERS[target](job))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _marked(text: str) -> str:
    mark = f"# Written by: adapterctl schedule emit ({_digest(text)})\n"
    if text.startswith("#!"):
        first, _, rest = text.partition("\n")
        return f"{first}\n{mark}{rest}"
    return mark + text


def is_untouched(text: str) -> bool:
    """Return whether a text is one of ours that nobody has changed since."""
    found = _MARK.search(text)
    return found is not None and found[1] == _digest(text[: found.start()] + text[found.end() :])
