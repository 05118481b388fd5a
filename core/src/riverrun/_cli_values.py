"""What `-p NAME=VALUE` and `-o KEY=VALUE` mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from riverrun import _plugins
from riverrun._option_values import simple_types
from riverrun._options import options_of
from riverrun._parameters import Validator
from riverrun.exceptions import ParameterTypeError, TaskRunnerOptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from riverrun._flows import Flow
    from riverrun.abc import TaskRunner


class ValueSyntaxError(Exception):
    """What stands behind `-p` or `-o` cannot be read; the text says what to type."""


def pairs(typed: Iterable[str], flag: str, word: str) -> dict[str, str]:
    """Split `NAME=VALUE` texts.

    Args:
        typed: what stands behind each flag.
        flag: `-p` or `-o`, for messages.
        word: what the names are called, for messages.

    Raises:
        ValueSyntaxError: one has no `=`, or two have the same name.
    """
    found: dict[str, str] = {}
    for text in typed:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueSyntaxError(
                f"`{flag} {text}` gives no value to a {word}. Type: {flag} {name or word.upper()}=VALUE"
            )
        if name in found:
            raise ValueSyntaxError(f"The {word} `{name}` is given twice: type `{flag} {name}=VALUE` once.")
        found[name] = value
    return found


def read_value(text: str, annotation: object = None) -> Any:
    """Read a value: text where the annotation asks for nothing else, else JSON, else text after all.

    Example:
        >>> from riverrun._cli_values import read_value
        >>> read_value("[1, 2]"), read_value("1.10"), read_value("1.10", str), read_value("a.csv")
        ([1, 2], 1.1, '1.10', 'a.csv')
    """
    if annotation in (str, "str"):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    kinds = simple_types(annotation)
    return value if str not in kinds or type(value) in kinds or isinstance(value, (list, dict)) else text


def parameters(flow: Flow[Any, Any], typed: Iterable[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make the arguments to call a flow with.

    Raises:
        ValueSyntaxError: a text is no `NAME=VALUE`.
        ParameterTypeError: a parameter is missing, does not exist, or a value does not fit; the text has all of them.
    """
    texts = pairs(typed, "-p", "parameter")
    annotations = getattr(flow.fn, "__annotations__", {})
    given = {name: read_value(text, annotations.get(name)) for name, text in texts.items()}
    try:
        bound = _bound(flow, given)
        if flow.validate_parameters:
            _validate(flow, bound, texts, given)
    except ParameterTypeError as error:
        raise ParameterTypeError(f"{error}\nParameters are given as: -p NAME=VALUE") from None
    return _positional(flow, given)


def _bound(flow: Flow[Any, Any], given: dict[str, Any]) -> dict[str, Any]:
    args, kwargs = _positional(flow, dict(given))
    return flow.signature.bind(args, kwargs)


def _positional(flow: Flow[Any, Any], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Take out what the function takes by position only."""
    only = [name for name in flow.signature.positional if name in flow.signature.positional_only]
    while only and only[-1] not in given:
        only.pop()
    args = []
    for name in only:
        if name not in given and name not in flow.signature.defaults:
            raise ParameterTypeError(
                f"Flow {flow.name!r} was called with arguments that do not fit: {name!r} is missing."
            )
        args.append(given.pop(name, flow.signature.defaults.get(name)))
    return tuple(args), given


def _validate(flow: Flow[Any, Any], bound: dict[str, Any], texts: dict[str, str], given: dict[str, Any]) -> None:
    """Check the values before anything starts; where JSON does not fit, the text itself may."""
    validator = Validator(flow.signature, f"Flow {flow.name!r}")
    try:
        validator.validate(bound)
    except ParameterTypeError:
        for name, text in texts.items():
            if (
                given[name] != text
                and name in bound
                and not _fits(validator, name, bound[name])
                and _fits(validator, name, text)
            ):
                given[name] = bound[name] = text
        validator.validate(bound)


def _fits(validator: Validator, name: str, value: Any) -> bool:
    try:
        validator.validate({name: value})
    except ParameterTypeError:
        return False
    return True


def chosen_runner(flow: Flow[Any, Any], name: str | None, typed: Iterable[str]) -> TaskRunner:
    """Make the task runner for a run: the named one, else the flow's or that of the settings, with these options.

    Args:
        flow: the flow.
        name: what stands behind `--runner`; None: the runner that the flow would use.
        typed: what stands behind each `-o`. `a.b=1` changes one key of the option `a`, which is a dict.

    Raises:
        ValueSyntaxError: a text is no `KEY=VALUE`.
        TaskRunnerError: there is no such runner, it cannot be used, or an option does not fit it.
    """
    texts = pairs(typed, "-o", "key")
    spec: Any = flow.task_runner if name is None else name
    plain = {key: text for key, text in texts.items() if "." not in key}
    if isinstance(spec, str):
        runner = _plugins.get(spec, **_option_values(_plugins.load(spec), plain)) if plain else _plugins.get(spec)
    else:
        runner = _plugins.resolve(spec)
        runner = runner.with_options(**_option_values(type(runner), plain)) if plain else runner
    return _with_keys(runner, {key: text for key, text in texts.items() if "." in key})


def _option_values(runner: type[TaskRunner], texts: dict[str, str]) -> dict[str, Any]:
    options = options_of(runner)
    return {key: read_value(text, options[key].annotation if key in options else None) for key, text in texts.items()}


def _with_keys(runner: TaskRunner, texts: dict[str, str]) -> TaskRunner:
    """Change single keys of options that are dicts; the other keys stay as they are."""
    changed: dict[str, Any] = {}
    for dotted, text in texts.items():
        option, *path, last = dotted.split(".")
        if option not in changed:
            changed[option] = _copied(getattr(runner, option, None) if option in options_of(type(runner)) else None)
        inner = changed[option]
        for key in path:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            holder = dotted.rpartition(".")[0]
            raise TaskRunnerOptionError(
                f"`-o {dotted}=...` needs a dict as `{holder}` of `{type(runner).__name__}`; it is something else."
            )
        inner[last] = read_value(text)
    return runner.with_options(**changed) if changed else runner


def _copied(value: Any) -> Any:
    if value is None:
        return {}
    return (
        {key: _copied(item) if isinstance(item, dict) else item for key, item in value.items()}
        if isinstance(value, dict)
        else value
    )
