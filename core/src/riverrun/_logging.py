"""Logs: one line per event on stderr, through `logging`, and what a task prints, if it is asked for.

Everything goes to loggers below `riverrun`. Where the application has set up logging on its own (a handler on the
root logger or on `riverrun`), its handlers get the records and ours stays quiet.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from riverrun._context import current_scope
from riverrun.exceptions import MissingContextError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

root_logger: Final = logging.getLogger("riverrun")
flow_logger: Final = logging.getLogger("riverrun.flow_runs")
task_logger: Final = logging.getLogger("riverrun.task_runs")


class RunFormatter(logging.Formatter):
    """`13:46:58.865 | message`; a level other than INFO stands before the message."""

    default_time_format = "%H:%M:%S"
    default_msec_format = "%s.%03d"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name logging calls
        level = "" if record.levelno == logging.INFO else f"{record.levelname} | "
        return f"{self.formatTime(record)} | {level}{record.message}"


class SilentHandler(logging.Handler):
    """A handler of Riverrun's own that shows nothing: beside it, records go to stderr as they do without it."""


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to what `sys.stderr` is at the moment, unless the application has handlers of its own."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(RunFormatter())

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        others = [handler for handler in root_logger.handlers if not isinstance(handler, SilentHandler)]
        if not logging.root.handlers and others == [self]:
            super().emit(record)


_handler: Final = _StderrHandler()
_applied_level: int | None = None


def configure(level: str) -> None:
    """Let the records of this level and above come out; a level that the application set on `riverrun` wins."""
    global _applied_level  # noqa: PLW0603 - one process has one logging configuration
    if all(isinstance(handler, SilentHandler) for handler in root_logger.handlers):
        root_logger.addHandler(_handler)
    if root_logger.level in (logging.NOTSET, _applied_level):
        root_logger.setLevel(level)
        _applied_level = root_logger.level


@contextmanager
def restored() -> Iterator[None]:
    """Undo at the end what `configure` does meanwhile."""
    global _applied_level  # noqa: PLW0603
    handlers, level, applied = list(root_logger.handlers), root_logger.level, _applied_level
    try:
        yield
    finally:
        root_logger.handlers[:] = handlers
        root_logger.setLevel(level)
        _applied_level = applied


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records name their run, in the text and in the fields `flow_run_name`, `task_run_name`, ..."""

    def __init__(self, logger: logging.Logger, label: str, fields: dict[str, Any]) -> None:
        super().__init__(logger, fields)
        self._label = label

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message, as `logging.Logger.log` does."""
        if not self.isEnabledFor(level):
            return
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # this frame is not the caller that the record names
        # The label is an argument, not a part of the template: a run's name may hold a percent sign.
        if args and not isinstance(args[0], dict):
            self.logger.log(level, f"%s - {msg}", self._label, *args, **kwargs)  # noqa: G004 - `msg` is a template
        else:
            text = str(msg) % args[0] if args else msg
            self.logger.log(level, "%s - %s", self._label, text, **kwargs)


def run_logger(scope: Any) -> RunLogger:
    """Make the logger of a flow run or a task run."""
    kind, name, fields = scope.log_identity()
    logger = flow_logger if scope.is_flow else task_logger
    return RunLogger(logger, f"{kind} {name!r}", fields)


def get_run_logger() -> RunLogger:
    """Give the logger of the present run, in a flow or in a task, on every task runner.

    Returns:
        A `logging.LoggerAdapter`. What is logged on a worker comes out in the process of the flow.

    Raises:
        MissingContextError: called outside of a flow or a task.

    Example:
        >>> from riverrun import flow, get_run_logger
        >>> @flow(task_runner="sequential")
        ... def quiet():
        ...     get_run_logger().debug("not shown at level INFO")
        >>> quiet()
    """
    scope = current_scope.get()
    if scope is None:
        msg = (
            "get_run_logger() was called outside of a flow or a task run. Call it inside the function; elsewhere use "
            "logging.getLogger(__name__)."
        )
        raise MissingContextError(msg)
    return run_logger(scope)


class _PrintSink:
    """Collects what one run prints, and logs it line by line."""

    def __init__(self, logger: RunLogger) -> None:
        self._logger = logger
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._logger.info("%s", line)

    def close(self) -> None:
        with self._lock:
            rest, self._rest = self._rest, ""
        if rest:
            self._logger.info("%s", rest)


