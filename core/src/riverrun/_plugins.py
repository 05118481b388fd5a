"""From what a flow says about its task runner to the task runner: by name, on demand.

::

    resolve(None) ----> the setting, else "concurrent"
                              |
    resolve("dask") --> get(name, **options) --> load(name) --> _offers: who offers that name?
    resolve(a class) -------> |                      |
    resolve(a runner) ------> |                      +--> _loading: import that one, and look what it is
                              v
                         a TaskRunner
"""

from __future__ import annotations

from typing import Any

from riverrun import _settings
from riverrun._allowed import refusal, switched_off
from riverrun._loading import check_version, class_of
from riverrun._offers import INSTALL, OBSERVER, OURS, TASK_RUNNER, Offer, is_importable, normalized, scan
from riverrun._options import refuse_unknown
from riverrun._suggestions import did_you_mean
from riverrun.abc import TaskRunner, check_concurrency
from riverrun.exceptions import (
    ConfigurationError,
    ObserverConflict,
    ObserverNotFound,
    RiverrunError,
    TaskRunnerConflict,
    TaskRunnerNotFound,
    TaskRunnerOptionError,
)

DEFAULT = "concurrent"
_CONFLICTS: dict[str, type[RiverrunError]] = {TASK_RUNNER: TaskRunnerConflict, OBSERVER: ObserverConflict}
_NOT_FOUND: dict[str, type[RiverrunError]] = {TASK_RUNNER: TaskRunnerNotFound, OBSERVER: ObserverNotFound}


def resolve(spec: str | type[TaskRunner] | TaskRunner | None) -> TaskRunner:
    """Turn what `@flow(task_runner=...)` takes into a task runner.

    Args:
        spec: a name, a class, an instance, or `None` for what the settings say.

    Returns:
        The instance that was given, or a new one.

    Raises:
        ConfigurationError: it is none of these.
        TaskRunnerError: there is no such task runner, or it cannot be used; the subclass and the text say why.
    """
    if spec is None:
        return _from_settings()
    if isinstance(spec, str):
        return get(spec)
    if isinstance(spec, type) and issubclass(spec, TaskRunner):
        check_version(spec)
        check_concurrency(spec)
        return spec()
    if isinstance(spec, TaskRunner):
        check_version(type(spec))
        check_concurrency(type(spec))
        return spec
    raise ConfigurationError(
        f'A task runner is given by name (such as "concurrent"), as a subclass of `riverrun.abc.TaskRunner` '
        f"or as an instance of one, not as {spec!r} ({type(spec).__name__})."
    )


def _from_settings() -> TaskRunner:
    settings = _settings.load()
    if settings.task_runner is None:
        return get(DEFAULT)
    try:
        return get(settings.task_runner)
    except TaskRunnerNotFound as error:
        raise type(error)(f"{error} (The name comes from {settings.sources['task_runner']}.)") from None


def get(name: str, /, **options: Any) -> TaskRunner:
    """Make a task runner by name.

    Args:
        name: its name, as `riverrun runners` lists it, or `distribution:name`.
        options: its options. Those not given are as in `[tool.riverrun.task_runners.NAME]`, or the default.

    Returns:
        A new task runner.

    Raises:
        TaskRunnerError: there is no such task runner, or it cannot be used; the subclass and the text say why.
    """
    runner = load(name)
    settings = _settings.load()
    tables = settings.task_runners
    key = name if name in tables else name.rpartition(":")[2]
    defaults = tables.get(key, {})
    try:
        return _make(runner, defaults | options)
    except TaskRunnerOptionError as error:
        if not defaults:
            raise
        where = f"the table `task_runners.{key}` in {settings.sources['task_runners']}"
        raise TaskRunnerOptionError(f"{error} (Options not given in code come from {where}.)") from None


def _make(runner: type[TaskRunner], options: dict[str, Any]) -> TaskRunner:
    try:
        return runner(**options)
    except TypeError as error:
        # An `__init__` of the class's own (a dataclass, say) does not name the options that exist.
        if not isinstance(error, TaskRunnerOptionError):
            refuse_unknown(runner, options)
        raise


