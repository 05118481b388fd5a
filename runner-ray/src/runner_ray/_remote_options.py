"""`remote_options(...)`: Ray's options for the tasks that are called in a block."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_options: ContextVar[Mapping[str, Any]] = ContextVar("riverrun_ray_options", default={})  # noqa: B039 - never changed


@contextmanager
def remote_options(**options: Any) -> Iterator[None]:
    """Give Ray's options to all tasks that are called in the block, as for `ray.remote(...)`.

    They go with each call, also with one that is sent to Ray later, when its upstreams have ended. Blocks may be
    nested: what an inner one says wins. Where a task is called for another task runner, they mean nothing.

    Args:
        options: such as `num_cpus`, `num_gpus`, `memory`, `resources`, `scheduling_strategy` or `runtime_env`.

    Raises:
        TaskRunnerOptionError: Ray has no such option, or it is one that Riverrun decides about.

    Example:
        >>> from runner_ray import remote_options
        >>> with remote_options(num_cpus=2):
        ...     pass  # call tasks here
    """
    from runner_ray._wanted import checked

    checked(options, "remote_options()")
    token = _options.set({**_options.get(), **options})
    try:
        yield
    finally:
        _options.reset(token)


def options_here() -> Mapping[str, Any]:
    """Give what the blocks around the present code say."""
    return _options.get()
