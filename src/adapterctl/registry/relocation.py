"""A workspace that was moved or copied: MLflow notes absolute places of files, which then point to the old folder."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from adapterctl.registry.names import TAG_PROJECT

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
_PROJECT_FOLDERS = """
    SELECT artifact_location FROM experiments JOIN experiment_tags USING (experiment_id)
    WHERE key = ? AND artifact_location LIKE 'file:%'
"""


def relocate(database: Path, artifact_root: str) -> int:
    """Let every place in an embedded store that is below another root point below ``artifact_root``.

    All places of the projects in an embedded store are ``<artifact root>/<experiment>/...``, so that the old root is
    known from the experiments; those that a person made elsewhere stay. One transaction; nothing is written where
    nothing was moved.

    Args:
        database: The sqlite file, with MLflow's tables.
        artifact_root: ``file:`` URI of the folder where the files are now.

    Returns:
        How many experiments were moved.
    """
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        places = [place for (place,) in connection.execute(_PROJECT_FOLDERS, (TAG_PROJECT,))]
        old_roots = {place.rpartition("/")[0] for place in places} - {artifact_root}
        for old in sorted(old_roots, key=len, reverse=True):
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (artifact_root, len(old) + 1, len(old) + 1, f"{old}/"),
                )
        return sum(place.rpartition("/")[0] in old_roots for place in places)
