"""BERTScore with a tiny encoder, whose tokenizer does not say how long texts may be."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from adapterctl.errors import DataError, UsageError
from adapterctl.evaluation import bertscore as module
from adapterctl.evaluation.bertscore import bertscores
from adapterctl.evaluation.metrics import signatures_of
from adapterctl.evaluation.suite import BertScoreSettings, SuiteSettings
from adapterctl.tasks import TaskSettings

pytest.importorskip("bert_score", reason="needs the extra adapterctl[bertscore]")

LAYERS, LONGEST = 2, 40
TASK = TaskSettings(kind="translation", metrics=["bertscore"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder in "t5-like"; bert-score itself would read a T5 model there."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("suite")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz東京日本"]
    characters = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    characters.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=characters, **names).save_pretrained(root / "t5-like")
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=LONGEST, initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(11)
        BertModel(config).save_pretrained(root / "t5-like")
    return root


def settings(**changes: Any) -> BertScoreSettings:
    return BertScoreSettings(**{"encoder": "t5-like", "layers": LAYERS, **changes})


def by_hand(folder: Path, prediction: str, reference: str) -> float:
    """Greedy matching by cosine of the second layer's vectors, start and end left out of the means."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder / "t5-like").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "t5-like")

    def vectors(text: str) -> Any:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            found = model(ids, output_hidden_states=True).hidden_states[LAYERS][0]
        return torch.nn.functional.normalize(found, dim=-1)

    alike = vectors(prediction) @ vectors(reference).T
    precision, recall = alike.max(dim=1).values[1:-1].mean(), alike.max(dim=0).values[1:-1].mean()
    return float(2 * precision * recall / (precision + recall))


def test_against_the_formula(folder):
    pairs = [("a cat sat", "the cat sat down"), ("東京", "日本 東京"), ("x", "yz")]
    got = bertscores([one for one, _ in pairs], [other for _, other in pairs], settings(), folder)
    assert got == pytest.approx([by_hand(folder, *pair) for pair in pairs], abs=2e-6)
    assert len(set(got)) == 3


def test_an_empty_text_is_worth_nothing_and_an_equal_one_all(folder):
    assert bertscores(["", "same", " "], ["a", "same", "b"], settings(), folder) == [0.0, pytest.approx(1.0), 0.0]


def test_texts_longer_than_the_encoder_reads_are_cut(folder):
    long = "the cat sat on the mat and "
    assert bertscores([long * 20], [long * 30], settings(), folder) == [pytest.approx(1.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "nowhere"}, "nowhere has no config.json"),
        ({"layers": 4}, "has 3 layers, bertscore.layers asks for 4"),
    ],
)
def test_an_encoder_that_cannot_be_used(folder, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        bertscores(["a"], ["b"], settings(**changes), folder)
    assert "the suite file" in caught.value.hint


def test_a_folder_that_is_no_encoder(folder):
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text('{"model_type": "no such"}', encoding="utf-8")
    with pytest.raises(DataError, match="cannot be loaded"):
        bertscores(["a"], ["b"], settings(encoder="broken"), folder)


def test_without_the_library_the_extra_is_named(folder, monkeypatch):
    def missing(name: str) -> str:
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", missing)
    with pytest.raises(UsageError, match="bert-score") as caught:
        bertscores(["a"], ["b"], settings(), folder)
    assert "pip install 'adapterctl[bertscore]'" in caught.value.hint


def signature(folder: Path, **changes: Any) -> str:
    encoder = {"encoder": "enc", "layers": 2} | changes
    suite = SuiteSettings(tasks={"t": TASK}, test=["{lang}.jsonl"], bertscore=encoder)
    return signatures_of(TASK, "de", suite, "e", folder=folder)["bertscore"]


def test_an_encoder_is_known_by_its_files(tmp_path):
    with pytest.raises(DataError, match="encoder of metric 'bertscore' is not there"):
        signature(tmp_path)
    weights = tmp_path / "enc" / "model.safetensors"
    weights.parent.mkdir()
    (tmp_path / "enc" / "config.json").write_text("{}", encoding="utf-8")
    weights.write_bytes(bytes(300_000))
    known = signature(tmp_path)
    assert known.startswith(f"bertscore|f1|bert-score:{version('bert-score')}|")
    assert known.endswith("|layers:2|engine:e")
    assert signature(tmp_path) == known
    assert signature(tmp_path, layers=1) != known
    for place in (0, 150_000, 299_999):
        weights.write_bytes(bytes(place) + b"x" + bytes(299_999 - place))
        assert signature(tmp_path) != known
