from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading

import pytest
from riverrun import MissingContextError, flow, get_run_logger, task
from riverrun.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@task
def hello_local():
    print("Hello!")


@task
def hello_concurrent():
    print("Hello from a thread!")


@flow(task_runner=ConcurrentTaskRunner(), flow_run_name="discreet-peacock")
def concurrent_subflow():
    hello_concurrent()


@flow(task_runner=SequentialTaskRunner(), flow_run_name="olivine-swan")
def sequential_flow():
    hello_local()
    concurrent_subflow()
    hello_local()


@task
def broken():
    raise ValueError("text")


@pytest.fixture
def own_lines(monkeypatch: pytest.MonkeyPatch, capfd):
    """Give a function that calls another, and gives what Riverrun's own handler has written meanwhile.

    The handler is quiet where an application has handlers of its own, and pytest has some during a test.
    """
    logger = logging.getLogger("riverrun")

    def own_lines(function, root_handlers=(), level=logging.NOTSET):
        with monkeypatch.context() as patched:
            patched.setattr(logging.getLogger(), "handlers", list(root_handlers))
            patched.setattr(logger, "handlers", [])
            patched.setattr(logger, "level", level)
            logger.manager._clear_cache()
            function()
        logger.manager._clear_cache()
        return capfd.readouterr().err.splitlines()

    return own_lines


def messages(caplog) -> list[str]:
    return [record.message for record in caplog.records]


# -- the lines


