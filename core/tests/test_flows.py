from __future__ import annotations

import pickle
import threading

import pytest
from riverrun import (
    ConfigurationError,
    Flow,
    MissingContextError,
    ReservedArgumentError,
    UnfinishedRun,
    flow,
    task,
)
from riverrun.states import Completed

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
def broken(text: str = "text") -> int:
    raise ValueError(text)


@flow
def some_flow(a: int = 1) -> int:
    """Do something."""
    return a


# -- what a flow is


def test_a_flow_takes_its_name_from_the_function_with_dashes():
    assert (some_flow.name, some_flow.__name__, some_flow.description) == ("some-flow", "some_flow", "Do something.")
    assert repr(some_flow) == "<Flow 'some-flow'>"
    assert isinstance(some_flow, Flow)
    made = flow(name="My Flow", description="Other.", version="3")(some_flow.fn)
    assert (made.name, made.description, made.version) == ("My Flow", "Other.", "3")


def test_fn_calls_the_plain_function():
    assert some_flow.fn(5) == 5

    @flow
    def with_task():
        return add(1)

    with pytest.raises(MissingContextError):
        with_task.fn()


def test_with_options_gives_a_copy_and_changes_nothing():
    other = some_flow.with_options(name="other", retries=2)
    assert (other.name, other.retries, some_flow.name, some_flow.retries) == ("other", 2, "some-flow", 0)
    assert other.with_options(retries=0).name == "other"


def test_a_flow_of_a_module_travels_by_name():
    assert pickle.loads(pickle.dumps(some_flow)) is some_flow  # noqa: S301 - made in the line itself


def test_a_method_can_be_a_flow(task_runner):
    class Shop:
        factor = 3

        @flow(task_runner=task_runner)
        def price(self, amount: int):
            return add(self.factor, amount)

    assert Shop().price("2") == 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retries": -1}, "retries must be a whole number, 0 or more, not -1."),
        ({"retries": "1"}, "retries must be a whole number, 0 or more, not '1'."),
        ({"retry_delay_seconds": -1}, "retry_delay_seconds must be a number of seconds, 0 or more, not -1."),
        ({"timeout_seconds": 0}, "timeout_seconds must be a number of seconds, more than 0, not 0."),
        ({"timeout_seconds": "x"}, "timeout_seconds must be a number of seconds, more than 0, not 'x'."),
        ({"on_crashed": [1]}, "on_crashed must be a list of callables, such as on_crashed=[notify], not [1]."),
        ({"on_failure": "x"}, "on_failure must be a list of callables, such as on_failure=[notify], not 'x'."),
    ],
)
def test_an_impossible_option_is_refused_when_the_flow_is_made(options, text):
    with pytest.raises(ConfigurationError) as caught:
        flow(**options)(some_flow.fn)
    assert str(caught.value) == f"Flow 'some-flow': {text}"


def test_an_unknown_option_names_a_near_one_and_all_that_exist():
    with pytest.raises(ConfigurationError) as caught:
        flow(task_runer="dask")
    assert str(caught.value) == (
        "@flow has no option 'task_runer'. Did you mean 'task_runner'? The options are: name, description, version, "
        "task_runner, flow_run_name, retries, retry_delay_seconds, timeout_seconds, validate_parameters, log_prints, "
        "on_completion, on_failure, on_crashed, on_cancellation."
    )


def test_what_cannot_be_a_flow_is_refused():
    def waiting(wait_for):
        pass

    async def stream():
        yield 1

    with pytest.raises(ReservedArgumentError, match="has a parameter named 'wait_for', which every call"):
        flow(waiting)
    with pytest.raises(ConfigurationError, match=r"stream\(\) is an async generator function, which cannot be a flow:"):
        flow(stream)
    with pytest.raises(ConfigurationError, match="^@flow needs a function, not 'dask'."):
        flow("dask")


# -- values


def test_the_value_has_every_future_in_it_resolved(task_runner):
    @flow(task_runner=task_runner)
    def my_flow(kind):
        future = add(1)
        return {
            "future": future,
            "list": [future, 5],
            "dict": {"a": [future]},
            "tuple": (future, add(2)),
            "value": 7,
            "text": "text",
        }[kind]

    assert [my_flow(kind) for kind in ("future", "list", "dict", "tuple", "value", "text")] == [
        1,
        [1, 5],
        {"a": [1]},
        (1, 2),
        7,
        "text",
    ]


