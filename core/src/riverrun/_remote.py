"""Executors that keep values on their workers: how calls get there, and what is told about them.

::

    submission --- call, handles of its upstreams ---> executor.send --> worker: values in their slots, run
        |                                                                   | small value: back with the outcome
        |   future._value = the value, or Kept(handle) <--- ended ----------+ large value: stays, `kept`
        |
        +-- sent early, before its upstreams have ended: the cluster itself starts it when they have.
            An upstream that fails ends it (NotReady); one that is tried again calls it back, to be sent anew.

Lost with its worker -> `Submission.lost`: it is run again, within `max_worker_losses`; the last time alone.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from riverrun import _inputs, _logging, _world
from riverrun._endings import failed, not_taken
from riverrun._futures import TaskFuture
from riverrun._inputs import Slot
from riverrun._kept import LARGE, Kept, Put, Recipe, digest_if_large, size_of
from riverrun._outcomes import Outcome
from riverrun.abc import CancellingTaskExecutor
from riverrun.exceptions import CrashedRun
from riverrun.states import PENDING, Cancelled, Crashed, Elsewhere

if TYPE_CHECKING:
    from logging import LogRecord

    from riverrun._calls import TaskCall
    from riverrun._submissions import Submission
    from riverrun.abc import RemoteTaskExecutor
    from riverrun.states import State


class Remote:
    """Hands the submissions of a flow run to an executor that keeps values."""

    def __init__(self, home: Any, executor: RemoteTaskExecutor) -> None:
        self.home = home
        self.executor = executor
        self.early: Final = threading.RLock()
        """Held while something is sent before its upstreams have ended, and while it is called back."""
        self.suspects = _Suspects()
        self._puts: dict[bytes, Put] = {}
        self._lacking: dict[str, tuple[str, str]] = {}
        """The module that a worker lacks, and that worker, by task: its other runs would all end like the first."""
        self._stopped: dict[int, tuple[Any, bool]] | None = None
        """What was withdrawn when the flow run was stopped, by the handle's id: the handle, and whether it was."""

    def __call__(self, job: Submission) -> None:
        """Send a submission to a worker, or let it wait for what it needs there."""
        lost = _lost_upstreams(job) if job.annotated else []
        if lost:
            _leave_queue(job)
            _world.start_thread(lambda: _restore_and_send(job, lost), name="riverrun-restore")
        elif job.losses and job.losses >= self.executor.max_worker_losses:
            # One more loss ends it: it runs while no other run of which that is true does, so that one which kills its
            # workers cannot take others with it.
            if self.suspects.enter(job):
                self._send(job)
                if job.run.final is not None:  # it could not be sent: nobody will report
                    self.suspects.leave(job)
            else:
                _leave_queue(job)
        else:
            self._send(job)

    def lacks(self, job: Submission, module: str, worker: str) -> None:
        """Note that a run has failed because a worker lacks a module; end the other runs of its task that wait."""
        task = job.task.run_key
        if task in self._lacking:
            return
        self._lacking[task] = module, worker
        for other in list(self.home.live.values()):
            if other.task.run_key == task and other.handle is not None and other.state is PENDING:
                with other.run.lock:
                    other.attempt += 1
                other.finish(failed(self._missing_module(other)))

    def _missing_module(self, job: Submission) -> ModuleNotFoundError:
        module, worker = self._lacking[job.task.run_key]
        msg = (
            f"Task run {job.run.name!r} was not run: it needs the module {module!r}, which worker {worker} does not "
            f"have, as another run of this task has found. Install it there, or send it along if the task runner has "
            f"an option for that (ship=[...])."
        )
        return ModuleNotFoundError(msg, name=module)

    def _send(self, job: Submission) -> None:
        attempt = job.claim(starts=False)
        if not attempt:
            return
        if job.task.run_key in self._lacking:
            job.finish(failed(self._missing_module(job)), attempt=attempt)
            return
        try:
            arguments = _Arguments(self, job)
            call = arguments.packed_call()
        except Exception as error:  # noqa: BLE001 - the failure of this run, and of no other
            job.end(attempt, Outcome(None, error))
            return
        report = Report(self, job, attempt, call, arguments.sources)
        try:
            handle = job.context.copy().run(self.executor.send, call, report)
        except CrashedRun as error:  # the cluster is gone
            job.finish(Crashed(str(error), error), attempt=attempt)
            return
        except Exception as error:  # noqa: BLE001 - what the runner refuses: options, resources
            job.end(attempt, Outcome(None, error))
            return
        with job.run.lock:
            if attempt == job.attempt and job.run.final is None:
                job.handle = Sent(self, job, attempt, handle)

    def can_send_early(self, job: Submission, upstreams: list[tuple[Any, bool]]) -> bool:
        """Say whether all upstreams that have not ended are on their way on this executor; call it with `early` held.

        If so, the submission has their handles, and they know of it.
        """
        if job.gate is not None or job.task.needs_parameters or job.losses:
            return False
        handles: dict[int, Any] = {}
        for upstream, may_fail in upstreams:
            if isinstance(upstream, TaskFuture) and upstream._run.final is None:  # noqa: SLF001
                sent = getattr(upstream._job, "handle", None)  # noqa: SLF001
                if may_fail or type(sent) is not Sent or sent.remote is not self:
                    return False
                handles[upstream._run.number] = sent  # noqa: SLF001
            else:
                state = _final(upstream)
                if not may_fail and not state.is_completed():
                    return False
        for sent in handles.values():
            if not sent.job.early_dependents:
                sent.job.early_dependents = []  # its own: the class has an empty one for all
            sent.job.early_dependents.append(job)
        job.early_handles = {number: sent.handle for number, sent in handles.items()}
        return True

    def withdraw(self, sent: Sent) -> bool:
        """Withdraw an attempt that has not begun; when the flow run is stopped, all of them are asked for at once."""
        executor = self.executor
        if self.home.closed is None or not isinstance(executor, CancellingTaskExecutor):
            return executor.cancel(sent.handle)
        if self._stopped is None:  # thousands may be waiting there
            attempts = [job.handle for job in reversed(list(self.home.live.values()))]
            handles = [attempt.handle for attempt in attempts if type(attempt) is Sent]
            withdrawn = {id(handle) for handle in executor.cancel_together(handles)}
            self._stopped = {id(handle): (handle, id(handle) in withdrawn) for handle in handles}
        known = self._stopped.get(id(sent.handle))
        return self.executor.cancel(sent.handle) if known is None else known[1]

    def large(self, value: Any) -> Put | None:
        """Give a large argument's place on the cluster; None for one that is not large."""
        digest = digest_if_large(value)
        if digest is None:
            return None
        return self._puts.get(digest) or self._puts.setdefault(digest, Put(self.executor, value, digest))


