"""Durations, money and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence

MOST_IN_FULL = 1e15
"""Amounts from here on are written in scientific form: nobody reads more digits."""


def format_seconds(seconds: float) -> str:
    """Return a duration for people: ``0.4 s``, ``71 s``, ``12.5 min``, ``3.4 h``."""
    if abs(seconds) < 10:
        return f"{seconds:.1f} s"
    if abs(seconds) < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if abs(seconds) < 7200 else f"{seconds / 3600:.1f} h"


def format_amount(amount: float) -> str:
    """Return a number with two decimals: ``33.40``; in scientific form beyond ``MOST_IN_FULL``: ``1.00e+308``."""
    return f"{amount:.2e}" if abs(amount) >= MOST_IN_FULL else f"{amount:.2f}"


def format_rounded(value: float, unit: float) -> str:
    """Return a number rounded to a multiple of ``unit``; in scientific form beyond ``MOST_IN_FULL``."""
    if abs(value) >= MOST_IN_FULL:
        return format_amount(value)
    decimals = 0
    while decimals < 9 and abs(round(unit, decimals) - unit) > 1e-12:
        decimals += 1
    return f"{round(value / unit) * unit:.{decimals}f}"


def format_some(texts: Sequence[str], between: str, most: int = 5) -> str:
    """Return the first few of many texts, and how many more there are."""
    more = len(texts) - most
    return between.join(texts[:most]) + (f"{between}and {more} more" if more > 0 else "")


def format_money(amount: float, currency: str) -> str:
    """Return money with three significant digits at least: ``0.000412 USD``, ``33.40 USD``, ``1.00e+308 USD``.

    Args:
        amount: The money.
        currency: Its currency; empty for the number alone.
    """
    unit = f" {currency}" if currency else ""
    if amount == 0 or abs(amount) >= 1:
        return format_amount(amount) + unit
    decimals = 2
    while decimals < 12 and round(abs(amount), decimals) * 10**decimals < 100:
        decimals += 1
    return f"{amount:.{decimals}f}{unit}"


def format_count(number: float) -> str:
    """Return a large number with three significant digits and a prefix: ``940``, ``12.3 k``, ``4.56 G``, ``1.20 E``."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        scaled = number / 10**power
        # 999.6 k would round to four digits.
        if scaled >= 0.9995:
            decimals = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{decimals}f} {prefix}"
    return f"{number:.0f}"


def format_bytes(number: float) -> str:
    """Return a number of bytes in binary units: ``512 B``, ``1.5 KiB``, ``24.0 GiB``."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 2**power:
            return f"{number / 2**power:.1f} {unit}"
    return f"{number:.0f} B"


def format_small(number: float, unit: str) -> str:
    """Return a quantity with three significant digits: ``1.20 kWh``, ``3.50 Wh``, ``4.12 mg``, ``0 g``."""
    for power, prefix in ((3, "k"), (0, ""), (-3, "m"), (-6, "µ")):
        scaled = number / 10.0**power
        if scaled >= 0.9995:
            decimals = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{decimals}f} {prefix}{unit}"
    return f"0 {unit}"
