"""Settings: the command line, then the environment, then `[tool.riverrun]` of `pyproject.toml`, then defaults.

What code says (`@flow(task_runner=...)`, `with_options`) stands between the command line and the environment; the
callers of `load()` see to that. This module runs at the start of every flow run, so it imports next to nothing.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from riverrun._pyproject import tool_table
from riverrun._suggestions import did_you_mean
from riverrun.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

VARIABLES = {
    "RIVERRUN_TASK_RUNNER": "task_runner",
    "RIVERRUN_LOG_LEVEL": "log_level",
    "RIVERRUN_HOME": "home",
    "RIVERRUN_DISABLE_PLUGINS": "disable_plugins",
    "RIVERRUN_PLUGINS": "plugins",
    "RIVERRUN_OBSERVERS": "observers",
    "RIVERRUN_EVENT_LOG": "event_log",
}
"""Every environment variable that Riverrun reads; an empty one counts as not set."""

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Settings(NamedTuple):
    """What the settings are at one moment; changes of the environment show in the next `load()`."""

    task_runner: str | None
    """The name of the task runner of flows that do not name one, or `None`."""
    log_level: str
    home: str
    """The folder for what Riverrun keeps; nothing creates it before something is kept."""
    disable_plugins: bool
    """Whether plugins by other people are switched off."""
    plugins: tuple[str, ...] | None
    """Names, distributions or `dist:name` of the plugins that alone are allowed; `None` allows all."""
    observers: tuple[str, ...]
    """The names of the observers that are told what happens to runs."""
    event_log: str | None
    """The file to which the last events of each flow run's task runs are appended when it ends; `-` is stderr."""
    task_runners: dict[str, dict[str, Any]]
    """Default options by the name of a task runner. Treat them as read-only."""
    sources: dict[str, str]
    """Where the value of a setting comes from, for messages: a variable, a file, or the command line."""


class _BadValue(Exception):
    """Says what is wrong with a value; `_read` adds where the value stands."""


def load() -> Settings:
    """Find the settings that hold now.

    Returns:
        The settings, each from the first of command line, environment, file and default that has it.

    Raises:
        SettingsError: a value cannot be used, or `[tool.riverrun]` has a key that does not exist.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, value, source in _from_file() + _from_environment() + _from_command_line():
        values[key] = value
        sources[key] = source
    home = values.get("home") or os.path.join(os.path.expanduser("~"), ".riverrun")
    return Settings(
        task_runner=values.get("task_runner"),
        log_level=values.get("log_level", "INFO"),
        home=os.path.abspath(home),
        disable_plugins=values.get("disable_plugins", False),
        plugins=values.get("plugins"),
        observers=values.get("observers", ()),
        event_log=values.get("event_log"),
        task_runners=values.get("task_runners", {}),
        sources=sources,
    )


_command_line: dict[str, Any] = {}


@contextmanager
def override(
    *,
    task_runner: str | None = None,
    log_level: str | None = None,
    home: str | None = None,
    disable_plugins: bool | None = None,
    plugins: Sequence[str] | None = None,
    observers: Sequence[str] | None = None,
) -> Iterator[None]:
    """Let the command line win over every other source, in all threads, as long as the context lasts.

    Args:
        task_runner: the name of a task runner.
        log_level: a level of `logging`, by name.
        home: a folder.
        disable_plugins: whether plugins by other people are switched off.
        plugins: those that alone are allowed.
        observers: the names of observers.

    Raises:
        SettingsError: a value cannot be used.
    """
    given = {
        "task_runner": task_runner,
        "log_level": log_level,
        "home": home,
        "disable_plugins": disable_plugins,
        "plugins": None if plugins is None else list(plugins),
        "observers": None if observers is None else list(observers),
    }
    before = dict(_command_line)
    read = {key: _read(key, raw, f"`{key}` on the command line") for key, raw in given.items() if raw is not None}
    _command_line.update(read)
    try:
        yield
    finally:
        _command_line.clear()
        _command_line.update(before)


def command_line() -> Mapping[str, Any]:
    """Tell what the command line has set: what it says also beats what is written in code."""
    return dict(_command_line)


def _from_command_line() -> list[tuple[str, Any, str]]:
    return [(key, value, "the command line") for key, value in _command_line.items()]


def _from_environment() -> list[tuple[str, Any, str]]:
    found = []
    for variable in os.environ:
        if not variable.startswith("RIVERRUN_"):
            continue
        if variable not in VARIABLES:
            _warn_of(variable)
        elif raw := os.environ[variable].strip():
            key = VARIABLES[variable]
            found.append((key, _read(key, raw, variable), variable))
    return found


def _warn_of(variable: str) -> None:
    import warnings

    near = did_you_mean(variable, VARIABLES)
    warnings.warn(f"Riverrun does not know the environment variable `{variable}`{near}", stacklevel=4)


def _from_file() -> list[tuple[str, Any, str]]:
    path, table = tool_table()
    source = f"[tool.riverrun] of {path}"
    found = []
    for key, raw in table.items():
        if key not in _READERS:
            known = ", ".join(f"`{name}`" for name in _READERS)
            near = did_you_mean(key, _READERS)
            raise SettingsError(f"{source} has an unknown key `{key}`{near} It may have: {known}.")
        value = _read(key, raw, f"`{key}` in {source}")
        if key in {"home", "event_log"} and value != "-":
            value = os.path.join(os.path.dirname(path), value)  # it is meant from that file
        found.append((key, value, source))
    return found


def _read(key: str, raw: object, where: str) -> Any:
    try:
        return _READERS[key](raw)
    except _BadValue as error:
        raise SettingsError(f"{where} is {raw!r}; {error}") from None


def _text(raw: object) -> str:
    if isinstance(raw, str) and raw.strip():
        return raw.strip()
    raise _BadValue("it must be a text that is not empty.")


def _level(raw: object) -> str:
    if isinstance(raw, str) and raw.strip().upper() in LOG_LEVELS:
        return raw.strip().upper()
    raise _BadValue(f"it must be one of {', '.join(LOG_LEVELS)}{did_you_mean(str(raw), LOG_LEVELS)}")


def _flag(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in ("1", "true", "yes", "on"):
        return True
    if isinstance(raw, str) and raw.strip().lower() in ("0", "false", "no", "off"):
        return False
    raise _BadValue("it must be 1, true, yes, on, 0, false, no or off.")


def _path(raw: object) -> str:
    return os.path.expanduser(_text(raw))


def _names(raw: object) -> tuple[str, ...]:
    names = raw.split(",") if isinstance(raw, str) else raw
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(name.strip() for name in names if name.strip())
    raise _BadValue("it must be a list of names (in a variable: with commas between them).")


def _tables(raw: object) -> dict[str, dict[str, Any]]:
    if isinstance(raw, dict) and all(isinstance(options, dict) for options in raw.values()):
        return raw
    raise _BadValue("it must be tables of options, as in [tool.riverrun.task_runners.dask].")


_READERS: dict[str, Callable[[object], Any]] = {
    "task_runner": _text,
    "log_level": _level,
    "home": _path,
    "disable_plugins": _flag,
    "plugins": _names,
    "observers": _names,
    "event_log": _path,
    "task_runners": _tables,
}
