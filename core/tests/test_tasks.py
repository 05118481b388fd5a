from __future__ import annotations

import functools
import logging
import pickle
import re
import threading
from typing import Any

import pytest
from riverrun import (
    ConfigurationError,
    MissingContextError,
    ParameterTypeError,
    ReservedArgumentError,
    Task,
    flow,
    task,
)

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@task
def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


def function(a: int) -> int:
    return a


# -- what a task is


def test_a_task_takes_its_names_from_the_function():
    assert (add.name, add.description) == ("add", "Add two numbers.")
    assert (add.__name__, add.__doc__) == ("add", "Add two numbers.")
    assert add.__module__ == __name__
    assert repr(add) == "<Task 'add'>"
    assert isinstance(add, Task)


def test_fn_calls_the_plain_function():
    assert add.fn(1, b=5) == 6


def test_options_of_a_task_are_kept():
    made = task(name="plus", description="Adds.", version="2", tags=["a", "b"], retries=3)(function)
    assert (made.name, made.description, made.version, made.tags, made.retries) == ("plus", "Adds.", "2", {"a", "b"}, 3)
    assert task(tags="one")(function).tags == {"one"}


def test_with_options_gives_a_copy_and_changes_nothing():
    other = add.with_options(name="plus", retries=2)
    assert (other.name, other.retries, other.fn) == ("plus", 2, add.fn)
    assert (add.name, add.retries) == ("add", 0)
    again = other.with_options(retries=0)
    assert (again.name, again.retries) == ("plus", 0)


def test_with_options_refuses_what_task_would_refuse():
    with pytest.raises(ConfigurationError, match=r"^add.with_options\(\) has no option 'retrys'. Did you mean"):
        add.with_options(retrys=1)
    with pytest.raises(ConfigurationError, match="^Task 'add': retries must be a whole number, 0 or more, not -1.$"):
        add.with_options(retries=-1)


def test_partials_lambdas_and_objects_can_be_tasks(task_runner):
    class Adder:
        def __call__(self, a):
            return a + 10

    partial, lambda_, object_ = task(functools.partial(add.fn, 1)), task(lambda a: a + 5), task(Adder())

    @flow(task_runner=task_runner)
    def my_flow():
        return partial(3).result(), lambda_(1).result(), object_(1).result(), task(len)([1, 2]).result()

    assert my_flow() == (4, 6, 11, 2)
    assert partial.name == "add"
    assert object_.name == "Adder"


def test_a_method_can_be_a_task(task_runner):
    class Shop:
        def __init__(self, factor):
            self.factor = factor

        @task
        def price(self, amount):
            return self.factor * amount

        @classmethod
        @task
        def name(cls) -> str:
            return cls.__name__

        @staticmethod
        @task
        def zero() -> int:
            return 0

        @task(retries=1)
        async def later(self, amount):
            return self.factor * amount

    @flow(task_runner=task_runner)
    def my_flow():
        shop = Shop(3)
        prices = shop.price.map([1, 2]).result()
        singly = [shop.price(2), Shop.zero(), shop.later(2), Shop.price(shop, 5)]
        return [future.result() for future in singly], prices

    assert my_flow() == ([6, 0, 6, 15], [3, 6])
    assert Shop(1).price.name == "price"
    assert Shop(1).later.retries == 1


def test_a_task_of_a_module_travels_by_name():
    assert pickle.loads(pickle.dumps(add)) is add  # noqa: S301 - made in the line itself
    assert len(pickle.dumps(add)) < 150
    other = pickle.loads(pickle.dumps(add.with_options(name="plus")))  # noqa: S301
    assert (other.name, other.fn) == ("plus", add.fn)


