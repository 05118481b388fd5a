"""The session of Ray in this process: there is one at a time, and the flow runs that overlap share it.

A thread of its own opens a session and closes it, and lives as long as it: on Linux, the processes of an instance end
together with the thread that started them.
"""

from __future__ import annotations

import atexit
import logging
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import TaskRunnerStartError
from riverrun.workers import Deadline

from runner_ray import _addresses, _quiet, _temporary
from runner_ray._signals import sigterm_kept
from runner_ray._start_errors import explained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner_ray._addresses import Place
    from runner_ray._runner import RayTaskRunner

logger = logging.getLogger("riverrun.task_runners.ray")
LOOK_EVERY = 0.1
"""Seconds; a Ctrl-C while a session opens is seen at once on POSIX, and within this time on Windows."""
TRIES = 3
"""How often Ray Client is asked for a session, while its servers do not start."""
CLOSE_WITHIN = 30.0
"""Seconds that Ray's own shutdown may take; it takes one or two, and five where the cluster is gone."""

EXIT_WITHIN = 5.0
"""Seconds that a Ctrl-C, or the end of this process, waits for a start that was given up."""


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
        self.users = 0
        self.keeper: _Keeper | None = None
        self.gone = ""
        """How it was lost; empty while it is there."""
        self._closer: threading.Thread | None = None
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
        with _losing:
            if self._closer is not None:
                return
            self._closer = threading.Thread(target=self._close_lost, name="riverrun-ray-shutdown", daemon=True)
        self._closer.start()

    def _close_lost(self) -> None:
        try:
            if self.keeper is not None:
                self.keeper.close()
            elif not self.is_client:  # through Ray Client, this process is not ended
                logger.warning("Closing the session of Ray that was open in this process: %s", self.gone)
                _shut_down()
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
_losing = threading.Lock()
_current: Session | None = None
_unfinished: _Keeper | None = None
"""Of a start that was given up; when Ray has come back to it, it shuts Ray down, whoever uses it by then."""


@contextmanager
def opened(runner: RayTaskRunner) -> Iterator[Session]:
    """Give a session for one flow run.

    Args:
        runner: the options.

    Raises:
        TaskRunnerStartError: there is none that is as the options ask for.
    """
    session = _entered(runner)
    try:
        yield session
    finally:
        _left(session)


def _entered(runner: RayTaskRunner) -> Session:
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
            _await_unfinished(deadline)
            session = _current = _found_open(runner) or _new(runner, deadline)
        session.users += 1
        return session
    finally:
        _lock.release()


def _await_unfinished(deadline: Deadline) -> None:
    """Let a start that was given up end, with its instance.

    Raises:
        TaskRunnerStartError: it has not by then.
    """
    if _unfinished is None:
        return
    _unfinished.finish(deadline.left)
    if _unfinished.is_alive():
        raise TaskRunnerStartError(
            "An earlier start of Ray in this process was given up and has not come back yet. Try again later, or in a "
            "new process."
        )


def _left(session: Session) -> None:
    global _current  # noqa: PLW0603
    with _lock:
        session.users -= 1
        if session.users:
            return
        if _current is session:
            _current = None
        if session.keeper is not None:
            session.keeper.close()
        session.await_lost(CLOSE_WITHIN)


def _is_open(session: Session) -> bool:
    import ray

    return bool(ray.is_initialized()) and session.users > 0 and not session.gone


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
    session.keeper = keeper = _Keeper(runner, session)
    try:
        keeper.start()
        keeper.wait(deadline)
    except BaseException as error:
        keeper.give_up()
        if isinstance(error, KeyboardInterrupt):
            keeper.finish(EXIT_WITHIN)  # here, and not as the process ends: what still starts would change its status
        raise
    if session.place is None:
        session.place = _place_of_open_session()
    return session


class _Keeper(threading.Thread):
    """The thread that opens a session, and closes it when it is told to."""

    def __init__(self, runner: RayTaskRunner, session: Session) -> None:
        super().__init__(name="riverrun-ray-session", daemon=True)
        self._runner = runner
        self._session = session
        self._ready = threading.Event()
        self._released = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            with ExitStack() as stack:
                self._open(stack)
                self._ready.set()
                self._released.wait()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._error = error
        finally:
            self._ready.set()

    def _open(self, stack: ExitStack) -> None:
        kwargs = dict(self._runner.init_kwargs or {})
        place = self._session.place
        stack.enter_context(_quiet.losses_unprinted())
        if place is None:
            folder = stack.enter_context(_temporary.folder(kwargs))
            stack.enter_context(_temporary.environment())
            stack.callback(_shut_down)
            with sigterm_kept():
                context = _temporary.started(kwargs, folder)
            if url := getattr(context, "dashboard_url", ""):
                logger.info("The Ray dashboard is available at http://%s", url)
            return
        stack.callback(_shut_down)
        with _addresses.loopback_only(wanted=place.on_loopback), sigterm_kept():
            _connect(place, {**_temporary.quiet_logging(), **kwargs})

    def wait(self, deadline: Deadline) -> None:
        """Wait until the session is open.

        Raises:
            TaskRunnerStartError: it cannot be opened, or is not by then.
        """
        while not self._ready.wait(min(LOOK_EVERY, deadline.left)):
            if not deadline.left:
                raise TaskRunnerStartError(explained(self._session, None, deadline.seconds))
        if self._error is not None:
            raise TaskRunnerStartError(explained(self._session, self._error, deadline.seconds)) from self._error

    def give_up(self) -> None:
        """Let the session be closed as soon as it is open; if it is, wait for that."""
        global _unfinished  # noqa: PLW0603 - Ray has one start at a time
        is_open = self._ready.is_set()
        self._released.set()
        if is_open:
            self.join(CLOSE_WITHIN)
        else:
            _unfinished = self
            atexit.register(self.finish, EXIT_WITHIN)  # or its processes and its folder would outlive this one

    def finish(self, seconds: float) -> None:
        """Wait until it has ended."""
        with suppress(RuntimeError):  # it was interrupted before it began
            self.join(seconds)

    def release(self) -> None:
        """Let the session be closed."""
        self._released.set()

    def close(self) -> None:
        """Close the session, and wait for that."""
        self.release()
        try:
            self.join(CLOSE_WITHIN)
        except KeyboardInterrupt:
            self.join(CLOSE_WITHIN)  # Ray's own exit would close it a second time, and end this process for that
            raise


def _connect(place: Place, kwargs: dict[str, Any]) -> None:
    """Connect to a running cluster.

    Ray starts a server of its own for each session of Ray Client; once in a while that ends as it starts, for no reason
    that it tells, and the next one starts.

    Args:
        place: where it is.
        kwargs: for `ray.init`.
    """
    import ray

    for left in reversed(range(TRIES)):
        try:
            ray.init(place.address, **kwargs)
        except ConnectionError as error:
            if not left or "Starting Ray client server failed" not in str(error):
                raise
            logger.warning("A server for Ray Client did not start at %s; trying again", place.address)
        else:
            return


def _shut_down() -> None:
    import ray

    with suppress(Exception), sigterm_kept():
        ray.shutdown()
    with suppress(ImportError):
        # Ray imports it when the interpreter exits. An import at that time lets Python forget that a Ctrl-C was the
        # reason, and the process would end with status 1 instead of 130.
        import ray.dag.compiled_dag_node
