"""Markdown for the reviewer: what a version is, at the place where the registry shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapterctl.fingerprint import short

if TYPE_CHECKING:
    from adapterctl.evaluation.gate import Verdict
    from adapterctl.workflows.releases import Release
    from adapterctl.workflows.trained import TrainedAdapter


def adapter_description(trained: TrainedAdapter, base: str) -> str:
    """Return the description of one language's adapter."""
    result = trained.result
    return "\n".join(
        [
            f"LoRA adapter `{trained.lang}` for base model `{base}`.",
            "",
            f"- {trained.rows} rows, {result.steps} steps, {result.tokens:,} tokens, {result.seconds:.1f} s",
            f"- final loss {result.final_loss:.4f}, {result.trainable_parameters:,} trainable parameters",
            f"- content `{short(trained.content_hash)}`, training `{short(trained.training_key)}`",
            "",
            "Stored as a raw PEFT folder: `PeftModel.from_pretrained(base, folder)`.",
        ]
    )


def release_description(release: Release, verdict: Verdict | None) -> str:
    """Return the description of a merged adapter."""
    from adapterctl.evaluation.report import verdict_report

    method = release.recipe["method"]
    lines = [
        f"**{release.reason}**: adapters of {', '.join(sorted(release.adapters))} merged with {method}, "
        f"λ = {release.scale:g}, for base model `{release.base}`.",
        "",
        scores_markdown(release),
        "",
        "Pinned adapters: " + ", ".join(f"{lang} v{pin.version}" for lang, pin in sorted(release.adapters.items())),
        "",
    ]
    if verdict is None:
        lines.append("First release: there was no champion to compare with.")
    else:
        lines.append(verdict_report(verdict))
    return "\n".join(lines)


def _cell(values: Mapping[str, Any], lang: str) -> str:
    return f"{values[lang]:.3f}" if lang in values else ""


def scores_markdown(release: Release) -> str:
    """Return the scores of a release by language, beside base model and own adapters where those were measured."""
    rows = ["| language | base | own adapter | merged |", "|---|---|---|---|"]
    rows += [
        f"| {lang} | {_cell(release.base_scores, lang)} | {_cell(release.own_scores, lang)} | {value:.3f} |"
        for lang, value in release.scores["languages"].items()
    ]
    return "\n".join(rows)