def _final(upstream: Any) -> State:
    state: Any = upstream._run.final if isinstance(upstream, TaskFuture) else upstream  # noqa: SLF001
    return cast("State", state)


def _leave_queue(job: Submission) -> None:
    job.waiting = True
    job.home.queued.pop(job.run.number, None)


def _lost_upstreams(job: Submission) -> list[Kept]:
    found = _inputs.upstreams_in([*job.args, *job.kwargs.values()])
    values = [upstream._value for upstream in found if isinstance(upstream, TaskFuture)]  # noqa: SLF001
    return [value for value in values if isinstance(value, Kept) and not value.is_there()]


def _restore_and_send(job: Submission, lost: list[Kept]) -> None:
    try:
        for value in lost:
            value.recipe.restore(value)
    except Exception as error:  # noqa: BLE001 - it becomes the state
        job.finish(not_taken(job.run.name, error))
    else:
        job.dispatch()


class _Arguments:
    """The arguments of one call: what is on the cluster, or large, becomes a slot, with the source of its value."""

    def __init__(self, remote: Remote, job: Submission) -> None:
        self._remote = remote
        self._job = job
        self.sources: list[Any] = []
        self._slots: dict[int, Slot] = {}
        self._args = [self._travelling(value) for value in job.args]
        self._kwargs = {name: self._travelling(value) for name, value in job.kwargs.items()}

    def packed_call(self) -> TaskCall:
        """Make the call, packed."""
        call = self._job.call(tuple(self._args), self._kwargs)
        call.pack(_logging.task_logger.getEffectiveLevel())
        if call.packed_size > LARGE:  # containers of many things, whose size nobody knew
            self._args = [self._place(value) for value in self._args]
            self._kwargs = {name: self._place(value) for name, value in self._kwargs.items()}
            call = self._job.call(tuple(self._args), self._kwargs)
            call.pack(_logging.task_logger.getEffectiveLevel())
        call.upstreams = tuple([source.handle for source in self.sources])
        return call

    def _travelling(self, value: Any) -> Any:
        if self._job.annotated:
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
        if run.final is None:
            return self._slot(_Early(self._remote, upstream, self._job.early_handles[run.number]))
        if not run.final.is_completed():
            return run.final.exception()
        value = upstream._value  # noqa: SLF001
        if isinstance(value, Kept) and value.executor is self._remote.executor:
            return self._slot(value)
        return value.fetch() if isinstance(value, Elsewhere) else value

    def _slot(self, source: Any) -> Slot:
        known = self._slots.get(id(source))
        if known is None:
            known = self._slots[id(source)] = Slot(len(self.sources))
            self.sources.append(source)
        return known


