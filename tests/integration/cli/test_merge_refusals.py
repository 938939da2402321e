"""``adapterctl merge`` says everything that is wrong at once, and overwrites nothing that is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.support.adapters import make_adapter, make_family
from tests.support.cli import invoke
from tests.support.merge_command import done, names, numbers, refused

BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "method": (("--method", "tis"), ("--method: must be one of linear, ", "did you mean 'ties'?")),
    "density 0": (("--density", "0"), ("--density: must be above 0, not '0'",)),
    "density above 1": (("--density", "40"), ("--density: must be at most 1",)),
    "density NaN": (("--density", "nan"), ("--density: must be a finite number",)),
    "density word": (("--density", "high"), ("--density: must be a number, not 'high'",)),
    "lambda": (("--lambda", "inf"), ("--lambda: must be",)),
    "language": (("--weight", "xx=1"), ("--weight xx=1: 'xx' is none of the languages de, ja, zh",)),
    "weight twice": (("--weight", "ja=1", "--weight", "ja=2"), ("--weight ja=2: ja is given twice, also as 1",)),
    "weight without language": (("--weight", "1.2"), ("--weight 1.2: is not LANG=W", "--weight ja=1.2")),
    "weight NaN": (("--weight", "ja=nan"), ("--weight ja=nan: must be a finite number",)),
    "all weights 0": (
        ("--weight", "ja=0", "--weight", "de=0", "--weight", "zh=0"),
        ("every weight is 0, so nothing would be merged",),
    ),
    "rank": (("--rank", "-3"), ("--rank: must be one of auto, full or at least 1, not '-3'",)),
    "rank 0": (("--rank", "0"), ("--rank: must be",)),
    "seed": (("--seed", "1.5"), ("--seed: must be a whole number",)),
    "layers": (("--layers", "0-7"), ("--layers: '0-7' is not NAME:NUMBER or NAME:LANG=NUMBER",)),
    "layers twice": (("--layers", "0:1,0:2"), ("--layers: '0' has two factors",)),
    "layers overlap": (("--layers", "0-1:0.5,1:2"), ("--layers: '0-1' and '1' overlap",)),
    "no such layer": (("--layers", "7:0.5"), ("--layers: no module is in '7'; the adapters have layers 0 to 1",)),
    "no such module": (("--modules", "qproj:0.5"), ("--modules: no module has 'qproj' in its path",)),
    "protect": (("--method", "ties-slack", "--slack", "1", "--protect", "fr"), ("--protect: 'fr' is none of",)),
    "grams": (("--method", "regmean"), ("grams: RegMean needs the Gram matrices of every language",)),
    "gram": (("--method", "regmean", "--gram", "ja"), ("--gram ja: is not LANG=FILE",)),
    "della": (("--method", "della", "--density", "0.05"), ("keep probabilities would run from -0.05 to 0.15",)),
    "model": (("--to-model", "nowhere"), ("--to-model: there is no folder nowhere",)),
    "no recipe": (("--recipe", "none.yaml"), ("none.yaml: cannot be read: No such file",)),
}


@pytest.mark.parametrize(("options", "told"), BAD.values(), ids=BAD)
def test_bad_options_name_themselves(
    family: dict[str, Path], here: Path, options: tuple[str, ...], told: tuple[str, ...]
) -> None:
    err = refused(*family.values(), "--out", "out", *options)
    for text in told:
        assert text in err
    assert names(here) == []


BAD_FILES = {
    "tab": ("method: ties\n\tdensity: 0.4\n", "recipe.yaml:2: is not YAML: a tab cannot indent a line"),
    "duplicate": ("density: 0.4\nmethod: ties\ndensity: 0.5\n", "recipe.yaml:3: density: stands twice"),
    "unknown": ("method: ties\ndensty: 0.5\n", "recipe.yaml:2: densty: unknown key (did you mean 'density'?)"),
    "unknown below": ("merge:\n  methd: ties\n", "recipe.yaml:2: merge.methd: unknown key (did you mean 'method'?)"),
    "beside": (
        "merge:\n  method: ties\ndensity: 0.5\n",
        "recipe.yaml:3: density: unknown key (it belongs under 'merge'",
    ),
    "no block": ("merge: ties\n", "recipe.yaml:1: merge: must be a block of keys"),
    "tag": ("method: !!python/name:os.system x\n", "recipe.yaml:1: method: the tag !!python/name:os.system"),
    "list": ("- ties\n", "recipe.yaml:1: must be keys with values"),
    "boolean": ("method: ties\ndensity: true\n", "recipe.yaml:2: density: must be a number, not true or false"),
    "language": ("weights:\n  jp: 2\n", "recipe.yaml:1: weights: 'jp' is none of the languages de, ja, zh"),
}


@pytest.mark.parametrize(("text", "told"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_recipes_are_told_with_their_line(family: dict[str, Path], here: Path, text: str, told: str) -> None:
    (here / "recipe.yaml").write_text(text, encoding="utf-8")
    assert told in refused(*family.values(), "--out", "out", "--recipe", "recipe.yaml")
    assert names(here) == ["recipe.yaml"]


def test_everything_that_is_wrong_is_told_at_once(family: dict[str, Path], here: Path) -> None:
    (here / "recipe.yaml").write_text("methd: ties\ndensity: 7\n", encoding="utf-8")
    make_adapter(here / "fr", use_dora=True)
    result = invoke(
        "--quiet", "merge", family["de"], f"jp={family['ja']}", "fr", "nowhere", "--out", here / "fr" / "x",
        "--recipe", "recipe.yaml", "--rank", "-1", "--json",
    )  # fmt: skip
    assert result.exit_code == 2
    told = [f"{problem['where']}: {problem['message']}" for problem in result.json["error"]["problems"]]
    for text in (
        "recipe.yaml:1: methd: unknown key",
        "recipe.yaml:2: density: must be at most 1",
        "--rank: must be",
        "lies inside the folder of an input",
        "'jp' is not a language tag",
        "nowhere: no folder nowhere",
        "DoRA",
    ):
        assert any(text in line for line in told), (text, told)
    assert names(here / "fr") == ["adapter_config.json", "adapter_model.safetensors"]


def test_adapters_that_do_not_fit_are_told_together(family: dict[str, Path], here: Path) -> None:
    make_adapter(here / "fr", base_model="other-base")
    broken = make_adapter(here / "it")
    (broken / "adapter_model.safetensors").write_bytes(b"\x80\x04K\x01.")
    err = refused(*family.values(), "fr", "it", "--out", "out", code=6)
    assert "do not have the same base model" in err
    assert "pickle" in err
    assert not (here / "out").exists()


def test_nan_in_an_adapter_leaves_nothing(family: dict[str, Path], here: Path) -> None:
    bad = make_adapter(here / "fr", seed=8)
    tensors = load_file(bad / "adapter_model.safetensors")
    name = sorted(tensors)[3]
    tensors[name][0, 0] = float("nan")
    save_file(tensors, bad / "adapter_model.safetensors")
    err = refused(*family.values(), "fr", "--out", "out", code=6)
    assert name in err
    assert "1 of" in err
    assert names(here) == ["fr"]


def test_one_language_twice_and_a_folder_that_says_none(family: dict[str, Path], here: Path) -> None:
    make_adapter(here / "nameless", seed=5)
    err = refused(family["de"], f"de={family['ja']}", "nameless", "--out", "out", code=6)
    assert "2 adapters are of this language" in err
    assert "write ja=nameless if it is Japanese" in err


def test_without_folders_and_without_a_workspace(here: Path) -> None:
    err = refused("--method", "ties")
    assert "no adapters were named, and there is no adapterctl.yaml" in err
    assert "adapterctl merge de=DIR ja=DIR --out DIR" in err


def test_out_is_needed(family: dict[str, Path], here: Path) -> None:
    assert "--out: is missing" in refused(*family.values())


def test_what_lies_at_out_is_kept(family: dict[str, Path], here: Path) -> None:
    own = make_adapter(here / "fr", seed=6)
    (here / "file").write_text("", encoding="utf-8")
    (here / "notes").mkdir()
    (here / "notes" / "a.txt").write_text("mine", encoding="utf-8")
    done(*family.values(), "--out", "good")
    (here / "good" / "mine.txt").write_text("mine", encoding="utf-8")
    (here / "link").symlink_to(here / "notes")
    for out, told in {
        "fr": "fr exists already and holds an adapter that was not merged here",
        "file": "file exists already: it is a file",
        "notes": "notes exists already and holds a.txt",
        "good": "good exists already and holds more than a merge: mine.txt",
        "link": "link exists already: it is a link",
        ".": "holds",
    }.items():
        before = numbers(own)
        assert told in refused(*family.values(), "--out", out)
        assert numbers(own) == before
    assert (here / "notes" / "a.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("de", "is the folder of an input"),
        ("de/x/y", "lies inside the folder of an input"),
        ("../work/de", "is the folder of an input"),
        (".", "holds an input"),
        ("kept", "is the folder of an input (cache)"),
    ],
)
def test_out_may_not_touch_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, told: str) -> None:
    make_family(tmp_path / "work", ("de", "ja"))
    monkeypatch.chdir(tmp_path / "work")
    assert told in refused("de", "ja", "--out", out, "--cache", "kept")
    assert names(tmp_path / "work") == ["de", "ja"]


def test_an_earlier_merge_and_an_empty_folder_are_replaced(family: dict[str, Path], here: Path) -> None:
    (here / "out").mkdir()
    done(*family.values(), "--out", "out", "--method", "linear")
    first = numbers(here / "out")
    done(*family.values(), "--out", "out", "--method", "linear", "--lambda", "0.5")
    assert numbers(here / "out") != first
    assert names(here) == ["out"]
