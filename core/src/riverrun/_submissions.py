"""One task run on its way from the call to its final state.

What happens to it may come from many threads: the flow's, a worker's, a timer's, one that cancels. The common way
takes no lock: a lock that every task takes is one that all threads queue for, and each of them gives up the
interpreter while it waits. Two operations on dicts, which are atomic, decide who may do what:

* `home.queued.pop(number)`: whoever gets the submission may begin the attempt (or cancel it).
* `home.open.pop(number)`: whoever gets it may end the run; there is one final state.

A run stays in `home.live` until everybody has been told of its end: hooks, callbacks, dependents.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from riverrun import _async, _logging, _names
from riverrun._attempts import NO_KEYWORDS, NOTHING, Attempts
from riverrun._context import this_thread
from riverrun._endings import failed, is_interrupt, not_ready, not_taken, returned, run_hook
from riverrun._futures import LOCKS, TaskFuture
from riverrun._outcomes import Outcome
from riverrun.exceptions import RunTimeout, WorkerLost
from riverrun.states import COMPLETED, PENDING, AwaitingRetry, Cancelled, Crashed, State

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from riverrun.exceptions import CrashedRun

MAX_LOSSES_BEFORE_IT_BEGAN: Final = 20
"""How often a run may be sent anew because its worker was gone before it began; more often, something is wrong."""


class Gate(Protocol):
    """Decides when, and with what, a submission is dispatched."""

    def enter(self, job: Submission) -> None:
        """Take a submission that is ready."""
        ...

    def leave(self, job: Submission) -> None:
        """Note that a submission is final."""
        ...


class Submission(Attempts):
    """A task run on its way to its final state."""

    gate: Gate | None = None
    in_gate = False
    cache_key: tuple[str, str] | None = None
    waiting = False
    """Whether it waits for an upstream, a gate or a timer, and was not dispatched."""
    _countdown: Any = None
    losses = 0
    """How often it was lost with its worker."""
    losses_before_it_began = 0
    more_retries = 0
    """How often it may be tried again at least, as somebody else than the task says."""
    sent_early = False
    """Whether it was handed to the executor while upstreams had not ended, and one of them may still call it back."""
    early_handles: dict[int, Any] = {}  # noqa: RUF012 - never changed, only replaced, as the next one
    early_dependents: list[Submission] = []  # noqa: RUF012

    # -- before it runs

    def await_upstreams(self, upstreams: list[tuple[Any, bool]], *, early: bool = True) -> None:
        """Go on when every upstream is final; each comes with "may it fail?".

        Args:
            upstreams: futures and States.
            early: whether the executor may get it before that, if it knows how to wait for them.
        """
        self._upstreams = upstreams
        self.waiting = True
        remote = self.home.remote
        if remote is not None and early:
            with remote.early:
                if remote.can_send_early(self, upstreams):
                    self.sent_early = True
                    self.dispatch()
        pending = [up for up, _ in upstreams if isinstance(up, TaskFuture) and up._run.final is None]  # noqa: SLF001
        if len(pending) == 1:
            if not pending[0]._add_callback(self._only_upstream_done):  # noqa: SLF001
                self.ready()
            return
        # Each upstream takes one number, on its own thread; who gets 0 is the last. It starts one higher than there
        # are, so that nobody is before all are registered.
        self._countdown = iter(range(len(pending), -1, -1))
        for upstream in pending:
            if not upstream._add_callback(self._upstream_done):  # noqa: SLF001
                self._upstream_done(upstream)
        self._upstream_done(None)

    def _only_upstream_done(self, _: object) -> None:
        if self.run.final is None:
            self.ready()

    def _upstream_done(self, _: object) -> None:
        if next(self._countdown) == 0 and self.run.final is None:
            self.ready()

    def ready(self) -> None:
        """Run it if its upstreams allow that."""
        if self.sent_early and self._is_on_its_way():
            return
        for upstream, may_fail in self._upstreams:
            state = upstream if isinstance(upstream, State) else upstream._run.final  # noqa: SLF001
            if state is not COMPLETED and not may_fail and not state.is_completed():
                self.finish(not_ready(upstream, state))
                return
        if self.task.needs_parameters and not self._named_and_not_cached():
            return
        if self.gate is None:
            self.dispatch()
        else:
            self.gate.enter(self)

    def _is_on_its_way(self) -> bool:
        """Say whether it was sent early, and rightly: every upstream is final, and none of them will call it back."""
        with self._early_lock():
            if not self.sent_early:
                return False
            self.sent_early, self.early_handles = False, {}
            rightly = all(
                may_fail or (upstream if isinstance(upstream, State) else upstream._run.final).is_completed()  # noqa: SLF001
                for upstream, may_fail in self._upstreams
            )
            if not rightly:  # the cluster drops it: that was no attempt
                with self.run.lock:
                    self.attempt += 1
                    self.run.run_count -= 1
            return rightly

    def called_back(self) -> list[Submission]:
        """Wait for the upstreams again, after it was sent early; give those that were sent after it.

        What becomes of the attempt that was sent is nobody's concern: its upstream has ended without a value.
        """
        with self.run.lock:
            if self.run.final is not None or not self.sent_early:
                return []
            self.sent_early, self.early_handles = False, {}
            self.attempt += 1
            self.run.run_count -= 1
            self.state = PENDING
            self.waiting = True
            self.handle = None
            dependents, self.early_dependents = self.early_dependents, []
            return dependents

    def _named_and_not_cached(self) -> bool:
        """Render a name of the user's and look into the cache; false if that ended the run."""
        try:
            args, kwargs = self.arguments()
            parameters = self.task.parameters(args, kwargs)
            name = _names.render(self.task.task_run_name, parameters, option="task_run_name")
            if name is not None:
                self.run._name = name  # noqa: SLF001
            cached = self.task.cache.look_up(self, parameters) if self.task.cache else None
        except Exception as error:  # noqa: BLE001 - the user's template, callable or key function
            self.finish(failed(error))
            return False
        if cached is not None:
            self.finish(cached.with_data(None), cached.data)
            return False
        return True

    def dispatch(self, to: Callable[[Submission], object] | None = None) -> None:
        """Hand it to the executor, or to something else that runs it."""
        home, run = self.home, self.run
        if home.logs_info and run.run_count == 0:
            _logging.task_logger.info("Submitting task run %r to task runner...", run.name, extra=self.log_fields())
        if self.waiting:
            with LOCKS[run.number & 63]:  # `cancel` looks at `waiting` under the same lock
                self.waiting = False
                if run.final is not None:
                    return
        home.queued[run.number] = self
        try:
            (home.dispatch if to is None else to)(self)
        except Exception as error:  # noqa: BLE001 - the executor is broken or stopped; the run must end all the same
            self.finish(not_taken(run.name, error))

    # -- after an attempt

    def end(self, attempt: int, outcome: Outcome) -> float | None:
        """Take the outcome of an attempt; give the delay in seconds if the caller is to make another."""
        if attempt == self.attempt:
            self.handle = None
        error = outcome.error
        if error is None:
            value = outcome.value
            if isinstance(value, State):
                self.finish(*returned(value), attempt=attempt)
            else:
                if self.task.cache is not None and attempt == self.attempt:
                    self.task.cache.store(self, value)
                self.finish(COMPLETED, value, attempt)
            return None
        state = failed(error)
        if state.is_failed() or isinstance(error, WorkerLost):
            delay = self._delay_before_retry(attempt, state)
            if delay is not None:
                return self._try_again(attempt, state, delay)
        self.finish(state, attempt=attempt)
        if is_interrupt(error):
            raise error
        return None

    def _delay_before_retry(self, attempt: int, state: State) -> float | None:
        task = self.task
        if (
            self.run.run_count - self._losses_allowed() > self._retries()
            or attempt != self.attempt
            or self.cancelled
            or self.home.closed is not None
        ):
            return None
        condition = task.retry_condition_fn
        if condition is not None:
            try:
                if not condition(task, self.run, state):
                    return None
            except BaseException as raised:
                if is_interrupt(raised):
                    raise
                text = "retry_condition_fn of task run %r raised: it is not tried again."
                _logging.task_logger.error(text, self.run.name, exc_info=raised, extra=self.log_fields())
                return None
        return task.retry_delay(self.run.run_count - self._losses_allowed())

    def _retries(self) -> int:
        return max(self.task.retries, self.more_retries)

    def _losses_allowed(self) -> int:
        """Give how many of its attempts were lost with a worker, and cost no retry."""
        remote = self.home.remote
        return 0 if remote is None else min(self.losses, remote.executor.max_worker_losses)

    def lost(self, attempt: int, error: CrashedRun, *, begun: bool, final: bool) -> None:
        """Take that an executor has lost the call: run it again, or end it."""
        with self.run.lock:
            if attempt != self.attempt or self.run.final is not None:
                return
            self.handle = None
            again = not (final or self.cancelled or self.home.closed is not None)
            if again and not begun and self.losses_before_it_began < MAX_LOSSES_BEFORE_IT_BEGAN:
                self.losses_before_it_began += 1
                self.attempt = attempt = attempt + 1
                self.run.run_count -= 1
                self.state = PENDING
                self.waiting = True
                told = None
            else:
                self.losses += 1
                most = self.home.remote.executor.max_worker_losses if self.home.remote else 0
                again = again and self.losses <= most
                told = f"loss {self.losses} of {most}"
        if final:
            self.finish(Crashed(str(error), error), attempt=attempt)
        elif not again:
            self.end(attempt, Outcome(None, error))
        elif told is None:
            if not self._waits_after_all():
                self.dispatch()
        else:
            self._try_again(attempt, Crashed(str(error), error), 0.0, told)

    def _waits_after_all(self) -> bool:
        """Say whether it was sent early and has to wait for its upstreams after all; their ends go on with it."""
        if not self.sent_early:
            return False
        with self._early_lock():
            waits = self.sent_early
            self.sent_early, self.early_handles = False, {}
            return waits

    def _try_again(self, attempt: int, state: State, delay: float, loss: str | None = None) -> float | None:
        in_place = self.home.retries_in_place
        with self.run.lock:
            if attempt != self.attempt or self.run.final is not None:
                return None
            self.attempt += 1  # that one is over: its time limit, or its loss, may still be told until the next begins
            self.state = AwaitingRetry(state.message, state.data)
            self.context = self.context.copy()  # the attempt that has failed may still be inside the old one
            self.waiting = not in_place
            self.stopped = False
            if self.home.observed is not None:
                self.home.observed.task_run_state_changed(self.run, self.state, time.time())
        again = None
        try:
            self._announce_retry(state, delay, loss)
        finally:  # a log handler may raise; it is tried again all the same
            if self.home.remote is not None:
                self._call_back_dependents()
            if not self._waits_after_all():
                again = self._next_attempt(delay, in_place=in_place)
        return again

    def _announce_retry(self, state: State, delay: float, loss: str | None) -> None:
        if loss is not None:
            text = "Task run %r was lost in attempt %d and is run again (%s): %s"
            _logging.task_logger.warning(
                text, self.run.name, self.run.run_count, loss, state.message, extra=self.log_fields()
            )
        else:
            _logging.task_logger.warning(
                "Task run %r failed in attempt %d of %d and is tried again in %.3g seconds: %s",
                self.run.name, self.run.run_count - self._losses_allowed(), self._retries() + 1, delay,
                state.message, extra=self.log_fields(),
            )  # fmt: skip

    def _next_attempt(self, delay: float, *, in_place: bool) -> float | None:
        if in_place:
            self.home.queued[self.run.number] = self
            return delay
        if delay:
            self.home.timers.call_after_delay(delay, self.dispatch)
        else:
            self.dispatch()
        return None

    def _early_lock(self) -> threading.RLock:
        remote = self.home.remote
        assert remote is not None, "only a remote executor gets anything early"  # noqa: S101 - said to type checkers
        return remote.early

    def _call_back_dependents(self) -> None:
        """Withdraw what was sent early and takes the value of this run, all the way down."""
        with self._early_lock():
            dependents, self.early_dependents = self.early_dependents, []
            while dependents:
                dependents.extend(dependents.pop().called_back())

    def finish(self, state: State, value: Any = None, attempt: int | None = None) -> bool:
        """Make a state the final one, and tell those who wait for it; false if there is a final one already."""
        home, run, future = self.home, self.run, self.future
        if attempt is not None and attempt != self.attempt:
            return False
        if home.open.pop(run.number, None) is None:
            return False
        future._value = value  # noqa: SLF001
        run.end_time = time.time()
        run.final = state
        future._job = None  # noqa: SLF001
        if home.observed is not None:
            with run.lock:
                home.observed.task_run_state_changed(run, state, run.end_time)
        try:
            if state is not COMPLETED or home.logs_info or self.gate is not None or self.task.has_hooks:
                self._announce(state, future)
        finally:  # a log handler may raise; those who wait are told all the same
            try:
                if future._callbacks is not None:  # noqa: SLF001
                    _cascade(future)
            finally:
                # Nothing is kept alive: a timer, or a pool's queue, may hold on to this object for long.
                if self.nested is not None:
                    self.nested.stop_timers()
                self.args = self._upstreams = NOTHING
                self.early_dependents = []
                self.surroundings = NOTHING
                self.kwargs = NO_KEYWORDS
                self.context = self.future = self.handle = None  # type: ignore[assignment]
                home.live.pop(run.number, None)
                if home.when_idle_then is not None:
                    home.tell_if_idle()
        return True

    def _announce(self, state: State, future: TaskFuture[Any]) -> None:
        logger = _logging.task_logger
        bad = state.is_failed() or state.is_crashed()
        level = logging.INFO if state.is_completed() else logging.ERROR if bad else logging.WARNING
        if logger.isEnabledFor(level):
            error = state.data if state.is_failed() else None
            if isinstance(error, BaseException) and not isinstance(error, RunTimeout):
                logger.error(
                    "Task run %r encountered an exception:", self.run.name, exc_info=error, extra=self.log_fields()
                )
            logger.log(level, "Task run %r finished in state %r", self.run.name, state, extra=self.log_fields())
        if self.gate is not None:
            self.gate.leave(self)
        for hook in self.task.hooks_for(state):
            run_hook(hook, self.task, self.run, future.state)

    # -- from outside

    def help(self, *, run_it: bool) -> None:
        """Tell the executor that this thread is going to wait; run the task here if it has not started."""
        helper = self.home.helper
        if helper is not None:
            task, home = self.task, self.home
            here = run_it and home.helps and not task.is_async and task.timeout_seconds is None
            helper(self if here and self.run.number in home.queued else _nothing)

    def cancel(self) -> bool:
        """Cancel it if it has not started, or if it can be stopped."""
        with self.run.lock:  # `dispatch` changes `waiting` under the same lock
            not_begun = self.waiting or self.home.queued.pop(self.run.number, None) is not None
            self.waiting = False
        if not_begun:
            return self.finish(Cancelled("Task run was cancelled."))
        handle = self.handle
        # The state follows when the executor, or the coroutine, has stopped.
        if handle is None:
            return False  # it goes on, with the attempts that it has left
        self.cancelled = self.stopped = True
        return _async.stop(handle)

    def abort(self, state: State) -> None:
        """End it now: it takes this state, and what its code still does is nobody's concern."""
        if self.cancel() and self.run.final is not None:
            return
        with self.run.lock:
            self.attempt += 1
        self._release()
        self.finish(state)


def _nothing() -> None:
    """Stand for a job that this thread is not to run."""


def _cascade(future: TaskFuture[Any]) -> None:
    """Call the callbacks of a future that is final.

    A callback may end another run, whose callbacks end more: they form a queue here, not a recursion, so that a chain
    of 10,000 runs that are not ready needs no deep stack.
    """
    here = this_thread
    if here.cascading:
        here.others.append(future)
        return
    here.cascading = True
    try:
        while True:
            callbacks = future._take_callbacks()  # noqa: SLF001
            for callback in callbacks if type(callbacks) is list else (callbacks,):
                try:
                    callback(future)
                except Exception:  # noqa: BLE001 - one that raises must not keep the others from being told
                    _logging.task_logger.exception("What follows on task run %r failed.", future.name)
            if not here.others:
                return
            future = here.others.popleft()
    finally:
        here.cascading = False
