"""Tracebacks with the user's frames only: what lies between the user's code and itself tells the user nothing."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from riverrun.exceptions import TaskRunnerStartError

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
    if is_told(error, *machinery):
        found.__cause__, found.__suppress_context__ = None, True
    left: list[traceback.TracebackException | None] = [found]
    while left:
        one = left.pop()
        if one is not None:
            one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(places)]
            left += [one.__cause__, one.__context__, *(one.exceptions or ())]
    return "".join(found.format()).rstrip()


def is_told(error: BaseException, *machinery: str) -> bool:
    """Tell whether an error says all that its cause would tell the user: a start that failed in other people's code.

    Args:
        error: the exception.
        *machinery: as for `trimmed`.

    Returns:
        Whether it names its cause, and no frame of the cause, or of what is behind that, is in the user's own code.
    """
    behind = error.__cause__
    if not isinstance(error, TaskRunnerStartError) or behind is None or type(behind).__name__ not in str(error):
        return False
    import sysconfig

    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    others = (*(os.path.join(folder, "") for folder in folders), *_places((*_MACHINERY, *machinery)))
    seen: set[int] = set()
    while behind is not None and id(behind) not in seen:
        seen.add(id(behind))
        for frame, _ in traceback.walk_tb(behind.__traceback__):
            if not frame.f_code.co_filename.startswith(others):
                return False
        behind = behind.__cause__ or behind.__context__
    return True


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