def test_a_mapped_list_is_returned_as_its_values(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return add.map([1, 2, 3])

    assert my_flow() == [1, 2, 3]


def test_a_value_without_futures_is_the_same_object(task_runner):
    value = [object()]

    @flow(task_runner=task_runner)
    def my_flow():
        return value

    assert my_flow() is value


# -- the scope


def test_a_flow_waits_for_what_nobody_kept():
    gate, done = threading.Event(), []

    @task
    def slow():
        assert gate.wait(10)
        done.append(1)

    @flow(task_runner="concurrent")
    def my_flow():
        for _ in range(5):
            slow()
        threading.Timer(0.05, gate.set).start()
        return "value"

    assert my_flow() == "value"
    assert len(done) == 5


def test_a_flow_that_returns_a_value_completes_even_if_a_run_failed(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        broken()
        return 5

    state = my_flow(return_state=True)
    assert (state, state.result()) == (Completed(), 5)


def test_a_flow_whose_futures_nobody_kept_fails_if_one_failed(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        broken()
        add(1)

    with pytest.raises(ValueError, match="(?m)^text$"):
        my_flow()
    assert repr(my_flow(return_state=True)) == "Failed(message='1/2 states failed.', type=FAILED)"


def test_a_flow_that_raises_still_waits_for_everything():
    gate, done = threading.Event(), []

    @task
    def slow():
        assert gate.wait(10)
        done.append(1)

    @flow(task_runner="concurrent")
    def my_flow():
        slow()
        threading.Timer(0.05, gate.set).start()
        raise KeyError("key")

    with pytest.raises(KeyError):
        my_flow()
    assert done == [1]


def test_a_flow_that_returns_the_unfinished_future_of_another_flow_says_so():
    gate, shared = threading.Event(), []
    started = threading.Event()

    @task
    def slow():
        assert gate.wait(10)

    @flow(task_runner="concurrent")
    def other():
        shared.append(slow())
        started.set()

    @flow(task_runner="concurrent")
    def my_flow():
        return shared[0]

    thread = threading.Thread(target=other)
    thread.start()
    assert started.wait(10)
    try:
        with pytest.raises(UnfinishedRun) as caught:
            my_flow()
        assert str(caught.value) == (
            f"Flow 'my-flow' returned the future of task run 'slow-{slow.short_hash}-0', which belongs to another flow "
            "run and is not finished. Return future.result(), or wait for it in the flow that submitted it."
        )
        state = my_flow(return_state=True)
        assert state.message == f"Flow run encountered an exception: UnfinishedRun: {caught.value}"
    finally:
        gate.set()
        thread.join()


def test_a_flow_may_return_the_finished_future_of_another_flow(task_runner):
    shared = []

    @flow(task_runner=task_runner)
    def other():
        shared.append(add(5))

    @flow(task_runner=task_runner)
    def my_flow():
        return shared[0]

    other()
    assert my_flow() == 5


def test_a_flow_that_calls_itself_without_end_gets_a_recursion_error(task_runner):
    @flow(task_runner=task_runner)
    def endless(n=0):
        return endless(n + 1)

    with pytest.raises(RecursionError) as caught:
        endless()
    assert str(caught.value) == "Flow 'endless' was called 50 flow runs deep. Does it call itself without end?"
    assert endless(return_state=True).is_failed()


def test_an_async_flow_that_calls_itself_without_end_gets_a_recursion_error(run_async):
    @flow(task_runner="concurrent")
    async def endless():
        return await endless()

    with pytest.raises(RecursionError, match="^Flow 'endless' was called 50 flow runs deep."):
        run_async(endless)


def test_a_flow_that_calls_itself_with_an_end_is_fine(task_runner):
    @flow(task_runner=task_runner)
    def countdown(n: int) -> int:
        return n if n == 0 else countdown(n - 1)

    assert countdown(30) == 0


# -- names, hooks, retries


def test_run_names_are_two_words_or_the_users(task_runner):
    names = []

    def note(flow, flow_run, state):
        names.append(flow_run.name)

    plain = some_flow.with_options(task_runner=task_runner, on_completion=[note])
    plain()
    plain.with_options(flow_run_name="run of {a}")(5)
    plain.with_options(flow_run_name=lambda: "mine")()
    plain.with_options(flow_run_name=lambda parameters: f"mine {parameters['a']}")(7)
    assert names[0].count("-") >= 1
    assert names[1:] == ["run of 5", "mine", "mine 7"]


def test_a_run_name_that_cannot_be_made_fails_the_run(task_runner):
    text = "^flow_run_name='{b}' names 'b', which is not a parameter. The parameters are: a.$"
    with pytest.raises(ConfigurationError, match=text):
        some_flow.with_options(task_runner=task_runner, flow_run_name="{b}")()
    with pytest.raises(ConfigurationError, match=r"^flow_run_name must give a str: <lambda>\(\) returned NoneType.$"):
        some_flow.with_options(task_runner=task_runner, flow_run_name=lambda: None)()


def test_hooks_get_the_flow_the_run_and_the_state(task_runner):
    seen = []

    def hook(label):
        def hook(flow, flow_run, state):
            seen.append((label, flow.name, flow_run.flow_name, flow_run.state is state, state.name))

        return hook

    options = {kind: [hook(kind)] for kind in ("on_completion", "on_failure", "on_crashed", "on_cancellation")}

    @flow(task_runner=task_runner, **options)
    def my_flow(how):
        if how == "fail":
            raise ValueError("text")
        if how == "interrupt":
            raise KeyboardInterrupt
        return 5

    my_flow("well")
    my_flow("fail", return_state=True)
    with pytest.raises(KeyboardInterrupt):
        my_flow("interrupt", return_state=True)
    assert seen == [
        ("on_completion", "my-flow", "my-flow", True, "Completed"),
        ("on_failure", "my-flow", "my-flow", True, "Failed"),
        ("on_crashed", "my-flow", "my-flow", True, "Crashed"),
    ]


def test_a_flow_hook_that_raises_is_logged_and_changes_nothing(task_runner, caplog):
    def bad_hook(flow, flow_run, state):
        raise ZeroDivisionError("in the hook")

    assert some_flow.with_options(task_runner=task_runner, on_completion=[bad_hook], flow_run_name="mine")() == 1
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.message == (
        "Hook 'bad_hook' raised for run 'mine', which stays in state Completed(message=None, type=COMPLETED)."
    )


def test_a_flow_is_tried_again_with_all_its_tasks(task_runner, caplog):
    attempts, calls, counts = [], [], []

    @task
    def work():
        calls.append(1)

    @flow(
        task_runner=task_runner,
        retries=2,
        retry_delay_seconds=0,
        flow_run_name="mine",
        on_completion=[lambda flow, flow_run, state: counts.append(flow_run.run_count)],
    )
    def my_flow():
        attempts.append(1)
        work()
        if len(attempts) < 3:
            raise ValueError("not yet")

    assert my_flow() is None
    assert (len(attempts), len(calls), counts) == (3, 3, [3])
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        f"Flow run 'mine' failed in attempt {n} of 3 and is tried again in 0 seconds: Flow run encountered an "
        "exception: ValueError: not yet"
        for n in (1, 2)
    ]


def test_only_the_last_attempt_counts_for_the_final_state(task_runner):
    attempts = []

    @flow(task_runner=task_runner, retries=1)
    def my_flow():
        attempts.append(1)
        if len(attempts) == 1:
            broken()
        add(1)

    assert repr(my_flow(return_state=True)) == "Completed(message='All states completed.', type=COMPLETED)"
    assert len(attempts) == 2


def test_a_flow_that_has_no_attempt_left_has_failed(task_runner):
    attempts = []

    @flow(task_runner=task_runner, retries=2, retry_delay_seconds=[0, 0])
    def my_flow():
        attempts.append(1)
        raise ValueError(f"attempt {len(attempts)}")

    with pytest.raises(ValueError, match="(?m)^attempt 3$"):
        my_flow()


def test_an_async_flow_is_tried_again(run_async, task_runner):
    attempts = []

    @flow(task_runner=task_runner, retries=1)
    async def my_flow():
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("not yet")
        return await add(5)

    assert run_async(my_flow) == 5
    assert len(attempts) == 2


def test_wait_for_delays_a_flow_and_return_state_is_reserved(task_runner):
    order = []

    @task
    def first():
        order.append("first")

    @flow
    def second():
        order.append("second")

    @flow(task_runner=task_runner)
    def my_flow():
        second(wait_for=[first()])

    my_flow()
    assert order == ["first", "second"]


def test_one_flow_may_run_many_times_at_once():
    barrier = threading.Barrier(4)

    @flow(task_runner="concurrent")
    def my_flow(n: int):
        barrier.wait(10)
        return add(n, 1)

    results = {}
    threads = [threading.Thread(target=lambda n=n: results.setdefault(n, my_flow(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: 1, 1: 2, 2: 3, 3: 4}


def test_the_task_runner_may_be_a_name_a_class_or_an_instance():
    from riverrun.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

    @task
    def thread():
        return threading.get_ident()

    @flow
    def my_flow():
        return thread().result() == threading.get_ident()

    for runner in ("sequential", SequentialTaskRunner, SequentialTaskRunner()):
        assert my_flow.with_options(task_runner=runner)() is True

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def one_worker():
        return add(1)

    assert one_worker() == 1
