"""One command at work: the workspace, the rooms it needs, and the books it keeps."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapterctl import base_model
from adapterctl.accounting.ledger import DONE, FAILED, PROCESS, Entry, Ledger
from adapterctl.accounting.meter import Meter, process_usage
from adapterctl.accounting.usage import Usage
from adapterctl.base_model import BaseModel
from adapterctl.files import remove_unfinished
from adapterctl.workflows.reporting import Reporter, Stage

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry
    from adapterctl.workspace.workspace import Workspace


@dataclass
class StepRecord:
    """What a step tells while it runs; the ledger takes it at the end.

    Attributes:
        stage: Where progress goes.
        meter: Counts tokens and operations, which only the step knows.
        reused: Whether an earlier result was taken instead of doing the work.
    """

    stage: Stage
    meter: Meter
    reused: bool = False


@dataclass
class Session:
    """What a workflow works with.

    Attributes:
        workspace: The workspace.
        reporter: Who watches.
        command: Name of the command, as in the ledger.
        subject: What it is about: a language, ``merged`` or ``combined``.
        update_id: Names what the command does, equal for every attempt at it.
        whole_process: Whether the process does nothing but this command.
        meter: Runs since the session began.
    """

    workspace: Workspace
    reporter: Reporter
    command: str
    subject: str = ""
    update_id: str = ""
    whole_process: bool = False
    meter: Meter = field(default_factory=Meter)

    @cached_property
    def base(self) -> BaseModel:
        """The base model."""
        return base_model.find(self.workspace.config.base_model, self.workspace.root)

    @cached_property
    def registry(self) -> Registry:
        """The registry, connected to when it is first needed."""
        from adapterctl.registry.client import Registry

        return Registry.connect(self.workspace.config.registry.resolve(self.workspace.root), self.project)

    @cached_property
    def ledger(self) -> Ledger:
        """The books."""
        return Ledger(self.workspace.paths.ledger)

    @property
    def project(self) -> str:
        """Name of the project."""
        return self.workspace.config.project

    @contextmanager
    def step(self, name: str, subject: str, key: str, title: str) -> Iterator[StepRecord]:
        """Announce, meter and book one step; a failed one is booked too, since it was paid for."""
        with self.reporter.stage(title) as stage:
            record, outcome = StepRecord(stage, Meter()), FAILED
            try:
                with record.meter:
                    yield record
                outcome = DONE
            finally:
                self.book(name, subject, key, record.meter.usage, reused=record.reused, outcome=outcome)

    def book(
        self, step: str, subject: str, key: str, usage: Usage, *, reused: bool = False, outcome: str = DONE
    ) -> None:
        """Write one measured entry into the ledger."""
        self.ledger.append(self.entry(step, subject, key, usage, reused=reused, outcome=outcome))

    def entry(
        self, step: str, subject: str, key: str, usage: Usage, *, reused: bool = False, outcome: str = DONE
    ) -> Entry:
        """Return an entry of this command and this moment, without writing it."""
        return Entry.now(
            command=self.command,
            subject=subject,
            step=step,
            key=key,
            usage=usage,
            reused=reused,
            update_id=self.update_id,
            machine=socket.gethostname(),
            outcome=outcome,
        )

    def used_so_far(self) -> Usage:
        """Return what the command used up to now."""
        return process_usage() if self.whole_process else self.meter.usage


@contextmanager
def working(
    workspace: Workspace, command: str, subject: str, reporter: Reporter, *, whole_process: bool = False
) -> Iterator[Session]:
    """Give a session that may change the workspace: alone, and with the whole command on the books at the end.

    Args:
        workspace: The workspace.
        command: Name of the command, as in the ledger.
        subject: What it is about.
        reporter: Who watches.
        whole_process: Whether the process does nothing else: interpreter start and imports then count as well.

    Raises:
        LockHeld: Another adapterctl works on this workspace.
    """
    with workspace.lock(command):
        remove_unfinished(workspace.state, keep=workspace.paths.fetched)
        session, meter = Session(workspace, reporter, command, subject, whole_process=whole_process), Meter()
        outcome = FAILED
        try:
            with meter:
                session.meter = meter
                yield session
            outcome = DONE
        finally:
            session.book(PROCESS, subject, session.update_id, session.used_so_far(), outcome=outcome)


def reading(workspace: Workspace, command: str, reporter: Reporter | None = None) -> Session:
    """Return a session for a command that changes nothing."""
    from adapterctl.workflows.reporting import SilentReporter

    return Session(workspace, reporter or SilentReporter(), command)


def options_of(settings: Any) -> dict[str, Any]:
    """Return settings as plain values for the registry's parameters."""
    dumped: dict[str, Any] = settings.model_dump(mode="json", by_alias=True)
    return dumped
