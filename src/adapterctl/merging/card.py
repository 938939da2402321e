"""The model card of a merged adapter or model: ``README.md`` in its folder.

Its text depends on the report alone. Names come from files that others wrote, so each is made harmless for the place
it stands in: YAML, a table, a line of code.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapterctl._version import __version__
from adapterctl.merging.digest import lossless, percent, worst_modules
from adapterctl.merging.methods import METHODS, Method
from adapterctl.merging.report import SERVED_RANKS, MergeReport

CARD_FILE = "README.md"
"""Lies in the merged adapter's folder."""

_LONGEST_NAME = 200
_DEFAULTS: Mapping[str, Any] = {
    "base_share": 0.0,
    "missing": "refuse",
    "semantics": "paper",
    "space": "auto",
    "rank": "auto",
    "precision": "float32",
    "dtype": "float32",
    "layers": {},
    "modules": {},
}
"""Keys that are told only where they differ from this."""

_LOCAL_PATH = re.compile(r"[/~.\\]|[A-Za-z]:[/\\]")


def model_card(report: MergeReport, base_model: str | None, revision: str | None, *, full_model: bool = False) -> str:
    """Return the model card of a merged adapter, or of the base model with adapters merged into it.

    Args:
        report: What the merge says about itself.
        base_model: The base model as the adapters name it; of a path only the last part is told.
        revision: Its revision.
        full_model: Whether it lies beside a full model.
    """
    base = _base_name(base_model)
    languages = [lang for lang in report.inputs if lang]
    row = METHODS[report.method]
    title = ", ".join(map(_line, languages)) or "adapters"
    told = base if base and not _is_local(base_model) else None
    parts = [
        _front_matter(told, languages, full_model),
        f"# Merged {'model' if full_model else 'LoRA adapter'}: {_text(title)}",
        _opening(row, report, base, revision, full_model),
        "## Recipe",
        _table(["key", "value"], [[key, _code(value)] for key, value in _recipe_rows(report, row)]),
        "## Inputs",
        _table(["language", "weight", "‖ΔW‖", "content (SHA-256)"], _input_rows(report)),
        "## What was kept",
        *_kept(report, full_model),
        "## Use",
        *(_loading_model() if full_model else _loading(report, base, revision)),
        "## Make it again",
        "From the same adapters, each folder in the place of its name, the same bytes come out:",
        _fenced("sh", command(report, full_model=full_model)),
    ]
    return "\n\n".join(parts) + "\n"


def command(report: MergeReport, *, full_model: bool = False) -> str:
    """Return the command that makes the merge again, with placeholders for the folders."""
    recipe, row = report.recipe, METHODS[report.method]
    words = ["adapterctl", "merge", *(f"{lang}={lang.upper()}_DIR" for lang in report.inputs)]
    words += ["--out", "DIR", *(["--to-model", "BASE_DIR"] if full_model else []), "--method", report.method]

    def add(flag: str, value: Any) -> None:
        words.extend([flag, repr(value) if isinstance(value, float) else str(value)])

    add("--lambda", report.scale)
    for lang, weight in report.weights.items():
        add("--weight", f"{lang}={weight!r}")
    for key in ("density", "seed", "epsilon", "gamma", "slack"):
        if key in row.options:
            add(f"--{key}", recipe[key])
    for lang in recipe["protect"] if "protect" in row.options else ():
        add("--protect", lang)
    for lang in recipe["grams"] if "grams" in row.options else ():
        add("--gram", f"{lang}={lang.upper()}_GRAMS")
    for key, default in _DEFAULTS.items():
        value = recipe[key]
        if value != default and not (full_model and key in ("rank", "dtype")):
            add("--" + key.replace("_", "-"), _schedule(value) if isinstance(value, Mapping) else value)
    return " ".join(shlex.quote(_line(word)) for word in words)


def _schedule(entries: Mapping[str, Any]) -> str:
    """Return factors by layer or module as the command line takes them."""
    items = []
    for name, entry in entries.items():
        pairs = entry.items() if isinstance(entry, Mapping) else [("", entry)]
        items += [f"{name}:{f'{lang}=' if lang else ''}{float(factor)!r}" for lang, factor in pairs]
    return ",".join(items)


def _front_matter(base: str | None, languages: Sequence[str], full_model: bool) -> str:
    lines = ["---"]
    if base:
        lines.append(f"base_model: {_yaml(base)}")
    if full_model:
        lines += ["base_model_relation: merge"] if base else []
        lines += ["library_name: transformers", "tags:", "- merge", "- adapterctl"]
    else:
        lines += ["library_name: peft", "tags:", "- lora", "- merge", "- adapterctl"]
    if languages:
        lines += ["language:", *(f"- {_yaml(lang)}" for lang in languages)]
    return "\n".join([*lines, "---"])


