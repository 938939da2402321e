"""What a reviewer is told: all of it, in the order of the questions, and never as markup that somebody else wrote."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.comparison import Comparison, Line, Side
from adapterctl.evaluation.verdict import CellVerdict, GainVerdict, LanguageVerdict, Outcome, Verdict
from adapterctl.workflows.descriptions import merged_model_description, scores_markdown
from adapterctl.workflows.predictions import Predictions
from adapterctl.workflows.release_note import OF_A_RUN, OF_A_VERSION, ReleaseNote
from adapterctl.workflows.releases import Pin, Release

RECIPE = {"method": "knots-ties", "density": 0.5}


def pin(lang: str, version: int, rows: int = 0) -> Pin:
    key = f"{version:064x}"
    # Unchecked: the texts must be harmless also where a name got past the check of what is read.
    return Pin.model_construct(
        lang=lang, version=version, content_hash=key, training_key=key, inputs_key=key, data_hash="", rows=rows
    )


def release(pins: dict[str, Pin], **changes: Any) -> Release:
    values: dict[str, Any] = {
        "reason": "update ja", "verdict": None, "run_id": "r", "update_id": "u", "code": {},
        "version": 7, "created": "", "base": "pocket", "base_identity": "b", "recipe": RECIPE,
        "scale": 1.25, "adapters": pins, "content_hash": "7" * 64, "merge_key": "0" * 64,
        "scores": {"languages": {lang: 0.5 + place / 1000 for place, lang in enumerate(pins)}, "average": 0.5},
        "base_scores": dict.fromkeys(pins, 0.125), "own_scores": dict.fromkeys(pins, 0.75), "compared_with": 6,
    }  # fmt: skip
    return Release.model_construct(**{**values, **changes})


def language(lang: str, difference: float, low: float, high: float, outcome: Outcome = "pass") -> LanguageVerdict:
    return LanguageVerdict(lang, 0.5, 0.5 + difference, difference, low, high, outcome, improved=low > 0)


def cell(lang: str, outcome: Outcome = "pass") -> CellVerdict:
    return CellVerdict(lang, "qa", "rouge_l", 40, 0.5, 0.25, -0.25, -0.3, -0.31, -0.2, 0.1, outcome, 0.05, 40)


def verdict(languages: list[LanguageVerdict], **changes: Any) -> Verdict:
    cells = tuple(cell(one.lang, one.outcome) for one in languages)
    return replace(Verdict("candidate", "champion", cells, tuple(languages), 0.95), **changes)


def side(name: str, seconds: Amount, money: Amount) -> Side:
    return Side(name, (Line("train", seconds, money),), "USD")


PINS = {"de": pin("de", 1, 30), "ja": pin("ja", 2, 44)}
BEFORE = release({"de": pin("de", 1, 30), "ja": pin("ja", 1, 22)}, version=6, scale=1.0)
BETTER = verdict([language("de", -0.001, -0.004, 0.003), language("ja", 0.1, 0.05, 0.15)])
WORSE = verdict([language("de", -0.1, -0.15, -0.05, "fail"), language("ja", 0.1, 0.05, 0.15)])
COST = Comparison(
    side("update", Amount(30.0), Amount(2.0)), side("retrain-all", Amount(60.0), Amount(4.0, False, 3.0, 5.0))
)


def note(found: Verdict | None = BETTER, policy: str = "review", **changes: Any) -> ReleaseNote:
    told = release(PINS, verdict=found.as_dict() if found else None)
    rows = Predictions({"id": ["a", "b"]}, worse=2, better=5, alike=33, alone=0)
    return replace(ReleaseNote(told, found, BEFORE, policy, COST, rows=rows), **changes)


def test_the_first_line_says_what_the_gate_found_and_what_changed() -> None:
    assert note().text(OF_A_VERSION).splitlines()[0] == (
        "Gate passed. ja trained anew on 44 rows (22 before); recipe as before (`knots-ties`); λ 1.25 (1 before). "
        "Compared with version 6."
    )


def test_a_table_with_arrows_the_changed_language_first() -> None:
    lines = note().text(OF_A_VERSION).splitlines()
    assert lines[4:6] == [
        "| **ja** | 0.500 | 0.600 | ▲ +0.100 | +0.050 … +0.150 | pass, improved |",
        "| de | 0.500 | 0.499 | = −0.001 | −0.004 … +0.003 | pass |",
    ]
    failed = note(WORSE).text(OF_A_VERSION)
    assert "| de | 0.500 | 0.400 | ▼ −0.100 | −0.150 … −0.050 | **FAIL** |" in failed
    assert "- de, qa: rouge_l 0.500 → 0.250; the loss may be 0.3000, 0.1 is tolerated" in failed


def test_rows_cost_and_pins_are_a_line_each() -> None:
    text = unescape(note().text(OF_A_VERSION))
    assert (
        "**Rows:** 2 answered worse, 5 better, 33 alike. Table `predictions.json` of the run: the worst on top; it "
        in text
    )
    assert (
        "**Cost:** 30 s and 2.00 USD (measured); retraining everything: 60 s and ~4.00 USD [3.00 … 5.00 USD] "
        "(projected). That is 50 % of the time and ~50 % [40 … 67 %] of the money." in text
    )
    assert "**Adapters pinned:** **ja v2** (was v1), de v1." in text


@pytest.mark.parametrize(
    ("found", "policy", "commands", "words"),
    [
        (BETTER, "auto", ["adapterctl rollback"], "becomes the champion at once"),
        (
            BETTER,
            "review",
            ["adapterctl promote --version 7", 'adapterctl reject --version 7 --reason "…"', "adapterctl rollback"],
            "tag `review` to `approved` or `rejected`",
        ),
        (
            WORSE,
            "auto",
            [
                'adapterctl reject --version 7 --reason "…"',
                'adapterctl promote --version 7 --override-gate --reason "…"',
                "adapterctl rollback",
            ],
            "Version 7 is not promoted; version 6 goes on serving",
        ),
    ],
)
def test_the_commands_are_those_that_there_are(found: Verdict, policy: str, commands: list[str], words: str) -> None:
    text = note(found, policy).text(OF_A_VERSION)
    block = text.split("```")[1].strip().splitlines()
    assert [line for line in block if not line.startswith("#")] == commands
    assert words in text


def test_the_commands_are_understood_by_the_program() -> None:
    import click

    from adapterctl.cli.main import cli

    for found, policy in ((BETTER, "auto"), (BETTER, "review"), (WORSE, "auto")):
        block = note(found, policy).text(OF_A_VERSION).split("```")[1]
        for line in block.strip().splitlines():
            if line.startswith("adapterctl "):
                words = line.replace('"…"', "why").split()[1:]
                ctx = click.Context(cli)
                command = cli.get_command(ctx, words[0])
                assert command is not None, line
                command.make_context(words[0], words[1:], parent=ctx)


def test_what_else_may_have_changed() -> None:
    other = {"method": "ties", "density": 0.5, "seed": 3}
    pins = {"de": pin("de", 1, 30), "fr": pin("fr", 1, 12), "ja": pin("ja", 1, 22)}
    before = release({"de": pin("de", 2), "it": pin("it", 1), "ja": pin("ja", 1)}, version=6, recipe=other)
    text = note(release=release(pins, verdict=BETTER.as_dict()), champion=before).text(OF_A_VERSION)
    assert text.startswith(
        "Gate passed. de back to version 1 (was 2); fr added, trained on 12 rows; it removed; "
        "recipe: `method` `ties` → `knots-ties`, `seed` `3` → unset; λ 1.25 as before."
    )
    assert "New: **fr** with 0.501." in text


def test_a_first_release_has_nothing_to_compare_with() -> None:
    text = note(None, champion=None, cost=None, spent=side("setup", Amount(90.0), Amount(0.0))).text(OF_A_VERSION)
    assert text.startswith("First release. de, ja, trained on 74 rows, merged with `knots-ties`, λ 1.25.")
    assert "| ja | 0.125 | 0.750 | 0.501 |" in text
    assert "**Cost:** 90 s (measured)." in text
    assert "promote" not in text


def test_a_gain_that_was_required_and_too_few_rows() -> None:
    gain = GainVerdict("ja", 0.2, 0.1, 0.05, "fail")
    text = note(verdict(list(BETTER.languages), gain=gain)).text(OF_A_VERSION)
    assert "a gain of more than 0.200 was required and is not shown" in text
    few = verdict(
        [language("de", 0.0, -0.2, 0.2, "inconclusive"), language("ja", 0.1, 0.05, 0.15)], inconclusive="review"
    )
    text = note(few).text(OF_A_VERSION)
    assert text.startswith("Gate INCONCLUSIVE, which waits for a person.")
    assert "--override-gate" not in text


FIFTY = [f"l{number:02}" for number in range(50)]


def fifty(worst: str = "l30") -> ReleaseNote:
    found = [language(lang, 0.001 * place, -0.01, 0.1) for place, lang in enumerate(FIFTY)]
    found[30] = language(worst, -0.2, -0.3, -0.1, "fail")
    names = [*FIFTY[:30], worst, *FIFTY[31:]]
    pins = {lang: pin(lang, 2 if lang == "l07" else 1, 9) for lang in names}
    before = release({lang: pin(lang, 1, 9) for lang in names}, version=6)
    judged = verdict(found)
    return note(judged, release=release(pins, verdict=judged.as_dict()), champion=before)


@pytest.mark.parametrize("longest", [OF_A_VERSION, OF_A_RUN])
def test_fifty_languages_fit_and_no_table_is_cut(longest: int) -> None:
    text = fifty().text(longest)
    assert len(text) <= longest
    lines = text.splitlines()
    for rows in ([line for line in lines if line.startswith("|")],):
        assert {line.count("|") for line in rows} <= {7, 5, 13}
        assert all(line.endswith("|") for line in rows)
    # The changed one, the one that failed, and of the others who lost and who gained most.
    assert lines[4].startswith("| **l07** |")
    assert lines[5].startswith("| l30 |")
    assert "| l49 |" in text
    assert "languages between the worst and the best are left out." in text
    assert text.count("```") == 2
    assert "adapterctl reject --version 7" in text
    assert text.endswith("artifact `verdict.md` of the run.")


def test_the_whole_report_leaves_nothing_out() -> None:
    text = fifty().whole()
    for lang in FIFTY:
        # Changes, scores, the gate's table by language and by cell.
        assert text.count(f"| {lang} |") + text.count(f"| **{lang}** |") == 4
    assert "left out" not in text


HOSTILE = "<img src=x onerror=alert(1)>|**x**](http://evil.example)`\n\n# head"


@pytest.mark.parametrize("name", [HOSTILE, "x" * 5000, "<" * 5000, "|" * 300])
@pytest.mark.parametrize("longest", [OF_A_VERSION, OF_A_RUN])
def test_names_are_never_markup_and_never_too_long(name: str, longest: int) -> None:
    made = fifty(name)
    told = replace(
        made, release=made.release.model_copy(update={"reason": name, "base": name, "recipe": {"method": name}})
    )
    for text in (told.text(longest), merged_model_description(name, name), scores_markdown(told.release)):
        assert len(text) <= longest
        outside_code = "".join(text.split("`")[::2])
        assert "<" not in outside_code
        assert "](" not in outside_code
        assert "://" not in outside_code
        assert "\n# head" not in text
        assert {line.count("|") for line in text.splitlines() if line.startswith("|")} <= {7, 5, 13}
    assert "<img" not in told.whole().replace("`", "")


def test_a_registered_model_says_where_to_begin() -> None:
    assert "one that passes the gate becomes `champion` at once" in merged_model_description("shop", "auto")
    assert "adapterctl promote --approved" in merged_model_description("shop", "review")
