"""``adapterctl merge``: folders of adapters, or what the champion of a workspace pins."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.recipe_options import recipe_options, written
from adapterctl.cli.session import open_session, open_workspace
from adapterctl.cli.state import state_of
from adapterctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from adapterctl.errors import Problem
    from adapterctl.merging.report import MergeReport
    from adapterctl.workflows.remerge import MergeOutcome
    from adapterctl.workflows.standalone import Merged
    from adapterctl.workspace.workspace import Workspace

_FOLDER = click.Path(path_type=Path)
_WARNING = click.style("Warning:", fg="yellow", bold=True)


@click.command("merge")
@click.argument("adapters", nargs=-1, metavar="[[LANG=]DIR]...")
@click.option("--out", type=_FOLDER, metavar="DIR", help="Where the result is written; needed for folders.")
@click.option("--recipe", "file", type=_FOLDER, metavar="FILE", help="The recipe as a file; options win over it.")
@recipe_options
@click.option("--to-model", type=_FOLDER, metavar="DIR", help="Write the whole model, merged into this base model.")
@click.option("--cache", type=_FOLDER, metavar="DIR", help="Keep what a later merge with one other adapter can use.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="How many modules are worked on at a time.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where.")
@json_option
@click.pass_context
def merge(
    ctx: click.Context,
    /,
    adapters: tuple[str, ...],
    out: Path | None,
    file: Path | None,
    to_model: Path | None,
    cache: Path | None,
    threads: int | None,
    device: str,
    **options: Any,
) -> None:
    """Merge the adapters of all languages into one.

    With folders, the PEFT adapters in them become the one in --out: no workspace, registry or base model is needed. An
    adapter's language is what is written before its folder, else what it records, else what the folder is called.

    Without folders, in a workspace, the versions that the champion pins are merged with the recipe of adapterctl.yaml
    and what the options say otherwise; λ is chosen on the dev rows where it is `auto`. Nothing is registered.

    \b
    Examples:
      adapterctl merge de=DIR en=DIR ja=DIR --out merged --method knots-ties --density 0.4
      adapterctl merge adapters/de adapters/ja --out merged --recipe recipe.yaml --weight ja=1.2
      adapterctl merge de=DIR ja=DIR --out model --to-model BASE_DIR
      adapterctl merge --out merged --json
    """
    from adapterctl.workflows.targets import Target
    from adapterctl.workspace.recipes import over, read_recipe

    target = Target(out, to_model, cache, threads, device)
    settings, problems = written(options)
    recipe, of_file = read_recipe(file) if file is not None else (None, [])
    problems = of_file + problems
    if adapters:
        from adapterctl.cli.progress import reporter_for
        from adapterctl.workflows.standalone import merge_folders

        whole = over(recipe, settings) if recipe is not None else settings
        reporter = reporter_for(state_of(ctx))
        _tell(ctx, merge_folders(adapters, whole, target, reporter=reporter, problems=problems))
        return
    from adapterctl.workflows.remerge import recipe_for, remerge

    workspace = _workspace(ctx)
    checked = recipe_for(workspace, settings, recipe, target=target, problems=problems)
    with open_session(ctx, "merge", "merged") as session:
        made = remerge(session, target, checked.recipe, checked.warnings)
    _tell(ctx, made)


def _workspace(ctx: click.Context) -> Workspace:
    try:
        return open_workspace(ctx)
    except UsageError as error:
        hint = "name the adapters' folders, as in: adapterctl merge de=DIR ja=DIR --out DIR; or go into a workspace"
        raise UsageError(f"no adapters were named, and {error.message}", hint=hint) from None


def _tell(ctx: click.Context, made: Merged | MergeOutcome) -> None:
    _warn(made.warnings)
    report = made.report

    def text(console: Console) -> None:
        count = f"{len(report.inputs)} adapter{'s' if len(report.inputs) > 1 else ''}"
        told = f"Merged {count} with {report.method}, λ {report.scale:g} {made.scale_origin}"
        say(console, f"{told.rstrip()}.")
        say(console, "  " + ", ".join(f"{lang} × {weight:g}" for lang, weight in report.weights.items()))
        if not made.to_model:
            _rank(console, report)
        _losses(console, report)
        _effort(console, report)
        say(console, f"  {made.folder}")
        _use(console, made)

    emit(ctx, made, text)


def _warn(warnings: Sequence[Problem]) -> None:
    for problem in warnings:
        click.echo(f"{_WARNING} {problem}", err=True)


def _rank(console: Console, report: MergeReport) -> None:
    from adapterctl.merging.report import SERVED_RANKS

    say(console, f"Rank {report.rank}, {len(report.modules)} modules.")
    if report.vllm_rank is None:
        most = SERVED_RANKS[-1]
        told = f"vLLM serves rank {most} at most; for it, merge again with --rank {most} or less"
        click.echo(f"{_WARNING} {told}", err=True)


def _losses(console: Console, report: MergeReport) -> None:
    """Say what truncation and votes have thrown away."""
    from adapterctl.merging.digest import lossless, percent, worst_modules

    if not lossless(report.energy_kept):
        say(console, f"Energy kept at this rank: {percent(report.energy_kept)}. The modules that lost most:")
        for module, kept in worst_modules(report).items():
            say(console, f"  {percent(kept):>7} {module}")
    if rates := report.discard_rate:
        say(console, "Entries that lost the vote: " + ", ".join(f"{lang} {rate:.1%}" for lang, rate in rates.items()))


def _effort(console: Console, report: MergeReport) -> None:
    from adapterctl.accounting.comparison import format_seconds

    if not report.seconds:
        say(console, "Merged before with these adapters and this recipe: taken as it was.")
        return
    took = f"{report.seconds:.2f} s" if report.seconds < 10 else format_seconds(report.seconds)
    parts = [took, f"peak memory {report.peak_memory_bytes / 2**20:,.0f} MiB"]
    parts += _reused(report.reused or {})
    say(console, "; ".join(parts) + ".")


def _reused(counts: Mapping[str, int]) -> list[str]:
    """Return what was taken from the cache, of how much, for ``blocks`` and ``blocks_computed`` and the like."""
    kinds = [name for name in counts if not name.endswith("_computed")]
    parts = [
        f"{counts[name]} of {counts[name] + counts.get(f'{name}_computed', 0)} {name}" for name in kinds if counts[name]
    ]
    return [f"reused {', '.join(parts)}"] if parts else []


def _use(console: Console, made: Merged | MergeOutcome) -> None:
    from adapterctl.lora.untrusted import shown

    base, folder = shown(made.base_model or "BASE"), str(made.folder)
    if made.to_model:
        say(console, f"transformers: AutoModelForCausalLM.from_pretrained({folder!r})")
        return
    say(console, f"PEFT: PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), {folder!r})")
    if made.report.vllm_rank is not None:
        served = (
            f"--enable-lora --max-lora-rank {made.report.vllm_rank} --lora-modules {shlex.quote(f'merged={folder}')}"
        )
        say(console, f"vLLM: vllm serve {shlex.quote(base)} {served}")
