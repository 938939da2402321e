"""Spans of time on the command line."""

from __future__ import annotations

from datetime import timedelta

import click
import pytest

from adapterctl.cli.job_options import Span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("45m", timedelta(minutes=45)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        (" 2w ", timedelta(14)),
    ],
)
def test_spans(text: str, span: timedelta) -> None:
    assert Span().convert(text, None, None) == span
    assert Span().convert(span, None, None) == span


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "0d", "1.5d", "30 days", "999999w", "३d", "1y"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no span of time; write 45m, 12h, 30d or 2w"):
        Span().convert(text, None, None)
