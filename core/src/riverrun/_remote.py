"""Executors that keep values on their workers: how calls get there, and what is told about them.

::

    run --- call, handles of its upstreams ---> executor.send --> worker: values in their slots, run
        |                                                                   | small value: back with the outcome
        |   future._value = the value, or Kept(handle) <--- ended ----------+ large value: stays, `kept`
        |
        +-- sent early, before its upstreams have ended: the cluster itself starts it when they have.
            An upstream that fails ends it (NotReady); one that is tried again calls it back, to be sent anew.

Lost with its worker -> `_steps.lost`: it is run again, within `max_worker_losses`; the last time alone.
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from riverrun import _inputs, _logging, _running, _steps
from riverrun._endings import failed, not_taken
from riverrun._futures import TaskFuture
from riverrun._inputs import Slot
from riverrun._kept import LARGE, Kept, Put, Recipe, digest_if_large, size_of, when_all_there
from riverrun._pending_run import Do, Phase, RemoteState
from riverrun._telling import CallbackThread
from riverrun.abc import CancellingTaskExecutor, ExactTaskExecutor
from riverrun.exceptions import CrashedRun
from riverrun.states import PENDING, Crashed, Elsewhere, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import LogRecord

    from riverrun._calls import TaskCall
    from riverrun._engine import Home
    from riverrun._outcomes import Outcome
    from riverrun._pending_run import PendingRun
    from riverrun.abc import RemoteTaskExecutor


class RemoteDispatcher:
    """Hands the task runs of a flow run to an executor that keeps values."""

    def __init__(self, home: Home, executor: RemoteTaskExecutor) -> None:
        self.home = home
        self.executor = executor
        self.is_exact = isinstance(executor, ExactTaskExecutor) and executor.cancel_is_exact
        """Whether news of a call is certain that the executor could not withdraw."""
        self.asking: Final = CallbackThread("riverrun-recall")
        """Where the executor is asked to withdraw calls: that may take a while."""
        self._isolated = _IsolatedRuns(self._send)
        self._puts: dict[bytes, Put] = {}
        self._lacking: dict[str, tuple[str, str]] = {}
        """The module that a worker lacks, and that worker, by task: its other runs would all end like the first."""
        self._stopped: dict[int, tuple[Any, bool]] | None = None
        """What was withdrawn when the flow run was stopped, by the handle's id: the handle, and whether it was."""

    def __call__(self, run: PendingRun) -> None:
        """Send a run to a worker, or let it wait for what it needs there."""
        if run.remote is None:
            run.remote = RemoteState()
        lost = _lost_upstreams(run) if run.annotated else []
        if lost:
            when_all_there(lost, lambda error: self._go_on(run, error))
            return
        losses = run.remote.losses
        if losses and losses >= self.executor.max_worker_losses:
            # One more loss ends it: it runs while no other run of which that is true does, so that one which kills its
            # workers cannot take others with it.
            self._isolated.enter(run)
        else:
            self._send(run)

    def _go_on(self, run: PendingRun, error: Exception | None) -> None:
        """Send a run whose upstreams' values are there again."""
        try:
            if error is not None:
                raise error  # noqa: TRY301 - it is treated as what `send` raises
            if run.run.final is None:
                self(run)
        except Exception as raised:  # noqa: BLE001 - it becomes the state
            _steps.set_final(run, not_taken(run.run.name, raised))

    def released(self, run: PendingRun) -> None:
        """Note that a run is final, or that its attempt is over: the next one that has to run alone may."""
        self._isolated.leave(run)

    def lacks(self, run: PendingRun, module: str, worker: str) -> None:
        """Note that a run has failed because a worker lacks a module; end the other runs of its task that wait."""
        task = run.task.run_key
        if task in self._lacking:
            return
        self._lacking[task] = module, worker
        for other in list(self.home.live.values()):
            if other.task.run_key == task and other.phase is Phase.SENT and other.state is PENDING:
                _steps.set_final(other, failed(self._missing_module(other)))

    def _missing_module(self, run: PendingRun) -> ModuleNotFoundError:
        module, worker = self._lacking[run.task.run_key]
        msg = (
            f"Task run {run.run.name!r} was not run: it needs the module {module!r}, which worker {worker} does not "
            f"have, as another run of this task has found. Install it there, or send it along if the task runner has "
            f"an option for that (ship=[...])."
        )
        return ModuleNotFoundError(msg, name=module)

    def _send(self, run: PendingRun) -> None:
        attempt = run.try_pack()
        if attempt:
            self._send_attempt(run, attempt, {})

    def _send_attempt(self, run: PendingRun, attempt: int, early: dict[int, Any]) -> None:
        """Send one attempt.

        Args:
            run: the run.
            attempt: its number.
            early: the handles of upstreams that have not ended, by number.
        """
        if run.task.run_key in self._lacking:
            _steps.not_sent(run, attempt, self._missing_module(run))
            return
        _steps.reached("before it is packed")
        try:
            arguments = _Arguments(self, run, early)
            call = arguments.packed_call(attempt)
        except Exception as error:  # noqa: BLE001 - the failure of this run, and of no other
            _steps.not_sent(run, attempt, error)
            return
        _steps.reached("before it is sent")
        if run.packed(attempt) is not Do.SEND:
            return
        report = Report(self, run, attempt, call, arguments.sources)
        try:
            handle = run.context.copy().run(self.executor.send, call, report)
        except CrashedRun as error:  # the cluster is gone
            _steps.set_final(run, Crashed(str(error), error), attempt=attempt, begun=False)
            return
        except Exception as error:  # noqa: BLE001 - what the runner refuses: options, resources
            _steps.not_sent(run, attempt, error)
            return
        _steps.reached("after it was sent")
        in_flight = InFlightCall(self, run, handle)
        if run.sent(attempt, in_flight) is Do.WITHDRAW:
            _steps.withdraw(run, attempt, in_flight)

    def presubmit(self, run: PendingRun, upstreams: list[tuple[Any, bool]]) -> None:
        """Send a run before its upstreams have ended, if all of those are on their way on this executor."""
        if run.limiter is not None or run.launch is not None or run.task.needs_parameters:
            return
        run.remote = RemoteState()
        attempt = run.presubmit()
        if not attempt:
            return
        early = self._handles_for(run, upstreams)
        if early is None:
            run.not_presubmitted(attempt)
            return
        fields = run.log_fields()
        if run.home.logs_info:
            text = "Submitting task run %r to task runner..."
            _steps.tell(run, lambda: _logging.task_logger.info(text, run.name, extra=fields))
        self._send_attempt(run, attempt, early)

    def _handles_for(self, run: PendingRun, upstreams: list[tuple[Any, bool]]) -> dict[int, Any] | None:
        handles: dict[int, Any] = {}
        for upstream, may_fail in upstreams:
            state = _final(upstream)
            if state is None:
                pending = upstream._job  # noqa: SLF001
                if may_fail or pending is None or pending.home.dispatch.remote is not self:
                    return None
                in_flight = pending.lend(run)
                if type(in_flight) is not InFlightCall:
                    return None
                handles[upstream._run.number] = in_flight.handle  # noqa: SLF001
            elif not may_fail and not state.is_completed():
                return None
        return handles

    def withdraw(self, in_flight: InFlightCall) -> bool:
        """Withdraw an attempt that has not begun; when the flow run is stopped, all of them are asked for at once."""
        executor = self.executor
        if self.home.closed is None or not isinstance(executor, CancellingTaskExecutor):
            return executor.cancel(in_flight.handle)
        if self._stopped is None:  # thousands may be waiting there
            attempts = [run.handle for run in reversed(list(self.home.live.values()))]
            handles = [attempt.handle for attempt in attempts if type(attempt) is InFlightCall]
            withdrawn = {id(handle) for handle in executor.cancel_together(handles)}
            self._stopped = {id(handle): (handle, id(handle) in withdrawn) for handle in handles}
        known = self._stopped.get(id(in_flight.handle))
        return self.executor.cancel(in_flight.handle) if known is None else known[1]

    def large(self, value: Any) -> Put | None:
        """Return a large argument's place on the cluster; None for one that is not large."""
        digest = digest_if_large(value)
        if digest is None:
            return None
        return self._puts.get(digest) or self._puts.setdefault(digest, Put(self.executor, value, digest))


