from __future__ import annotations

from typing import Any

import pytest

from adapterctl.workflows.shapes import require_scores, require_verdict

CELL = {"lang": "ja", "task": "qa", "n": 6, "primary": "accuracy", "value": 0.5, "metrics": {}, "signatures": {}}
SCORES: dict[str, Any] = {"average": 0.5, "languages": {"ja": 0.5}, "cells": [CELL]}


def test_what_evaluation_writes_is_taken() -> None:
    require_scores(SCORES)
    require_scores({"average": None, "languages": {}, "cells": []})
    require_verdict({"passed": False, "outcome": "fail", "cells": []})


@pytest.mark.parametrize(
    "change",
    [
        {"average": "0.5"},
        {"average": True},
        {"average": {"$gt": 0}},
        {"languages": ["ja"]},
        {"languages": {"ja": "<b>high</b>"}},
        {"languages": {"ja": None}},
        {"cells": {"ja": CELL}},
        {"cells": ["ja"]},
        {"cells": [CELL, None]},
        {"cells": [CELL | {"lang": 7}]},
        {"cells": [CELL | {"task": None}]},
        {"cells": [CELL | {"value": "high"}]},
        {"cells": [CELL | {"n": "six"}]},
        {"cells": [CELL | {"primary": []}]},
        {"cells": [CELL | {"signatures": "none"}]},
        {"cells": [{"lang": "ja"}]},
    ],
)
def test_scores_of_another_shape_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"number|cells"):
        require_scores(SCORES | change)


@pytest.mark.parametrize("verdict", [{}, {"passed": "yes"}, {"passed": 1}, {"passed": True, "cells": {}}])
def test_verdicts_of_another_shape_are_refused(verdict: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="verdict"):
        require_verdict(verdict)
