"""The task runners that are installed: by name with `get()`, or as classes; `names()` lists them.

    >>> from riverrun import task_runners
    >>> task_runners.get("concurrent", max_workers=4)
    ConcurrentTaskRunner(max_workers=4)

A class is imported from its own package when it is first asked for:
`from riverrun.task_runners import DaskTaskRunner` imports `runner_dask` and nothing of any other task runner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from riverrun._offers import OURS
from riverrun._plugins import class_names, get, load_class, names
from riverrun._suggestions import did_you_mean

if TYPE_CHECKING:  # `X as X` tells type checkers that this module offers them
    from runner_concurrent import ConcurrentTaskRunner as ConcurrentTaskRunner  # noqa: PLC0414
    from runner_dask import DaskTaskRunner as DaskTaskRunner  # noqa: PLC0414
    from runner_ray import RayTaskRunner as RayTaskRunner  # noqa: PLC0414
    from runner_sequential import SequentialTaskRunner as SequentialTaskRunner  # noqa: PLC0414

__all__ = ["get", "names"]


def __getattr__(name: str) -> Any:
    # Python itself looks for names such as `__path__`: no reason to read the metadata of all that is installed.
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    runner = load_class(name)
    if runner is None:
        known = {*(offer.attribute for offer in OURS.values()), *class_names()}
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{did_you_mean(name, known)}")
    return runner


def __dir__() -> list[str]:
    return sorted({*globals(), *class_names()})
