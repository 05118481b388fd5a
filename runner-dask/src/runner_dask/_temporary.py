"""A cluster for one flow run: made by whatever the user names, and closed on every way out."""

from __future__ import annotations

import inspect
import logging
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import TaskRunnerStartError
from riverrun.workers import Call, Overdue

from runner_dask._forks import fork_server_exists, presumed_environment, start_fork_server
from runner_dask._named import name_of, named
from runner_dask._quiet import quiet_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.workers import Deadline

    from runner_dask._runner import DaskTaskRunner

_DEFAULT = "distributed.deploy.local.LocalCluster"
_CLOSE_WITHIN = 60.0
"""Seconds that a cluster may take to close; one on other machines talks to their managers."""
_WORKERS_CLOSE_WITHIN = 2.0
"""Seconds that the workers of a cluster on this machine may take, until they are killed."""
_GONE_WITHIN = 5.0
"""Seconds that the rest of a cluster may take when its workers have been killed."""
logger = logging.getLogger("riverrun.task_runners.dask")


@contextmanager
def started(runner: DaskTaskRunner, deadline: Deadline) -> Iterator[tuple[Any, Any]]:
    """Start a cluster, and close it at the end.

    Args:
        runner: the options.
        deadline: until when it has to be there.

    Yields:
        The cluster object, and its house if it is a cluster of processes or threads on this machine, else None.

    Raises:
        TaskRunnerStartError: it did not start; what of it was there is closed.
    """
    kwargs = dict(runner.cluster_kwargs or {})
    make: Any = _DEFAULT if runner.cluster_class is None else named(runner.cluster_class)
    name = make if make is _DEFAULT else name_of(make)
    logger.info("Creating a new Dask cluster with `%s`", name)
    if name == _DEFAULT and "distributed" not in sys.modules and fork_server_exists():
        # Importing distributed is most of what a small flow does: here and in the fork server at the same time.
        start_fork_server(presumed_environment())
    from distributed import LocalCluster

    make = LocalCluster if make is _DEFAULT else make
    with ExitStack() as stack:
        house = None
        if make is LocalCluster:
            from runner_dask._local import housed, local_cluster

            minimum = None if runner.adapt_kwargs is None else int(runner.adapt_kwargs.get("minimum") or 0)
            house, kwargs = stack.enter_context(housed(kwargs, minimum=minimum))
            make = local_cluster
        cluster = _make(name, make, kwargs, house, deadline)
        if house is not None:
            house.cluster = cluster
        try:
            adapted(cluster, runner, deadline)
            yield cluster, house
        finally:
            _close(name, cluster, house)


def _make(name: str, make: Any, kwargs: dict[str, Any], house: Any, deadline: Deadline) -> Any:
    """Call what makes the cluster."""

    def close_late(cluster: Any) -> None:
        with suppress(Exception):
            _finish(cluster, cluster.close())

    call = Call(lambda: make(**kwargs), name="dask-start", unwanted=close_late)
    try:
        with ExitStack() as stack:
            if house is not None:
                stack.enter_context(house.quiet())
            try:
                cluster = call.result(deadline.left)
            except BaseException:
                if house is not None:
                    house.kill()  # then Dask takes the rest down by itself
                    call.wait(_GONE_WITHIN)
                raise
    except Overdue:
        raise TaskRunnerStartError(_not_started(name, house, f"within {deadline.seconds:g} s")) from None
    except Exception as error:
        raise TaskRunnerStartError(_not_started(name, house, f": {reason(error)}")) from error
    if "://" not in str(getattr(cluster, "scheduler_address", "")):
        close_late(cluster)
        what = "a coroutine" if inspect.isawaitable(cluster) else f"{cluster!r}"
        raise TaskRunnerStartError(
            f"`{name}` gave {what}, and not a cluster that is running. A cluster class is used with Dask's blocking "
            "interface: leave `asynchronous=True` out, and give a function that is no `async def`."
        )
    return cluster


def reason(error: BaseException) -> str:
    """Give the text of an error, and of the first one behind it."""
    first = error
    while (cause := first.__cause__) is not None:
        first = cause
    texts = [f"{type(each).__name__}: {each}".rstrip(": ") for each in (error, first)]
    return texts[0] if texts[1] in texts[0] or str(first) in texts[0] else f"{texts[0]} ({texts[1]})"


def _not_started(name: str, house: Any, why: str) -> str:
    text = f"The Dask cluster `{name}` did not start{why if why.startswith(':') else ' ' + why}."
    if house is None:
        return f"{text} Check cluster_kwargs, or allow more time with start_timeout=SECONDS."
    if asked := len(house.nannies):
        text += f" {house.began} of {asked} workers had started."
    text += " Check cluster_kwargs, or allow more time with start_timeout=SECONDS."
    if tail := house.stderr_tail():
        text += " The last lines that its workers wrote to stderr:\n" + "\n".join(
            f"  {line}" for line in tail.splitlines()
        )
    return text


def adapted(cluster: Any, runner: DaskTaskRunner, deadline: Deadline) -> bool:
    """Make a cluster adaptive, if the user asks for that.

    Args:
        cluster: a cluster object.
        runner: the options.
        deadline: until when it has to be done.

    Returns:
        Whether he does.

    Raises:
        TaskRunnerStartError: the cluster refuses.
    """
    if runner.adapt_kwargs is None:
        return False
    kwargs = dict(runner.adapt_kwargs)
    try:
        Call(lambda: _finish(cluster, cluster.adapt(**kwargs)), name="dask-adapt").result(max(deadline.left, 1))
    except Overdue:
        text = f"`{name_of(type(cluster))}.adapt` did not return within start_timeout, {deadline.seconds:g} s."
        raise TaskRunnerStartError(text) from None
    except Exception as error:
        text = f"`{name_of(type(cluster))}` cannot be made adaptive with adapt_kwargs={kwargs!r}: {reason(error)}"
        raise TaskRunnerStartError(text) from error
    return True


def _finish(cluster: Any, result: Any) -> Any:
    """Await what a method of a cluster returned, if it is a coroutine, on the cluster's own event loop."""
    if not inspect.isawaitable(result):
        return result

    async def finish() -> Any:
        return await result

    loop = getattr(cluster, "loop", None)
    if loop is None:
        import asyncio

        return asyncio.run(finish())
    from distributed.utils import sync

    return sync(loop, finish)


def _close(name: str, cluster: Any, house: Any) -> None:
    """Close a cluster; in any case this ends."""
    call = Call(lambda: _finish(cluster, cluster.close()), name="dask-close")
    with quiet_loop(getattr(cluster, "loop", None)):
        try:
            if house is None:
                call.result(_CLOSE_WITHIN)
            else:
                if not call.wait(_WORKERS_CLOSE_WITHIN):
                    house.kill()
                call.result(_GONE_WITHIN)
        except Overdue:
            logger.warning("The Dask cluster `%s` is still closing; something of it may be left.", name)
        except Exception as error:  # noqa: BLE001 - the flow has ended, well or not
            logger.warning("The Dask cluster `%s` was closed with an error: %s", name, reason(error))
        except BaseException:  # an interrupt
            if house is not None:
                house.kill()
                call.wait(_GONE_WITHIN)
            raise
        finally:
            if house is not None:
                house.kill()
