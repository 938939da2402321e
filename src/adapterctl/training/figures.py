"""The loss curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapterctl.pictures import new_figure, png
from adapterctl.training.result import Step

_DOTS_PER_INCH = 120
_SMOOTHING = 0.05
"""Width of the moving average, as a share of the steps."""


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the centred moving average over a twentieth of the steps; shorter at both ends."""
    half = max(1, round(len(losses) * _SMOOTHING / 2))
    windows = [losses[max(0, i - half) : i + half + 1] for i in range(len(losses))]
    return [sum(window) / len(window) for window in windows]


def loss_curves(runs: Mapping[str, Sequence[Step]], title: str = "Training loss") -> bytes:
    """Return the loss of one or more trainings over their tokens as a PNG.

    Faint lines are single steps, strong ones their moving average. The axis of tokens makes trainings with batches of
    different size comparable; the loss is on a logarithmic axis where it spans more than a factor of ten.

    Args:
        runs: The steps of each training by the name to be shown.
        title: What stands above.

    Raises:
        ValueError: There is no step to be shown.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    shown = {name: steps for name, steps in runs.items() if steps}
    if not shown:
        raise ValueError("there is no step to be shown")
    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    curves = []
    for name, steps in shown.items():
        tokens, losses = [step.tokens for step in steps], [step.loss for step in steps]
        curve = smoothed(losses)
        curves += curve
        marker = "o" if len(steps) < 3 else None
        (line,) = axes.plot(tokens, curve, linewidth=2, marker=marker, label=f"{name} ({curve[-1]:.3f} at the end)")
        axes.plot(tokens, losses, linewidth=0.6, alpha=0.3, color=line.get_color())
    if min(curves) > 0 and max(curves) / min(curves) > 10:
        axes.set_yscale("log")
        # Labels at 1, 2 and 5 of every power of ten: more of them run into one another.
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set_xlabel("tokens trained on")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("loss of answer tokens (nats)")
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False)
    return png(figure, dpi=_DOTS_PER_INCH)