def _opening(row: Method, report: MergeReport, base: str | None, revision: str | None, full_model: bool) -> str:
    paper = f" ([arXiv {row.paper}](https://arxiv.org/abs/{row.paper}))" if row.paper else ""
    count = len(report.inputs)
    text = f"One LoRA adapter, merged from {count} of one language each by **{row.title}**{paper}: {row.explanation}."
    if count == 1:
        text = f"One LoRA adapter, made from a single one by **{row.title}**{paper}: {row.explanation}."
    if full_model:
        adapters = f"{count} LoRA adapters of one language each" if count > 1 else "one LoRA adapter"
        text = f"A full model: its base with {adapters} merged into it by **{row.title}**{paper}: {row.explanation}."
    if base:
        at = f" at revision {_code(revision)}" if revision else ""
        text += f" {'The base model is' if full_model else 'It belongs to the base model'} {_code(base)}{at}."
    return (
        text
        + f" Made by adapterctl {__version__}; `merge_report.json` beside this file says what became of each module."
    )


def _recipe_rows(report: MergeReport, row: Method) -> Iterable[tuple[str, str]]:
    recipe = report.recipe
    yield "method", report.method
    yield "λ", f"{report.scale:g}"
    for key in ("density", "semantics", "seed", "epsilon", "gamma", "slack"):
        if key in row.options:
            yield key, f"{recipe[key]:g}" if isinstance(recipe[key], float) else str(recipe[key])
    if "protect" in row.options:
        yield "protect", ", ".join(recipe["protect"]) or "nobody"
    for key, default in _DEFAULTS.items():
        value = recipe[key]
        if value != default and not (key == "semantics" and key in row.options):
            yield key.replace("_", " "), _schedule(value) if isinstance(value, Mapping) else str(value)


def _input_rows(report: MergeReport) -> list[list[str]]:
    return [
        [_code(lang), f"{report.weights[lang]:g}", f"{report.input_norms[lang]:.4g}", _code(content)]
        for lang, content in report.inputs.items()
    ]


def _kept(report: MergeReport, full_model: bool) -> list[str]:
    rank = f"Rank {report.rank}, {len(report.modules)} modules."
    parts = []
    if full_model:
        parts.append(f"ΔW was added to the weights of {len(report.modules)} modules at its full rank.")
    elif lossless(report.energy_kept):
        parts.append(f"{rank} Nothing was lost by storing the result at this rank.")
    else:
        kept = f"This rank keeps {percent(report.energy_kept)} of the energy ‖ΔW‖² of what the method gave."
        parts.append(f"{rank} {kept} The modules that lost most:")
        rows = [[_code(module), percent(share)] for module, share in worst_modules(report).items()]
        parts.append(_table(["module", "kept"], rows))
    if rates := report.discard_rate:
        parts.append("Share of each language's kept entries that lost the vote:")
        parts.append(_table(["language", "discarded"], [[_code(lang), f"{rate:.1%}"] for lang, rate in rates.items()]))
    return parts


def _loading(report: MergeReport, base: str | None, revision: str | None) -> list[str]:
    name = json.dumps(base or "BASE_MODEL") + (f", revision={json.dumps(_line(revision))}" if revision else "")
    peft = f"""\
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({name})
model = PeftModel.from_pretrained(model, "DIR")"""
    if report.vllm_rank is None:
        most = SERVED_RANKS[-1]
        vllm = f"vLLM serves rank {most} at most, this one has {report.rank}: merge again with `--rank {most}` or less."
        return ["With PEFT:", _fenced("python", peft), vllm]
    served = shlex.quote(base or "BASE_MODEL")
    line = f"vllm serve {served} --enable-lora --max-lora-rank {report.vllm_rank} --lora-modules merged=DIR"
    return ["With PEFT:", _fenced("python", peft), "With vLLM:", _fenced("sh", line)]


def _loading_model() -> list[str]:
    transformers = """\
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("DIR")"""
    return ["With transformers:", _fenced("python", transformers), "With vLLM:", _fenced("sh", "vllm serve DIR")]


def _is_local(base_model: str | None) -> bool:
    return base_model is not None and _LOCAL_PATH.match(base_model.strip()) is not None


def _base_name(base_model: str | None) -> str | None:
    """Return how the base model is called: the hub's name, or of a path the last part."""
    if base_model is None:
        return None
    name = _line(base_model)
    if _is_local(base_model):
        name = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return name or None


def _line(text: str) -> str:
    """Return a text on one line: whatever is no visible character becomes a space."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= _LONGEST_NAME else shown[: _LONGEST_NAME - 1] + "…"


def _text(text: str) -> str:
    """Return a line in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&~])", r"\\\1", text)


def _code(text: str) -> str:
    """Return a text as code in a line or in a cell of a table."""
    text = _line(text).replace("|", "¦") or " "
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * next(size for size in range(1, len(runs) + 2) if size not in runs)
    inner = f" {text} " if text[0] == "`" or text[-1] == "`" else text
    return f"{fence}{inner}{fence}"


def _yaml(text: str) -> str:
    """Return a text as a double-quoted scalar."""
    return '"' + _line(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
