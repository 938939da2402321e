"""``adapterctl promote``, ``rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adapterctl.cli.job_options import reason_option, skip_option, wait_option
from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.workflows.release import Promotion, Reviewed


def _tell_promotion(console: Console, made: Promotion) -> None:
    before = f"; before: version {made.before.version}" if made.before else ""
    say(console, f"Champion: version {made.champion.version} ({made.champion.reason}){before}.")


def _emit_promotion(ctx: click.Context, made: Promotion) -> None:
    emit(ctx, made, lambda console: _tell_promotion(console, made))


@click.command("promote")
@click.option(
    "--version", type=click.IntRange(min=1), help="A version of the merged adapter.  [default: the candidate]"
)
@click.option(
    "--approved",
    is_flag=True,
    help="For jobs: do what a reviewer decided by the tag review=approved or rejected; nothing where nobody has.",
)
@click.option("--override-gate", is_flag=True, help="Promote although the gate said no; needs --reason.")
@reason_option()
@wait_option
@skip_option
@json_option
@click.pass_context
def promote(
    ctx: click.Context,
    version: int | None,
    approved: bool,
    override_gate: bool,
    reason: str,
    wait: bool,
    skip_code: int,
) -> None:
    """Make a candidate the champion.

    The stored files are read and hashed again first. What the gate did not let pass, or compared with another champion,
    is refused with exit code 3 unless --override-gate and --reason are given, which are kept with the version.

    \b
    Examples:
      adapterctl promote
      adapterctl promote --approved --skip-exit-code 99 --json
      adapterctl promote --version 3 --override-gate --reason "legal wants the new wording today"
    """
    from adapterctl.workflows.release import Override, act_on_review
    from adapterctl.workflows.release import promote as run_promote

    if override_gate and not reason.strip():
        raise click.UsageError("--override-gate needs --reason: say why the gate does not count")
    if approved and version is not None:
        raise click.UsageError("--approved is about the candidate; leave --version out")
    override = Override(reason.strip()) if override_gate else None
    with open_session(ctx, "promote", "merged", data=False, releasing=True, wait=wait) as session:
        if not approved:
            made = run_promote(session, version, override=override, reason=reason.strip())
        else:
            reviewed = act_on_review(session, override=override)
    if not approved:
        _emit_promotion(ctx, made)
        return
    _emit_reviewed(ctx, reviewed)
    if not reviewed.acted and skip_code:
        raise click.exceptions.Exit(skip_code)


def _emit_reviewed(ctx: click.Context, reviewed: Reviewed) -> None:
    number = reviewed.candidate.version if reviewed.candidate else None
    told = {
        "none": "Nothing to do: there is no candidate.",
        "waiting": f"Nothing to do: version {number} waits for its review (tag review on its page in MLflow).",
        "rejected": f"Version {number} was rejected by its reviewer; it is no candidate any more.",
    }

    def text(console: Console) -> None:
        if reviewed.promotion is not None:
            _tell_promotion(console, reviewed.promotion)
        else:
            say(console, told[reviewed.decision])

    emit(ctx, reviewed, text)


@click.command("reject")
@click.option(
    "--version", type=click.IntRange(min=1), help="A version of the merged adapter.  [default: the candidate]"
)
@reason_option(required=True)
@wait_option
@json_option
@click.pass_context
def reject(ctx: click.Context, version: int | None, reason: str, wait: bool) -> None:
    """Refuse a candidate.

    It gets the tag review=rejected, with the reason and who said so: no job makes it a candidate or the champion again.

    \b
    Examples:
      adapterctl reject --reason "the new rows are machine-translated"
      adapterctl reject --version 7 --reason "tone" --json
    """
    from adapterctl.workflows.release import reject as run_reject

    with open_session(ctx, "reject", "merged", data=False, releasing=True, wait=wait) as session:
        number = run_reject(session, version, reason=reason.strip())
    emit(
        ctx,
        {"rejected": number, "reason": reason.strip()},
        lambda console: say(console, f"Version {number} is rejected; no job makes it candidate or champion again."),
    )


@click.command("rollback")
@reason_option()
@wait_option
@json_option
@click.pass_context
def rollback(ctx: click.Context, reason: str, wait: bool) -> None:
    """Return to the previous champion.

    Nothing is trained or merged: the aliases change places, after the stored files have been read and hashed again. The
    release that steps down is marked as rejected, so that no job promotes it again. A second rollback undoes the first.

    \b
    Examples:
      adapterctl rollback
      adapterctl rollback --reason "complaints about Japanese" --json
    """
    from adapterctl.workflows.release import rollback as run_rollback

    with open_session(ctx, "rollback", "merged", data=False, releasing=True, wait=wait) as session:
        made = run_rollback(session, reason.strip())
    _emit_promotion(ctx, made)
