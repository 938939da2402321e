"""``adapterctl adapter``: whether adapters fit together, and how much they interfere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.state import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from adapterctl.lora.adapter import Adapter
    from adapterctl.lora.compatibility import Missing
    from adapterctl.lora.summary import Summary
    from adapterctl.merging.interference import Interference, PairInterference, PartInterference


@click.group("adapter")
def adapter() -> None:
    """Say whether adapters fit together, and how much they interfere.

    \b
    Examples:
      adapterctl adapter check de en ja=runs/7
      adapterctl adapter inspect de en ja --plot interference.png
    """


def _opened(ctx: click.Context, folders: Sequence[str], missing: Missing, base: str | None) -> tuple[Adapter, ...]:
    from adapterctl.cli.progress import reporter_for
    from adapterctl.lora.naming import open_named

    with reporter_for(state_of(ctx)).stage(f"check {len(folders)} adapter{'s' if len(folders) > 1 else ''}") as stage:
        return open_named(folders, base_model=base, missing=missing, progress=stage.advance)


@adapter.command("check")
@click.argument("folders", nargs=-1, required=True, metavar="[LANG=]DIR...")
@click.option(
    "--missing",
    type=click.Choice(["refuse", "zero", "present"]),
    default="refuse",
    show_default=True,
    help="Whether a module that only some adapters have is a problem, as in a merge recipe.",
)
@click.option("--base", metavar="NAME", help="The base model they must have.  [default: one and the same]")
@json_option
@click.pass_context
def check(ctx: click.Context, folders: tuple[str, ...], missing: Missing, base: str | None) -> None:
    """Say whether adapters can be merged.

    Reads every number of every adapter, and lists all problems of all of them at once. A language is what the adapter
    records, else its folder's name; LANG=DIR names it.

    \b
    Examples:
      adapterctl adapter check de en fr ja zh
      adapterctl adapter check de ja=runs/7 --base meta-llama/Llama-3.1-8B
      adapterctl adapter check de en --missing zero --json
    """
    from adapterctl.lora.summary import summary_of

    found = [summary_of(one) for one in _opened(ctx, folders, missing, base)]
    emit(ctx, {"fit": True, "adapters": found}, lambda console: _tell_summaries(console, found))


def _tell_summaries(console: Console, found: Sequence[Summary]) -> None:
    from adapterctl.cli.render import table
    from adapterctl.fingerprint import short

    head = ["", "content", "stored as", "base model", "rank", "scale", "modules", "layers", "size"]
    rows = [
        [
            one.lang,
            short(one.content_hash),
            ", ".join(one.dtypes),
            one.base_model or "–",
            _span(one.ranks, "d"),
            _span(one.scales, "g"),
            str(one.modules),
            str(one.layers),
            f"{one.size / 1e6:.1f} MB",
        ]
        for one in found
    ]
    table(console, head, rows, words=4)
    say(console, "They fit together." if len(found) > 1 else "It can be used.")


def _span(values: Sequence[float], form: str) -> str:
    low, high = min(values), max(values)
    return f"{low:{form}}" if low == high else f"{low:{form}} – {high:{form}}"


@adapter.command("inspect")
@click.argument("folders", nargs=-1, required=True, metavar="[LANG=]DIR...")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Also draw heat maps as this PNG.")
@json_option
@click.pass_context
def inspect(ctx: click.Context, folders: tuple[str, ...], plot: Path | None) -> None:
    """Measure how much adapters interfere.

    For each pair of languages, in all and in each layer: cosine of the deltas, overlap of what their A read and of
    where their B write, norms and energy, all exact, from Gram matrices. The share of opposite signs is an estimate
    from a fixed sample of entries, with its standard error. The text shows the model as a whole and the mean of the
    pairs by layer; --json has every pair in every layer.

    \b
    Examples:
      adapterctl adapter inspect de en fr ja zh
      adapterctl adapter inspect de ja=runs/7 --plot interference.png
      adapterctl adapter inspect de ja --json
    """
    from adapterctl.cli.progress import reporter_for
    from adapterctl.files import write_bytes

    opened = _opened(ctx, folders, "present", None)
    with reporter_for(state_of(ctx)).stage("compare their deltas") as stage:
        from adapterctl.merging.interference import inspect as compare

        found = compare(opened, progress=stage.advance)
    if plot is not None:
        from adapterctl.merging.interference_figure import interference_figure

        write_bytes(plot, interference_figure(found))

    def text(console: Console) -> None:
        _tell_interference(console, found)
        if plot is not None:
            say(console, f"Drew {plot}")

    emit(ctx, {**found.as_dict(), "plot": plot}, text)


def _tell_interference(console: Console, found: Interference) -> None:
    from adapterctl.cli.render import number, table

    table(console, ["", "norm of ΔW"], [[lang, f"{norm:.4g}"] for lang, norm in found.whole.norms.items()])
    if not found.whole.pairs:
        say(console, "One adapter alone interferes with nothing.")
        return
    head = ["", "cosine", "overlap A", "by chance", "overlap B", "by chance", "opposite signs"]
    rows = [
        [
            " – ".join(pair.languages),
            _signed(pair.cosine),
            *map(number, (pair.overlap_a, pair.chance_a, pair.overlap_b, pair.chance_b)),
            _with_error(pair),
        ]
        for pair in found.whole.pairs
    ]
    table(console, head, rows)
    head = ["layer", "mean cosine", "least", "largest", "overlap A", "overlap B", "opposite signs", "energy"]
    table(console, head, [_layer(layer) for layer in found.layers])
    exact = found.sampled == found.entries
    told = f"all {found.entries:,} entries" if exact else f"{found.sampled:,} sampled entries of {found.entries:,}"
    error = "" if exact else ", ± standard error"
    say(console, f"Signs: from {told} of a delta{error}; 0.5 is unrelated. All else is exact, from Gram matrices.")


def _layer(layer: PartInterference) -> list[str]:
    from adapterctl.cli.render import number

    def values(of: Callable[[PairInterference], float | None]) -> list[float]:
        return [value for pair in layer.pairs if (value := of(pair)) is not None]

    def mean(of: Callable[[PairInterference], float | None]) -> float | None:
        return sum(found) / len(found) if (found := values(of)) else None

    cosines = values(lambda pair: pair.cosine)
    return [
        layer.name,
        _signed(mean(lambda pair: pair.cosine)),
        _signed(min(cosines, default=None)),
        _signed(max(cosines, default=None)),
        number(mean(lambda pair: pair.overlap_a)),
        number(mean(lambda pair: pair.overlap_b)),
        number(mean(lambda pair: pair.sign_conflict)),
        f"{sum(layer.energy.values()) / len(layer.energy):.1%}",
    ]


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _with_error(pair: PairInterference) -> str:
    if pair.sign_conflict is None:
        return "–"
    return f"{pair.sign_conflict:.3f}" + (f" ± {pair.sign_conflict_error:.3f}" if pair.sign_conflict_error else "")
