"""BERTScore (Zhang et al. 2020) through the library bert-score, with an encoder from a local folder.

The F of greedy matching between the tokens of prediction and reference by the cosine of their contextual embeddings,
every token weighing the same, not rescaled. Needs the extra ``adapterctl[bertscore]``; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.errors import DataError, UsageError
from adapterctl.fingerprint import short

if TYPE_CHECKING:
    from adapterctl.evaluation.suite import BertScoreSettings

_BATCH = 64
_UNLIMITED = 1_000_000
_STRETCHES, _STRETCH = 16, 1 << 16


def bertscores(
    predictions: Sequence[str], references: Sequence[str], settings: BertScoreSettings, folder: Path
) -> list[float]:
    """Return the BERTScore F of every text; an empty one is worth 0.

    Args:
        predictions: The texts.
        references: The right text for each.
        settings: Folder and layers of the encoder.
        folder: The suite file's folder.

    Raises:
        DataError: The encoder cannot be loaded, or has fewer layers.
        UsageError: bert-score is not installed.
    """
    _library_version()
    written = [place for place, text in enumerate(predictions) if text.strip() and references[place].strip()]
    values = [0.0] * len(predictions)
    if written:
        from bert_score.utils import bert_cos_score_idf

        model, tokenizer = _encoder(_existing(settings, folder), settings.layers)
        # Start and end tokens do not weigh, as in the library's own scorer.
        weights: defaultdict[int, float] = defaultdict(lambda: 1.0)
        weights |= dict.fromkeys((tokenizer.sep_token_id, tokenizer.cls_token_id), 0)
        found = bert_cos_score_idf(
            model,
            [references[place] for place in written],
            [predictions[place] for place in written],
            tokenizer,
            weights,
            device=model.device,
            batch_size=_BATCH,
        )
        for place, value in zip(written, found[:, 2].tolist(), strict=True):
            values[place] = round(value, 6)
    return values


def encoder_signature(settings: BertScoreSettings, folder: Path) -> str:
    """Return library, encoder and layers in words; nothing is loaded.

    Raises:
        DataError: The encoder's folder does not exist.
        UsageError: bert-score is not installed.
    """
    path = _existing(settings, folder)
    libraries = f"bert-score:{_library_version()}|transformers:{version('transformers')}"
    return f"{libraries}|encoder:{_identity(path)}|layers:{settings.layers}"


def _library_version() -> str:
    try:
        return version("bert-score")
    except PackageNotFoundError as error:
        raise UsageError(
            "metric 'bertscore' needs bert-score, which is not installed", hint="pip install 'adapterctl[bertscore]'"
        ) from error


def _existing(settings: BertScoreSettings, folder: Path) -> Path:
    path = (folder / settings.encoder).resolve()
    if not (path / "config.json").is_file():
        raise DataError(
            f"the encoder of metric 'bertscore' is not there: {path} has no config.json",
            hint="set bertscore.encoder in the suite file to a folder with a model of transformers",
        )
    return path


def _identity(path: Path) -> str:
    """Return the folder's name and a hash of its files: names, sizes, and stretches spread evenly over each.

    To read the whole of an encoder of several gigabytes would take longer than to score with it.
    """
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            size = file.stat().st_size
            digest.update(f"{file.name}\n{size}\n".encode())
            with file.open("rb") as handle:
                for number in range(_STRETCHES):
                    handle.seek(max(0, size - _STRETCH) * number // (_STRETCHES - 1))
                    digest.update(handle.read(_STRETCH))
    return f"{path.name}@{short(digest.hexdigest())}"


class _FirstLayers:
    """An encoder up to one of its layers, as bert-score calls a model."""

    def __init__(self, model: Any, layers: int) -> None:
        self._model, self._layers = model, layers
        self.device = str(model.device)

    def parameters(self) -> Any:
        """Return the encoder's, by which bert-score finds the device."""
        return self._model.parameters()

    def eval(self) -> _FirstLayers:
        """Return itself: it does not train."""
        return self

    def __call__(self, tokens: Any, *, attention_mask: Any, output_hidden_states: bool) -> tuple[Any]:
        """Return the embeddings after the last of the layers, batch x tokens x width."""
        out = self._model(tokens, attention_mask=attention_mask, output_hidden_states=True)
        return (out.hidden_states[self._layers],)


@cache
def _encoder(path: Path, layers: int) -> tuple[Any, Any]:
    """Return the encoder's first layers, and its tokenizer.

    bert-score's own loader takes every path with "t5" in it for a T5 model, and cannot read texts with a tokenizer
    that does not say how long they may be.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        model = AutoModel.from_pretrained(path, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the encoder of metric 'bertscore' in {path} cannot be loaded: {error}",
            hint="set bertscore.encoder in the suite file to a folder with a model of transformers",
        ) from error
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    there = model.config.num_hidden_layers
    if layers > there:
        raise DataError(
            f"the encoder in {path} has {there} layers, bertscore.layers asks for {layers}",
            hint=f"set bertscore.layers in the suite file to at most {there}",
        )
    if tokenizer.model_max_length > _UNLIMITED:
        # Encoders such as RoBERTa count two positions more than they can read.
        tokenizer.model_max_length = getattr(model.config, "max_position_embeddings", 512) - 2
    return _FirstLayers(model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), layers), tokenizer