def _final(upstream: Any) -> State | None:
    return upstream if isinstance(upstream, State) else upstream._run.final  # noqa: SLF001


def _lost_upstreams(run: PendingRun) -> list[Kept]:
    found = _inputs.upstreams_in([*run.args, *run.kwargs.values()])
    values = [upstream._value for upstream in found if isinstance(upstream, TaskFuture)]  # noqa: SLF001
    return [value for value in values if isinstance(value, Kept) and not value.is_there()]


class _Arguments:
    """The arguments of one call: what is on the cluster, or large, becomes a slot, with the source of its value."""

    def __init__(self, remote: RemoteDispatcher, run: PendingRun, early: dict[int, Any]) -> None:
        self._remote = remote
        self._run = run
        self._early = early
        self._early_sources: dict[int, _Early] = {}
        self.sources: list[Any] = []
        self._slots: dict[int, Slot] = {}
        self._args = [self._travelling(value) for value in run.args]
        self._kwargs = {name: self._travelling(value) for name, value in run.kwargs.items()}

    def packed_call(self, attempt: int) -> TaskCall:
        """Make the call, packed."""
        call = self._call(attempt)
        if call.packed_size > LARGE:  # containers of many things, whose size nobody knew
            self._args = [self._place(value) for value in self._args]
            self._kwargs = {name: self._place(value) for name, value in self._kwargs.items()}
            call = self._call(attempt)
        call.upstreams = tuple([source.handle for source in self.sources])
        return call

    def _call(self, attempt: int) -> TaskCall:
        call = _running.call_for(self._run, attempt, tuple(self._args), self._kwargs)
        call.pack(_logging.task_logger.getEffectiveLevel())
        return call

    def _travelling(self, value: Any) -> Any:
        if self._run.annotated:
            value = _inputs.replace(value, self._resolve)
        return self._place(value) if (size_of(value) or 0) > LARGE else value

    def _place(self, value: Any) -> Any:
        if type(value) in {Slot, int, float, bool, type(None)} or _inputs.holds_slot(value):
            return value
        put = self._remote.large(value)
        return value if put is None else self._slot(put)

    def _resolve(self, upstream: Any, _: bool) -> Any:  # noqa: FBT001
        if not isinstance(upstream, TaskFuture):
            return upstream.data if upstream.is_completed() else upstream.exception()
        run = upstream._run  # noqa: SLF001
        if run.number in self._early:  # also if it has ended meanwhile: what is decided is decided
            return self._slot(self._source_of(upstream))
        state = run.final
        assert state is not None, "what is not sent early is sent when every upstream is final"  # noqa: S101 - a promise
        if not state.is_completed():
            return state.exception()
        value = upstream._value  # noqa: SLF001
        if isinstance(value, Kept) and value.executor is self._remote.executor:
            return self._slot(value)
        return value.fetch() if isinstance(value, Elsewhere) else value

    def _source_of(self, upstream: TaskFuture[Any]) -> _Early:
        number = upstream._run.number  # noqa: SLF001
        known = self._early_sources.get(number)
        if known is None:
            known = self._early_sources[number] = _Early(self._remote.executor, upstream, self._early[number])
        return known

    def _slot(self, source: Any) -> Slot:
        known = self._slots.get(id(source))
        if known is None:
            known = self._slots[id(source)] = Slot(len(self.sources))
            self.sources.append(source)
        return known


