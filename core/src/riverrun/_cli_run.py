"""`riverrun run`: one flow run, from what was typed to the exit status.

::

    find the flow -> its parameters -> its task runner      refused: a text, status 2, nothing has run
            |
    run it, in this thread                                  completed: 0; failed: its traceback, 1
            |                                               Ctrl-C: 130; SIGTERM: 143
    history and report, whatever became of it
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from riverrun import _history, _observing, _report, _settings, _tracebacks
from riverrun._cli_target import TargetError, TargetImportError, find_flow
from riverrun._cli_values import ValueSyntaxError, chosen_runner, parameters
from riverrun._signals import Terminated
from riverrun.exceptions import RiverrunError
from riverrun.states import Cancelled, Completed, Crashed, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun._flow_runs import FlowRun
    from riverrun._flows import Flow
    from riverrun.abc import TaskRunner

COMPLETED, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class Order(NamedTuple):
    """What was typed behind `riverrun run`."""

    target: str
    runner: str | None = None
    options: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    observers: tuple[str, ...] = ()
    report: str | None = None
    traceback: bool = False


def run_flow(order: Order) -> int:
    """Run a flow.

    Returns:
        The exit status.

    Raises:
        RiverrunError: a parameter, a setting, the task runner or an observer cannot be used; nothing has run.
    """
    try:
        # A setting too: for subflows that name no task runner, the command line beats the environment.
        with _settings.override(task_runner=order.runner, observers=order.observers or None):
            return _run_flow(order)
    except (TargetError, ValueSyntaxError, _report.ReportPathError) as error:
        _say(f"Error: {error}")
        return USAGE
    except TargetImportError as error:
        _say(_formatted(error.__cause__ or error, order))
        _say(f"Error: {error}")
        return FAILED
    except KeyboardInterrupt:
        _say("Interrupted.")
        return INTERRUPTED
    except Terminated:
        _say("Terminated.")
        return TERMINATED


def _run_flow(order: Order) -> int:
    if order.report is not None:
        _report.check_path(order.report)
    flow = find_flow(order.target)
    args, kwargs = parameters(flow, order.parameters)
    runner = chosen_runner(flow, order.runner, order.options)
    _observing.check(_settings.load())
    home = _history.folder()
    seen: list[FlowRun] = []
    status, kept = FAILED, True
    try:
        status = _status(_watched(flow, runner, seen), args, kwargs, order)
    finally:
        for flow_run in seen[:1]:
            if home is not None:
                _written("history", lambda: _history.append(home, flow_run, runner))  # noqa: B023 - called at once
            if order.report is not None:
                kept = _written("report", lambda: _report.write(str(order.report), flow_run, runner))  # noqa: B023
    return status if kept else max(status, FAILED)


def _watched(flow: Flow[Any, Any], runner: TaskRunner, seen: list[FlowRun]) -> Flow[Any, Any]:
    """Give the flow with this task runner, and with a hook behind the user's that keeps the flow run."""

    def keep(_: object, flow_run: FlowRun, __: object) -> None:
        seen.append(flow_run)

    ends = {
        "on_completion": Completed(),
        "on_failure": Failed(),
        "on_crashed": Crashed(),
        "on_cancellation": Cancelled(),
    }
    hooks: dict[str, Any] = {option: [*flow.hooks_for(state), keep] for option, state in ends.items()}
    return flow.with_options(task_runner=runner, **hooks)


def _status(flow: Flow[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], order: Order) -> int:
    try:
        if flow.is_async:
            import anyio

            run: Any = flow  # of all that its calls may give, this is a coroutine
            anyio.run(partial(run, *args, **kwargs))
        else:
            flow(*args, **kwargs)
    except (KeyboardInterrupt, Terminated):
        raise
    except SystemExit as error:
        what = f"Flow {flow.name!r} called `sys.exit({error.code!r})`, so it did not complete."
        _say(f"{what} A flow ends with `return`, or fails with `raise`.")
        return FAILED
    except BaseException as error:  # noqa: BLE001 - shown; the exit status says the rest
        # Where a runner of other people's was at work, its frames are no more the user's than our own.
        package = type(flow.task_runner).__module__.partition(".")[0]
        _say(_formatted(error, order, "" if package == flow.__module__.partition(".")[0] else package))
        return FAILED
    return COMPLETED


def _formatted(error: BaseException, order: Order, *machinery: str) -> str:
    if order.traceback:
        return _tracebacks.whole(error)
    text = _tracebacks.trimmed(error, *machinery)
    if _tracebacks.is_told(error, *machinery):
        return f"{text}\n(`riverrun run --traceback` shows where that came from.)"
    nowhere = "Traceback (" not in text and not isinstance(error, (RiverrunError, SyntaxError))
    return (
        f"{text}\n(No line of your code raised this; `riverrun run --traceback` shows where it came from.)"
        if nowhere
        else text
    )


def _written(what: str, write: Callable[[], object]) -> bool:
    """Write a file about a run that has ended; where that is not possible, the run has ended all the same."""
    try:
        write()
    except OSError as error:
        _say(f"Error: the {what} could not be written: {error}")
        return False
    return True


def _say(text: str) -> None:
    sys.stdout.flush()  # what the flow printed stands above
    click.echo(text, err=True)
