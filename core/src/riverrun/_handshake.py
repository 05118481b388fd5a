"""What is said, and done, about workers that differ from the flow's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverrun._environments import MISSING, NO_ANSWER, UNKNOWN, Difference, Environment, differences
from riverrun.exceptions import TaskRunnerStartError

if TYPE_CHECKING:
    import logging
    from collections.abc import Collection, Mapping


def check_environments(
    here: Environment,
    others: Mapping[str, Environment | BaseException],
    *,
    runner: str,
    where: str,
    log: logging.Logger,
    required: Collection[str] = (),
) -> None:
    """Refuse workers that cannot run this flow's tasks; warn, once, of those that might run them differently.

    Another minor version of Python, another `major.minor` version of Riverrun and a missing Riverrun are errors.
    Everything else is a warning.

    Args:
        here: what `environment()` gave in this process.
        others: what it gave on each worker, or the exception that came instead.
        runner: the name of the task runner, for the text.
        where: what the workers belong to, for the text; as in "the Dask cluster at tcp://10.0.0.1:8786".
        log: gets the warning, a single record.
        required: the distributions that a worker must have too, in whatever version.

    Raises:
        TaskRunnerStartError: the workers cannot run this flow's tasks; with a table, and what to install where.

    Example:
        >>> import logging
        >>> from riverrun.workers import check_environments, environment
        >>> here = environment()
        >>> log = logging.getLogger("riverrun")
        >>> check_environments(here, {"a worker": here}, runner="MyTaskRunner", where="my cluster", log=log)
    """
    found = differences(here, others)
    if not found:
        return
    faults = [(row, versions) for row in found.rows if (versions := _faults(row, required))]
    if faults:
        unfit = {worker for row, versions in faults for version in versions for worker in row.there[version]}
        raise TaskRunnerStartError(
            f"`{runner}`: {_counted(len(unfit), found.workers)} of {where} cannot run tasks of this process:\n"
            f"{found.table()}\n{' '.join(_advice(row) for row, _ in faults)}"
        )
    log.warning(
        "`%s`: %s of %s %s other versions than this process:\n%s\nIf a task fails there that works here, or a value "
        "does not arrive as it was sent, install the same versions.",
        runner,
        _counted(len(found.who()), found.workers),
        where,
        "has" if found.workers == 1 else "have",
        found.table(),
    )


def _faults(row: Difference, required: Collection[str]) -> list[str | None]:
    """Give the versions of the workers that can run no task because of them."""
    if row.package == "python":
        return [version for version in row.there if _minor(version) != _minor(row.here)]
    if row.package == "riverrun":
        return [version for version in row.there if _cannot_talk(version, row.here)]
    return [version for version in row.there if version is MISSING and row.package in required]


def _advice(row: Difference) -> str:
    """Say what to do about a difference that is an error."""
    exact = "" if row.here in {UNKNOWN, MISSING} else f"=={row.here}"
    if row.package == "python":
        return (
            f"Functions travel as byte code, which other minor versions of Python cannot run: run the workers on "
            f"Python {_minor(row.here)}, or this process on theirs."
        )
    if row.package == "riverrun":
        return (
            f"A worker must be able to import `riverrun.workers`, of the same minor version: install the Riverrun of "
            f"this process there: pip install 'core{exact}'."
        )
    return f"Install on the workers what they lack: pip install '{row.package}{exact}'."


def _cannot_talk(there: str | None, here: str | None) -> bool:
    if there is MISSING or there.startswith(NO_ANSWER):
        return True
    return UNKNOWN not in {there, here} and _minor(there) != _minor(here)


def _minor(version: str | None) -> str:
    return ".".join((version or "").split(".")[:2])


def _counted(differing: int, total: int) -> str:
    if total == 1:
        return "the worker"
    return f"all {total} workers" if differing == total else f"{differing} of {total} workers"
