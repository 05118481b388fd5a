"""A test by itself: with a task runner, a home and a cache of its own, and what it sets up is taken back."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from riverrun import _caching, _logging, _observing, _settings

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers: Final = itertools.count()


@contextmanager
def isolated(folder: os.PathLike[str], *, task_runner: str) -> Iterator[None]:
    """Let what happens inside be seen nowhere else.

    Args:
        folder: where its home may be; nothing is made there before something is kept.
        task_runner: the name of the task runner for flows that name none.
    """
    home = os.path.join(folder, f"riverrun-home-{os.getpid()}-{next(_numbers)}")
    with (
        _caching.emptied(),
        _logging.restored(),
        _observing.restored(),
        _settings.override(task_runner=task_runner, home=home),
    ):
        yield
