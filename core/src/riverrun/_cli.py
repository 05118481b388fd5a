"""The command `riverrun`: what may be typed. What a command does is imported when that command is typed.

Exit statuses: 0 completed, 1 failed, 2 usage, 130 interrupted, 143 terminated. Status 2 means that nothing ran because
of what was typed or set, and it never comes with a traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from riverrun.exceptions import (
    IncompatibleTaskRunner,
    ObserverError,
    ObserverLoadError,
    ParameterTypeError,
    RiverrunError,
    SettingsError,
    TaskRunnerError,
    TaskRunnerLoadError,
)

if TYPE_CHECKING:
    from riverrun._listing import Row

INTERRUPTED = 130


class Refusal(click.ClickException):
    """Nothing was done, because of what was typed: the text says what to type."""

    exit_code = 2


class _Commands(click.Group):
    """The commands, with Riverrun's own errors turned into a text and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except (ObserverError, ParameterTypeError, SettingsError, TaskRunnerError) as error:
            raise _refusal(error) from None
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


def _refusal(error: RiverrunError) -> click.ClickException:
    # A plugin that is there and broken is no mistake in what was typed: it fails, and its text may have a traceback.
    broken = isinstance(error, (TaskRunnerLoadError, IncompatibleTaskRunner, ObserverLoadError))
    return click.ClickException(str(error)) if broken else Refusal(str(error))


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if not value:
        return
    from riverrun._offers import version_of

    click.echo(f"riverrun {version_of('core') or '(version unknown)'}")
    ctx.exit()


_log_level = click.option(
    "--log-level", metavar="LEVEL", help="Least level of the log lines: DEBUG, INFO, WARNING, ERROR or CRITICAL."
)


def _set_log_level(ctx: click.Context, level: str | None) -> None:
    if level is not None:
        from riverrun._settings import override

        ctx.with_resource(override(log_level=level))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@_log_level
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
@click.pass_context
def main(ctx: click.Context, log_level: str | None) -> None:
    """Run flows, and see which task runners they can run on.

    \b
    Exit status: 0 completed, 1 failed, 2 usage, 130 interrupted, 143 terminated.
    """  # noqa: D301 - this backslash tells click not to wrap the lines below it
    _set_log_level(ctx, log_level)


@main.command()
@click.argument("target", metavar="PATH_OR_MODULE[:FLOW]")
@click.option("--runner", metavar="NAME", help="The task runner; it beats what the flow and all settings say.")
@click.option("options", "-o", "--option", multiple=True, metavar="KEY=VALUE", help="An option of the task runner.")
@click.option("parameters", "-p", "--param", multiple=True, metavar="PARAM=VALUE", help="A parameter of the flow.")
@click.option(
    "observers", "--observer", multiple=True, metavar="NAME", help="Who is told what happens: progress, otel."
)
@click.option("--report", metavar="FILE.html", help="Write a page about the run, also if it fails.")
@click.option("--traceback", is_flag=True, help="Show whole tracebacks, with Riverrun's own frames.")
@_log_level
@click.pass_context
def run(ctx: click.Context, /, *, target: str, log_level: str | None, **typed: Any) -> None:
    """Run a flow of a file or of a module.

    \b
    riverrun run census.py:census
    riverrun run census.py:census -p limit=10 --runner concurrent -o max_workers=4
    riverrun run census.py --runner dask -o cluster_kwargs.n_workers=4 --observer progress
    riverrun run my_package.flows:census

    FLOW may be left out where there is only one. A VALUE is JSON if it reads as JSON and fits, else text.
    """  # noqa: D301 - as above
    from riverrun._cli_run import Order, run_flow

    _set_log_level(ctx, log_level)
    ctx.exit(run_flow(Order(target=target, **typed)))


@main.command()
@click.option("--check", is_flag=True, help="Exit with status 1 if one that is installed cannot be used.")
@click.pass_context
def runners(ctx: click.Context, *, check: bool) -> None:
    """List the task runners, and why one cannot be used."""
    from riverrun._listing import list_runners
    from riverrun._tables import table

    rows = list_runners()
    header = ("name", "class", "distribution", "version", "concurrency", "problem")
    shown = [(row.name, row.class_path, row.distribution, row.version, row.concurrency, row.problem) for row in rows]
    click.echo(table(header, shown))
    if check:
        ctx.exit(1 if any(row.problem and row.installed and not _is_switched_off(row) for row in rows) else 0)


def _is_switched_off(row: Row) -> bool:
    """Tell whether the person who set it up does not want it: that is no fault of it."""
    from riverrun._allowed import switched_off
    from riverrun._offers import Offer

    return bool(switched_off(Offer(row.name, row.class_path, row.distribution)))


@main.command()
@click.option("count", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="How many, at most.")
def runs(count: int) -> None:
    """List past flow runs, the newest first, if RIVERRUN_HOME is set."""
    from riverrun._history import NO_HISTORY, folder, listing

    home = folder()
    if home is None:
        raise Refusal(NO_HISTORY)
    try:
        text, note = listing(home, count)
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be read: {error.strerror}.") from None
    click.echo(text)
    if note:
        click.echo(note, err=True)


@main.command("new-runner")
@click.argument("name")
@click.option(
    "--executor",
    metavar="DOTTED.PATH",
    default="concurrent.futures.ThreadPoolExecutor",
    show_default=True,
    help="The class whose objects run the tasks: any concurrent.futures.Executor.",
)
def new_runner(name: str, executor: str) -> None:
    """Write the package of a task runner of your own, tests included, into a new folder ./runner-NAME."""
    from riverrun._new_runner import NewRunnerError, write_package

    try:
        click.echo(write_package(name, executor))
    except NewRunnerError as error:
        raise Refusal(str(error)) from None
