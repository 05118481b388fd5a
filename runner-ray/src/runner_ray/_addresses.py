"""Where a running cluster is, and whether something answers there: asked before Ray is, which would try for minutes."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import TaskRunnerStartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.workers import Deadline

MAX_PORT = 65535
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Place:
    """Where a cluster listens.

    Args:
        address: as `ray.init` takes it.
        host: of its head, or of its server for Ray Client.
        port: there.
        is_client: whether it is reached through Ray Client.
        on_loopback: whether it listens on the loopback interface of this machine only.
    """

    address: str
    host: str
    port: int
    is_client: bool = False
    on_loopback: bool = False

    def answers(self, seconds: float = 2.0) -> bool:
        """Say whether something listens there."""
        with suppress(OSError), socket.create_connection((self.host, self.port), seconds):
            return True
        return False


def found(address: str, deadline: Deadline) -> Place:
    """Find a running cluster.

    Args:
        address: the option of the runner.
        deadline: until when.

    Raises:
        TaskRunnerStartError: there is none.
    """
    target = _automatic() if address == "auto" else address
    is_client = target.startswith("ray://")
    host, _, port = target.removeprefix("ray://").rpartition(":")
    host = host.strip("[]")
    if "://" in target.removeprefix("ray://") or not host or not port.isdigit() or int(port) > MAX_PORT:
        raise TaskRunnerStartError(
            f"`RayTaskRunner(address={address!r})`: RAY_ADDRESS is {target!r}, and not 'host:port' or "
            "'ray://host:port'. Correct it, or give the address to the runner."
        )
    _knock(address, host, int(port), deadline, is_client=is_client)
    on_loopback = not is_client and host in LOCAL and not _is_open(_own_address(), int(port))
    return Place(target, host, int(port), is_client=is_client, on_loopback=on_loopback)


def _automatic() -> str:
    from ray._private import services  # noqa: PLC2701 - what `ray.init("auto")` itself asks

    try:
        target: str | None = services.get_ray_address_from_environment("auto", None)
    except ConnectionError:
        target = None
    if target in {None, "local", ""}:
        raise TaskRunnerStartError(
            "`RayTaskRunner(address='auto')`: no running Ray cluster was found on this machine, and RAY_ADDRESS names "
            "none. Start one with `ray start --head`, give its address, or leave address out for a temporary instance."
        )
    return str(target)


def _knock(address: str, host: str, port: int, deadline: Deadline, *, is_client: bool) -> None:
    """Refuse an address where nothing listens.

    Raises:
        TaskRunnerStartError: nothing does.
    """
    try:
        with socket.create_connection((host, port), max(deadline.left, 0.1)):
            return
    except TimeoutError:
        why = f"it does not answer within {deadline.seconds:g} s"
    except OSError as error:
        why = (error.strerror or str(error)).lower()
    how = (
        "Is the Ray Client server running there (`ray start --head --ray-client-server-port=...`; by default 10001)?"
        if is_client
        else "Is a Ray cluster running there (`ray start --head` prints its address)?"
    )
    raise TaskRunnerStartError(f"No connection to a Ray cluster at {address!r}: {why}. {how}")


def _is_open(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def _own_address() -> str:
    """Give the address that Ray takes for this machine's."""
    from ray._private import services  # noqa: PLC2701 - so that it is the same as Ray's

    return str(services.get_node_ip_address())


@contextmanager
def loopback_only(*, wanted: bool) -> Iterator[None]:
    """Let what Ray starts in the block listen on the loopback interface only.

    Ray turns every name of that interface into the address by which other machines reach this one, unless it is told
    that it cannot have other nodes: then all that it starts listens on loopback.

    Args:
        wanted: false to change nothing.
    """
    from ray._private import ray_constants  # noqa: PLC2701 - the environment variable is read once, on import

    constants: Any = ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    if wanted:
        constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