_print_sink: Final[ContextVar[_PrintSink | None]] = ContextVar("riverrun_print_sink", default=None)


class _StdoutProxy:
    """Stands in for `sys.stdout` while some run logs its prints; the prints of all others pass through."""

    def __init__(self, stdout: TextIO) -> None:
        self.stdout = stdout
        self.users = 0

    def write(self, text: str) -> int:
        sink = _print_sink.get()
        if sink is None:
            return self.stdout.write(text)
        sink.write(text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stdout, name)


_proxy_lock: Final = threading.Lock()


def _install_proxy() -> _StdoutProxy:
    with _proxy_lock:
        proxy = sys.stdout
        if not isinstance(proxy, _StdoutProxy):
            proxy = _StdoutProxy(sys.stdout)
            sys.stdout = proxy
        proxy.users += 1
        return proxy


def _remove_proxy(proxy: _StdoutProxy) -> None:
    with _proxy_lock:
        proxy.users -= 1
        if proxy.users == 0 and sys.stdout is proxy:
            sys.stdout = proxy.stdout


@contextmanager
def prints_logged(scope: Any, *, wanted: bool) -> Iterator[None]:
    """Log what the code inside prints, if wanted; else let it print, also where the run around it logs its prints."""
    if not wanted:
        token = _print_sink.set(None)
        try:
            yield
        finally:
            _print_sink.reset(token)
        return
    sink = _PrintSink(run_logger(scope))
    proxy = _install_proxy()
    token = _print_sink.set(sink)
    try:
        yield
    finally:
        _print_sink.reset(token)
        sink.close()
        _remove_proxy(proxy)


MAX_RECORDS: Final = 100_000
_record_sink: Final[ContextVar[list[logging.LogRecord] | None]] = ContextVar("riverrun_record_sink", default=None)


class _SinkHandler(logging.Handler):
    """On a worker: keeps the records of a call, to be sent back with its outcome."""

    def emit(self, record: logging.LogRecord) -> None:
        records = _record_sink.get()
        if records is None or len(records) >= MAX_RECORDS:
            return
        try:
            record.msg = record.getMessage()
        except Exception:  # noqa: BLE001 - a template that its arguments do not fit is no failure of the task
            self.handleError(record)
            record.msg = f"{record.msg} {record.args!r} (the arguments do not fit the template)"
        record.args = None
        if record.exc_info:
            record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        for name, value in vars(record).items():
            if type(value) not in _PLAIN and not _is_pickled(value):  # `extra=` may hold anything
                record.__dict__[name] = repr(value)
        records.append(record)


_PLAIN: Final = frozenset({type(None), bool, int, float, str})


def _is_pickled(value: object) -> bool:
    import pickle

    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - a lock, an open file, an object of the user's that refuses
        return False
    return True


_sink_handler: Final = _SinkHandler()


@contextmanager
def records_kept(level: int, records: list[logging.LogRecord] | None = None) -> Iterator[list[logging.LogRecord]]:
    """Keep the records that the code inside makes below `riverrun`, instead of showing them here.

    Args:
        level: the least level of a record that is kept.
        records: where to keep them; whoever gives this list may take records out of it meanwhile.
    """
    if _sink_handler not in root_logger.handlers:
        root_logger.addHandler(_sink_handler)
        root_logger.propagate = False
    if root_logger.level != level:
        root_logger.setLevel(level)
    records = [] if records is None else records
    token = _record_sink.set(records)
    try:
        yield records
    finally:
        _record_sink.reset(token)
        if len(records) >= MAX_RECORDS:
            text = f"More than {MAX_RECORDS} log records: the rest of this run's is lost."
            records.append(logging.LogRecord("riverrun.task_runs", logging.WARNING, "", 0, text, None, None))


def tell_error() -> None:
    """Tell on stderr what a log filter or handler raises, as `logging` itself does; call it where that is handled."""
    if logging.raiseExceptions and sys.stderr is not None:
        import traceback

        traceback.print_exc()


def replay(records: list[logging.LogRecord], fields: dict[str, Any]) -> None:
    """Hand records that were made on a worker to the handlers of this process."""
    for record in records:
        record.__dict__.update(fields)
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            try:
                logger.handle(record)
            except Exception:  # noqa: BLE001 - a filter of the user's; the records after it are shown all the same
                tell_error()
