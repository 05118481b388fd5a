"""A temporary instance of Ray on this machine: with what it is started, and what it leaves behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runner_ray._addresses import loopback_only

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST = 25
"""Characters of the folder for temporary files; Ray makes the names of sockets of it, which may not be long."""


@contextmanager
def folder(init_kwargs: dict[str, Any]) -> Iterator[str | None]:
    """Give a folder for the files of one instance, and remove it at the end; None where the user has named one."""
    if "_temp_dir" in init_kwargs:
        yield None
        return
    parent = tempfile.gettempdir()
    made = tempfile.mkdtemp(prefix="riverrun-ray-", dir=parent if len(parent) <= _LONGEST else _short_parent())
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _short_parent() -> str | None:
    return "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108 - a folder of our own is made in it


@contextmanager
def environment() -> Iterator[None]:
    """Let the processes of an instance inherit what keeps it to itself, and leave this process's variables alone.

    Ray itself sets `RAY_AUTH_MODE=token` for an instance that is started here, unless the user has set it.
    """
    names = ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def started(init_kwargs: dict[str, Any], place: str | None) -> Any:
    """Start an instance.

    Args:
        init_kwargs: the user's.
        place: the folder for its files.

    Returns:
        What `ray.init` gives.
    """
    import ray

    kwargs: dict[str, Any] = {"include_dashboard": False, "configure_logging": True}
    if place is not None:
        kwargs["_temp_dir"] = place
    kwargs.update(quiet_logging())
    kwargs.update(init_kwargs)
    with loopback_only(wanted="_node_ip_address" not in init_kwargs):
        if "_node_ip_address" not in init_kwargs:
            kwargs["_node_ip_address"] = "127.0.0.1"
        return ray.init("local", **kwargs)


def quiet_logging() -> dict[str, Any]:
    """Give what keeps Ray from telling in this process what the runner's own log says."""
    import logging

    return {"logging_level": logging.WARNING}
