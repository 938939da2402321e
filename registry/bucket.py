"""Makes, saves and restores the bucket of the team's MLflow server; compose.yaml runs it inside the server's image.

    python bucket.py make BUCKET
    python bucket.py save BUCKET FOLDER      # only what is not in the folder yet
    python bucket.py restore BUCKET FOLDER   # only what is not in the bucket yet

Address and credentials are MLflow's: MLFLOW_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError


def client() -> Any:
    """Return the access to the storage."""
    return boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)


def make(s3: Any, bucket: str) -> None:
    """Make the bucket; nothing happens where it is there."""
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.create_bucket(Bucket=bucket)


def listed(s3: Any, bucket: str) -> dict[str, int]:
    """Return the size of every object."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}


def save(s3: Any, bucket: str, folder: Path) -> int:
    """Copy every object that is not in the folder; files that the registry has published never change."""
    done = 0
    for key, size in listed(s3, bucket).items():
        path = (folder / key).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise SystemExit(f"the object {key!r} leads out of the folder")
        if path.is_file() and path.stat().st_size == size and not _changes(key):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")
        s3.download_file(bucket, key, str(unfinished))
        unfinished.replace(path)
        done += 1
    return done


def restore(s3: Any, bucket: str, folder: Path) -> int:
    """Copy every file of the folder that is not in the bucket."""
    make(s3, bucket)
    there, done = listed(s3, bucket), 0
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder).as_posix()
        if path.is_file() and not path.name.endswith(".unfinished") and there.get(key) != path.stat().st_size:
            s3.upload_file(str(path), bucket, key)
            done += 1
    return done


def _changes(key: str) -> bool:
    # Files of runs may be written again with the same size; those of logged models may not.
    return "/models/" not in key


def main(words: list[str]) -> None:
    """Do what the words say."""
    match words:
        case ["make", bucket]:
            make(client(), bucket)
        case ["save", bucket, folder]:
            sys.stdout.write(f"{save(client(), bucket, Path(folder))} objects saved\n")
        case ["restore", bucket, folder]:
            sys.stdout.write(f"{restore(client(), bucket, Path(folder))} objects restored\n")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
