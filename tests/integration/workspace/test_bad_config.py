"""Kinds of bad configuration: each is told with its file, its line and what mends it, and nothing is changed."""

import pytest

from adapterctl.errors import ConfigError, UsageError
from adapterctl.workspace.workspace import Workspace

PROJECT, SUITE, JA = "adapterctl.yaml", "evaluation/suite.yaml", "adapters/ja.yaml"


def line_of(root, file, text):
    lines = (root / file).read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, start=1) if text in line]
    return f"{file}:{number}"


def told(root):
    with pytest.raises(ConfigError) as caught:
        Workspace.open(root)
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "pydantic" not in text
    assert "http" not in text
    return [str(problem) for problem in caught.value.problems]


CASES = [
    (
        "unknown key",
        PROJECT,
        "method: core-tsv",
        "metod: core-tsv",
        "metod",
        "merge.metod: unknown key (did you mean 'method'?)",
    ),
    (
        "unknown key at the top",
        PROJECT,
        "promotion: auto",
        "promotions: auto",
        "promotions",
        "promotions: unknown key (did you mean 'promotion'?)",
    ),
    (
        "key in the wrong block",
        PROJECT,
        "promotion: auto",
        "promotion: auto\nmargin: 0.17",
        "margin: 0.17",
        "margin: unknown key (it belongs under 'gate')",
    ),
    (
        "wrong type",
        PROJECT,
        "epochs: 4",
        "epochs: four",
        "epochs: four",
        "defaults.training.epochs: must be a whole number, not 'four'",
    ),
    ("out of range", PROJECT, "    r: 8", "    r: 0", "    r: 0", "defaults.lora.r: must be at least 1, not 0"),
    (
        "not one of",
        PROJECT,
        "method: core-tsv",
        "method: core-tvs",
        "core-tvs",
        "merge.method: must be one of linear, ties, ties-slack, dare-linear, dare-ties, magnitude-prune, della, "
        "breadcrumbs, sce, knots-linear, knots-ties, knots-dare-ties, core-ta, core-ties, core-dare-ties, core-tsv, "
        "core-iso-c, svc, pico, regmean, not 'core-tvs' (did you mean 'core-tsv'?)",
    ),
    (
        "number or word",
        PROJECT,
        "lambda: auto",
        "lambda: atuo",
        "atuo",
        "merge.lambda: must be auto or a number, not 'atuo' (did you mean 'auto'?)",
    ),
    (
        "boolean for number",
        PROJECT,
        "margin: 0.1",
        "margin: true",
        "margin: true",
        "gate.margin: must be a number, not true or false",
    ),
    (
        "country for language",
        PROJECT,
        "[en, ja]",
        "[en, ja, jp]",
        "jp]",
        "languages[2]: 'jp' is not a language tag; did you mean 'ja'?",
    ),
    (
        "other spelling",
        PROJECT,
        "[en, ja]",
        "[en, ja, zh_CN]",
        "zh_CN",
        "languages[2]: language tag 'zh_CN' is written 'zh-CN'",
    ),
    ("language twice", PROJECT, "[en, ja]", "[en, ja, ja]", "ja, ja]", "languages: 'ja' stands twice"),
    ("duplicate key", PROJECT, "promotion: auto", "promotion: auto\npromotion: review", "promotion: review", None),
    (
        "tab",
        PROJECT,
        "  margin:",
        "\tmargin:",
        "\tmargin",
        "is not YAML: a tab cannot indent a line (indent with spaces)",
    ),
    (
        "indentation lost",
        PROJECT,
        "    r: 8",
        "   r: 8",
        "alpha: 16",
        "is not YAML: a second ': ' in one value, or a line indented too far (put the text in quotes)",
    ),
    ("unclosed bracket", PROJECT, "[en, ja]", "[en, ja", "[en, ja", None),
    (
        "tag",
        PROJECT,
        "path: pocket",
        "path: !!python/object/apply:os.system [ls]",
        "os.system",
        "base_model.path: the tag !!python/object/apply:os.system is not allowed (remove the tag)",
    ),
    (
        "project name",
        PROJECT,
        "project: pocket",
        "project: My Project",
        "My Project",
        "project: 'My Project' may hold lower-case letters, digits and dashes only, 63 at most, no dash at either end",
    ),
    ("later version", PROJECT, "version: 1", "version: 2", "version: 2", "version: must be 1, not 2"),
    (
        "weight of no language",
        PROJECT,
        "lambda: auto",
        "lambda: auto\n  weights: {it: 1.0}",
        "  weights:",
        "merge.weights: 'it' is none of the languages en, ja (remove or correct the key)",
    ),
    (
        "margin of no task",
        PROJECT,
        "margin: 0.1",
        "margin: 0.1\n  margins: {sentimnt: 0.1}",
        "margins",
        "gate.margins.sentimnt: the suite has no such task (its tasks are reasoning, sentiment, summarization)",
    ),
    (
        "update settings",
        PROJECT,
        "    epochs: 2",
        "    epoch: 1",
        "epoch: 1",
        "update.training.epoch: unknown key (did you mean 'epochs'?)",
    ),
    (
        "unknown slot",
        SUITE,
        'prompt:\n      en: "Review: {input}',
        'prompt: # the prompts\n      en: "Review: {imput}',
        "# the prompts",
        "tasks.sentiment.prompt: unknown slot {imput}; the slots are choices, context, direction, input, question",
    ),
    (
        "task kind",
        SUITE,
        "kind: classification",
        "kind: clasification",
        "clasification",
        "tasks.sentiment.kind: must be one of classification, multiple-choice, summarization, translation, "
        "generation, perplexity, not 'clasification' (did you mean 'classification'?)",
    ),
    (
        "old task kind",
        SUITE,
        "kind: classification",
        "kind: label",
        "kind: label",
        "tasks.sentiment.kind: 'label' is called classification now",
    ),
    (
        "metric of nobody",
        SUITE,
        "kind: summarization",
        "kind: summarization # comet\n    metrics: [rouge_l, comet]",
        "# What every model",
        "metric 'comet' of task 'summarization' is neither built in nor declared under external",
    ),
    (
        "metric of another kind",
        SUITE,
        "kind: classification",
        "kind: classification\n    metric: chrf",
        "sentiment:",
        "tasks.sentiment: metric 'chrf' does not go with kind 'classification'; choose one of accuracy, macro_f1, "
        "macro_precision, macro_recall",
    ),
    (
        "tokenizer of ROUGE",
        SUITE,
        "batch_size: 64",
        "rouge_tokenizer: {ja: mecab}",
        "mecab",
        "rouge_tokenizer.ja: must be one of unicode, sudachi, not 'mecab'",
    ),
    (
        "external metric's key",
        SUITE,
        "batch_size: 64",
        "external: {comet: {comand: [x], command: [y]}}",
        "comand",
        "external.comet.comand: unknown key (did you mean 'command'?)",
    ),
    ("unquoted braces", SUITE, '"Review: {input}\\nFeeling:"', "{input}", "en: {input}", None),
    ("glob without language", SUITE, "data/{lang}/*.dev.jsonl", "data/*.dev.jsonl", "*.dev.jsonl", None),
    ("glob without file", SUITE, "*.dev.jsonl", "*.valid.jsonl", "valid", None),
    (
        "adapter's glob without file",
        JA,
        "#",
        "data: [data/jp/*.jsonl]\n#",
        "data/jp",
        "data: 'data/jp/*.jsonl' matches no file in adapters/ (put rows of 'ja' there)",
    ),
    (
        "adapter's key",
        JA,
        "#",
        "lora:\n  rank: 4\n#",
        "rank",
        "lora.rank: unknown key (the keys are r, alpha, dropout, target_modules, rslora)",
    ),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "marker", "message"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_bad_configuration_is_told_with_its_line(root, edit, file, old, new, marker, message):
    edit(file, old, new)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    problems = told(root)
    assert problems[0].startswith(line_of(root, file, marker) + ": ")
    if message is not None:
        assert problems == [f"{line_of(root, file, marker)}: {message}"]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_the_faults_of_all_files_are_told_at_once(root, edit):
    edit(PROJECT, "method: core-tsv", "metod: core-tsv")
    edit(PROJECT, "epochs: 4", "epochs: 0")
    edit(SUITE, "kind: multiple-choice", "kind: multiple-choise")
    edit(JA, "#", "training: {lr: 1}\n#")
    (root / "adapters" / "en.yaml").unlink()
    problems = told(root)
    assert [problem.partition(" ")[0] for problem in problems] == [
        line_of(root, PROJECT, "metod") + ":",
        line_of(root, PROJECT, "epochs: 0") + ":",
        line_of(root, PROJECT, "languages: [") + ":",
        line_of(root, JA, "lr") + ":",
        line_of(root, SUITE, "choise") + ":",
    ]
    assert problems[2].endswith("language 'en' has no adapters/en.yaml (make it with: adapterctl add --lang en)")


def test_a_missing_project_key_is_told(root, edit):
    edit(PROJECT, "project: pocket\n", "")
    assert told(root) == ["adapterctl.yaml:1: project: is missing"]


def test_a_missing_suite_is_told(root):
    (root / SUITE).unlink()
    assert told(root) == ["evaluation/suite.yaml: is missing (a fresh one is made by: adapterctl init DIR)"]


def test_a_project_file_that_is_no_yaml_hides_no_other_file(root, edit):
    (root / PROJECT).write_text("languages: [ja\n")
    edit(SUITE, "kind: multiple-choice", "kind: multiple-choise")
    assert [problem.partition(":")[0] for problem in told(root)] == [PROJECT, SUITE]


def test_missing_rows_matter_only_to_commands_that_read_rows(root):
    for path in (root / "adapters" / "data" / "ja").iterdir():
        path.unlink()
    assert len(told(root)) == 1
    assert Workspace.open(root, data=False).languages == ("en", "ja")


def test_what_is_probably_not_meant_is_a_warning(root, edit):
    edit(PROJECT, "lambda: auto", "lambda: auto\n  density: 0.5")
    edit(SUITE, "prompt:", "prompt: # the prompts")
    edit(SUITE, '      ja: "レビュー', '      zh: "レビュー')
    (root / "adapters" / "it.yaml").write_text("")
    warnings = [str(warning) for warning in Workspace.open(root).warnings]
    assert [warning.partition(" ")[0] for warning in warnings] == [
        line_of(root, SUITE, "# the prompts") + ":",
        line_of(root, PROJECT, "density") + ":",
        "adapters/it.yaml:",
    ]


def test_a_folder_that_is_no_workspace_names_the_command(tmp_path):
    with pytest.raises(UsageError, match=r"there is no adapterctl\.yaml") as caught:
        Workspace.open(tmp_path)
    assert "adapterctl init DIR" in str(caught.value)


def test_a_language_that_is_not_there_names_the_command(root):
    workspace = Workspace.open(root)
    assert workspace.require_language("JA") == "ja"
    with pytest.raises(UsageError, match="did you mean 'ja'"):
        workspace.require_language("jp")
    with pytest.raises(UsageError, match="adapterctl add --lang it"):
        workspace.require_language("it")
