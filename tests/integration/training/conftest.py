from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.tiny_llama import save_tiny_llama, tiny_base

from adapterctl.base_model import BaseModel


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model") / "tiny-base")


@pytest.fixture(scope="session")
def base(base_folder: Path) -> BaseModel:
    return tiny_base(base_folder)
