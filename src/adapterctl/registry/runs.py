"""Runs: one per step of the work, found again by its key when the step is repeated."""

from __future__ import annotations

import json
import math
import os
import platform
import posixpath
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from adapterctl.errors import AdapterctlError, DataError, EndpointError
from adapterctl.masking import mask
from adapterctl.people import this_user
from adapterctl.registry.connection import Connection
from adapterctl.registry.names import TAG_ERROR, TAG_HOST, TAG_KEY, TAG_PROCESS, quoted_key
from adapterctl.registry.processes import process_token

_NOTE = "mlflow.note.content"
_TABLES = "mlflow.loggedArtifacts"
# MLflow cuts what is longer without a word.
_LONGEST_TAG = 8000
_LONGEST_PARAM = 6000
_LONGEST_DIGEST = 36
_LONGEST_ERROR = 1000
_SECONDS_BETWEEN_POINTS = 1.0


def _batches(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _shortened(text: str, longest: int) -> str:
    end = f" … ({len(text)} characters)"
    return text if len(text) <= longest else text[: longest - len(end)] + end


def told(error: BaseException) -> str:
    """Return what a run says of its failure: never a row, a secret or a page of text.

    What is wrong with rows, and what nobody foresaw, is told by its class and its place alone: its text may quote what
    the rows say. The person at the terminal has seen it all.
    """
    kind = type(error).__name__
    if isinstance(error, AdapterctlError) and not isinstance(error, DataError | EndpointError):
        return _shortened(mask(f"{kind}: {error.message}".splitlines()[0]), _LONGEST_ERROR)
    inside = f"{os.sep}adapterctl{os.sep}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if inside in frame.filename]
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{kind}{place}; the command that failed has told the rest"


def _owner() -> dict[str, str]:
    """Return the tags by which a run left RUNNING by a killed process is told from one that still runs."""
    return {TAG_HOST: platform.node(), TAG_PROCESS: process_token(os.getpid())}


class RunHandle:
    """One MLflow run that is open for writing.

    Everything here may be repeated: what is there already is not logged twice.

    Attributes:
        run_id: MLflow's id.
        key: The key by which the run is found again.
        name: Its name in the user interface.
        reopened: Whether an earlier attempt had made it.
    """

    def __init__(self, connection: Connection, run: Any, key: str, reopened: bool) -> None:
        self._connection = connection
        self._client = connection.client
        # MLflow's client would ask for the place, and then keep it for every later registry of this process.
        self._files = connection.repository(run.info.artifact_uri)
        self.run_id: str = run.info.run_id
        self.key = key
        self.name: str = run.info.run_name
        self.reopened = reopened
        self._params: dict[str, str] = dict(run.data.params)
        self._metrics: dict[str, float] = dict(run.data.metrics)
        self._tags: dict[str, str] = dict(run.data.tags)
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def __repr__(self) -> str:
        return f"RunHandle({self.key!r}, run_id={self.run_id!r})"

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; MLflow's are immutable, and those that the run has already stay as they are."""
        from mlflow.entities import Param

        new = {
            name: _shortened(mask(str(value)), _LONGEST_PARAM)
            for name, value in params.items()
            if name not in self._params
        }
        for batch in _batches([Param(name, value) for name, value in new.items()], 100):
            self._client.log_batch(self.run_id, params=batch)
        self._params.update(new)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, at a step of a curve or as the run's single value.

        Infinities are logged as NaN: MLflow would show them as 1.8e308. Without a step a value that the run has
        already is not logged again. The points of a curve are sent together, once a second and when the run ends, so
        that a training does not wait for the registry at every step.
        """
        values = {name: float(value) if math.isfinite(value) else math.nan for name, value in metrics.items()}
        if step is None:
            values = {name: value for name, value in values.items() if not self._has(name, value)}
        self._add_points([(name, value, step or 0) for name, value in values.items()])
        if step is None or time.monotonic() - self._sent > _SECONDS_BETWEEN_POINTS:
            self.flush()

    def log_curve(self, metric: str, points: Mapping[int, float]) -> None:
        """Log the values of one metric at many steps; the steps up to ``last_step`` are left out."""
        last = self.last_step(metric)
        after = -1 if last is None else last
        values = ((step, float(value)) for step, value in sorted(points.items()) if step > after)
        self._add_points([(metric, value if math.isfinite(value) else math.nan, step) for step, value in values])
        self.flush()

    def last_step(self, metric: str) -> int | None:
        """Return the highest step at which ``metric`` was logged, so that a resumed training goes on after it."""
        if metric not in self._metrics:
            return None
        self.flush()
        return max(int(point.step) for point in self._client.get_metric_history(self.run_id, metric))

    def _has(self, name: str, value: float) -> bool:
        known = self._metrics.get(name)
        return known is not None and (known == value or (math.isnan(known) and math.isnan(value)))

    def _add_points(self, points: Iterable[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, step) for name, value, step in points]
        self._waiting += metrics
        self._metrics.update({metric.key: metric.value for metric in metrics})

    def flush(self) -> None:
        """Send the points that wait; the end of the run does so too."""
        while self._waiting:
            self._client.log_batch(self.run_id, metrics=self._waiting[:1000])
            del self._waiting[:1000]
        self._sent = time.monotonic()

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags in one request.

        Raises:
            ValueError: A value is longer than the 8,000 characters that MLflow keeps; log it as an artifact.
        """
        from mlflow.entities import RunTag

        new = {name: str(value) for name, value in tags.items() if self._tags.get(name) != str(value)}
        for name, value in new.items():
            if len(value) > _LONGEST_TAG:
                raise ValueError(f"the tag {name} has {len(value)} characters; MLflow keeps {_LONGEST_TAG}")
        for batch in _batches([RunTag(name, value) for name, value in new.items()], 100):
            self._client.log_batch(self.run_id, tags=batch)
        self._tags.update(new)

    def rename(self, name: str) -> None:
        """Give the run another name in the user interface."""
        if name != self.name:
            self._client.update_run(self.run_id, name=name)
            self.name = name

    def set_note(self, markdown: str) -> None:
        """Set the run's description; what is too long for it is kept whole as ``note.md``."""
        markdown = mask(markdown)
        if len(markdown) > _LONGEST_TAG:
            self.log_text("note.md", markdown)
            end = "\n\n… (the whole text: artifact note.md)"
            markdown = markdown[: _LONGEST_TAG - len(end)] + end
        self.set_tags({_NOTE: markdown})

    def log_text(self, path: str, text: str) -> None:
        """Write a text file among the run's artifacts; one of the same path is replaced."""
        self._log_bytes(path, mask(text).encode("utf-8"))

    def log_json(self, path: str, value: Any) -> None:
        """Write ``value`` as indented JSON among the run's artifacts."""
        self.log_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")

    def log_figure(self, path: str, figure: bytes | Path) -> None:
        """Write a picture among the run's artifacts, from its bytes or from a file."""
        self._log_bytes(path, figure if isinstance(figure, bytes) else figure.read_bytes())

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy a file among the run's artifacts, into ``folder`` of them."""
        self._files.log_artifact(str(path), folder)

    def log_table(self, path: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write a table that MLflow's user interface shows as one.

        Args:
            path: Ends in ``.json``.
            columns: The values of every column, all of one length.

        Raises:
            ValueError: The columns differ in length.
        """
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self.log_text(path, json.dumps({"columns": list(columns), "data": rows}, ensure_ascii=False))
        tables = json.loads(self._tags.get(_TABLES, "[]"))
        entry = {"path": path, "type": "table"}
        if entry not in tables:
            self.set_tags({_TABLES: json.dumps([*tables, entry])})

    def _log_bytes(self, path: str, content: bytes) -> None:
        place = PurePosixPath(posixpath.normpath(path))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / place.name
            file.write_bytes(content)
            self.log_file(file, None if str(place.parent) == "." else str(place.parent))

    def log_input_dataset(
        self, name: str, sha256: str, *, path: str, rows: int, context: str, tags: Mapping[str, str] | None = None
    ) -> None:
        """Note which rows the run has read.

        Args:
            name: For example ``ja.train``.
            sha256: Hash of the file's bytes; MLflow's own digest is too short to hold it, so it is also a tag.
            path: Where the rows were.
            rows: How many.
            context: ``training``, ``dev`` or ``test``.
            tags: More to note about the rows.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name,
            sha256[:_LONGEST_DIGEST],
            "local",
            json.dumps({"uri": path}),
            profile=json.dumps({"num_rows": rows, "sha256": sha256}),
        )
        noted = {"mlflow.data.context": context, "sha256": sha256, "rows": str(rows), **(tags or {})}
        inputs = [DatasetInput(dataset, [InputTag(key, value) for key, value in noted.items()])]
        self._client.log_inputs(self.run_id, datasets=inputs)


@contextmanager
def open_run(
    connection: Connection, key: str, name: str, parent: RunHandle | None, tags: Mapping[str, str]
) -> Iterator[RunHandle]:
    """Open the run of ``key``, made new where it is not there yet; see ``Registry.run``."""
    handle = _reopened(connection, key, tags) or _created(connection, key, name, parent, tags)
    try:
        yield handle
    except BaseException as error:
        interrupted = not isinstance(error, Exception)
        # What the body has to say matters more than a registry that went away too.
        with suppress(AdapterctlError):
            handle.flush()
            handle.set_tags({TAG_ERROR: told(error)})
            connection.client.set_terminated(handle.run_id, "KILLED" if interrupted else "FAILED")
        raise
    else:
        handle.flush()
        connection.client.set_terminated(handle.run_id, "FINISHED")


def find(connection: Connection, key: str) -> Any:
    """Return MLflow's run of a key, None where there is none."""
    found = connection.client.search_runs(
        [connection.experiment_id],
        f"tags.`{TAG_KEY}` = {quoted_key(key)}",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    return found[0] if found else None


def create(connection: Connection, key: str, name: str, tags: Mapping[str, str], *, started: int | None = None) -> Any:
    """Make MLflow's run of a key, which says RUNNING and whose it is.

    Args:
        connection: The open registry.
        key: By which it is found again.
        name: Its name in the user interface.
        tags: More to note.
        started: When the work began, in milliseconds since 1970; None for now.
    """
    noted = {
        "mlflow.user": this_user(),
        "mlflow.source.name": "adapterctl",
        "mlflow.source.type": "LOCAL",
        **tags,
        **_owner(),
        TAG_KEY: key,
    }
    return connection.client.create_run(connection.experiment_id, start_time=started, tags=noted, run_name=name)


def _reopened(connection: Connection, key: str, tags: Mapping[str, str]) -> RunHandle | None:
    found = find(connection, key)
    if found is None:
        return None
    handle = RunHandle(connection, found, key, reopened=True)
    connection.client.update_run(handle.run_id, status="RUNNING")
    if TAG_ERROR in found.data.tags:
        connection.client.delete_tag(handle.run_id, TAG_ERROR)
    handle.set_tags({**tags, **_owner()})
    return handle


def _created(
    connection: Connection, key: str, name: str, parent: RunHandle | None, tags: Mapping[str, str]
) -> RunHandle:
    below = {"mlflow.parentRunId": parent.run_id} if parent is not None else {}
    return RunHandle(connection, create(connection, key, name, {**tags, **below}), key, reopened=False)