class _Early:
    """An upstream that had not ended when its handle was taken."""

    def __init__(self, remote: Remote, future: TaskFuture[Any], handle: Any) -> None:
        self._remote = remote
        self._future = future
        self.handle = handle

    def source(self) -> Any:
        """Say where its value comes from, now that it has ended."""
        value = self._future._value  # noqa: SLF001
        return value.recipe if isinstance(value, Kept) else Put(self._remote.executor, value)


def _source(value: Any) -> Any:
    """Give what a recipe remembers of a value that its call took: how to come by it, not the value."""
    if isinstance(value, Kept):
        return value.recipe
    return value.source() if isinstance(value, _Early) else value


class Sent:
    """What the engine holds of an attempt that is on its way."""

    __slots__ = ("_attempt", "handle", "job", "remote")

    def __init__(self, remote: Remote, job: Submission, attempt: int, handle: Any) -> None:
        self.remote = remote
        self.job = job
        self.handle = handle
        self._attempt = attempt

    def cancel(self) -> bool:
        """Withdraw it, if it has not begun."""
        if not self.remote.withdraw(self):
            return False
        self.job.finish(Cancelled("Task run was cancelled."), attempt=self._attempt)
        self.remote.suspects.leave(self.job)
        return True


class Report:
    """What the executor tells about one attempt (`riverrun.abc.TaskReport`)."""

    __slots__ = ("_attempt", "_call", "_job", "_remote", "_sources")

    def __init__(self, remote: Remote, job: Submission, attempt: int, call: TaskCall, sources: list[Any]) -> None:
        self._remote = remote
        self._job = job
        self._attempt = attempt
        self._call = call
        self._sources = sources

    @property
    def attempt(self) -> int:
        """Which attempt at the task run it is, from 1."""
        return self._job.run.run_count

    def retries(self, count: int, /) -> None:
        """Let the run have at least so many retries."""
        self._job.more_retries = count

    def begun(self, start_time: float, /) -> None:
        """Note that the call has begun on a worker."""
        self._job.begun(self._attempt, start_time)

    def logged(self, records: list[LogRecord], worker: str, /) -> None:
        """Show what the call has logged so far."""
        _logging.replay(records, {**self._job.log_fields(), "worker": worker})

    def ended(self, outcome: Outcome, handle: object, /) -> None:
        """Take the outcome."""
        job, attempt = self._job, self._attempt
        try:
            if attempt == job.attempt and job.run.final is None and outcome.kept:
                sources = [_source(value) for value in self._sources]
                executor, context = self._remote.executor, job.context.copy()
                recipe = Recipe(executor, self._call, sources, run=job.run, losses=job.losses, context=context)
                outcome.value = Kept(executor, handle, recipe)
                if job.task.cache is not None:
                    outcome.value = outcome.value.fetch()
            missing, worker = outcome.missing, outcome.worker
            job.took(attempt, outcome)
            if missing and job.run.final is not None:  # it has no retry left
                self._remote.lacks(job, missing, worker)
        except Exception as error:  # noqa: BLE001 - nobody would see it here, and the run would never end
            job.finish(not_taken(job.run.name, error), attempt=attempt)
        finally:
            self._remote.suspects.leave(job)

    def lost(self, error: CrashedRun, /, *, begun: bool = True, final: bool = False) -> None:
        """Run it again, or end it."""
        self._remote.suspects.leave(self._job)
        self._job.lost(self._attempt, error, begun=begun, final=final)


class _Suspects:
    """Runs that may have killed their workers: they run one after the other."""

    def __init__(self) -> None:
        self._line: deque[Submission] = deque()
        self._running: Submission | None = None
        self._lock = threading.Lock()

    def enter(self, job: Submission) -> bool:
        """Say whether it may run now; else it is in line, and is dispatched later."""
        with self._lock:
            if self._running is None or self._running is job or self._running.run.final is not None:
                self._running = job
                return True
            self._line.append(job)
            return False

    def leave(self, job: Submission) -> None:
        """Note that its attempt has ended, and let the next one run."""
        if self._running is not job:
            return
        following = None
        with self._lock:
            self._running = None
            while self._line and following is None:
                candidate = self._line.popleft()
                if candidate.run.final is None:
                    following = candidate
        if following is not None:
            following.dispatch()