# -- what is refused at decoration


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retries": -1}, "retries must be a whole number, 0 or more, not -1."),
        ({"retries": 1.5}, "retries must be a whole number, 0 or more, not 1.5."),
        ({"retries": "3"}, "retries must be a whole number, 0 or more, not '3'."),
        ({"retries": True}, "retries must be a whole number, 0 or more, not True."),
        ({"retries": None}, "retries must be a whole number, 0 or more, not None."),
        ({"retry_delay_seconds": -1}, "retry_delay_seconds must be a number of seconds, 0 or more, not -1."),
        ({"retry_delay_seconds": "1"}, "retry_delay_seconds must be a number of seconds, 0 or more, not '1'."),
        ({"retry_delay_seconds": [1, -2]}, "retry_delay_seconds must be a number of seconds, 0 or more, not -2."),
        ({"retry_delay_seconds": [1, "2"]}, "retry_delay_seconds must be a number of seconds, 0 or more, not '2'."),
        ({"retry_delay_seconds": float("nan")}, "retry_delay_seconds must be a number of seconds, 0 or more, not nan."),
        ({"retry_delay_seconds": float("inf")}, "retry_delay_seconds must be a number of seconds, 0 or more, not inf."),
        ({"retry_delay_seconds": True}, "retry_delay_seconds must be a number of seconds, 0 or more, not True."),
        (
            {"retries": 2, "retry_delay_seconds": lambda retries: [-1] * retries},
            "retry_delay_seconds must be a number of seconds, 0 or more, not -1.",
        ),
        (
            {"retries": 2, "retry_delay_seconds": []},
            "retry_delay_seconds is an empty list. Give one delay, or one for each retry.",
        ),
        ({"retry_jitter_factor": -0.5}, "retry_jitter_factor must be a number of seconds, 0 or more, not -0.5."),
        ({"retry_condition_fn": 5}, "retry_condition_fn must be a callable (task, task_run, state), not 5."),
        ({"timeout_seconds": 0}, "timeout_seconds must be a number of seconds, more than 0, not 0."),
        ({"timeout_seconds": -1}, "timeout_seconds must be a number of seconds, more than 0, not -1."),
        ({"timeout_seconds": "1"}, "timeout_seconds must be a number of seconds, more than 0, not '1'."),
        ({"timeout_seconds": float("nan")}, "timeout_seconds must be a number of seconds, more than 0, not nan."),
        ({"cache_key_fn": "key"}, "cache_key_fn must be a callable (context, parameters), not 'key'."),
        (
            {"persist_result": True},
            "persist_result and cache_expiration need cache_key_fn=, which says under which key a result is kept.",
        ),
        (
            {"cache_expiration": 5},
            "persist_result and cache_expiration need cache_key_fn=, which says under which key a result is kept.",
        ),
        (
            {"cache_key_fn": len, "cache_expiration": -5},
            "cache_expiration must be a number of seconds, 0 or more, not -5.",
        ),
        ({"resources": ["cpu"]}, "resources must be a dict with names as its keys, not ['cpu']."),
        ({"resources": {1: 1}}, "resources must be a dict with names as its keys, not {1: 1}."),
        ({"runner_options": "dask"}, "runner_options must be a dict with names as its keys, not 'dask'."),
        ({"on_completion": [5]}, "on_completion must be a list of callables, such as on_completion=[notify], not [5]."),
        ({"on_failure": "f"}, "on_failure must be a list of callables, such as on_failure=[notify], not 'f'."),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more or 'auto', not 0."),
        ({"batch_size": "many"}, "batch_size must be a whole number, 1 or more or 'auto', not 'many'."),
        ({"max_in_flight": 0}, "max_in_flight must be a whole number, 1 or more, not 0."),
        ({"max_in_flight": 1.5}, "max_in_flight must be a whole number, 1 or more, not 1.5."),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_an_impossible_option_is_refused_when_the_task_is_made(options, text):
    with pytest.raises(ConfigurationError) as caught:
        task(**options)(function)
    assert str(caught.value) == f"Task 'function': {text}"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("option", ["on_completion", "on_failure"])
def test_a_hook_that_is_not_in_a_list_is_refused(option):
    with pytest.raises(ConfigurationError) as caught:
        task(**{option: print})(function)
    assert str(caught.value) == (
        f"Task 'function': {option} must be a list of callables, such as {option}=[notify], not <built-in function "
        "print>."
    )
    with pytest.raises(ConfigurationError, match=rf"{option} must be a list of callables"):
        task(**{option: 5})(function)


def test_an_unknown_option_names_a_near_one_and_all_that_exist():
    with pytest.raises(ConfigurationError) as caught:
        task(retrise=1)
    assert str(caught.value) == (
        "@task has no option 'retrise'. Did you mean 'retries'? The options are: name, description, version, tags, "
        "task_run_name, retries, retry_delay_seconds, retry_jitter_factor, retry_condition_fn, timeout_seconds, "
        "cache_key_fn, cache_expiration, persist_result, log_prints, resources, runner_options, on_completion, "
        "on_failure, batch_size, max_in_flight."
    )


