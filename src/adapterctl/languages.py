"""Language tags (BCP 47): which texts are one, how it is written, and what somebody may have meant instead.

The registry of tags is that of ``langcodes``; it is imported on first use, so that a command that asks for no language
starts without it.
"""

from __future__ import annotations

from functools import cache

from adapterctl.errors import UsageError

_LONGEST_CODE = 3


def _standard(text: str) -> str | None:
    """Return the canonical form of a valid tag, None for everything else."""
    import langcodes

    if not text.isascii() or not text or text != text.strip():
        return None
    try:
        tag: str = langcodes.standardize_tag(text)
        return tag if langcodes.tag_is_valid(tag) and tag != "und" else None
    except langcodes.LanguageTagError:
        return None


@cache
def canonical(text: str) -> str | None:
    """Return the one way to write a language tag, or None where ``text`` is not one.

    >>> canonical("zh_cn"), canonical("iw"), canonical("jp")
    ('zh-CN', 'he', None)
    """
    return _standard(text)


def _main_language(territory: str) -> str | None:
    """Return the language most spoken in a territory, by CLDR's likely subtags."""
    import langcodes

    country = langcodes.Language.make(territory=territory.upper())
    # Unassigned pairs of letters pass as territories too, with English as their likely language; they have no name.
    if len(territory) != 2 or country.territory_name().startswith("Unknown"):
        return None
    language: str | None = country.maximize().language
    return language


def _named(name: str) -> str | None:
    """Return the tag of a language called by its name, in English or in the language itself."""
    import langcodes

    try:
        tag: str = langcodes.find(name.lower()).to_tag()
    except LookupError:
        return None
    return tag


@cache
def suggest(text: str) -> str | None:
    """Return the tag that somebody who wrote ``text`` probably meant, or None.

    Known are other spellings (``zh_CN``), old and three-letter codes (``iw``, ``jpn``), country codes (``jp``, ``kr``)
    and names (``japanese``, ``Deutsch``). A country code that happens to be the tag of another language, as ``kr``
    (Kanuri) is, is taken for the country's here; ``require_tag`` takes it for the language.
    """
    text = text.strip()
    if text.isascii() and text.isalpha() and len(text) <= _LONGEST_CODE:
        proper = _standard(text)
        if proper is not None and proper != text:
            return proper
        return _main_language(text)
    proper = _standard(text) or _named(text)
    if proper is not None:
        return proper
    first = text.replace("_", "-").partition("-")[0]
    return (canonical(first) or suggest(first)) if first and first != text else None


def fault(text: str) -> str:
    """Return what is wrong with a tag, in words; empty where it is valid and written in its canonical form."""
    tag = canonical(text)
    if tag == text:
        return ""
    if tag is not None:
        return f"language tag '{text}' is written '{tag}'"
    meant = suggest(text)
    mend = f"; did you mean '{meant}'?" if meant else "; tags look like ja, de, pt-BR or zh-Hant"
    return f"'{text}' is not a language tag{mend}"


def require_tag(text: str) -> str:
    """Return the canonical form of a language tag.

    Raises:
        UsageError: ``text`` is not a language tag.
    """
    tag = canonical(text)
    if tag is None:
        message, _, mend = fault(text).partition("; ")
        raise UsageError(message, hint=mend)
    return tag


@cache
def display_name(tag: str) -> str:
    """Return the English name of a language, such as ``Chinese (Traditional)`` for ``zh-Hant``."""
    import langcodes

    name: str = langcodes.Language.get(tag).display_name()
    return name
