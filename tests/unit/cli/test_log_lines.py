"""Log lines of libraries on standard error."""

from __future__ import annotations

import logging

import pytest

from adapterctl.cli.libraries import _StandardError


def test_a_log_line_holds_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cretCanary")
    logger = logging.Logger("some.library")
    logger.addHandler(_StandardError())
    try:
        raise ValueError("signed with s3cretCanary")
    except ValueError:
        logger.warning("GET %s with %s", "https://me:geheim@host/x", "s3cretCanary", exc_info=True)
    said = capsys.readouterr().err
    assert "GET https://***@host/x with ***" in said
    assert "ValueError: signed with ***" in said
    assert "s3cretCanary" not in said
