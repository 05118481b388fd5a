"""Tracebacks with the user's frames only: what lies between the user's code and itself tells the user nothing."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MACHINERY = (
    "riverrun",
    "click",
    "anyio",
    "asyncio",
    "trio",
    "concurrent.futures",
    "threading",
    "contextlib",
    "importlib",
)


def trimmed(error: BaseException, *machinery: str) -> str:
    """Format an exception, its causes and its notes, without the frames of Riverrun and of what it runs on.

    Args:
        error: the exception.
        *machinery: the names of more modules and packages whose frames are left out.

    Returns:
        Lines as Python prints them. Where no frame of the user's is left, the exception alone.
    """
    places = tuple(_places((*_MACHINERY, *machinery)))
    found = traceback.TracebackException.from_exception(error)
    left: list[traceback.TracebackException | None] = [found]
    while left:
        one = left.pop()
        if one is not None:
            one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(places)]
            left += [one.__cause__, one.__context__, *(one.exceptions or ())]
    return "".join(found.format()).rstrip()


def whole(error: BaseException) -> str:
    """Format an exception as Python does."""
    return "".join(traceback.format_exception(error)).rstrip()


def _places(modules: Iterable[str]) -> Iterable[str]:
    """Give the folders of packages and the files of modules."""
    yield "<frozen "
    for name in modules:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file:
            yield os.path.join(os.path.dirname(file), "") if os.path.basename(file) == "__init__.py" else file
