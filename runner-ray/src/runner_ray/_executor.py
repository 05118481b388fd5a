"""The executor of one flow run: it sends calls to Ray, and hears what becomes of them.

::

    send(call) --- two references: outcome, value ---> worker: `_worker.run`
                                                            | outcome: small, to the flow's process
    report.ended / lost <--- waiter thread (`_waiter`) <----+ value: stays in the object store

Nothing is exported or pickled per call but the call itself; no thread per call. One thread waits for outcomes; `_watch`
looks whether the cluster is there, and `_lost` finds out how calls were lost.
"""

from __future__ import annotations

import pickle
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import CrashedRun, TaskSerializationError, WorkerLost

from runner_ray import _wanted, _worker
from runner_ray._functions import Functions
from runner_ray._guests import Guests
from runner_ray._loss import full, is_full
from runner_ray._lost import Losses, takes_what_is_gone
from runner_ray._open import OpenCalls
from runner_ray._sending import Sending, Value
from runner_ray._shared import Shared, opened
from runner_ray._waiter import Waiter
from runner_ray._watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.abc import TaskCall, TaskReport

    from runner_ray._runner import RayTaskRunner
    from runner_ray._sessions import Session

WITHDRAWN_WITHIN = 1.0
"""Seconds in which Ray says of a call that it was withdrawn; after them it counts as begun."""


@contextmanager
def executor(runner: RayTaskRunner, session: Session) -> Iterator[RayTaskExecutor]:
    """Work with a cluster for one flow run, and leave nothing on it.

    Args:
        runner: the options.
        session: the session of Ray.
    """
    made = RayTaskExecutor(runner, session)
    try:
        made.begin()
        yield made
    finally:
        made.close()