def test_a_flow_with_a_subflow_logs_these_lines_in_this_order(caplog, capsys):
    sequential_flow()
    local, remote = f"hello_local-{hello_local.short_hash}", f"hello_concurrent-{hello_concurrent.short_hash}"
    assert messages(caplog) == [
        "Beginning flow run 'olivine-swan' for flow 'sequential-flow'...",
        "Starting task runner `SequentialTaskRunner`...",
        f"Submitting task run '{local}-0' to task runner...",
        f"Task run '{local}-0' finished in state Completed(message=None, type=COMPLETED)",
        "Beginning subflow run 'discreet-peacock' for flow 'concurrent-subflow'...",
        "Starting task runner `ConcurrentTaskRunner`...",
        f"Submitting task run '{remote}-0' to task runner...",
        f"Task run '{remote}-0' finished in state Completed(message=None, type=COMPLETED)",
        "Shutting down task runner `ConcurrentTaskRunner`...",
        "Subflow run 'discreet-peacock' finished in state Completed(message='All states completed.', type=COMPLETED)",
        f"Submitting task run '{local}-1' to task runner...",
        f"Task run '{local}-1' finished in state Completed(message=None, type=COMPLETED)",
        "Shutting down task runner `SequentialTaskRunner`...",
        "Flow run 'olivine-swan' finished in state Completed(message='All states completed.', type=COMPLETED)",
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert {record.name.partition(".")[0] for record in caplog.records} == {"riverrun"}
    assert capsys.readouterr().out.splitlines() == ["Hello!", "Hello from a thread!", "Hello!"]


def test_an_async_flow_logs_the_same_lines(caplog, run_async, task_runner):
    @flow(task_runner=task_runner, flow_run_name="mine")
    async def my_flow():
        await hello_local()

    run_async(my_flow)
    hashed, runner = f"hello_local-{hello_local.short_hash}-0", f"{task_runner.capitalize()}TaskRunner"
    assert messages(caplog) == [
        "Beginning flow run 'mine' for flow 'my-flow'...",
        f"Starting task runner `{runner}`...",
        f"Submitting task run '{hashed}' to task runner...",
        f"Task run '{hashed}' finished in state Completed(message=None, type=COMPLETED)",
        f"Shutting down task runner `{runner}`...",
        "Flow run 'mine' finished in state Completed(message='All states completed.', type=COMPLETED)",
    ]


def test_a_failure_is_logged_as_an_error_with_its_traceback(caplog, task_runner):
    @flow(task_runner=task_runner, flow_run_name="mine")
    def my_flow():
        broken()

    my_flow(return_state=True)
    name = f"broken-{broken.short_hash}-0"
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    state = "Failed(message='Task run encountered an exception: ValueError: text', type=FAILED)"
    assert [record.message for record in errors] == [
        f"Task run '{name}' encountered an exception:",
        f"Task run '{name}' finished in state {state}",
        "Flow run 'mine' finished in state Failed(message='1/1 states failed.', type=FAILED)",
    ]
    assert 'raise ValueError("text")' in errors[0].exc_text
    assert "site-packages" not in errors[0].exc_text
    assert "_submissions.py" not in errors[0].exc_text
    assert "_engine.py" not in errors[0].exc_text


def test_a_run_that_is_not_ready_is_a_warning(caplog, task_runner):
    @task
    def dependent(value):
        pass

    @flow(task_runner=task_runner)
    def my_flow():
        dependent(broken())
        return 1

    my_flow()
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    name = f"dependent-{dependent.short_hash}-0"
    assert warnings[0].startswith(f"Task run '{name}' finished in state NotReady(message=\"Upstream")


# -- the form


def test_lines_have_the_time_and_a_level_if_it_is_not_info(own_lines, task_runner):
    @flow(task_runner=task_runner, flow_run_name="mine")
    def my_flow():
        get_run_logger().info("said the flow")
        get_run_logger().warning("warned the flow")
        get_run_logger().error("complained the flow")
        return 1

    lines = own_lines(my_flow)
    time = r"\d\d:\d\d:\d\d\.\d\d\d"
    assert all(re.match(rf"{time} \| ", line) for line in lines)
    assert [line.partition(" | ")[2] for line in lines] == [
        "Beginning flow run 'mine' for flow 'my-flow'...",
        f"Starting task runner `{task_runner.capitalize()}TaskRunner`...",
        "Flow run 'mine' - said the flow",
        "WARNING | Flow run 'mine' - warned the flow",
        "ERROR | Flow run 'mine' - complained the flow",
        f"Shutting down task runner `{task_runner.capitalize()}TaskRunner`...",
        "Flow run 'mine' finished in state Completed(message=None, type=COMPLETED)",
    ]


def test_the_level_is_a_setting(own_lines, monkeypatch):
    monkeypatch.setenv("RIVERRUN_LOG_LEVEL", "ERROR")

    @flow(task_runner="sequential", flow_run_name="mine")
    def my_flow():
        hello_local()
        get_run_logger().warning("not shown")
        broken()

    lines = own_lines(lambda: my_flow(return_state=True))
    assert lines[0].partition(" | ")[2] == f"ERROR | Task run 'broken-{broken.short_hash}-0' encountered an exception:"
    assert lines[-1].endswith("Flow run 'mine' finished in state Failed(message='1/2 states failed.', type=FAILED)")
    assert not any("INFO" in line or "Beginning" in line or "not shown" in line for line in lines)


def test_debug_shows_debug_records_of_the_users(own_lines, monkeypatch):
    monkeypatch.setenv("RIVERRUN_LOG_LEVEL", "DEBUG")

    @flow(task_runner="sequential", flow_run_name="mine")
    def my_flow():
        get_run_logger().debug("details")

    assert any(line.endswith("DEBUG | Flow run 'mine' - details") for line in own_lines(my_flow))


def test_a_level_that_the_application_set_wins(own_lines):
    @flow(task_runner="sequential")
    def my_flow():
        get_run_logger().warning("shown")

    [line] = own_lines(my_flow, level=logging.WARNING)
    assert line.partition(" - ")[2] == "shown"


def test_an_application_with_handlers_of_its_own_gets_the_records_and_ours_is_quiet(own_lines):
    records = []

    class Keeping(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    assert own_lines(sequential_flow, root_handlers=[Keeping()]) == []
    assert records[0] == "Beginning flow run 'olivine-swan' for flow 'sequential-flow'..."


# -- loggers of the users


def test_a_run_logger_names_its_run_and_bears_its_fields(caplog, task_runner):
    @task(task_run_name="inside")
    def logging_task():
        get_run_logger().info("100%% of %s, %d", "it", 5, extra={"mine": 7})
        get_run_logger().info("100% of it")
        get_run_logger().warning("%(a)s", {"a": "from a dict"})

    @flow(task_runner=task_runner, flow_run_name="around 100%")
    def my_flow():
        logging_task()
        get_run_logger().info("done")

    my_flow()
    ours = [record for record in caplog.records if " - " in record.message]
    assert sorted(record.message for record in ours) == [
        "Flow run 'around 100%' - done",
        "Task run 'inside' - 100% of it",
        "Task run 'inside' - 100% of it, 5",
        "Task run 'inside' - from a dict",
    ]
    record = next(record for record in ours if "of it, 5" in record.message)
    assert (record.task_run_name, record.task_name, record.flow_run_name, record.flow_name, record.mine) == (
        "inside",
        "logging_task",
        "around 100%",
        "my-flow",
        7,
    )
    assert len(record.task_run_id) == len(record.flow_run_id) == 36
    assert record.funcName == "logging_task"
    assert record.filename == "test_logging.py"


def test_a_run_logger_logs_exceptions_with_their_tracebacks(caplog, task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        try:
            {}["key"]
        except KeyError:
            get_run_logger().exception("caught %s", "it")

    my_flow()
    record = next(record for record in caplog.records if "caught it" in record.message)
    assert record.levelname == "ERROR"
    assert "KeyError: 'key'" in record.exc_text


def test_records_of_a_task_that_failed_are_there_too(caplog, task_runner):
    @task
    def failing():
        get_run_logger().info("last words")
        raise ValueError("text")

    @flow(task_runner=task_runner)
    def my_flow():
        failing()

    my_flow(return_state=True)
    assert any(message.endswith("last words") for message in messages(caplog))


AS_ON_A_WORKER = """
import logging
from riverrun._logging import records_kept

with records_kept(logging.INFO) as kept:
    logging.getLogger("riverrun.task_runs").warning("%d rows of %s", "many")
print(*[record.getMessage() for record in kept])
"""


def test_a_log_line_whose_arguments_do_not_fit_is_no_failure_of_its_task_on_a_worker():
    done = subprocess.run(
        [sys.executable, "-c", AS_ON_A_WORKER], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "%d rows of %s ('many',) (the arguments do not fit the template)\n", done.stderr
    assert "--- Logging error ---" in done.stderr  # as `logging` does it anywhere


def test_an_async_task_has_a_logger(caplog, run_async, task_runner):
    @task(task_run_name="inside")
    async def logging_task():
        get_run_logger().info("hello")

    @flow(task_runner=task_runner)
    async def my_flow():
        await logging_task()

    run_async(my_flow)
    assert "Task run 'inside' - hello" in messages(caplog)


def test_a_run_logger_outside_of_a_run_says_what_to_write():
    with pytest.raises(MissingContextError) as caught:
        get_run_logger()
    assert str(caught.value) == (
        "get_run_logger() was called outside of a flow or a task run. Call it inside the function; elsewhere use "
        "logging.getLogger(__name__)."
    )


# -- prints


def test_prints_are_logged_at_info_if_the_flow_says_so(caplog, capsys, task_runner):
    @task(task_run_name="inside")
    def printing(end="\n"):
        print("one", 1)
        print("two\nthree", end=end)

    @flow(task_runner=task_runner, flow_run_name="around", log_prints=True)
    def my_flow():
        print("from the flow")
        printing().wait()
        printing(end="").wait()
        print("to stderr", file=sys.stderr)

    my_flow()
    lines = [(record.levelname, record.message) for record in caplog.records if " - " in record.message]
    inside = [("INFO", f"Task run 'inside' - {text}") for text in ("one 1", "two", "three")]
    assert lines == [("INFO", "Flow run 'around' - from the flow"), *inside, *inside]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "to stderr" in captured.err


def test_prints_of_one_task_are_logged_and_those_of_another_are_not(caplog, capsys, task_runner):
    logged = hello_local.with_options(log_prints=True, task_run_name="logged")

    @flow(task_runner=task_runner)
    def my_flow():
        logged().wait()
        hello_local().wait()

    my_flow()
    assert [message for message in messages(caplog) if " - " in message] == ["Task run 'logged' - Hello!"]
    assert capsys.readouterr().out == "Hello!\n"


def test_a_task_may_print_though_its_flow_logs_prints(caplog, capsys, task_runner):
    @flow(task_runner=task_runner, log_prints=True)
    def my_flow():
        hello_local.with_options(log_prints=False)().wait()

    my_flow()
    assert not any("Hello!" in message for message in messages(caplog))
    assert capsys.readouterr().out == "Hello!\n"


def test_a_subflow_does_what_the_flow_around_it_does_unless_it_says_otherwise(caplog, capsys, task_runner):
    @flow(flow_run_name="inside")
    def inner():
        print("inner")

    @flow(flow_run_name="loud", log_prints=False)
    def loud():
        print("loud")

    @flow(task_runner=task_runner, log_prints=True)
    def my_flow():
        inner()
        loud()

    my_flow()
    assert [message for message in messages(caplog) if " - " in message] == ["Flow run 'inside' - inner"]
    assert capsys.readouterr().out == "loud\n"


def test_prints_of_tasks_that_overlap_are_not_mixed_up(caplog, capsys):
    barrier = threading.Barrier(3)

    @task(task_run_name="task {n}", log_prints=True)
    def printing(n):
        for line in range(20):
            barrier.wait(10)
            print(n, line)

    @task
    def silent():
        for _ in range(20):
            barrier.wait(10)
            print("plain")

    @flow(task_runner=ConcurrentTaskRunner(max_workers=3))
    def my_flow():
        printing(1)
        printing(2)
        silent()

    before = sys.stdout
    my_flow()
    assert sys.stdout is before
    for n in (1, 2):
        ours = [message for message in messages(caplog) if message.startswith(f"Task run 'task {n}' - ")]
        assert ours == [f"Task run 'task {n}' - {n} {line}" for line in range(20)]
    assert capsys.readouterr().out == "plain\n" * 20


def test_stdout_is_as_it_was_after_a_task_that_failed(task_runner):
    @task(log_prints=True)
    def failing():
        print("last words")
        raise ValueError("text")

    @flow(task_runner=task_runner)
    def my_flow():
        failing()

    before = sys.stdout
    my_flow(return_state=True)
    assert sys.stdout is before


# -- secrets


def test_no_value_of_an_argument_or_a_result_is_in_a_log_line(caplog, task_runner):
    caplog.set_level(logging.DEBUG, logger="riverrun")

    @task(retries=1)
    def using(secret, *, also):
        return [secret, also]

    @flow
    def inner(secret: str):
        return secret

    @flow(task_runner=task_runner)
    def my_flow(secret: str):
        using(secret, also={"a": secret})
        using.map([secret, secret], also=[secret, secret])
        inner(secret)
        return secret

    assert my_flow("s3cret") == "s3cret"
    assert my_flow("s3cret", return_state=True).result() == "s3cret"
    assert "s3cret" not in caplog.text
