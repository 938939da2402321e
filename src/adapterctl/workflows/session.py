"""One command at work: the workspace, the rooms it needs, and the books it keeps."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapterctl import base_model
from adapterctl.accounting.energy import METERS
from adapterctl.accounting.ledger import DONE, FAILED, PROCESS, Entry, Ledger
from adapterctl.accounting.meter import Meter, process_usage
from adapterctl.accounting.usage import Usage
from adapterctl.base_model import BaseModel
from adapterctl.errors import RegistryError, StorageError
from adapterctl.files import remove_unfinished
from adapterctl.workflows.reporting import Reporter, Stage

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry
    from adapterctl.registry.settings import ResolvedRegistry
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
        writing: Whether it holds the workspace's lock, so that it may deliver what waits of the books.
        releasing: Whether it moves what aliases point at: then it is alone in the project, on all machines.
        wait: Whether it waits for others who are at work, instead of refusing.
        waited: Seconds that it waited for others, which are no part of what it used.
        quick: Whether it only looks things up in the registry, for which MLflow need not always be loaded.
        meter: Runs since the session began.
    """

    workspace: Workspace
    reporter: Reporter
    command: str
    subject: str = ""
    update_id: str = ""
    whole_process: bool = False
    writing: bool = False
    releasing: bool = False
    wait: bool = False
    waited: float = 0.0
    quick: bool = False
    meter: Meter = field(default_factory=Meter)
    _held: ExitStack = field(default_factory=ExitStack, repr=False)

    @cached_property
    def base(self) -> BaseModel:
        """The base model."""
        return base_model.find(self.workspace.config.base_model, self.workspace.root)

    @cached_property
    def registry(self) -> Registry:
        """The registry, connected to when it is first needed."""
        from adapterctl.registry.client import Registry

        if self.quick:
            return Registry.for_reading(self._address, self.project)
        registry = Registry.connect(self._address, self.project)
        registry.told = self.reporter.note
        if self.releasing:
            began = time.monotonic()
            self._held.enter_context(registry.exclusive(self.command, wait=self.wait))
            self.waited += time.monotonic() - began
        if self.writing:
            self._deliver(registry)
        return registry

    def close(self) -> None:
        """Let others in who wait to move aliases of the project."""
        self._held.close()

    @property
    def _address(self) -> ResolvedRegistry:
        return self.workspace.config.registry.resolve(self.workspace.root)

    @cached_property
    def ledger(self) -> Ledger:
        """The books: in the registry, and what is on its way there."""
        return Ledger(self.workspace.paths.ledger, self._books)

    def _books(self) -> Registry | None:
        """Return the registry for its books; none are in a store that nobody has made yet."""
        database = self._address.database_file
        return self.registry if database is None or database.exists() else None

    def deliver(self) -> None:
        """Bring the books into the registry where this command talks to it; what cannot be delivered now waits."""
        if "registry" in vars(self):
            self._deliver(self.registry)

    def _deliver(self, registry: Registry) -> None:
        try:
            self.ledger.deliver(registry)
        except (RegistryError, StorageError) as error:
            self.reporter.note(f"the books wait in {self.workspace.paths.ledger}: {error.message}")

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
        used = process_usage() if self.whole_process else self.meter.usage
        return replace(used, wall_seconds=max(0.0, used.wall_seconds - self.waited))


@contextmanager
def working(
    workspace: Workspace,
    command: str,
    subject: str,
    reporter: Reporter,
    *,
    whole_process: bool = False,
    releasing: bool = False,
    wait: bool = False,
) -> Iterator[Session]:
    """Give a session that may change the workspace: alone, and with the whole command on the books at the end.

    The books are delivered at the end if the command talked to the registry, unless it was interrupted or the registry
    failed: nobody wants to wait for it once more then.

    Args:
        workspace: The workspace.
        command: Name of the command, as in the ledger.
        subject: What it is about.
        reporter: Who watches.
        whole_process: Whether the process does nothing else: interpreter start and imports then count as well.
        releasing: Whether it moves what aliases point at: then it is alone in the project, on all machines.
        wait: Wait for others who are at work, instead of refusing.

    Raises:
        LockHeld: Another adapterctl works on this workspace, or on the project's releases, and nobody wants to wait.
    """
    began = time.monotonic()
    with workspace.lock(command, wait=wait, told=reporter.note):
        waited = time.monotonic() - began
        remove_unfinished(workspace.state, keep=workspace.paths.fetched)
        METERS.use(workspace.config.prices.energy.processors)
        session, meter = Session(workspace, reporter, command, subject, whole_process=whole_process), Meter()
        if wait:
            # Whoever was before us may have changed its files.
            session.workspace = type(workspace).open(workspace.root, data=False)
        session.writing, session.releasing, session.wait, session.waited = True, releasing, wait, waited
        outcome, answers = FAILED, False
        try:
            with meter:
                session.meter = meter
                yield session
            outcome, answers = DONE, True
        except Exception as error:
            answers = not isinstance(error, RegistryError)
            raise
        finally:
            try:
                session.book(PROCESS, subject, session.update_id, session.used_so_far(), outcome=outcome)
                if answers:
                    session.deliver()
            finally:
                session.close()


def reading(workspace: Workspace, command: str, reporter: Reporter | None = None, *, quick: bool = False) -> Session:
    """Return a session for a command that changes nothing.

    Args:
        workspace: The workspace.
        command: Name of the command.
        reporter: Who watches.
        quick: Whether it only looks things up in the registry; see ``Session``.
    """
    from adapterctl.workflows.reporting import SilentReporter

    return Session(workspace, reporter or SilentReporter(), command, quick=quick)


def options_of(settings: Any) -> dict[str, Any]:
    """Return settings as plain values for the registry's parameters."""
    dumped: dict[str, Any] = settings.model_dump(mode="json", by_alias=True)
    return dumped
