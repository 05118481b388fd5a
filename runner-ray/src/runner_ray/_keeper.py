"""The thread that opens a session of Ray and closes it.

It lives as long as the session: on Linux, the processes of an instance end together with the thread that started them.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import TaskRunnerStartError

from runner_ray import _addresses, _head, _quiet, _temporary
from runner_ray._signals import sigterm_kept
from runner_ray._start_errors import explained

if TYPE_CHECKING:
    from riverrun.workers import Deadline

    from runner_ray._addresses import Place
    from runner_ray._runner import RayTaskRunner
    from runner_ray._sessions import Session

logger = logging.getLogger("riverrun.task_runners.ray")
LOOK_EVERY = 0.1
"""Seconds; a Ctrl-C while a session opens is seen at once on POSIX, and within this time on Windows."""
TRIES = 3
"""How often Ray Client is asked for a session, while its servers do not start."""
ENDED_AT_ONCE = ("Starting Ray client server failed", "psutil.ZombieProcess", "psutil.NoSuchProcess")
"""What Ray says when such a server has ended as it started: the last two if it looked for it just then."""
CLOSE_WITHIN = 30.0
"""Seconds that Ray's own shutdown may take; it takes one or two, and five where the cluster is gone."""

EXIT_WITHIN = 5.0
"""Seconds that a Ctrl-C, or the end of this process, waits for a start that was given up."""

_told: Keeper | None = None
"""The one that was told last to close its session; until it has, it shuts Ray down some time, whoever uses it then."""


def await_closed(deadline: Deadline) -> None:
    """Let a session end that is being closed, or was given up before it was open.

    Raises:
        TaskRunnerStartError: it has not by then.
    """
    if _told is None:
        return
    _told.finish(deadline.left)
    if not _told.has_ended:
        raise TaskRunnerStartError(
            "An earlier session of Ray in this process is still being opened or closed. Try again later, or in a new "
            "process."
        )


class _Gate:
    """A `threading.Event` that a signal may interrupt anywhere.

    An exception in the middle of an Event's methods can leave its lock taken: then nobody comes past it any more.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let pass who waits, now or later; after an interrupt, call it again."""
        self.is_open = True
        with suppress(RuntimeError):  # it is open already
            self._lock.release()

    def wait(self, seconds: float = -1) -> bool:
        """Wait until it is open, not longer than so many seconds; -1: however long it takes."""
        if not self.is_open and self._lock.acquire(timeout=seconds):
            self._lock.release()
        return self.is_open


class Keeper(threading.Thread):
    """The thread that opens a session, and closes it when it is told to."""

    def __init__(self, runner: RayTaskRunner, session: Session) -> None:
        super().__init__(name="riverrun-ray-session", daemon=True)
        self._runner = runner
        self._session = session
        self._ready = _Gate()
        self._released = _Gate()
        self._ended = _Gate()  # up to Python 3.12, a thread whose join was interrupted counts as ended
        self._process = os.getpid()
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            with ExitStack() as stack:
                stack.callback(atexit.unregister, self.close)  # last of all
                self._open(stack)
                _import_what_an_exit_needs()
                # Runs before Ray's own: for a session that nobody has closed by then, or whose closing nobody awaits.
                atexit.register(self.close)
                self._ready.open()
                _head.ask_ahead()
                self._released.wait()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._error = error
        finally:
            self._ready.open()
            self._ended.open()

    @property
    def has_ended(self) -> bool:
        """Say whether what was opened is closed; also if nothing was, or by another process than this one."""
        return self.ident is None or self._ended.is_open or self._process != os.getpid()

    def _open(self, stack: ExitStack) -> None:
        kwargs = dict(self._runner.init_kwargs or {})
        place = self._session.place
        stack.enter_context(_quiet.losses_unprinted())
        if place is None:
            folder = stack.enter_context(_temporary.folder(kwargs))
            stack.enter_context(_temporary.environment())
            stack.callback(shut_down)
            with sigterm_kept():
                context = _temporary.started(kwargs, folder)
            if url := getattr(context, "dashboard_url", ""):
                logger.info("The Ray dashboard is available at http://%s", url)
            return
        stack.callback(shut_down)
        with _addresses.loopback_only(wanted=place.on_loopback), sigterm_kept():
            self._connect(place, {**_temporary.quiet_logging(), **kwargs})

    def _connect(self, place: Place, kwargs: dict[str, Any]) -> None:
        """Connect to a running cluster.

        Ray forks a server of its own for each session of Ray Client, in the middle of calls of gRPC, and gRPC's own
        preparations for that let some of them end by SIGSEGV as they start: see
        https://github.com/ray-project/ray/issues/63202. The next one may start.
        """
        import ray

        for left in reversed(range(TRIES)):
            try:
                ray.init(place.address, **kwargs)
            except ConnectionError as error:
                has_ended_at_once = any(text in str(error) for text in ENDED_AT_ONCE)
                if not left or not has_ended_at_once or self._released.is_open:
                    raise
                logger.warning(
                    "A server for Ray Client did not start at %s; trying again. Where the head was started with "
                    "GRPC_ENABLE_FORK_SUPPORT=0 in its environment, they do", place.address,
                )  # fmt: skip
            else:
                return

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

    def release(self) -> None:
        """Let the session be closed, as soon as it is open."""
        global _told  # noqa: PLW0603 - Ray has one session at a time
        if not self.has_ended:
            _told = self
        self._released.open()

    def give_up(self) -> None:
        """Let the session be closed as soon as it is open; if it is, wait for that."""
        is_open = self._ready.is_open
        self.release()
        if is_open:
            self.finish(CLOSE_WITHIN)
        else:
            atexit.register(self.finish, EXIT_WITHIN)  # or its processes and its folder would outlive this one

    def finish(self, seconds: float) -> None:
        """Wait until it has ended, if it has begun."""
        if not self.has_ended:
            self._ended.wait(seconds)

    def close(self) -> None:
        """Close the session, and wait for that."""
        try:
            self.release()
            self.finish(CLOSE_WITHIN)
        except (KeyboardInterrupt, SystemExit):  # SIGTERM is one
            # Ray's own exit would close it a second time, and end this process for that.
            self.release()
            self.finish(CLOSE_WITHIN)
            raise


def shut_down() -> None:
    """Shut Ray down, whatever it says to that."""
    import ray

    with suppress(Exception), sigterm_kept():
        ray.shutdown()


def _import_what_an_exit_needs() -> None:
    """Import what Ray imports when it is shut down.

    An import as the interpreter exits lets Python forget that a Ctrl-C was the reason, and the process would end with
    status 1 instead of 130.
    """
    with suppress(ImportError):
        import ray.dag.compiled_dag_node  # noqa: F401
