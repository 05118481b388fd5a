"""From what settings and code say about observers to objects with hooks: by name, on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from riverrun._allowed import switched_off
from riverrun._loading import failure_of, problem_of, what_is_named_by
from riverrun._offers import OBSERVER, Offer, normalized, scan, version_of
from riverrun._plugins import only_one
from riverrun._suggestions import did_you_mean
from riverrun.exceptions import ConfigurationError, ObserverLoadError, ObserverNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "riverrun_"


class Observer(NamedTuple):
    """An observer, ready to be told things."""

    name: str
    label: str
    """What to call it in a message: name, distribution and version."""
    hooks: dict[str, Callable[..., Any]]


def by_name(name: str, *, make: bool = True) -> Observer:
    """Load an observer, and nothing of any other.

    Args:
        name: its name, or `distribution:name`.
        make: whether to make an object of a class; if not, only to look whether it fits.

    Raises:
        ObserverError: there is none, or it cannot be used; the subclass and the text say why.
    """
    offer = _chosen(name)
    named = what_is_named_by(offer)
    if make and isinstance(named, type):
        try:
            named = named()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is told, with its traceback
            raise failure_of(offer, error) from None
    try:
        hooks = _hooks_of(named)
    except ConfigurationError as error:
        raise problem_of(offer, f"`{offer.value}` {error}".removesuffix(".")) from None
    version = offer.version or version_of(offer.distribution) or "(version unknown)"
    return Observer(offer.name, f"Observer `{offer.name}` of {offer.distribution} {version}", hooks)


def from_object(given: object, *, make: bool = True) -> Observer:
    """Make an observer of an object, a module, or a class, of which a new object is made.

    Args:
        given: which.
        make: whether to make an object of a class; if not, only to look whether it fits.

    Raises:
        ConfigurationError: it has no hook, or one that does not fit.
        ObserverLoadError: the class cannot be called without arguments, or raised.
    """
    name = given.__name__ if isinstance(given, type) else getattr(given, "__name__", type(given).__name__)
    try:
        plugin = given() if make and isinstance(given, type) else given
    except (Exception, SystemExit) as error:
        raise ObserverLoadError(
            f"The observer `{name}` cannot be made: `{name}()` raised {type(error).__name__}: {error}. Each flow run "
            f"makes an object of the class, without arguments; to use one for all, register it: register({name}(...))."
        ) from error
    try:
        return Observer(name, f"Observer `{name}`", _hooks_of(plugin))
    except ConfigurationError as error:
        raise ConfigurationError(f"The observer `{name}` {error}") from None


def _chosen(full_name: str) -> Offer:
    distribution, _, name = full_name.rpartition(":")
    offers = [
        offer
        for offer in scan(OBSERVER)
        if offer.name == name and normalized(distribution) in ("", normalized(offer.distribution))
    ]
    if not offers:
        raise _not_found(full_name)
    return only_one(offers, f"an observer `{name}`")


def _not_found(full_name: str) -> ObserverNotFound:
    usable = [offer.name for offer in scan(OBSERVER) if not switched_off(offer)]
    near = did_you_mean(full_name.rpartition(":")[2], usable)
    installed = ", ".join(sorted({*usable})) or "none"
    return ObserverNotFound(f"No observer is named `{full_name}`{near} Installed: {installed}.")


def _hooks_of(plugin: object) -> dict[str, Callable[..., Any]]:
    """Let pluggy find the hooks of an object, and check them against their specifications."""
    import pluggy

    from riverrun import hookspecs

    manager = pluggy.PluginManager("riverrun")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise ConfigurationError(f"has a hook that does not fit: {error}") from None
    callers = manager.get_hookcallers(plugin) or []
    hooks = {caller.name: caller for caller in callers if caller.name != "riverrun_task_runner"}
    if not hooks:
        known = [name for name in vars(hookspecs) if name.startswith(_PREFIX) and name != "riverrun_task_runner"]
        raise ConfigurationError(f"has no `@hookimpl` of a hook of observers: {', '.join(known)}.")
    return dict(hooks)
