"""What holds for all tests of merging."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of small merges need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
