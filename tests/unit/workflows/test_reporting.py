from __future__ import annotations

from adapterctl.workflows.reporting import StageShare


class Told:
    def __init__(self) -> None:
        self.lines: list[tuple[float, float, str]] = []

    def advance(self, done: float, total: float, detail: str = "") -> None:
        self.lines.append((done, total, detail))


def test_shares_of_a_stage_never_go_back() -> None:
    told = Told()
    for place in range(2):
        share = StageShare(told, place, 2)
        share.advance(0, 0)
        share.advance(30, 120)
        share.advance(120, 120, "done")
    assert told.lines == [
        (0.0, 2, ""), (0.25, 2, ""), (1.0, 2, "done"), (1.0, 2, ""), (1.25, 2, ""), (2.0, 2, "done"),
    ]  # fmt: skip
