"""What a class that is to run tasks is like, found out without making an object of it: that may start processes."""

from __future__ import annotations

import concurrent.futures
import importlib
import inspect
import sys
from typing import Any, NamedTuple

_WHY_SPAWN = (
    "        # Not forked, which is Linux's way before Python 3.14: the child of a process with threads may hang.\n"
)
_OPTION_HELP = """

    Args:
        max_workers: how many tasks run at once; by default, what the executor thinks right."""


class ExecutorClassError(Exception):
    """It is no executor, or cannot be imported; the text says which."""


class ExecutorClass(NamedTuple):
    """A class whose objects are like `concurrent.futures.Executor`."""

    module: str
    name: str
    concurrency: str
    """The name of a member of `riverrun.abc.Concurrency`."""
    is_certain: bool
    """Whether the concurrency is known, and not a careful guess."""
    has_max_workers: bool
    needs_context: bool
    """Whether it has to be told how to start processes."""
    distributions: tuple[str, ...]
    """What has to be installed for it."""

    @property
    def in_standard_library(self) -> bool:
        """Whether it comes with Python."""
        return self.module.partition(".")[0] in sys.stdlib_module_names

    def fragments(self) -> dict[str, str]:
        """Give the parts of the source that depend on it."""
        arguments = ["max_workers=self.max_workers"] if self.has_max_workers else []
        if self.needs_context:
            arguments.append('mp_context=get_context("spawn")')
        return {
            "concurrency": self.concurrency,
            "concurrency_comment": "" if self.is_certain else "  # CONCURRENT, if it stays in this process",
            "option": "    max_workers: int | None = None\n\n" if self.has_max_workers else "",
            "option_help": _OPTION_HELP if self.has_max_workers else "",
            "test_options": "max_workers=2" if self.has_max_workers else "",
            "start_comment": _WHY_SPAWN if self.needs_context else "",
            "start": f"{self.name}({', '.join(arguments)})",
        }


def examine(path: str) -> ExecutorClass:
    """Look at a class.

    Args:
        path: its dotted path, as in `concurrent.futures.ThreadPoolExecutor`.

    Raises:
        ExecutorClassError: it cannot be imported, or is no executor.
    """
    module, _, name = path.replace(":", ".").rpartition(".")
    if not module or not name:
        raise ExecutorClassError(
            f"`--executor {path}` is no dotted path. Type one such as: concurrent.futures.ThreadPoolExecutor"
        )
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - whatever a module raises on import
        raise ExecutorClassError(
            f"`--executor {path}` cannot be imported: {error}. Install it here first, or check the path."
        ) from None
    if not isinstance(found, type):
        raise ExecutorClassError(
            f"`--executor {path}` is no class, it is a {type(found).__name__}. "
            "Name the class whose objects have `submit()`."
        )
    lacking = [method for method in ("submit", "__enter__", "__exit__") if not callable(getattr(found, method, None))]
    if lacking or inspect.isabstract(found) or found is concurrent.futures.Executor:
        why = f"it lacks `{'`, `'.join(lacking)}`" if lacking else "it is abstract"
        raise ExecutorClassError(
            f"`--executor {path}` is no executor: {why}. It must be like concurrent.futures.Executor."
        )
    threads = issubclass(found, concurrent.futures.ThreadPoolExecutor)
    processes = issubclass(found, concurrent.futures.ProcessPoolExecutor)
    return ExecutorClass(
        module=module,
        name=name,
        # Parallel means that calls are pickled: right for other processes, and harmless in this one.
        concurrency="CONCURRENT" if threads else "PARALLEL",
        is_certain=threads or processes,
        has_max_workers="max_workers" in _parameters(found),
        needs_context=processes and "mp_context" in _parameters(found),
        distributions=_distributions(module),
    )


def _parameters(found: type) -> set[str]:
    try:
        return set(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # written in C
        return set()


def _distributions(module: str) -> tuple[str, ...]:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return ()
    from importlib_metadata import packages_distributions

    return tuple(sorted(set(packages_distributions().get(top, ()))))
