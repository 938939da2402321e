"""A job to write down for every scheduler, and a path that each of them could read wrongly."""

from __future__ import annotations

from typing import Any

from adapterctl.scheduling.cron import parse_cron
from adapterctl.scheduling.job import Job

HOSTILE = """/srv/it's "all" $HOME $(id) `id` 50% %h {{ conn }} {% raw %} ${{ secrets.X }} \\ \\n #x; rm @name@/日本"""
"""A path that means something else to a shell, cron, systemd, Jinja, YAML, Kubernetes or GitHub, unless quoted."""


def make_job(**values: Any) -> Job:
    """Make a job; what is given replaces the usual."""
    usual = {
        "name": "adapterctl-demo",
        "program": "/opt/adapterctl/bin/adapterctl",
        "workspace": "/srv/demo",
        "folder": "/srv/demo/schedule",
        "cron": parse_cron("17 3 * * *"),
    }
    return Job(**{**usual, **values})
