"""Which plugins by other people may be used: all of them, those that a setting names, or none.

This holds for every kind of plugin alike. What comes with Riverrun is no plugin by other people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverrun import _settings
from riverrun._offers import OURS, normalized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun._offers import Offer

_OUR_DISTRIBUTIONS = {"core", *(offer.distribution for offer in OURS.values())}


def switched_off(offer: Offer) -> str:
    """Say why a plugin may not be used, to go on after "it is"; empty if it may."""
    if normalized(offer.distribution) in _OUR_DISTRIBUTIONS:
        return ""
    settings = _settings.load()
    if settings.disable_plugins:
        return f"switched off by {settings.sources['disable_plugins']}"
    if settings.plugins is None:
        return ""
    allowed = [normalized(name) for name in settings.plugins]
    if any(normalized(name) in allowed for name in (offer.name, offer.distribution, offer.full_name)):
        return ""
    return f"not among the plugins that {settings.sources['plugins']} allows"


def refusal(offers: Sequence[Offer]) -> str:
    """Say that none of these may be used, and what lets them through.

    Args:
        offers: plugins of one kind and name, all of them switched off.

    Returns:
        The text of an error.
    """
    first = offers[0]
    subject, verb = (f"The {first.kind}", "is") if len(offers) == 1 else (f"The {first.kind}s", "are")
    who = " and ".join(map(str, offers))
    return f"{subject} `{first.name}` of {who} {verb} {switched_off(first)}. {_way_out(offers)}"


def _way_out(offers: Sequence[Offer]) -> str:
    settings = _settings.load()
    if settings.disable_plugins:
        source = settings.sources["disable_plugins"]
        how = f"unset {source}" if source in _settings.VARIABLES else f"set `disable_plugins` to false in {source}"
        return f"To switch plugins on, {how}."
    source = settings.sources["plugins"]
    names = " or ".join(f"`{offer.distribution}`" for offer in offers)
    what = "it" if len(offers) == 1 else "one"
    return f"To allow {what}, add {names} to {source if source in _settings.VARIABLES else f'`plugins` in {source}'}."
