"""What commands there are: their help is listed from here, so that ``adapterctl --help`` imports none of them."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command that is imported when somebody calls it.

    Attributes:
        module: Its module in ``adapterctl.cli.commands``.
        attribute: Its name in that module.
        help: The first line of its help.
    """

    module: str
    attribute: str
    help: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Start": {
        "init": Entry("init", "init", "Make a new workspace."),
        "doctor": Entry("doctor", "doctor", "Check everything a workspace needs, and say what to do about it."),
    },
    "Maintain": {
        "plan": Entry("plan", "plan", "Say what an update would do, and what it would cost."),
        "setup": Entry("maintain", "setup", "Train every language, merge, evaluate, and make the first champion."),
        "update": Entry("update", "update", "Retrain languages and make the next release."),
        "train": Entry("steps", "train", "Train adapters and register them."),
        "merge": Entry("merge", "merge", "Merge the adapters of all languages into one."),
        "evaluate": Entry("steps", "evaluate", "Measure models on the evaluation suite."),
        "baseline": Entry("maintain", "baseline", "Measure what a release has to stand beside."),
        "add": Entry("languages", "add", "Add a language to the workspace."),
        "remove": Entry("languages", "remove", "Take a language out of the workspace."),
        "pin": Entry("languages", "pin", "Hold a language at a version of its adapter."),
        "unpin": Entry("languages", "unpin", "Let a language go that was held at a version."),
    },
    "Merge": {
        "adapter": Entry("adapter", "adapter", "Say whether adapters fit together, and how much they interfere."),
        "recipe": Entry("recipe", "recipe", "Show the merge methods, and what is odd about a recipe."),
    },
    "Review & release": {
        "status": Entry("review", "status", "Show the champion, the candidate and what has changed since."),
        "history": Entry("review", "history", "List the releases."),
        "lineage": Entry("lineage", "lineage", "Say what a version was made from, and what was made from it."),
        "diff": Entry("lineage", "diff", "Say what is different between two versions."),
        "promote": Entry("release", "promote", "Make a candidate the champion."),
        "reject": Entry("release", "reject", "Refuse a candidate."),
        "rollback": Entry("release", "rollback", "Return to the previous champion."),
        "ui": Entry("review", "ui", "Open the registry in a browser."),
        "export": Entry("export", "export", "Write a release as a folder to serve from."),
    },
    "Unattended": {
        "schedule": Entry("schedule", "schedule", "Write files that let a scheduler update the workspace."),
    },
    "Registry": {
        "registry": Entry(
            "registry", "registry", "Look after the registry: verify it, clear it out, move it to another place."
        ),
    },
    "Account": {
        "cost": Entry("cost", "cost", "Say what the work has cost."),
    },
    "Configure": {
        "config": Entry("config", "config", "Show what can be configured and what is."),
    },
    "Pocket model": {
        "pocket": Entry("pocket", "pocket", "Make the pocket model and its rows."),
    },
}
"""The commands by section, in the order in which they are listed."""
