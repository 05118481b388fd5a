"""Dask's performance report of one flow run."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import TaskRunnerStartError

if TYPE_CHECKING:
    from collections.abc import Iterator

_WITHIN = 60.0  # seconds that making the report may take
logger = logging.getLogger("riverrun.task_runners.dask")


@contextmanager
def performance_reported(path: str | os.PathLike[str] | None, client: Any, *, local: bool) -> Iterator[None]:
    """Write Dask's performance report of what happens in the block.

    Args:
        path: where to, or None for no report.
        client: a `distributed.Client`.
        local: whether the scheduler, which makes the report, is in this process.

    Raises:
        TaskRunnerStartError: it could not be written, as far as can be told now.
    """
    if path is None:
        yield
        return
    path = os.fspath(path)
    _refuse_missing_bokeh(path, client, local=local)
    _refuse_unwritable(path)
    report = _begin(path, client)
    try:
        yield
    finally:
        _end(path, client, report)


def _refuse_missing_bokeh(path: str, client: Any, *, local: bool) -> None:
    if find_spec("bokeh") if local else client.run_on_scheduler(_has_bokeh):
        return
    where = "" if local else f" where the scheduler at {client.scheduler.address} runs"
    raise TaskRunnerStartError(
        f"The performance report {path!r} needs the package bokeh, which is not installed{where}: "
        'pip install "runner-dask[dashboard]"'
    )


def _has_bokeh() -> bool:
    from importlib.util import find_spec

    return find_spec("bokeh") is not None


def _refuse_unwritable(path: str) -> None:
    if "://" in path:  # Dask writes to whatever fsspec can; only the end will tell
        return
    was_there = os.path.lexists(path)
    try:
        with open(path, "a"):
            pass
        if not was_there:
            os.unlink(path)
    except OSError as error:
        raise TaskRunnerStartError(
            f"The performance report cannot be written to {path!r}: {error.strerror or error}. Choose another "
            "performance_report_path."
        ) from error


def _begin(path: str, client: Any) -> Any:
    from distributed import performance_report

    make: Any = performance_report  # it has no types
    report = make(filename=path)
    _with_client(client, report.__aenter__)
    return report


def _end(path: str, client: Any, report: Any) -> None:
    async def leave() -> None:
        await report.__aexit__(None, None, None, code="A flow of Riverrun.")

    try:
        _with_client(client, leave)
    except Exception as error:  # noqa: BLE001 - the flow has ended, well or not; the report is no part of it
        logger.warning("The performance report %r was not written: %s: %s", path, type(error).__name__, error)


def _with_client(client: Any, function: Any) -> None:
    """Await a method of `performance_report`, which asks Dask for its current client.

    `Client.as_current()`, the public way, would also change Dask's configuration for every thread of the process.
    """
    from distributed.client import _current_client  # noqa: PLC2701 - see above

    token = _current_client.set(client)
    try:
        client.sync(function, callback_timeout=_WITHIN)
    finally:
        _current_client.reset(token)
