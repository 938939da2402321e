"""Whether an adapter was trained from the rows and settings there are now, without hashing every row at every look.

What the hashing of a language's rows gave is remembered together with size, times and place of its files, as git does
in its index: as long as those are the same the rows are taken to be the same. Files that changed within moments before
they were read are read again next time, for a second change in the same moment would not show.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from adapterctl._version import __version__
from adapterctl.errors import AdapterctlError
from adapterctl.files import write_bytes
from adapterctl.fingerprint import fingerprint
from adapterctl.workflows.session import Session

BAD_ROWS = "bad rows"
"""What stands in place of a key where the rows cannot be used."""
_SETTLED_SECONDS = 2.0
_SPLITS: tuple[Literal["dev", "test"], ...] = ("dev", "test")


def inputs_keys(session: Session, langs: Sequence[str]) -> dict[str, str]:
    """Return what names the rows and settings of each language, ``BAD_ROWS`` where its rows cannot be used."""
    path = session.workspace.paths.seen
    try:
        known, common = _remembered(path), _common(session)
    except AdapterctlError:
        # Without its base model no adapter can be compared with anything; doctor says what is wrong with it.
        return dict.fromkeys(langs, BAD_ROWS)
    found, seen = {}, {}
    for lang in langs:
        before, settled = _signature(session, lang, common)
        noted = known.get(lang)
        if noted is not None and noted[0] == before:
            found[lang], seen[lang] = noted[1], noted
            continue
        found[lang] = _read(session, lang)
        if settled and _signature(session, lang, common)[0] == before:
            seen[lang] = (before, found[lang])
    if seen != {lang: known[lang] for lang in langs if lang in known}:
        # It only saves time: a state that cannot be written to, or is torn by a power cut, does no harm.
        with suppress(AdapterctlError):
            write_bytes(path, json.dumps(known | seen, sort_keys=True).encode("utf-8"), sync=False)
    return found


def _read(session: Session, lang: str) -> str:
    from adapterctl.training.job import training_key
    from adapterctl.workflows.steps import language_job
    from adapterctl.workspace.data import load_data

    try:
        rows = load_data(session.workspace, [lang])[lang].train
        return training_key(language_job(session, lang, rows))
    except AdapterctlError:
        return BAD_ROWS


def _remembered(path: Path) -> dict[str, tuple[str, str]]:
    try:
        noted = json.loads(path.read_bytes())
        return {str(lang): (str(signature), str(key)) for lang, (signature, key) in noted.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _common(session: Session) -> str:
    """Return what names everything besides rows that the keys of all languages depend on."""
    from adapterctl.training.job import RECIPE_VERSION

    base, tasks = session.base, session.workspace.training_tasks
    return fingerprint(
        {
            "program": [__version__, RECIPE_VERSION],
            "suite": session.workspace.suite.model_dump(mode="json"),
            "training tasks": {name: task.model_dump(mode="json") for name, task in tasks.items()},
            "base": [base.identity, base.settings.model_dump(mode="json")],
        }
    )


def _signature(session: Session, lang: str, common: str) -> tuple[str, bool]:
    """Return what names settings and files of a language, and whether the files have been at rest for a while."""
    settings = session.workspace.adapters[lang]
    files, youngest = [], 0.0
    for path in _files(session, lang):
        try:
            stat = path.stat()
        except OSError:
            return "", False
        youngest = max(youngest, stat.st_mtime, stat.st_ctime)
        files.append([str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev])
    told = {
        "common": common,
        "lora": settings.lora.model_dump(mode="json"),
        "training": settings.training.model_dump(mode="json"),
        "files": files,
    }
    return fingerprint(told), youngest < time.time() - _SETTLED_SECONDS


def _files(session: Session, lang: str) -> Iterator[Path]:
    yield from session.workspace.training_files(lang)
    for split in _SPLITS:
        yield from session.workspace.split_files(lang, split)
