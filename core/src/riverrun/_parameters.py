"""What parameters a function has, and whether those of a call fit.

Plain functions are read from their code object: `inspect` alone would take longer than a small flow runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from riverrun.exceptions import ConfigurationError, ParameterTypeError, ReservedArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VARARGS, _VARKEYWORDS, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x04, 0x08, 0x20, 0x80, 0x200
RESERVED: Final = ("wait_for", "return_state")
_MISSING: Final = object()


def _code_of(function: Any) -> Any:
    """Give the code object behind a function, a method, a partial or an object that can be called; None for others."""
    while True:
        inner = getattr(function, "func", None) or getattr(function, "__func__", None)
        if inner is None or not callable(inner):
            break
        function = inner
    code = getattr(function, "__code__", None)
    if code is None and not isinstance(function, type):
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004 - its code is wanted
    return code


def is_async(function: Any) -> bool:
    """Say whether calling the function gives a coroutine."""
    code = _code_of(function)
    return code is not None and bool(code.co_flags & _COROUTINE)


def check_function(function: Any, *, kind: str) -> None:
    """Refuse what cannot be a task or a flow.

    Raises:
        ConfigurationError: it cannot be called, or it is a generator function.
        ReservedArgumentError: a parameter has one of our names.
    """
    if isinstance(function, (classmethod, staticmethod)):
        msg = f"@{kind} stands above @{type(function).__name__}. Swap the two: @{type(function).__name__} goes on top."
        raise ConfigurationError(msg)
    if hasattr(function, "with_options") and hasattr(function, "fn"):
        msg = f"{function!r} is made into a {kind} once more. One decorator, @task or @flow, is enough."
        raise ConfigurationError(msg)
    if not callable(function):
        msg = f"@{kind} needs a function, not {function!r}. Options are given by name: @{kind}(name=...)."
        raise ConfigurationError(msg)
    code = _code_of(function)
    if code is None:
        return
    name = getattr(function, "__qualname__", repr(function))
    if code.co_flags & (_ASYNC_GENERATOR | _GENERATOR):
        what = "an async generator" if code.co_flags & _ASYNC_GENERATOR else "a generator"
        msg = (
            f"{name}() is {what} function, which cannot be a {kind}: its code would run while its values are read, "
            f"after the {kind} has ended. Return a list"
            + (", or make one task run per value with `.map(...)`." if kind == "task" else ".")
        )
        raise ConfigurationError(msg)
    for reserved in RESERVED:
        if reserved in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            msg = (
                f"{name}() has a parameter named {reserved!r}, which every call of a task or a flow already takes. "
                f"Give the parameter another name."
            )
            raise ReservedArgumentError(msg)


class Parameters:
    """The parameters of one function."""

    def __init__(self, function: Callable[..., Any], owner: str) -> None:
        self.function = function
        self._owner = owner
        code = getattr(function, "__code__", None)
        if code is not None and not hasattr(function, "__wrapped__") and not hasattr(function, "__self__"):
            self._read_code(function, code)
        else:
            self._read_signature(function)
        least = sum(name not in self.defaults for name in self.positional)
        most = len(self.positional) if self.varargs is None else sys.maxsize
        fits = all(name in self.defaults for name in self.keyword_only)
        self.bounds = (least, most) if fits else (1, 0)
        """How many arguments a call by position alone has at least and at most."""

    def _read_code(self, function: Any, code: Any) -> None:
        names = code.co_varnames
        count, keywords = code.co_argcount, code.co_kwonlyargcount
        self.positional: tuple[str, ...] = names[:count]
        self.positional_only = frozenset(names[: code.co_posonlyargcount])
        self.keyword_only: tuple[str, ...] = names[count : count + keywords]
        end = count + keywords
        self.varargs: str | None = names[end] if code.co_flags & _VARARGS else None
        end += self.varargs is not None
        self.varkeywords: str | None = names[end] if code.co_flags & _VARKEYWORDS else None
        defaults = function.__defaults__ or ()
        self.defaults: dict[str, Any] = dict(zip(self.positional[count - len(defaults) :], defaults, strict=True))
        self.defaults.update(function.__kwdefaults__ or {})

    def _read_signature(self, function: Any) -> None:
        import inspect

        kinds: dict[Any, list[str]] = {kind: [] for kind in inspect._ParameterKind}  # noqa: SLF001 - the type of the five kinds
        self.defaults = {}
        for name, parameter in inspect.signature(function).parameters.items():
            kinds[parameter.kind].append(name)
            if parameter.default is not parameter.empty:
                self.defaults[name] = parameter.default
        self.positional_only = frozenset(kinds[inspect.Parameter.POSITIONAL_ONLY])
        self.positional = (*kinds[inspect.Parameter.POSITIONAL_ONLY], *kinds[inspect.Parameter.POSITIONAL_OR_KEYWORD])
        self.keyword_only = tuple(kinds[inspect.Parameter.KEYWORD_ONLY])
        self.varargs = next(iter(kinds[inspect.Parameter.VAR_POSITIONAL]), None)
        self.varkeywords = next(iter(kinds[inspect.Parameter.VAR_KEYWORD]), None)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: C901 - one case, one branch
        """Give the arguments of a call by the parameters' names, defaults included.

        Raises:
            ParameterTypeError: arguments are missing or too many; the text names all of them.
        """
        problems: list[str] = []
        bound: dict[str, Any] = dict(zip(self.positional, args, strict=False))
        rest = args[len(self.positional) :]
        if rest and self.varargs is None:
            problems.append(f"{len(args)} positional arguments were given, and it takes {len(self.positional)}")
        others: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in bound and name not in self.positional_only:
                problems.append(f"{name!r} was given twice, by position and by name")
            elif (name in self.positional and name not in self.positional_only) or name in self.keyword_only:
                bound[name] = value
            elif self.varkeywords is not None:
                others[name] = value
            else:
                problems.append(f"{name!r} is not a parameter of it{self._near(name)}")
        parameters: dict[str, Any] = {}
        for name in (*self.positional, *self.keyword_only):
            value = bound.get(name, self.defaults.get(name, _MISSING))
            if value is _MISSING:
                problems.append(f"{name!r} is missing")
            parameters[name] = value
        if self.varargs is not None:
            parameters[self.varargs] = rest
        if self.varkeywords is not None:
            parameters[self.varkeywords] = others
        if problems:
            known = ", ".join((*self.positional, *self.keyword_only)) or "none"
            wrong = "; ".join(problems)
            msg = f"{self._owner} was called with arguments that do not fit: {wrong}. Its parameters: {known}."
            raise ParameterTypeError(msg)
        return parameters

    def _near(self, name: str) -> str:
        import difflib

        near = difflib.get_close_matches(name, (*self.positional, *self.keyword_only), n=1)
        return f" (did you mean {near[0]!r}?)" if near else ""

    def to_call(self, parameters: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments to call the function with, from the parameters by name."""
        args = [parameters[name] for name in self.positional]
        if self.varargs is not None:
            args.extend(parameters[self.varargs])
        kwargs = {name: parameters[name] for name in self.keyword_only}
        if self.varkeywords is not None:
            kwargs.update(parameters[self.varkeywords])
        return tuple(args), kwargs


