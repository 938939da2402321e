"""For cron: a script that keeps a log and speaks up only when something went wrong, and the line that calls it."""

from __future__ import annotations

from adapterctl.scheduling import quoting
from adapterctl.scheduling.job import EXIT_CODES, EmittedFile, Job, comment
from adapterctl.scheduling.templates import fill


def files(job: Job) -> tuple[EmittedFile, ...]:
    """Return the script and the crontab."""
    assert job.cron is not None
    script = f"{job.name}.sh"
    path = f"{job.folder.rstrip('/')}/{script}"
    values = {
        "name": job.name,
        "exit_codes": comment(EXIT_CODES),
        "environment": "\n".join(_environment(job)),
        "limit": str(job.seconds),
        "steps": "\n".join(_steps(job)),
        "script": path,
        "schedule": job.cron.text,
        "command": quoting.crontab([path]),
    }
    return (
        EmittedFile(script, fill("cron.sh", values), executable=True),
        EmittedFile(f"{job.name}.crontab", fill("crontab", values)),
    )


def _environment(job: Job) -> list[str]:
    lines = []
    if job.secret:
        secret = quoting.shell([job.secret])
        lines += ["# The registry's address and password.", "set -a", f". {secret}", "set +a"]
    if job.state_dir:
        lines.append(f"export ADAPTERCTL_STATE_DIR={quoting.shell([job.state_dir])}")
    return lines


def _steps(job: Job) -> list[str]:
    first, *others = (quoting.shell(command) for command in job.commands())
    return [f"step {first} || code=$?", *(f'[ "$code" -ne 0 ] || step {other} || code=$?' for other in others)]
