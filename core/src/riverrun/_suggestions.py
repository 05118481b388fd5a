"""The near match that an error about an unknown name ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Find the known name that a mistyped one stands for.

    Args:
        word: what was written.
        known: what may be written.

    Returns:
        A clause to append to an error, as in "; did you mean `dask`?", or a full stop where nothing is near.
    """
    from difflib import get_close_matches  # only an error pays for it

    by_lower_case = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower_case, n=1)
    return f"; did you mean `{by_lower_case[near[0]]}`?" if near else "."
