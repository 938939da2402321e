from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "sklearn", "scipy", "matplotlib", "rouge_score", "mlflow")
LIGHT = (
    "answers", "batches", "catalogue", "engine", "figures", "gate", "metrics", "policy", "power", "report", "scorecard",
    "scoring", "statistics", "suite", "sums", "units", "verdict",
)  # fmt: skip


def test_what_a_command_line_needs_loads_no_heavy_library():
    names = ", ".join(f"adapterctl.evaluation.{name}" for name in LIGHT)
    code = f"import sys, {names}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