class _Early:
    """An upstream that had not ended when its handle was taken."""

    def __init__(self, executor: RemoteTaskExecutor, future: TaskFuture[Any], handle: Any) -> None:
        self._executor = executor
        self._future = future
        self.handle = handle
        self._put: Put | None = None

    def held(self) -> _Early:
        """Return what keeps the value alive."""
        return self

    def ensure(self, then: Callable[[Exception | None], object]) -> None:
        """See that its value is on the cluster, once it has ended (again)."""
        if self._future._add_callback(lambda _: self._ensure(then)):  # noqa: SLF001
            return
        self._ensure(then)

    def _ensure(self, then: Callable[[Exception | None], object]) -> None:
        state, value = self._future._run.final, self._future._value  # noqa: SLF001
        assert state is not None  # noqa: S101 - it is called when that is so
        if not state.is_completed():
            error = state.exception()
            then(error if isinstance(error, Exception) else CrashedRun(str(error)))
            return
        source: Any = value
        if not isinstance(value, Kept):
            source = self._put = self._put or Put(self._executor, value)

        def ensured(error: Exception | None) -> None:
            if error is None:
                self.handle = source.handle
            then(error)

        source.ensure(ensured)  # `Kept` itself is kept alive by the future


def _source(value: Any) -> Any:
    """Return what a recipe remembers of a value that its call took: how to come by it, not the value."""
    return value.recipe if isinstance(value, Kept) else value


class InFlightCall:
    """What the engine holds of an attempt that is on its way."""

    __slots__ = ("_remote", "_run", "handle")
    withdraws = True

    def __init__(self, remote: RemoteDispatcher, run: PendingRun, handle: Any) -> None:
        self._remote = remote
        self._run = run
        self.handle = handle

    def cancel(self) -> bool:
        """Withdraw it, if it has not begun."""
        return bool(self._remote.withdraw(self))

    def is_running(self) -> bool:
        """Say that it is not known to have begun: the machine knows when it is."""
        return False


