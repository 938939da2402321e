import pytest

from adapterctl.errors import ConfigError
from adapterctl.registry.names import adapter_name, combined_name, merged_name, quoted_key


def test_the_names_of_a_project() -> None:
    assert [adapter_name("pocket", "zh-Hans"), merged_name("pocket"), combined_name("pocket")] == [
        "pocket-zh-Hans",
        "pocket-merged",
        "pocket-combined",
    ]


@pytest.mark.parametrize("project", ["", "a/b", "a:b", "it's", "-a", "a b", "x" * 201])
def test_what_mlflow_cannot_take_is_refused(project: str) -> None:
    with pytest.raises(ConfigError, match="project"):
        merged_name(project)
    with pytest.raises(ConfigError, match="language"):
        adapter_name("pocket", project)


@pytest.mark.parametrize("key", ["it's", 'a"b', "a`b", "a\\b", "", "a b"])
def test_a_key_cannot_end_the_filter(key: str) -> None:
    with pytest.raises(ValueError, match="cannot be a key"):
        quoted_key(key)


def test_a_key_is_quoted() -> None:
    assert quoted_key("update/ja@1:abc") == "'update/ja@1:abc'"
