"""Eight updates at once on one registry: they end as if they had come one after the other, or say that they did not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.program import Programs
from tests.support.servers import MlflowServer, missing_postgres, postgres
from tests.support.small_workspace import bring_new_rows, make_eight_languages
from tests.support.soundness import check_sound, lineage_of_releases
from tests.support.thorough import ONLY_THOROUGH

from adapterctl.registry.client import Registry
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry

pytestmark = pytest.mark.slow
LANGUAGES = ("de", "de-AT", "en", "en-GB", "fr", "fr-CA", "ja", "zh")


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight languages with new rows for each, and nothing trained yet; do not change it."""
    root = make_eight_languages(tmp_path_factory.mktemp("eight") / "workspace")
    return root


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres through a server", marks=ONLY_THOROUGH)])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The registry that all of them work with."""
    folder = tmp_path_factory.mktemp("registry")
    if request.param == "sqlite":
        yield f"sqlite:///{folder}/mlflow.db"
        return
    if reason := missing_postgres():
        pytest.skip(reason)
    with postgres() as store, MlflowServer(folder, store) as server:
        yield server.url


@pytest.fixture(scope="module")
def released(eight: Path, address: str, program: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace with a first champion in that registry; do not change it."""
    root = Path(shutil.copytree(eight, tmp_path_factory.mktemp("released") / "workspace"))
    shared = tmp_path_factory.mktemp("files")
    project = root / "adapterctl.yaml"
    text = project.read_text("utf-8").replace('  uri: ""', f'  uri: "{address}"\n  artifacts: "{shared}"')
    project.write_text(text, encoding="utf-8")
    done = program(root, "setup")
    assert done.exit_code == 0, done.err
    return root


def registry_at(root: Path) -> Registry:
    settings = RegistrySettings(uri=_line(root, "uri"), artifacts=_line(root, "artifacts"))
    resolved: ResolvedRegistry = settings.resolve(root)
    return Registry.connect(resolved, "pocket")


def _line(root: Path, key: str) -> str:
    lines = (root / "adapterctl.yaml").read_text("utf-8").splitlines()
    return next(line.partition(": ")[2].strip('"') for line in lines if line.startswith(f"  {key}: "))


def copies(root: Path, folder: Path) -> list[Path]:
    """Return eight workspaces, as on eight machines: each with files and a state of its own."""
    return [Path(shutil.copytree(root, folder / str(number))) for number in range(8)]


def test_eight_of_different_languages_queue_and_of_one_exclude_one_another(
    released: Path, program: Programs, tmp_path: Path
) -> None:
    roots = copies(released, tmp_path)
    for root, lang in zip(roots, LANGUAGES, strict=True):
        bring_new_rows(root, lang)
    running = [
        program.start(root, "update", "--lang", lang, "--wait", "--json")
        for root, lang in zip(roots, LANGUAGES, strict=True)
    ]
    ended = [one.wait() for one in running]
    assert [one.exit_code for one in ended] == [0] * 8, [one.err for one in ended]
    assert all(one.json["candidate"]["promoted"] for one in ended)
    registry = registry_at(released)
    champion = check_sound(registry)
    chain = lineage_of_releases(registry)
    assert len(chain) == 9
    assert champion.version == 9
    # Nobody's work was lost: the last champion serves every language's new adapter.
    assert {lang: pin.version for lang, pin in champion.adapters.items()} == dict.fromkeys(LANGUAGES, 2)
    assert registry.locked_by() == []

    # The same language eight times, with rows that none of them has learnt: one does it, seven say who does.
    for root in roots:
        for language in LANGUAGES:
            bring_new_rows(root, language)
        _one_row_more(root)
    same = [program.start(root, "update", "--lang", "ja", "--json") for root in roots]
    finished = [one.wait() for one in same]
    codes = sorted(one.exit_code for one in finished)
    assert set(codes) <= {0, 4}, [one.err for one in finished]
    winners = [one for one in finished if one.exit_code == 0 and one.json["changed"]]
    assert len(winners) == 1
    refused = [one for one in finished if one.exit_code == 4]
    assert all("another adapterctl works on this project in the registry" in one.out for one in refused)
    champion = check_sound(registry)
    assert (champion.version, champion.adapters["ja"].version) == (10, 3)
    lineage_of_releases(registry)
    assert registry.locked_by() == []


def _one_row_more(root: Path) -> None:
    path = root / "adapters/data/ja/sentiment.train.jsonl"
    line = path.read_text("utf-8").splitlines()[0]
    path.write_text(path.read_text("utf-8") + line.replace("sentiment-train-000-ja", "one-more") + "\n", "utf-8")
