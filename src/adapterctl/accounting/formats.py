"""Durations and money as people read them; imports nothing."""

from __future__ import annotations


def format_seconds(seconds: float) -> str:
    """Return a duration for people: ``0.4 s``, ``71 s``, ``12.5 min``, ``3.4 h``."""
    if abs(seconds) < 10:
        return f"{seconds:.1f} s"
    if abs(seconds) < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if abs(seconds) < 7200 else f"{seconds / 3600:.1f} h"


def format_money(amount: float, currency: str) -> str:
    """Return money with three significant digits at least: ``0.000412 USD``, ``33.40 USD``."""
    if amount == 0 or abs(amount) >= 1:
        return f"{amount:.2f} {currency}"
    decimals = 2
    while decimals < 12 and round(abs(amount), decimals) * 10**decimals < 100:
        decimals += 1
    return f"{amount:.{decimals}f} {currency}"