def test_what_is_no_function_is_refused():
    with pytest.raises(ConfigurationError) as caught:
        task("my-name")
    assert str(caught.value) == "@task needs a function, not 'my-name'. Options are given by name: @task(name=...)."


def test_a_parameter_with_a_reserved_name_is_refused_at_decoration():
    def waiting(x, wait_for=None):
        pass

    def stating(*, return_state):
        pass

    with pytest.raises(ReservedArgumentError) as caught:
        task(waiting)
    assert str(caught.value) == (
        f"{waiting.__qualname__}() has a parameter named 'wait_for', which every call of a task or a flow already "
        "takes. Give the parameter another name."
    )
    with pytest.raises(ReservedArgumentError, match="has a parameter named 'return_state'"):
        task(retries=1)(stating)
    assert issubclass(ReservedArgumentError, ConfigurationError)


def test_a_variable_with_a_reserved_name_is_no_parameter(task_runner):
    @task
    def fine(x):
        wait_for = x + 1
        return wait_for * 2

    @flow(task_runner=task_runner)
    def my_flow():
        return fine(5).result()

    assert my_flow() == 12


def test_generators_are_refused():
    async def stream():
        yield 1

    def numbers():
        yield 1

    with pytest.raises(ConfigurationError) as caught:
        task(stream)
    assert str(caught.value) == (
        f"{stream.__qualname__}() is an async generator function, which cannot be a task: its code would run while its "
        "values are read, after the task has ended. Return a list, or make one task run per value with `.map(...)`."
    )
    with pytest.raises(ConfigurationError, match=r"numbers\(\) is a generator function, which cannot be a task:"):
        task(numbers)


# -- calls


def test_a_task_outside_of_a_flow_shows_how_to_call_the_function():
    for call in (add, add.submit):
        with pytest.raises(MissingContextError) as caught:
            call(1, 2)
        assert str(caught.value) == (
            "Task 'add' was called outside of a flow (add(...)). Call it inside a function with @flow, or call the "
            "plain function: add.fn(...)."
        )
    with pytest.raises(MissingContextError) as caught:
        add.map([1, 2])
    assert str(caught.value) == (
        "Task 'add' was called outside of a flow (add.map(...)). Call it inside a function with @flow, or call the "
        "plain function: add.fn(...)."
    )


def test_a_task_called_after_its_flow_has_ended_says_so(task_runner):
    leaked = []

    @flow(task_runner=task_runner, name="short", flow_run_name="short-run")
    def my_flow():
        import contextvars

        leaked.append(contextvars.copy_context())

    my_flow()
    with pytest.raises(MissingContextError) as caught:
        leaked[0].run(add, 1)
    assert str(caught.value) == (
        "Task 'add' was called in flow run 'short-run', which has ended. Call it while the flow runs, or `add.fn(...)`."
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "'a' is missing"),
        ((1, 2, 3), {}, "3 positional arguments were given, and it takes 2"),
        ((1,), {"a": 1}, "'a' was given twice, by position and by name"),
        ((1,), {"c": 1}, "'c' is not a parameter of it"),
        ((1,), {"bb": 1}, "'bb' is not a parameter of it (did you mean 'b'?)"),
        (
            (1, 2, 3),
            {"x": 1, "y": 2},
            "; ".join(  # noqa: FLY002 - one problem a line
                [
                    "3 positional arguments were given, and it takes 2",
                    "'x' is not a parameter of it",
                    "'y' is not a parameter of it",
                ]
            ),
        ),
    ],
)
def test_arguments_that_do_not_fit_are_told_at_the_call(task_runner, args, kwargs, text):
    @flow(task_runner=task_runner)
    def my_flow():
        with pytest.raises(ParameterTypeError) as caught:
            add(*args, **kwargs)
        expected = f"Task 'add' was called with arguments that do not fit: {text}. Its parameters: a, b."
        assert str(caught.value) == expected
        return isinstance(caught.value, TypeError)

    assert my_flow()


def test_a_keyword_only_argument_that_is_missing_is_told(task_runner):
    @task
    def keywords(*, a, b=1):
        return a, b

    @flow(task_runner=task_runner)
    def my_flow():
        with pytest.raises(ParameterTypeError, match="'a' is missing. Its parameters: a, b.$"):
            keywords()
        return keywords(a=1).result()

    assert my_flow() == (1, 1)