def load(name: str) -> type[TaskRunner]:
    """Import the task runner class of a name, and nothing of any other.

    Args:
        name: the name of a task runner, or `distribution:name`.

    Returns:
        The class.

    Raises:
        TaskRunnerError: there is none, or it cannot be used; the subclass and the text say why.
    """
    distribution, _, bare = name.rpartition(":")
    if bare not in OURS:
        return class_of(_chosen(distribution, bare))
    ours = OURS[bare]
    if distribution and normalized(distribution) != ours.distribution:
        raise TaskRunnerConflict(
            f'The name `{bare}` belongs to {ours.distribution}; `{name}` is not used. Write task_runner="{bare}".'
        )
    return class_of(ours)


def load_class(class_name: str) -> type[TaskRunner] | None:
    """Import the task runner class that is called this, and nothing of any other.

    Args:
        class_name: the name of the class, such as `DaskTaskRunner`.

    Returns:
        The class, or `None` if no distribution offers one of that name.

    Raises:
        TaskRunnerError: one does, and it cannot be used.
    """
    for offer in OURS.values():
        if offer.attribute == class_name:
            return class_of(offer)
    convention = class_name.removesuffix("TaskRunner").lower()
    offers = [
        offer
        for offer in third_party()
        if offer.attribute == class_name or normalized(offer.name).replace("-", "") == convention
    ]
    if not offers:
        return None
    offer = only_one(offers, f"a class `{class_name}`")
    runner = class_of(offer)
    return runner if class_name in (offer.attribute, runner.__name__) else None


def class_names() -> list[str]:
    """Name the task runner classes that are installed, as far as that can be told without importing any."""
    ours = [offer.attribute for offer in OURS.values() if is_importable(offer)]
    others = [offer.attribute for offer in third_party() if not switched_off(offer)]
    return ours + [name for name in others if name.isidentifier() and name[0].isupper()]


def names() -> list[str]:
    """Name the task runners that are installed, without importing any.

    Returns:
        Riverrun's own first, then all others by name; in full (`distribution:name`) where a name alone is not enough.
    """
    others = [offer for offer in third_party() if not offer.problem and not switched_off(offer)]
    times = [offer.name for offer in others]
    return [
        *(name for name, offer in OURS.items() if is_importable(offer)),
        *(offer.name if times.count(offer.name) == 1 else offer.full_name for offer in others),
    ]


def third_party() -> list[Offer]:
    """Return the offers of other people's distributions, less those that take a name of ours."""
    return [offer for offer in scan() if offer.name not in OURS]


def _chosen(distribution: str, name: str) -> Offer:
    offers = [
        offer
        for offer in third_party()
        if offer.name == name and normalized(distribution) in ("", normalized(offer.distribution))
    ]
    if not offers:
        raise _not_found(f"{distribution}:{name}" if distribution else name)
    return only_one(offers, f"a task runner `{name}`")


def only_one(offers: list[Offer], what: str) -> Offer:
    """Give the one offer of those of one name that may be used, or say why there is none.

    Args:
        offers: one or more, of one kind.
        what: what they offer, for the text.

    Raises:
        RiverrunError: none may be used, or there are several; of the kind that fits what is offered.
    """
    allowed = [offer for offer in offers if not switched_off(offer)]
    if not allowed:
        raise _NOT_FOUND[offers[0].kind](refusal(offers))
    if len({offer.distribution for offer in allowed}) > 1:
        option = "task_runner=" if allowed[0].kind == TASK_RUNNER else ""
        choice = " or ".join(f'{option}"{offer.full_name}"' for offer in allowed)
        raise _CONFLICTS[allowed[0].kind](
            f"{len(allowed)} distributions offer {what}: {' and '.join(map(str, allowed))}. Choose one: {choice}."
        )
    return allowed[0]


def _not_found(name: str) -> TaskRunnerNotFound:
    ours = {offer.name: is_importable(offer) for offer in OURS.values()}
    others = [offer.name for offer in third_party() if not offer.problem and not switched_off(offer)]
    near = did_you_mean(name.rpartition(":")[2].removesuffix("TaskRunner"), [*ours, *others])
    installed = sorted({*others, *(own for own, there in ours.items() if there)})
    text = f"No task runner is named `{name}`{near} Installed: {', '.join(installed) or 'none'}."
    absent = [f"{own} ({INSTALL[own]})" for own, there in ours.items() if not there]
    return TaskRunnerNotFound(f"{text} Not installed: {', '.join(absent)}." if absent else text)
