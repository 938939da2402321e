"""What the values of metrics depend on beside the texts, in words: scores are compared only where these are equal."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path

from adapterctl.evaluation.bertscore import encoder_signature
from adapterctl.evaluation.catalogue import METRICS
from adapterctl.evaluation.external import command_signature
from adapterctl.evaluation.suite import SuiteSettings
from adapterctl.evaluation.texts import ROUGE, bleu_tokenizer
from adapterctl.evaluation.tokenizer import TokenizerName, tokenizer_signature
from adapterctl.tasks import TaskSettings


def rouge_tokenizer(lang: str, settings: SuiteSettings) -> TokenizerName:
    """Return the tokenizer behind ROUGE for a language: that of its tag, else of its primary language, else ours."""
    chosen = settings.rouge_tokenizer
    return chosen.get(lang, chosen.get(lang.split("-")[0], "unicode"))


def signatures_of(
    task: TaskSettings, lang: str, settings: SuiteSettings, engine: str, *, folder: Path = Path()
) -> dict[str, str]:
    """Return, by metric of a task, everything its values depend on beside the texts. Loads no model.

    Those of chrF and BLEU are sacrebleu's own, with the engine added.

    Args:
        task: The task's settings.
        lang: The language.
        settings: The suite's.
        engine: The signature of the engine that answers.
        folder: The suite file's folder.

    Raises:
        DataError: The encoder's folder does not exist.
        UsageError: What a metric needs is not installed.
    """
    return {name: f"{_signature(name, task, lang, settings, folder)}|engine:{engine}" for name in task.all_metrics}


def _signature(name: str, task: TaskSettings, lang: str, settings: SuiteSettings, folder: Path) -> str:
    if name in ROUGE:
        tokenizer = tokenizer_signature(rouge_tokenizer(lang, settings))
        return f"{name}|f1|rouge-score:{_version('rouge-score')}|tokenizer:{tokenizer}"
    if name == "chrf":
        return f"chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{_version('sacrebleu')}"
    if name == "bleu":
        tokenizer = bleu_tokenizer(lang)
        return f"BLEU|nrefs:1|case:mixed|eff:no|tok:{tokenizer}|smooth:exp|version:{_version('sacrebleu')}"
    if name == "bertscore":
        assert settings.bertscore is not None, "the suite was checked when it was loaded"
        return f"{name}|f1|{encoder_signature(settings.bertscore, folder)}"
    if name not in METRICS:
        return f"{name}|{command_signature(settings.external[name])}"
    calibration = f"|calibration:{task.calibration}" if task.kind == "classification" else ""
    library = f"|scikit-learn:{_version('scikit-learn')}" if METRICS[name].family == "classes" else ""
    return f"{name}|log-likelihood{calibration}{library}"


@cache
def _version(package: str) -> str:
    # Looked up once: a cell needs several, and every look-up reads a file.
    return version(package)
