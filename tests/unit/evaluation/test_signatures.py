from __future__ import annotations

from importlib.metadata import version

import pytest
from sacrebleu.metrics import BLEU, CHRF

from adapterctl.evaluation.metrics import signatures_of
from adapterctl.evaluation.suite import SuiteSettings
from adapterctl.tasks import METRICS_OF_KIND, TaskSettings

COMET = {"command": ["comet", "--model", "x"], "signature": "wmt22-comet-da"}
TASK = TaskSettings(kind="translation", metrics=["rouge_1", "rouge_2", "rouge_l", "chrf", "bleu", "comet"])


def suite(**settings: object) -> SuiteSettings:
    return SuiteSettings(tasks={"t": TASK}, test=["{lang}.jsonl"], **{"external": {"comet": COMET}, **settings})


def test_every_metric_has_one_and_it_names_the_engine():
    got = signatures_of(TASK, "de", suite(), "openai")
    assert list(got) == list(TASK.all_metrics)
    assert all(signature.endswith("|engine:openai") for signature in got.values())


def test_rouge_names_library_and_tokenizer():
    expected = f"rouge_l|f1|rouge-score:{version('rouge-score')}|tokenizer:unicode/1|engine:transformers"
    assert signatures_of(TASK, "ja", suite(), "transformers")["rouge_l"] == expected


def test_scores_of_different_tokenizers_have_different_signatures():
    pytest.importorskip("sudachipy", reason="needs the extra adapterctl[ja]")
    settings = suite(rouge_tokenizer={"ja": "sudachi"})
    there, here = (signatures_of(TASK, lang, settings, "e") for lang in ("ja-JP", "de"))
    assert "|tokenizer:sudachi-a/" in there["rouge_l"]
    assert there["rouge_l"] != here["rouge_l"]
    assert there["chrf"] == here["chrf"]


@pytest.mark.parametrize(("lang", "tokenizer"), [("ja", "char"), ("zh", "zh"), ("fr", "13a")])
def test_sacrebleus_metrics_have_sacrebleus_signatures(lang, tokenizer):
    got = signatures_of(TASK, lang, suite(), "e")
    for name, shown, theirs in (("chrf", "chrF2", CHRF()), ("bleu", "BLEU", BLEU(tokenize=tokenizer))):
        score = theirs.corpus_score(["a b"], [["a c"]])
        assert got[name] == f"{score.name}|{theirs.get_signature()}|engine:e"
        assert score.name == shown


def test_what_is_chosen_says_how():
    label = TaskSettings(kind="classification", labels=["a", "b"])
    got = signatures_of(label, "de", suite(), "transformers")
    assert got["accuracy"] == "accuracy|log-likelihood|calibration:none|engine:transformers"
    library = f"scikit-learn:{version('scikit-learn')}"
    assert got["macro_f1"] == f"macro_f1|log-likelihood|calibration:none|{library}|engine:transformers"
    calibrated = signatures_of(label.model_copy(update={"calibration": "prior"}), "de", suite(), "transformers")
    assert calibrated["accuracy"] == "accuracy|log-likelihood|calibration:prior|engine:transformers"
    choice = TaskSettings(kind="multiple-choice", metrics=["accuracy"])
    assert signatures_of(choice, "de", suite(), "e") == {"accuracy": "accuracy|log-likelihood|engine:e"}


def test_text_that_is_read():
    got = signatures_of(TaskSettings(kind="perplexity"), "de", suite(), "e")
    assert got == {name: f"{name}|log-likelihood|engine:e" for name in METRICS_OF_KIND["perplexity"]}


def test_another_command_or_signature_is_another_metric():
    known = signatures_of(TASK, "de", suite(), "e")["comet"]
    assert known.startswith("comet|wmt22-comet-da|command:")
    for change in ({"command": ["comet", "--model", "y"]}, {"signature": "other"}):
        assert signatures_of(TASK, "de", suite(external={"comet": COMET | change}), "e")["comet"] != known
    same = suite(external={"comet": COMET | {"timeout_seconds": 5}})
    assert signatures_of(TASK, "de", same, "e")["comet"] == known
