"""What `riverrun runners` lists: every task runner, and why one cannot be used."""

from __future__ import annotations

from typing import NamedTuple

from riverrun._allowed import switched_off
from riverrun._loading import class_of
from riverrun._offers import INSTALL, OURS, Offer, is_importable, is_ours, scan, shadowing, version_of
from riverrun.exceptions import TaskRunnerError


class Row(NamedTuple):
    """What `riverrun runners` tells about one task runner; what is not known is empty."""

    name: str
    class_path: str
    distribution: str
    version: str
    concurrency: str
    problem: str
    """Why it cannot be used, in one line."""
    installed: bool = True


def list_runners() -> list[Row]:
    """List the task runners that there are, each loaded to see whether that works.

    Returns:
        Riverrun's own first, also those that are not installed; then all others by name.
    """
    rows = []
    for offer in OURS.values():
        if is_importable(offer):
            rows.append(_row(offer._replace(version=version_of(offer.distribution))))
        else:
            rows.append(_unused(offer, f"not installed; {INSTALL[offer.name]}")._replace(installed=False))
    others = [offer for offer in scan(warn=False) if not is_ours(offer)]
    return rows + [_checked(offer, others) for offer in others]


def _checked(offer: Offer, others: list[Offer]) -> Row:
    problem = offer.problem or (offer.name in OURS and shadowing(offer)) or switched_off(offer)
    if problem:
        return _unused(offer, problem)
    row = _row(offer)
    rivals = [
        str(other)
        for other in others
        if other.name == offer.name and other.distribution != offer.distribution and not switched_off(other)
    ]
    if not rivals:
        return row
    shared = f"{' and '.join(rivals)} offers this name too: write `{offer.full_name}`"
    return row._replace(problem=f"{shared}; {row.problem}" if row.problem else shared)


def _unused(offer: Offer, problem: str) -> Row:
    return Row(offer.name, offer.value, offer.distribution, offer.version, "", problem)


def _row(offer: Offer) -> Row:
    try:
        runner = class_of(offer)
    except TaskRunnerError as error:
        return _unused(offer, str(error).partition("\n")[0])
    # The name it was given for others to use, not the private module that it may be written in.
    path = offer.value if offer.attribute == runner.__name__ else f"{runner.__module__}:{runner.__qualname__}"
    return Row(offer.name, path, offer.distribution, offer.version, runner.concurrency.value, "")
