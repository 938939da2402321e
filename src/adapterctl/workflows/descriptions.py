"""Markdown for the reviewer, at the places where the registry shows it: what a version is, and what to do with it.

Names come from files and from a registry that others write to: each stands in the text as it is, never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapterctl.fingerprint import short
from adapterctl.markdown import code, plain, table
from adapterctl.workflows.releases import Release

if TYPE_CHECKING:
    from adapterctl.workflows.trained import TrainedAdapter


def adapter_description(trained: TrainedAdapter, base: str) -> str:
    """Return the description of one language's adapter."""
    result = trained.result
    return "\n".join(
        [
            f"LoRA adapter of {code(trained.lang)} for base model {code(base)}.",
            "",
            f"- {trained.rows} rows, {result.steps} steps, {result.tokens:,} tokens, {result.seconds:.1f} s",
            f"- final loss {result.final_loss:.4f}, {result.trainable_parameters:,} trainable parameters",
            f"- content `{short(trained.content_hash)}`, training `{short(trained.training_key)}`",
            "",
            "Stored as a raw PEFT folder: `PeftModel.from_pretrained(base, folder)`.",
        ]
    )


def merged_model_description(project: str, policy: str) -> str:
    """Return what the registered model of the merged adapters is, and where a reviewer begins."""
    then = {
        "auto": "one that passes the gate becomes `champion` at once",
        "review": "a person decides: tag `review` = `approved` or `rejected` on its page, then "
        "`adapterctl promote --approved`",
    }
    return "\n\n".join(
        [
            f"Releases of project {code(project)}: every version is one LoRA adapter that serves all languages, merged "
            "from one adapter a language. Its description says what changed, what the gate found, what it cost and "
            "which commands promote or refuse it.",
            "**Begin here**: `champion` is served, `candidate` waits, `previous` is what `adapterctl rollback` returns "
            f"to. With `promotion: {plain(policy)}`, {then.get(policy, 'see adapterctl.yaml')}.",
        ]
    )


def score_of(values: Mapping[str, Any], lang: str) -> str:
    """Return a language's score as text, empty where it has none."""
    return f"{values[lang]:.3f}" if lang in values else ""


def scores_markdown(release: Release, most: int | None = None) -> str:
    """Return the scores of a release by language, beside base model and own adapters where those were measured.

    Args:
        release: The release.
        most: How many languages are shown, the worst of them; None shows all.
    """
    found: dict[str, float] = release.scores["languages"]
    few = most is None or len(found) <= most
    langs = list(found) if few else sorted(found, key=lambda lang: found[lang])[:most]
    rows = [
        [plain(lang), score_of(release.base_scores, lang), score_of(release.own_scores, lang), f"{found[lang]:.3f}"]
        for lang in langs
    ]
    told = table(["language", "base", "own adapter", "merged"], rows, words=1)
    left_out = len(found) - len(langs)
    return f"{told}\n\n{left_out} languages that score higher are left out." if left_out else told
