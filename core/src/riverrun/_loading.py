"""Import what an offer names; of a task runner, make sure that it is one which this Riverrun can work with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

from riverrun._offers import INSTALL, OBSERVER, TASK_RUNNER, is_ours, version_of
from riverrun.abc import API_VERSION, TaskRunner, check_concurrency
from riverrun.exceptions import (
    IncompatibleTaskRunner,
    ObserverLoadError,
    ObserverNotInstalled,
    RiverrunError,
    TaskRunnerError,
    TaskRunnerLoadError,
    TaskRunnerNotInstalled,
)

if TYPE_CHECKING:
    from riverrun._offers import Offer

_LOAD_ERRORS: dict[str, type[RiverrunError]] = {TASK_RUNNER: TaskRunnerLoadError, OBSERVER: ObserverLoadError}


def class_of(offer: Offer) -> type[TaskRunner]:
    """Load one task runner class.

    Args:
        offer: which one.

    Returns:
        The class.

    Raises:
        TaskRunnerNotInstalled: it is one of ours, and its package is not there.
        TaskRunnerLoadError: it cannot be imported, or is no task runner.
        IncompatibleTaskRunner: it was written for another version of the contract.
    """
    named = what_is_named_by(offer)
    runner = named if _is_runner(named) else _from_plugin(offer, named)
    check_version(runner, offer)
    if missing := sorted(runner.__abstractmethods__):
        raise problem_of(offer, f"`{runner.__name__}` is abstract, it lacks `{'`, `'.join(missing)}`")
    try:
        check_concurrency(runner)
    except TaskRunnerError as error:
        raise problem_of(offer, str(error).removesuffix(".")) from None
    return runner


def check_version(runner: type[TaskRunner], offer: Offer | None = None) -> None:
    """Refuse a class that was written for another version of the contract.

    Args:
        runner: the class.
        offer: where it comes from, if that is known.

    Raises:
        IncompatibleTaskRunner: its `api_version` is not the one of this Riverrun.
    """
    version: object = runner.api_version  # whatever its author wrote
    if version == API_VERSION:
        return
    label = _label(offer) if offer else f"The task runner class `{runner.__name__}`"
    if isinstance(version, int) and version > API_VERSION:
        advice = "Upgrade Riverrun: pip install --upgrade core"
    elif offer:
        advice = f"Upgrade it: pip install --upgrade {offer.distribution}"
    else:
        advice = "Upgrade the package that it comes from."
    raise IncompatibleTaskRunner(
        f"{label} was written for version {version} of the task runner contract, "
        f"and this Riverrun has version {API_VERSION}. {advice}"
    )


def _is_runner(named: Any) -> TypeGuard[type[TaskRunner]]:
    return isinstance(named, type) and issubclass(named, TaskRunner)


def what_is_named_by(offer: Offer) -> Any:
    """Import what an entry point names.

    Raises:
        RiverrunError: that is not possible; of the kind that fits what is offered.
    """
    try:
        # Not `importlib.import_module`: a flow with a runner of ours can do without importlib.
        __import__(offer.module)
        found: Any = sys.modules[offer.module]
        for name in filter(None, offer.attribute.split(".")):
            found = getattr(found, name)
    # A plugin may raise anything, and some scripts exit when they are imported.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is told, with its traceback
        raise failure_of(offer, error) from None
    return found


def _from_plugin(offer: Offer, plugin: Any) -> type[TaskRunner]:
    """Ask a plugin (a module, or any object) for its class, through its hook."""
    import pluggy

    from riverrun import hookspecs

    manager = pluggy.PluginManager("riverrun")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name=offer.full_name)
        manager.check_pending()
        hooks = [caller for caller in manager.get_hookcallers(plugin) or () if caller.name == "riverrun_task_runner"]
        runner: Any = manager.hook.riverrun_task_runner() if hooks else None
    except pluggy.PluginValidationError as error:
        raise problem_of(offer, f"its hook does not fit: {error}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is told, with its traceback
        raise failure_of(offer, error) from None
    if not hooks:
        raise problem_of(
            offer,
            f"`{offer.value}` is neither a subclass of `riverrun.abc.TaskRunner` "
            "nor a plugin with an `@hookimpl` of `riverrun_task_runner()`",
        )
    if not _is_runner(runner):
        raise problem_of(
            offer,
            f"its hook `riverrun_task_runner()` returned {runner!r}, which is no subclass of `riverrun.abc.TaskRunner`",
        )
    return runner


def _label(offer: Offer) -> str:
    version = offer.version or version_of(offer.distribution) or "(version unknown)"
    return f"The {offer.kind} `{offer.name}` of {offer.distribution} {version}"


def problem_of(offer: Offer, why: str) -> RiverrunError:
    """Say why what is offered cannot be used."""
    return _LOAD_ERRORS[offer.kind](f"{_label(offer)} cannot be loaded: {why}.")


def failure_of(offer: Offer, error: BaseException) -> RiverrunError:
    """Say what code of the distribution raised."""
    entry = f"its entry point `{offer.name} = {offer.value}`"
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{offer.module}.".startswith(f"{missing}."):
        if is_ours(offer):
            return TaskRunnerNotInstalled(
                f"The task runner `{offer.name}` is not installed. To install it: {INSTALL[offer.name]}"
            )
        return problem_of(
            offer,
            f"{entry} names the module `{missing}`, which does not exist. "
            f"If its files were removed by hand: pip uninstall {offer.distribution}",
        )
    frame = error.__traceback__.tb_next if error.__traceback__ else None  # our own call says nothing
    if isinstance(error, AttributeError) and frame is None:
        return problem_of(offer, f"{entry} names nothing: {error}")
    if missing and offer.extra and offer.kind == OBSERVER:
        return ObserverNotInstalled(
            f"{_label(offer)} needs the module `{missing}`, which is not installed. "
            f"To install it: pip install '{offer.distribution}[{offer.extra}]'"
        )
    import traceback

    why = f"it needs the module `{missing}`, which is not installed" if missing else _first_line(error)
    text = "".join(traceback.format_exception(type(error), error, frame))
    return _LOAD_ERRORS[offer.kind](f"{_label(offer)} cannot be loaded: {why}\n\n{text.rstrip()}")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
