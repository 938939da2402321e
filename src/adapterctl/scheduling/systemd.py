"""For systemd: a service that may write the workspace and nothing else, and the timer that starts it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePosixPath

from adapterctl.scheduling import quoting
from adapterctl.scheduling.cron import calendar_lines
from adapterctl.scheduling.job import EXIT_CODES, HOPELESS, UNCHANGED, EmittedFile, Job, comment
from adapterctl.scheduling.templates import fill

_BETWEEN_TRIES = timedelta(minutes=5)
_UNKNOWN_GAP = timedelta(hours=1)
_TEMPORARY = ("/tmp", "/var/tmp")


def files(job: Job) -> tuple[EmittedFile, ...]:
    """Return the service and the timer."""
    lines = calendar_lines(job.cron) if job.cron else (job.on_calendar or "",)
    zone = f" {job.timezone}" if job.timezone else ""
    # Tries are counted from one start of the timer to just before the next, which must find the count at 0.
    gap = min(job.cron.shortest_gap if job.cron else _UNKNOWN_GAP, timedelta(days=1))
    pause = min(_BETWEEN_TRIES, gap / (2 * (job.tries_again + 1)))
    values = {
        "name": job.name,
        "exit_codes": comment(EXIT_CODES),
        "calendar": "\n".join(f"OnCalendar={line}{zone}" for line in lines),
        "interval": str(int(gap.total_seconds() * 0.9)),
        "burst": str(job.tries_again + 1),
        "pause": str(max(1, int(pause.total_seconds()))),
        "user": f"User={job.user}" if job.user else "",
        "state": f"Environment={quoting.systemd(f'ADAPTERCTL_STATE_DIR={job.state_dir}')}" if job.state_dir else "",
        "secret": f"EnvironmentFile={job.secret.replace('%', '%%')}" if job.secret else "",
        "commands": "\n".join(f"ExecStart={quoting.systemd_command(command)}" for command in job.commands()),
        "unchanged": str(UNCHANGED),
        "hopeless": " ".join(map(str, HOPELESS)),
        "limit": str(job.seconds),
        "resources": "\n".join(_resources(job)),
        "private_tmp": _private_tmp(job),
        "writable": "\n".join(f"ReadWritePaths={quoting.systemd(path)}" for path in (job.workspace, *job.writable)),
    }
    return (
        EmittedFile(f"{job.name}.service", fill("update.service", values)),
        EmittedFile(f"{job.name}.timer", fill("update.timer", values)),
    )


def _private_tmp(job: Job) -> str:
    used = [PurePosixPath(path) for path in (job.workspace, job.program, *job.writable)]
    if any(path.is_relative_to(shared) for path in used for shared in _TEMPORARY):
        return "# No PrivateTmp: it would hide what lies in /tmp here."
    return "PrivateTmp=yes"


def _resources(job: Job) -> list[str]:
    lines = []
    if job.cpu:
        percent = int(job.cpu[:-1]) / 10 if job.cpu.endswith("m") else int(job.cpu) * 100
        lines.append(f"CPUQuota={max(1, round(percent))}%")
    if job.memory:
        # Kubernetes writes 32Gi for what is 32G here: both count in powers of 1024.
        lines.append(f"MemoryMax={job.memory.removesuffix('i')}")
    return lines