class Report:
    """What the executor tells about one attempt (`riverrun.abc.TaskReport`)."""

    __slots__ = ("_attempt", "_call", "_count", "_remote", "_run", "_sources", "_told")

    def __init__(
        self, remote: RemoteDispatcher, run: PendingRun, attempt: int, call: TaskCall, sources: list[Any]
    ) -> None:
        self._remote = remote
        self._run = run
        self._attempt = attempt
        self._count = run.run.run_count + 1
        self._call = call
        self._sources = sources
        self._told = False

    def _is_first(self) -> bool:
        """Whether nobody has told yet how the call has ended: an executor may tell it twice."""
        with self._run.lock:
            told, self._told = self._told, True
            return not told

    @property
    def attempt(self) -> int:
        """Which attempt at the task run it is, from 1."""
        return self._count

    def retries(self, count: int, /) -> None:
        """Let the run have at least so many retries."""
        self._run.more_retries = count

    def begun(self, start_time: float, /) -> None:
        """Note that the call has begun on a worker."""
        self._run.begun(self._attempt, start_time)

    def logged(self, records: list[LogRecord], worker: str, /) -> None:
        """Show what the call has logged so far."""
        run = self._run
        fields = {**run.log_fields(), "worker": worker}
        _steps.tell(run, lambda: _logging.replay(records, fields))

    def ended(self, outcome: Outcome, handle: object, /) -> None:
        """Take the outcome."""
        _steps.reached("a call has ended")
        run, attempt = self._run, self._attempt
        if not self._is_first():
            return
        if run.run.final is None and attempt == run.attempt and outcome.kept:
            outcome.value = self._kept(handle)
            if run.task.cache is not None:  # it is fetched, which may take long
                run.home.dispatch.aside.run(lambda: self._take(outcome, fetch=True))
                return
        self._take(outcome)

    def _kept(self, handle: object) -> Kept:
        run, executor = self._run, self._remote.executor
        sources = [_source(value) for value in self._sources]
        losses = run.remote.losses if run.remote is not None else 0
        context = (run.context or copy_context()).copy()
        recipe = Recipe(executor, self._call, sources, run=run.run, losses=losses, context=context)
        return Kept(executor, handle, recipe)

    def _take(self, outcome: Outcome, *, fetch: bool = False) -> None:
        run, attempt = self._run, self._attempt
        missing, worker = outcome.missing, outcome.worker
        try:
            if fetch:
                outcome.value = outcome.value.fetch()
            _running.took(run, attempt, outcome)
            if missing and run.run.final is not None:  # it has no retry left
                self._remote.lacks(run, missing, worker)
        except Exception as error:  # noqa: BLE001 - nobody would see it here, and the run would never end
            _steps.set_final(run, not_taken(run.run.name, error), attempt=attempt)
        finally:
            self._remote.released(run)

    def lost(self, error: CrashedRun, /, *, begun: bool = True, final: bool = False) -> None:
        """Run it again, or end it."""
        if not self._is_first():
            return
        self._remote.released(self._run)
        _steps.lost(self._run, self._attempt, error, begun=begun, final=final)


class _IsolatedRuns:
    """Runs that may have killed their workers: they run one after the other."""

    def __init__(self, send: Callable[[PendingRun], object]) -> None:
        self._send = send
        self._line: deque[PendingRun] = deque()
        self._running: PendingRun | None = None
        self._lock = threading.Lock()

    def enter(self, run: PendingRun) -> None:
        """Send it now, if no other one runs; else when those before it have left."""
        with self._lock:
            if self._running is not None and self._running is not run and self._running.run.final is None:
                self._line.append(run)
                return
            self._running = run
        self._send(run)
        if run.phase not in {Phase.PACKING, Phase.SENT, Phase.RUNNING}:  # it was not sent, or has left already
            self.leave(run)

    def leave(self, run: PendingRun) -> None:
        """Note that its attempt has ended, and let the next one run."""
        if self._running is not run:  # so for nearly all: they need no lock
            return
        with self._lock:
            if self._running is not run:
                return
            self._running = None
        while (following := self._next()) is not None:
            _steps.launch_again(following)  # it may have to wait for a value that was lost: then the one after it runs

    def _next(self) -> PendingRun | None:
        with self._lock:
            while self._line and self._running is None:
                following = self._line.popleft()
                if following.run.final is None:
                    return following
        return None
