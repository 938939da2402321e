"""A scheduled job as a value: what is run, when, with what, and which exit codes mean what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from adapterctl.errors import UsageError
from adapterctl.scheduling.cron import Cron

Target = Literal["cron", "systemd", "k8s", "airflow", "github-actions"]
TARGETS: tuple[Target, ...] = ("cron", "systemd", "k8s", "airflow", "github-actions")

UNCHANGED = 99
"""Exit code of an update that found nothing to do, where the scheduler can tell that from work done."""
HOPELESS = (2, 3, 6, 7)
"""Exit codes that no other try can change: configuration, the gate's no, rows, a disk that takes nothing."""

RETRIES = 2
TIME_LIMIT = 12 * 3600
GITHUB_TIME_LIMIT = 6 * 3600
"""GitHub ends jobs on its own runners after six hours, whatever they ask for."""
CPU, MEMORY, STORAGE = "4", "16Gi", "50Gi"
"""What a pod asks for where nobody says anything else."""

EXIT_CODES = f"""\
0   done
{UNCHANGED}  nothing has changed, so nothing was done (where --skip-exit-code {UNCHANGED} is given; otherwise 0)
1   an error nobody foresaw; another try may help
2   configuration: no other try will help, a person must mend it
3   the gate said no: the champion is untouched, a person should look at the candidate
4   another adapterctl is at work: worth another try
5   the registry cannot be reached: worth another try
6   rows, an adapter or the base model cannot be used: a person must mend them
7   the disk is full or read-only: a person must mend it
130, 143 interrupted or ended; the next run goes on from there"""


@dataclass(frozen=True)
class EmittedFile:
    """One file for a scheduler.

    Attributes:
        path: Where it belongs, relative to the folder that it is written to, with ``/``.
        text: What it holds.
        executable: Whether it is a program.
    """

    path: str
    text: str
    executable: bool = False


@dataclass(frozen=True)
class Job:
    """An update that comes again and again. What is None or 0 was not asked for.

    Attributes:
        name: Of the job: lower-case letters, digits and dashes.
        program: The program ``adapterctl`` on the machine that runs it.
        workspace: The workspace there.
        folder: Where the files will lie there; a crontab names its script in it.
        cron: When; None where ``on_calendar`` says it.
        on_calendar: When, as systemd writes it.
        timezone: In which zone, an IANA name.
        approve: Promote what a person has approved before every update.
        max_age, min_new_rows: Of the update.
        secret: Where the registry's address and password are: a file, a Secret, a connection, an environment; never
            the secrets themselves.
        server_needed: Whether only the secret can say where the registry is.
        state_dir: The state of the workspace, where it is not in it.
        writable: What else the job writes: folders outside of the workspace.
        user: Who runs it.
        image: A container image with adapterctl.
        namespace, claim, storage: Kubernetes' namespace, an existing claim on a volume, the size of a new one.
        runner: Label of GitHub's runner.
        gpu, cpu, memory: What it may use: a number, ``4`` or ``500m``, ``32Gi``.
        retries: How often it is tried again where that is worth it.
        time_limit: Seconds after which it is stopped.
    """

    name: str
    program: str
    workspace: str
    folder: str = "."
    cron: Cron | None = None
    on_calendar: str | None = None
    timezone: str | None = None
    approve: bool = False
    max_age: str | None = None
    min_new_rows: int | None = None
    secret: str | None = None
    server_needed: bool = False
    state_dir: str | None = None
    writable: tuple[str, ...] = ()
    user: str | None = None
    image: str | None = None
    namespace: str | None = None
    claim: str | None = None
    storage: str | None = None
    runner: str | None = None
    gpu: int | None = None
    cpu: str | None = None
    memory: str | None = None
    retries: int | None = None
    time_limit: int | None = None

    @property
    def tries_again(self) -> int:
        """How often it is tried again."""
        return RETRIES if self.retries is None else self.retries

    @property
    def seconds(self) -> int:
        """After how many seconds it is stopped."""
        return self.time_limit or TIME_LIMIT

    def promotion(self, *, workspace: str | None = None) -> tuple[str, ...] | None:
        """Return the command that promotes what a person has approved; None where that is not asked for."""
        if not self.approve:
            return None
        return (self.program, "-C", workspace or self.workspace, "promote", "--approved", "--json")

    def update(self, *, skip: bool = True, workspace: str | None = None) -> tuple[str, ...]:
        """Return the command that updates what has changed.

        Args:
            skip: Whether "nothing has changed" has an exit code of its own.
            workspace: Where the workspace is, in place of what the job says.
        """
        words = [self.program, "-C", workspace or self.workspace, "update", "--all-changed", "--if-changed"]
        if self.max_age:
            words += ["--max-age", self.max_age]
        if self.min_new_rows:
            words += ["--min-new-rows", str(self.min_new_rows)]
        if skip:
            words += ["--skip-exit-code", str(UNCHANGED)]
        return (*words, "--json")

    def commands(self, *, skip: bool = True) -> tuple[tuple[str, ...], ...]:
        """Return all commands in their order; each runs only where the one before went well."""
        promotion = self.promotion()
        return ((promotion,) if promotion else ()) + (self.update(skip=skip),)


def seconds_of(text: str) -> int:
    """Return the seconds of a time such as ``90m`` or ``12h``.

    Raises:
        UsageError: It is none.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if found is None:
        raise UsageError(f"'{text}' is not a length of time", hint="write a number and s, m, h or d, such as 12h")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def comment(text: str) -> str:
    """Return a text as lines of a comment."""
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())