class RayTaskExecutor:
    """Runs the calls of one flow run on Ray (`riverrun.abc.RemoteTaskExecutor`)."""

    cancel_is_exact = True
    """A call that `cancel` does not withdraw has begun, or has ended: news of it has come, or will come."""

    def __init__(self, runner: RayTaskRunner, session: Session) -> None:
        import ray

        self.max_worker_losses = runner.max_worker_losses
        self._ray = ray
        self._session = session
        self._open = OpenCalls()
        self._waiter = Waiter(self._arrived, self._open)
        self._disconnected: str | None = None
        self._guests = Guests(runner, session)
        self._functions: Functions | None = None
        self._losses = Losses(self._guests, self._open)
        self._watch = Watch(session, self._guests, self._open, self._disconnect, stall_after=runner.stall_after)

    def begin(self) -> None:
        """Get to know the nodes of the cluster."""
        self._guests.welcome()
        self._functions = Functions(self._guests.parcels, self._session)
        self._waiter.start()
        self._watch.start()

    def close(self) -> None:
        """Leave the cluster as it was found."""
        self._watch.stop()
        self._losses.stop()
        self._waiter.stop()
        if self._disconnected is None and (not self._session.temporary or len(self._session.users) > 1):
            if self._open:  # the flow was interrupted, or left something behind
                self._end_by_force(self._open.all())
            self._guests.goodbye()
        for sending in self._open.all():
            self._open.take(sending)
        self._waiter.join()

    def _end_by_force(self, sendings: list[Sending]) -> None:
        """End calls on a cluster that goes on; with their worker processes, if they run there."""
        # Those that take what has no value never begin, and Ray is about to end them itself: if it is told to end one
        # at that moment, an assertion of its own ends this process ("Tried to complete task that was not pending").
        doomed = _doomed(sendings)
        sendings = [sending for sending in sendings if sending.key not in doomed]
        for sending in sendings:
            with suppress(Exception):
                self._ray.cancel(sending.value.outcome, force=True)
        # Once Ray was asked to withdraw a call, it ignores the force; its node ends the worker instead.
        if asked := [sending.key for sending in sendings if sending.withdrawn]:
            with suppress(Exception):
                self._guests.end_workers(asked)

    # -- what the engine asks for

    def send(self, call: TaskCall, report: TaskReport, /) -> Value:
        """Send a call to a worker; give the handle of its value."""
        self._check_connection(f"Task run {call.name!r} was not sent")
        options = _wanted.wanted(call)
        needs = _wanted.demand(options)
        self._guests.refuse_unmet(call.name, needs, options)
        upstreams, call.upstreams = call.upstreams, ()
        payload = _worker.payload_of(call)
        call.upstreams = upstreams
        value = Value(call.key)
        sending = Sending(call.key, call.name, value, upstreams=upstreams, report=report, needs=needs)
        self._open.add(sending)
        if self._disconnected is not None:  # since the check above
            if not self._open.take(sending):
                return value  # `_disconnect` has seen it, and told
            raise CrashedRun(f"Task run {call.name!r} was not sent: {self._disconnected}")
        assert self._functions is not None, "it has begun"  # noqa: S101 - said to type checkers
        try:
            value.outcome, value.ref = self._functions.call(
                options, call.name, payload, [upstream.ref for upstream in upstreams]
            )
            self._waiter.take(sending)
        except BaseException as error:
            if not self._open.take(sending) and isinstance(error, Exception):
                return value  # `_disconnect` has told
            if isinstance(error, ConnectionError):
                raise CrashedRun(f"Task run {call.name!r} was not sent: {error}") from error
            raise
        return value

    def _check_connection(self, what: str) -> None:
        if self._disconnected is None:
            self._watch.check()
        if self._disconnected is not None:
            raise CrashedRun(f"{what}: {self._disconnected}")

    def fetch(self, handle: Any, /) -> object:
        """Bring a value here."""
        from ray.exceptions import RayError

        if self._disconnected is None:
            self._watch.look_closely()  # Ray ends this process if it reads from an object store that is gone
        if self._disconnected is not None:
            handle.lost = True
            raise WorkerLost(f"The value of {handle.key!r} cannot be fetched: {self._disconnected}")
        try:
            found = self._ray.get(handle.ref)
        except (RayError, ConnectionError) as error:
            if is_full(error):
                raise CrashedRun(f"The value of {handle.key!r} cannot be fetched: {full(error)}") from error
            handle.lost = True
            why = str(error).partition("\n")[0]
            raise WorkerLost(f"The value of {handle.key!r} cannot be fetched: object lost ({why})") from error
        try:
            return opened(found)
        except Exception as error:
            msg = f"The value of {handle.key!r} cannot be rebuilt in the flow's process: {error}"
            raise TaskSerializationError(msg) from error

    def holds(self, handle: Any, /) -> bool:
        """Say whether a value is not known to be lost."""
        return not handle.lost

    def put(self, value: object, /) -> Value:
        """Bring a value of the flow's process to the cluster."""
        if self._disconnected is None:
            self._watch.look_closely()
        if self._disconnected is not None:
            raise CrashedRun(self._disconnected)
        try:
            return Value("", self._ray.put(Shared.of(value)))
        except Exception as error:
            if is_full(error):
                raise CrashedRun(f"A large argument cannot be brought to the cluster: {full(error)}") from error
            raise

    def cancel(self, handle: Any, /) -> bool:
        """Withdraw the call that was to make a value, if it has not begun."""
        return bool(self.cancel_together([handle]))

    def cancel_together(self, handles: list[Any], /) -> list[Any]:
        """Withdraw calls; give the handles of those of which it is certain that they have not begun."""
        asked: list[Sending] = []
        for handle in self._guests.not_begun(handles):  # for a call that Ray was asked to withdraw, it ignores force
            sending = self._open.get(handle.key)
            if sending is None or sending.begun or handle.outcome is None or self._disconnected is not None:
                continue
            self._losses.ask(sending)
            asked.append(sending)
        certain = self._withdrawn(asked)
        withdrawn = [
            sending.value for sending in asked if self._losses.asked(sending, is_certain=sending.key in certain)
        ]
        # Looked at last: what Ray has given up meanwhile is told of to nobody.
        return withdrawn + [handle for handle in handles if handle.is_void and handle not in withdrawn]

    def _withdrawn(self, sendings: list[Sending]) -> set[str]:
        """Ask Ray to withdraw calls; give the keys of those that have not begun, and will not."""
        outcomes = {sending.key: sending.value.outcome for sending in sendings}
        outcomes = {key: outcome for key, outcome in outcomes.items() if outcome is not None}  # it has ended just now
        try:
            for outcome in outcomes.values():
                self._ray.cancel(outcome, force=False, recursive=False)
            waiting = [outcomes[value.key] for value in self._guests.not_begun([sending.value for sending in sendings])
                       if value.key in outcomes]  # fmt: skip
            if waiting:
                self._ray.wait(waiting, num_returns=len(waiting), timeout=WITHDRAWN_WITHIN, fetch_local=False)
            gone = {sending.key: sending for sending in sendings if sending.key in outcomes}
            withdrawn = [key for key, outcome in outcomes.items() if self._was_withdrawn(gone[key], outcome)]
            return self._guests.never_began(withdrawn)
        except Exception:  # noqa: BLE001 - the cluster goes down, say: then nothing is certain
            return set()

    def _was_withdrawn(self, sending: Sending, outcome: Any) -> bool:
        """Say whether a call has ended because it was cancelled, or because something that it takes has no value."""
        from ray.exceptions import TaskCancelledError

        try:
            self._ray.get(outcome, timeout=0)
        except TaskCancelledError:
            return True
        except Exception as error:  # noqa: BLE001 - it runs, or has ended in another way
            return takes_what_is_gone(sending, error)
        return False

    # -- what becomes of calls

    def _arrived(self, sending: Sending, result: Any) -> None:
        """Take an outcome, or the exception that came instead; called on the waiter's thread."""
        if self._open.get(sending.key) is not sending:
            return
        try:
            if type(result) is bytes:
                outcome = pickle.loads(result)  # noqa: S301 - from a task
                sending.value.outcome = None
                if self._open.take(sending):
                    sending.report.ended(outcome, sending.value)
            else:
                self._losses.take(sending, result)
        except Exception as error:  # noqa: BLE001 - nobody would see it here, and the run would never end
            text = f"Task run {sending.name!r}: what Ray gave for it cannot be read: {error!r}"
            self._open.lose(sending, CrashedRun(text), final=True)

    def _disconnect(self, why: str) -> None:
        """Note that the cluster is gone: nothing more will be heard of what is there."""
        self._disconnected = why
        for sending in self._open.all():
            self._open.lose(sending, CrashedRun(f"Task run {sending.name!r}: {why}"), final=True)
        self._waiter.stop()
        self._waiter.join()  # the session is closed next, and nobody may wait with it by then


def _doomed(sendings: list[Sending]) -> set[str]:
    """Give the keys of those calls that take something which has no value, or never will."""
    doomed: set[str] = set()
    before = -1
    while len(doomed) != before:  # what takes a value of one of these is one of these
        before = len(doomed)
        doomed |= {
            sending.key
            for sending in sendings
            if any(value.failed or value.is_void or value.key in doomed for value in sending.upstreams)
        }
    return doomed
