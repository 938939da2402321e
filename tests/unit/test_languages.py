import os
import subprocess
import sys
from pathlib import Path

import pytest

import adapterctl
from adapterctl.errors import UsageError
from adapterctl.languages import canonical, display_name, fault, require_tag, suggest


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("ja", "ja"), ("JA", "ja"), ("zh_CN", "zh-CN"), ("zh-hant-tw", "zh-Hant-TW"), ("iw", "he"), ("jpn", "ja"),
        ("pt-br", "pt-BR"), ("nb", "nb"), ("no", "no"), ("es-419", "es-419"),
    ],
)  # fmt: skip
def test_other_spellings_become_the_canonical_tag(text, tag):
    assert canonical(text) == require_tag(text) == tag


@pytest.mark.parametrize(
    "text", ["jp", "", "ja\n", " ja", "../ja", "ja/x", "und", "日本語", "engrish", "x" * 5000, "e n"]
)
def test_what_is_no_tag_is_refused(text):
    assert canonical(text) is None
    with pytest.raises(UsageError, match="is not a language tag"):
        require_tag(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("jp", "ja"), ("cn", "zh"), ("kr", "ko"), ("cz", "cs"), ("gr", "el"), ("dk", "da"), ("se", "sv"), ("ua", "uk"),
        ("vn", "vi"), ("gb", "en"), ("us", "en"), ("at", "de"), ("br", "pt"), ("JP", "ja"), ("jp-JP", "ja"),
        ("japanese", "ja"), ("Deutsch", "de"), ("français", "fr"), ("日本語", "ja"), ("Brazilian Portuguese", "pt-BR"),
        ("iw", "he"), ("zh_CN", "zh-CN"),
    ],
)  # fmt: skip
def test_what_was_meant_is_suggested(text, meant):
    assert suggest(text) == meant


@pytest.mark.parametrize("text", ["xx", "qq", "zz", "und", "engrish", "", "-", "../.."])
def test_nothing_is_suggested_where_nothing_can_be_meant(text):
    assert suggest(text) is None


def test_the_fault_says_what_to_write():
    assert fault("jp") == "'jp' is not a language tag; did you mean 'ja'?"
    assert fault("zh_cn") == "language tag 'zh_cn' is written 'zh-CN'"
    assert fault("ja") == ""
    with pytest.raises(UsageError) as caught:
        require_tag("jp")
    assert (caught.value.message, caught.value.hint) == ("'jp' is not a language tag", "did you mean 'ja'?")


def test_tags_have_names():
    assert (display_name("ja"), display_name("zh-Hant")) == ("Japanese", "Chinese (Traditional)")


def test_the_register_of_tags_is_read_on_first_use():
    code = "import sys; import adapterctl.languages; sys.exit('langcodes' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(adapterctl.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
