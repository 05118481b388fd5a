"""The suite as a whole: all obligations in one class."""

from __future__ import annotations

from riverrun.testing._asynchrony import Asynchrony
from riverrun.testing._awkward import AwkwardObjects
from riverrun.testing._callbacks import Callbacks
from riverrun.testing._cancellation import Cancellation
from riverrun.testing._contract import Contract
from riverrun.testing._in_flight import InFlight
from riverrun.testing._interrupts import Interrupts
from riverrun.testing._life_cycle import LifeCycle
from riverrun.testing._lost_workers import LostWorkers
from riverrun.testing._observation import Observation
from riverrun.testing._observers import Observers
from riverrun.testing._order import Order
from riverrun.testing._retries_and_timeouts import RetriesAndTimeouts
from riverrun.testing._scale import Scale
from riverrun.testing._sharing import Sharing
from riverrun.testing._values import Values


# pytest begins with the last one. The tests with many tasks come early: they find out that a runner loses one of fifty.
class TaskRunnerConformance(
    Interrupts,
    Sharing,
    Observers,
    Observation,
    LostWorkers,
    AwkwardObjects,
    Cancellation,
    Callbacks,
    RetriesAndTimeouts,
    Asynchrony,
    InFlight,
    Order,
    Values,
    LifeCycle,
    Scale,
    Contract,
):
    """Tests that every task runner passes: a runner's own tests are a subclass with the fixture `task_runner`.

    After three tests that ran into their time limit the others are left out, and pytest's summary says so: on a runner
    that loses calls, they would do the same, one after the other.

    A second fixture, `unstartable_task_runner`, may give a runner whose start fails: then that is tested too.

    Attributes:
        time_limit: how long one test may take, in seconds, before it fails; a runner that starts slowly needs more.
            Once one has taken all of it, the others have a quarter.
        workers: how many sync tasks the runner of the fixture can run at once, at least; with 1, the tests of
            overlapping are left out. A sequential runner need not say it.
        replaces_lost_workers, survives_lost_workers: what the class of the runner declares, unless it is otherwise with
            the options of the fixture. A runner in other processes that declares one of them is tested for it; every
            such runner has to end the flow, and the run as Crashed.
        workers_are_threads: whether the workers of a runner whose calls travel to other processes are threads of this
            process all the same, with the options of the fixture: then the tests that kill a worker are left out.

    Example:
        >>> import pytest
        >>> from riverrun.task_runners import ConcurrentTaskRunner
        >>> from riverrun.testing import TaskRunnerConformance
        >>> class TestOneWorker(TaskRunnerConformance):
        ...     workers = 1
        ...
        ...     @pytest.fixture
        ...     def task_runner(self):
        ...         return ConcurrentTaskRunner(max_workers=1)
    """
