"""Whether what takes longest is tried whole, as ADAPTERCTL_THOROUGH=1 asks for."""

from __future__ import annotations

import os

import pytest

THOROUGH = os.environ.get("ADAPTERCTL_THOROUGH") == "1"
ONLY_THOROUGH = pytest.mark.skipif(not THOROUGH, reason="takes minutes: runs with ADAPTERCTL_THOROUGH=1")