_PLAIN: Final = {kind.__name__: kind for kind in (int, str, float, bool, bytes)}


class Validator:
    """Checks, and coerces, the parameters of a flow by its annotations, with pydantic."""

    def __init__(self, parameters: Parameters, owner: str) -> None:
        self._parameters = parameters
        self._owner = owner
        self._adapters: dict[str, Any] | None = None

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        """Give the parameters, each as its annotation wants it.

        Raises:
            ParameterTypeError: values that do not fit; the text names all of them, and shows none of their values.
        """
        annotations = getattr(self._parameters.function, "__annotations__", {})
        unsure = [
            name
            for name in given
            if name in annotations and not self._plainly_fits(name, annotations[name], given[name])
        ]
        if not unsure:  # nothing to coerce: pydantic itself, 90 ms to import, would give the same values back
            return given
        adapters = self._made_adapters()
        problems: list[str] = []
        validated = {
            name: self._one(name, value, adapters, problems) if name in unsure else value
            for name, value in given.items()
        }
        if problems:
            lines = "".join(f"\n  {problem}" for problem in problems)
            msg = f"{self._owner} was called with parameters that do not fit:{lines}"
            raise ParameterTypeError(msg)
        return validated

    def _plainly_fits(self, name: str, annotation: Any, value: Any) -> bool:
        if value is self._parameters.defaults.get(name, _MISSING):  # as in pydantic, defaults are taken on trust
            return True
        kind = _PLAIN.get(annotation) if isinstance(annotation, str) else annotation
        return (
            kind in _PLAIN.values()
            and type(value) is kind
            and name not in (self._parameters.varargs, self._parameters.varkeywords)
        )

    def _made_adapters(self) -> dict[str, Any]:
        if self._adapters is None:
            import typing
            from types import GenericAlias

            hints = typing.get_type_hints(self._parameters.function, include_extras=True)
            parameters = self._parameters
            if parameters.varargs in hints:
                hints[parameters.varargs] = GenericAlias(tuple, (hints[parameters.varargs], ...))
            if parameters.varkeywords in hints:
                hints[parameters.varkeywords] = GenericAlias(dict, (str, hints[parameters.varkeywords]))
            hints.pop("return", None)
            self._adapters = {name: _adapter(hint) for name, hint in hints.items()}
        return self._adapters

    @staticmethod
    def _one(name: str, value: Any, adapters: dict[str, Any], problems: list[str]) -> Any:
        import pydantic

        try:
            return adapters[name].validate_python(value)
        except pydantic.ValidationError as error:
            # The values stay out of the text: parameters may be secrets, and errors end up in logs.
            for detail in error.errors(include_url=False, include_input=False, include_context=False):
                where = ".".join(str(part) for part in (name, *detail["loc"]))
                problems.append(f"{where}: {detail['msg']} (got {type(value).__name__})")
            return value


def _adapter(hint: Any) -> Any:
    import pydantic

    try:
        return pydantic.TypeAdapter(hint, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except pydantic.PydanticUserError:  # a pydantic model has a configuration of its own, and takes no other
        return pydantic.TypeAdapter(hint)
