"""``adapterctl schedule``: files for the scheduler of the house."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_workspace

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.scheduling.job import Target

EVERY = {"hour": "17 * * * *", "night": "17 3 * * *", "week": "17 3 * * 1", "month": "17 3 1 * *"}
"""At an odd minute: on the hour everybody else's jobs begin."""


@click.group("schedule")
def schedule() -> None:
    """Write files that let a scheduler update the workspace.

    \b
    Examples:
      adapterctl schedule emit --target systemd --out units
    """


@schedule.command("emit")
@click.option(
    "--target",
    type=click.Choice(["cron", "systemd", "k8s", "airflow", "github-actions"]),
    required=True,
    help="The scheduler.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Write there.  [default: print]")
@click.option("--force", is_flag=True, help="Replace files there that others wrote, or that were changed.")
@click.option("--every", type=click.Choice(list(EVERY)), help="When, in a word.  [default: night]")
@click.option("--cron", metavar="TIME", help="When, in cron's five fields.")
@click.option("--on-calendar", metavar="TIME", help="When, as systemd writes it.  [systemd]")
@click.option("--timezone", metavar="ZONE", help="Such as Europe/Berlin.  [all but cron]")
@click.option("--name", default="", metavar="NAME", help="Of the job.  [default: adapterctl-PROJECT]")
@click.option(
    "--max-age", metavar="AGE", help="Of the update: what is older, such as 30d, waits for no number of rows."
)
@click.option("--min-new-rows", type=click.IntRange(min=1), help="Of the update: wait for so many new rows.")
@click.option("--approve", is_flag=True, help="Before every update, promote what a person has approved.")
@click.option(
    "--secret",
    metavar="NAME",
    help="Where the registry's address and password are: a file (cron, systemd), a Secret (k8s), a connection "
    "(airflow), an environment (github-actions).",
)
@click.option("--retries", type=click.IntRange(0, 20), help="Further tries.  [systemd, k8s, airflow; default: 2]")
@click.option("--time-limit", metavar="TIME", help="Stop it after so long, such as 8h.  [default: 12h]")
@click.option("--workspace-path", default="", metavar="PATH", help="The workspace, where the job will run.")
@click.option("--program", default="", metavar="PATH", help="The program adapterctl, where the job will run.")
@click.option("--user", metavar="NAME", help="Who runs it.  [systemd; default: the workspace's owner]")
@click.option("--cpu", metavar="N", help="Cores, such as 4 or 500m.  [systemd, k8s]")
@click.option("--memory", metavar="SIZE", help="Such as 32Gi.  [systemd, k8s]")
@click.option("--gpu", type=click.IntRange(1, 64), help="GPUs.  [k8s]")
@click.option("--image", metavar="IMAGE", help="An image with adapterctl.  [k8s, github-actions]")
@click.option("--namespace", metavar="NAME", help="[k8s]")
@click.option("--claim", metavar="NAME", help="An existing claim on the workspace's volume.  [k8s]")
@click.option("--storage", metavar="SIZE", help="Size of a new volume.  [k8s; default: 50Gi]")
@click.option(
    "--runner",
    metavar="LABEL",
    help="Of the runner.  [github-actions; default: self-hosted; with --image ubuntu-latest]",
)
@json_option
@click.pass_context
def emit_command(
    ctx: click.Context,
    /,
    target: Target,
    out: Path | None,
    force: bool,
    every: str | None,
    cron: str | None,
    time_limit: str | None,
    workspace_path: str,
    **wishes: Any,
) -> None:
    """Write the files by which a scheduler keeps the workspace up to date.

    The job is `adapterctl update --all-changed --if-changed`. How to install it, where its logs are, and what its exit
    codes mean stands at the top of each file. Passwords are never written, only where the job finds them. An option
    names in brackets the targets that it is for, where not all of them know it.

    \b
    Examples:
      adapterctl schedule emit --target cron --out schedule
      adapterctl schedule emit --target systemd --out units --cron "17 3 * * *" --timezone Europe/Berlin
      adapterctl schedule emit --target k8s --image registry.example.com/adapterctl:1.0 --secret mlflow --gpu 1
      adapterctl schedule emit --target airflow --secret mlflow --approve
      adapterctl schedule emit --target github-actions --out . --runner gpu-box --json
    """
    from adapterctl.scheduling.job import Job, seconds_of
    from adapterctl.workflows.schedule import emit_schedule

    if every is not None and cron is not None:
        raise click.UsageError("say when with --every or with --cron, not with both")
    when = EVERY[every] if every is not None else cron
    job = Job(workspace=workspace_path, time_limit=seconds_of(time_limit) if time_limit else None, **wishes)
    made = emit_schedule(open_workspace(ctx, data=False), target, job, when=when, out=out, force=force)

    def text(console: Console) -> None:
        for file in made.files:
            if made.folder is not None:
                say(console, f"Wrote {made.folder / file.path}")
                continue
            if len(made.files) > 1:
                click.echo(f"# ==> {file.path} <==")
            click.echo(file.text, nl=len(made.files) > 1)
        if made.folder is not None:
            say(console, "How to install them stands at the top of each.")
        for note in made.notes:
            click.echo(f"Note: {note}", err=True)

    emit(ctx, made, text)
