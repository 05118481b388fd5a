"""The session of Ray in this process: there is one at a time, and the flow runs that overlap share it.

`_keeper` opens and closes it.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import TaskRunnerStartError
from riverrun.workers import Deadline

from runner_ray import _addresses, _head, _keeper, _quiet
from runner_ray._keeper import Keeper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner_ray._addresses import Place
    from runner_ray._runner import RayTaskRunner

logger = logging.getLogger("riverrun.task_runners.ray")


class Session:
    """A session that is open.

    Args:
        asked: the address and the `init_kwargs` that it was opened with.
        place: where its cluster is; None if it is not known.
        temporary: whether the cluster ends with it.
        owner: whether the runner has opened it.
    """

    def __init__(self, asked: tuple[Any, Any], place: Place | None, *, temporary: bool, owner: bool) -> None:
        self.asked = asked
        self.place = place
        self.temporary = temporary
        self.is_owner = owner
        self.is_client = place is not None and place.is_client
        self.users: set[object] = set()
        """Something for each flow run that uses it now."""
        self.keeper: Keeper | None = None
        self.gone = ""
        """How it was lost; empty while it is there."""
        self._closing = threading.Lock()  # taken once, for good, by who sees first that it is lost
        self._closed = threading.Event()

    @property
    def where(self) -> str:
        """What to call the cluster, for people."""
        if self.temporary:
            return "the temporary Ray instance"
        return f"the Ray cluster at {self.place.address if self.place else 'the address of the open session'}"

    @property
    def is_reachable(self) -> bool:
        """Whether its head answers: to be seen before Ray is asked for what only the head knows.

        While there is an unanswered question, Ray does not close a session, and 60 seconds after it ends this process.
        """
        return self.place is None or self.place.answers()

    def close_lost(self) -> None:
        """Close it, for its cluster is `gone`; nobody is waited for.

        Ray would end this process, whatever it does by then, when the head of an open session was away for 60 seconds.
        """
        if self._closing.acquire(blocking=False):
            threading.Thread(target=self._close_lost, name="riverrun-ray-shutdown", daemon=True).start()

    def _close_lost(self) -> None:
        try:
            if self.keeper is not None:
                self.keeper.close()
            elif not self.is_client:  # through Ray Client, this process is not ended
                logger.warning("Closing the session of Ray that was open in this process: %s", self.gone)
                _keeper.shut_down()
        finally:
            self._closed.set()

    def await_lost(self, seconds: float) -> None:
        """Wait until it is closed, if it was lost.

        Args:
            seconds: for so long at most.
        """
        if self.gone:
            self._closed.wait(seconds)


_lock = threading.Lock()
_current: Session | None = None


@contextmanager
def opened(runner: RayTaskRunner) -> Iterator[Session]:
    """Give a session for one flow run.

    Args:
        runner: the options.

    Raises:
        TaskRunnerStartError: there is none that is as the options ask for.
    """
    user = object()
    session = _entered(runner, user)
    try:
        yield session
    finally:
        try:
            _left(session, user)
        except (KeyboardInterrupt, SystemExit):  # SIGTERM is one, and may have come before it had done anything
            _left(session, user)
            raise


def _entered(runner: RayTaskRunner, user: object) -> Session:
    global _current  # noqa: PLW0603 - one per process, as Ray's
    deadline = Deadline(runner.start_timeout)
    if not _lock.acquire(timeout=min(deadline.left, threading.TIMEOUT_MAX)):
        raise TaskRunnerStartError(
            f"`{runner!r}` was not started within {deadline.seconds:g} s: another flow run of this process was "
            "opening or closing its session of Ray all the time, and there is one per process. Allow more with "
            "start_timeout=SECONDS, or run them in processes of their own."
        )
    try:
        session = _current
        if session is not None and _is_open(session):
            _refuse_other(runner, session)
        else:
            if session is not None:
                session.await_lost(deadline.left)
                if session.keeper is not None:  # somebody else has shut its session down: it must not shut down ours
                    session.keeper.release()
            _keeper.await_closed(deadline)
            session = _current = _found_open(runner) or _new(runner, deadline)
        session.users.add(user)
        return session
    finally:
        _lock.release()


def _left(session: Session, user: object) -> None:
    """Close the session, unless others use it; called again, go on with that."""
    global _current  # noqa: PLW0603
    with _lock:
        session.users.discard(user)
        if session.users:
            return
        if _current is session:
            _current = None
        if session.keeper is not None:
            session.keeper.close()
        session.await_lost(_keeper.CLOSE_WITHIN)


def _is_open(session: Session) -> bool:
    import ray

    return bool(ray.is_initialized() and session.users and not session.gone)


def _refuse_other(runner: RayTaskRunner, session: Session) -> None:
    """Refuse a session of another flow run that was opened with other options."""
    if session.asked == (runner.address, runner.init_kwargs):
        return
    if not session.is_owner:
        _check_users_session(runner, session)
        return
    raise TaskRunnerStartError(
        f"`{runner!r}` cannot be started: another flow run of this process uses `{_said(*session.asked)}`, and Ray has "
        "one session per process. Use the same options in both, let one flow run end before the other begins, or run "
        "them in processes of their own."
    )


def _said(address: str | None, init_kwargs: dict[str, Any] | None) -> str:
    from runner_ray._runner import RayTaskRunner

    return repr(RayTaskRunner(address=address, init_kwargs=init_kwargs))


def _found_open(runner: RayTaskRunner) -> Session | None:
    """Give the session that the user has opened, if there is one and it is what the options ask for."""
    import ray

    if not ray.is_initialized():
        return None
    session = Session((runner.address, runner.init_kwargs), _place_of_open_session(), temporary=False, owner=False)
    _check_users_session(runner, session)
    _quiet.quiet()
    _head.ask_ahead()
    logger.info("Using the session of Ray that is open in this process, with %s", session.where)
    return session


def _check_users_session(runner: RayTaskRunner, session: Session) -> None:
    advice = "Call `ray.shutdown()` before the flow, or make the runner without this option."
    if runner.init_kwargs:
        raise TaskRunnerStartError(
            f"`{runner!r}` cannot be started: a session of Ray is already open in this process, with {session.where}, "
            f"so `init_kwargs` would have no effect. {advice}"
        )
    if runner.address in {None, "auto"} or session.place is None:
        return
    asked, have = runner.address or "", session.place
    host, _, port = asked.removeprefix("ray://").rpartition(":")
    same_kind = asked.startswith("ray://") == have.is_client
    if not same_kind or int(port) != have.port or not _same_host(host.strip("[]"), have.host):
        raise TaskRunnerStartError(
            f"`{runner!r}` cannot be started: a session of Ray is already open in this process, with another cluster, "
            f"at {have.address}. {advice}"
        )


def _same_host(one: str, other: str) -> bool:
    import socket

    def addresses(host: str) -> set[str]:
        if host in _addresses.LOCAL:
            return {"127.0.0.1", _addresses._own_address()}  # noqa: SLF001 - of this package
        with suppress(OSError):
            return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
        return {host}

    return bool(addresses(one) & addresses(other))


def _place_of_open_session() -> Place | None:
    import ray
    from ray.util.client import ray as client

    with suppress(Exception):
        if client.is_connected():
            text = str(client.get_context().client_worker._conn_str)  # noqa: SLF001 - it has no public name
            host, _, port = text.rpartition(":")
            return _addresses.Place(f"ray://{text}", host, int(port), is_client=True)
        text = ray.get_runtime_context().gcs_address
        host, _, port = text.rpartition(":")
        return _addresses.Place(text, host.strip("[]"), int(port))
    return None


def _new(runner: RayTaskRunner, deadline: Deadline) -> Session:
    """Open a session."""
    asked = (runner.address, runner.init_kwargs)
    place = None if runner.address is None else _addresses.found(runner.address.strip(), deadline)
    session = Session(asked, place, temporary=place is None, owner=True)
    if place is None:
        logger.info("Starting a temporary Ray instance")
    else:
        logger.info("Connecting to the Ray cluster at %s", place.address)
    _quiet.quiet()
    session.keeper = keeper = Keeper(runner, session)
    try:
        keeper.start()
        keeper.wait(deadline)
        if session.place is None:
            session.place = _place_of_open_session()
    except BaseException as error:
        keeper.give_up()
        if isinstance(error, KeyboardInterrupt):
            # Here, and not as the process ends: what still starts would change its status.
            keeper.finish(_keeper.EXIT_WITHIN)
        raise
    return session
