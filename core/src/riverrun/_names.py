"""Names and ids of runs, made when somebody asks: a run that nobody looks at costs no string."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def new_id() -> str:
    """Give a random id in the form of a UUID."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def numbered_id(base: str, number: int) -> str:
    """Give the id of the n-th run inside another: its id with other last digits.

    Example:
        >>> from riverrun._names import numbered_id
        >>> numbered_id("3f2c9a10-77aa-4e1b-a0c4-aaaaaaaaaaaa", 26)
        '3f2c9a10-77aa-4e1b-a0c4-00000000001a'
    """
    return f"{base[:24]}{number:012x}"


def short_hash(text: str) -> str:
    """Give eight hexadecimal digits which tell tasks of one name apart; the same ones in each process."""
    return f"{zlib.crc32(text.encode()):08x}"


def random_name() -> str:
    """Give a name such as `olivine-swan`."""
    import coolname  # late: its word lists take longer to load than a small flow takes to run

    return str(coolname.generate_slug(2))


def function_name(function: Callable[..., Any]) -> str:
    """Give a function's name, also for a partial or an object that can be called."""
    inner = getattr(function, "func", function)  # functools.partial
    return str(getattr(inner, "__name__", None) or type(inner).__name__)


def render(template: str | Callable[..., object] | None, parameters: Mapping[str, Any], *, option: str) -> str | None:
    """Give a run's name from the user's template or callable.

    Args:
        template: text with the parameters' names in braces, or a callable without arguments or with one (the
            parameters by name). None: the caller has a default.
        parameters: the parameters of the run by name.
        option: what to call the template in an error (`flow_run_name`).

    Raises:
        ConfigurationError: the template names a parameter that is not there, or the callable gave no text.
    """
    if template is None:
        return None
    if isinstance(template, str):
        try:
            return template.format(**parameters)
        except (KeyError, IndexError) as error:
            known = ", ".join(parameters) or "none"
            msg = (
                f"{option}={template!r} names {error.args[0]!r}, which is not a parameter. The parameters are: {known}."
            )
            raise ConfigurationError(msg) from None
    import inspect

    name = template(parameters) if inspect.signature(template).parameters else template()
    if not isinstance(name, str):
        msg = f"{option} must give a str: {function_name(template)}() returned {type(name).__name__}."
        raise ConfigurationError(msg)
    return name