def test_positional_only_parameters_and_keywords_of_the_same_name_do_not_mix(task_runner):
    @task
    def mixed(a, /, b, *rest, c=3, **more):
        return a, b, rest, c, more

    @flow(task_runner=task_runner)
    def my_flow():
        return mixed(1, 2, 4, 5, a=6).result(), mixed(1, b=2, c=0).result()

    assert my_flow() == ((1, 2, (4, 5), 3, {"a": 6}), (1, 2, (), 0, {}))


def test_submit_is_the_same_as_a_call(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        first = add.submit(1, b=1)
        return add.submit(first, wait_for=[first]).result()

    assert my_flow() == 4


def test_return_state_gives_the_final_state(task_runner):
    @task
    def broken():
        raise ValueError("text")

    @flow(task_runner=task_runner)
    def my_flow():
        good, bad = add(1, 2, return_state=True), broken(return_state=True)
        return [repr(good), good.result(), repr(bad)]

    assert my_flow() == [
        "Completed(message=None, type=COMPLETED)",
        3,
        "Failed(message='Task run encountered an exception: ValueError: text', type=FAILED)",
    ]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("text"), "ValueError: text"),
        (KeyError("key"), "KeyError: 'key'"),
        (RuntimeError(), "RuntimeError"),
        (ExceptionGroup("many", [ValueError("a")]), "ExceptionGroup: many (1 sub-exception)"),
        (StopIteration(5), "StopIteration: 5"),
        (AssertionError("no"), "AssertionError: no"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_task_that_raises_has_failed_with_that_text(task_runner, error, text):
    @task
    def raising():
        raise error

    @flow(task_runner=task_runner)
    def my_flow():
        return str(raising().wait().message)

    assert my_flow() == f"Task run encountered an exception: {text}"


def test_an_exit_in_a_task_of_a_pool_is_not_lost(task_runner):
    import sys

    @task
    def leaving():
        sys.exit(3)

    @flow(task_runner=task_runner)
    def my_flow():
        return leaving().wait()

    state = my_flow(return_state=True)
    assert not state.is_completed()


def test_a_task_may_return_a_state(task_runner):
    from riverrun.states import Completed, Failed, Running

    @task
    def made(number):
        return [Completed("fine", 5), Failed("I say so"), Running()][number]

    @flow(task_runner=task_runner)
    def my_flow():
        return [repr(made(number).wait()) for number in range(3)]

    text = "Task run returned a state that is not final: Running(message=None, type=RUNNING)."
    assert my_flow() == [
        "Completed(message='fine', type=COMPLETED)",
        "Failed(message='I say so', type=FAILED)",
        f"Failed(message='{text}', type=FAILED)",
    ]


# -- names


def test_runs_are_named_by_task_hash_and_an_index_that_starts_at_0_in_each_flow_run(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return [add(1).name, add(1).name, other(1).name, add(1).name]

    other = add.with_options(name="plus")
    first, second, third, fourth = my_flow()
    assert re.fullmatch(r"add-[0-9a-f]{8}-0", first)
    assert [second, fourth] == [first[:-1] + "1", first[:-1] + "2"]
    assert re.fullmatch(r"plus-[0-9a-f]{8}-0", third)
    assert my_flow()[0] == first


def test_two_tasks_of_one_name_have_different_hashes():
    def make():
        @task(name="same")
        def one():
            pass

        @task(name="same")
        def two():
            pass

        return one, two

    one, two = make()
    assert one.short_hash != two.short_hash


def test_a_run_name_is_made_from_a_template(task_runner):
    @task(task_run_name="{a} and {b}")
    def named(a, b=2):
        return a

    @flow(task_runner=task_runner)
    def my_flow():
        futures = [named(1), named(add(1), b="three")]
        return [future.result() and future.name for future in futures]

    assert my_flow() == ["1 and 2", "3 and three"]


def test_a_run_name_is_made_by_a_callable(task_runner):
    @task(task_run_name=lambda: "always this")
    def plain(a):
        return a

    @task(task_run_name=lambda parameters: f"run of {sorted(parameters.items())}")
    def by_parameters(a, b=2):
        return a

    @flow(task_runner=task_runner)
    def my_flow():
        futures = [plain(1), by_parameters(1)]
        return [future.result() and future.name for future in futures]

    assert my_flow() == ["always this", "run of [('a', 1), ('b', 2)]"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            "{c}",
            "ConfigurationError: task_run_name='{c}' names 'c', which is not a parameter. The parameters are: a, b.",
        ),
        (lambda: 5, "ConfigurationError: task_run_name must give a str: <lambda>() returned int."),
        (lambda parameters: parameters["d"], "KeyError: 'd'"),
    ],
)
def test_a_run_name_that_cannot_be_made_fails_that_run(task_runner, template, text):
    named = add.with_options(task_run_name=template)

    @flow(task_runner=task_runner)
    def my_flow():
        return [named(1).wait().message, add(1).wait().name]

    assert my_flow() == [f"Task run encountered an exception: {text}", "Completed"]


def test_tags_are_on_the_run(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return [add.with_options(tags=["x", "y"])(1).task_run.tags, add(1).task_run.tags]

    assert my_flow() == [{"x", "y"}, set()]


# -- hooks


def test_hooks_get_the_task_the_run_and_the_state(task_runner):
    seen: list[Any] = []

    def note(*args):
        seen.append((args[0].name, args[1].name, repr(args[2])))

    @task(on_completion=[note, note], on_failure=[print])
    def good():
        return 1

    @task(on_failure=[note], on_completion=[print])
    def bad():
        raise ValueError("text")

    @flow(task_runner=task_runner)
    def my_flow():
        good().wait()
        bad().wait()
        return 1

    my_flow()
    completed = ("good", f"good-{good.short_hash}-0", "Completed(message=None, type=COMPLETED)")
    failed = (
        "bad",
        f"bad-{bad.short_hash}-0",
        "Failed(message='Task run encountered an exception: ValueError: text', type=FAILED)",
    )
    assert sorted(seen) == sorted([completed, completed, failed])


def test_hooks_have_run_when_the_flow_ends(task_runner):
    seen = []

    @task(on_completion=[lambda *args: seen.append(args[2].name)])
    def good():
        return 1

    @flow(task_runner=task_runner)
    def my_flow():
        for _ in range(20):
            good()

    my_flow()
    assert seen == ["Completed"] * 20


def test_a_hook_that_raises_is_logged_and_changes_nothing(task_runner, caplog):
    def bad_hook(task, task_run, state):
        raise ZeroDivisionError("in the hook")

    hooked = add.with_options(on_completion=[bad_hook])

    @flow(task_runner=task_runner)
    def my_flow():
        return hooked(1).result()

    with caplog.at_level(logging.ERROR):
        assert my_flow() == 3
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.message == (
        f"Hook 'bad_hook' raised for run 'add-{hooked.short_hash}-0', which stays in state "
        "Completed(message=None, type=COMPLETED)."
    )
    assert "in the hook" in record.exc_text


# -- tasks in tasks


def test_a_task_in_a_task_runs_in_place_and_gives_a_finished_future(task_runner):
    threads = []

    @task
    def inner(x):
        threads.append(threading.get_ident())
        return x + 1

    @task
    def outer(x):
        threads.append(threading.get_ident())
        future = inner(x)
        assert future.done()
        return inner(future).result()

    @flow(task_runner=task_runner)
    def my_flow():
        return outer(1).result()

    assert my_flow() == 3
    assert len(set(threads)) == 1


def test_tasks_that_call_tasks_never_deadlock_on_one_worker():
    from riverrun.task_runners import ConcurrentTaskRunner

    @task
    def deep(n):
        return n if n == 0 else deep(n - 1).result()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def my_flow():
        return deep.map([20] * 10).result()

    assert my_flow() == [0] * 10


def test_a_failure_in_a_task_in_a_task_is_that_tasks_own_concern(task_runner):
    @task
    def broken():
        raise ValueError("text")

    @task
    def careful():
        try:
            broken().result()
        except ValueError:
            return "caught"

    @task
    def careless():
        return broken().result()

    @flow(task_runner=task_runner)
    def my_flow():
        return [careful().wait().result(), careless().wait().message]

    assert my_flow() == ["caught", "Task run encountered an exception: ValueError: text"]


def test_map_wait_for_and_retries_work_inside_a_task(task_runner):
    attempts = []

    @task(retries=2)
    def third_time():
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("not yet")
        return 5

    @task
    def outer():
        return sum(add.map([1, 2, 3]).result()) + third_time(wait_for=[add(1)]).result()

    @flow(task_runner=task_runner)
    def my_flow():
        return outer().result()

    assert my_flow() == 17
    assert len(attempts) == 3
