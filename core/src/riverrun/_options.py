"""Options: what a task runner is made of, declared as annotated class fields with defaults.

A small relative of `dataclasses`, because that module (it imports `inspect`) and pydantic would cost more than the
start of a small flow. Pydantic still judges every value that is not plainly of its annotated type.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

from riverrun._option_values import fit, hash_part, own, same, short, simple_types
from riverrun._suggestions import did_you_mean
from riverrun.exceptions import TaskRunnerError, TaskRunnerOptionError

if TYPE_CHECKING:
    from collections.abc import Iterable


class _Missing:
    """Stands for the default of an option that has none; a class, because it keeps its identity when pickled."""


_MISSING: Any = _Missing


class Option:
    """One annotated field of a class."""

    __slots__ = ("annotation", "default", "name", "owner")

    def __init__(self, name: str, annotation: Any, default: Any, owner: type) -> None:
        self.name = name
        # As it was written: a string under `from __future__ import annotations`, and one in quotes if it was one.
        quoted = isinstance(annotation, str) and annotation[0] == annotation[-1] and annotation[0] in "'\""
        self.annotation = annotation[1:-1] if quoted and annotation[0] not in annotation[1:-1] else annotation
        self.default = default
        self.owner = owner  # the class whose body has the annotation: its module gives the names in it a meaning

    def describe(self) -> str:
        """Return the annotation as a user would write it."""
        return self.annotation.__name__ if isinstance(self.annotation, type) else str(self.annotation)


class Options:
    """An immutable set of options that is compared by value, and can be hashed, copied and pickled."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # `@dataclass` above a subclass leaves alone what the class itself has; its own __hash__ fails on a dict.
        inherited = {name: getattr(cls, name) for name in ("__eq__", "__hash__", "__repr__")}
        maker = next(base for base in cls.__mro__ if "__init__" in vars(base))
        if "__dataclass_params__" in vars(maker):  # it knows the options of that dataclass only
            inherited["__init__"] = Options.__init__
        for name, method in inherited.items():
            if name not in vars(cls):
                setattr(cls, name, method)

    if not TYPE_CHECKING:  # a type checker makes one of each class's own options

        def __init__(self, *positional: object, **named: object) -> None:
            """Take the options, by position in the order of their declaration or by name."""
            self._take(positional, named)

    def _take(self, positional: tuple[object, ...], named: dict[str, object]) -> None:
        runner, options = type(self).__name__, options_of(type(self))
        if len(positional) > len(options):
            raise TaskRunnerOptionError(
                f"`{runner}` takes at most {len(options)} options, {len(positional)} were given by position."
            )
        by_position = dict(zip(options, positional, strict=False))
        if twice := [name for name in named if name in by_position]:
            raise TaskRunnerOptionError(f"`{runner}` got the option `{twice[0]}` twice, by position and by name.")
        refuse_unknown(type(self), named)
        given = by_position | named
        for name, option in options.items():
            value = given.get(name, option.default)
            if value is _MISSING:
                raise TaskRunnerOptionError(f"`{runner}` needs the option `{name}` ({option.describe()}).")
            object.__setattr__(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the values; a `@dataclass` calls this at the end of its own `__init__`."""
        for name, option in options_of(type(self)).items():
            value = getattr(self, name)
            checked = value if value is option.default else _checked(type(self).__name__, option, value)
            owned = own(checked)
            if owned is not value:
                object.__setattr__(self, name, owned)
        self.validate()

    def validate(self) -> None:
        """Check what no single option can tell; a subclass overrides this, raising `TaskRunnerOptionError`."""

    def with_options(self, **changes: Any) -> Self:
        """Make another one that differs in some options.

        Args:
            changes: the options that differ, by name.

        Returns:
            A new object; this one stays as it is.

        Raises:
            TaskRunnerOptionError: there is no such option, or the value does not fit it.
        """
        refuse_unknown(type(self), changes)
        changed = object.__new__(type(self))
        for name in options_of(type(self)):
            object.__setattr__(changed, name, changes.get(name, getattr(self, name)))
        changed.__post_init__()
        return changed

    __replace__ = with_options  # `copy.replace` of Python 3.13

    def __setattr__(self, name: str, value: object) -> None:
        runner = type(self).__name__
        parameters = getattr(type(self), "__dataclass_params__", None)
        if parameters is not None and not parameters.frozen:
            raise AttributeError(f"`{runner}` must be immutable: write `@dataclass(frozen=True)` above it.")
        hint = f"; make another one: `runner.with_options({name}={short(value)})`"
        raise AttributeError(
            f"`{runner}` is immutable, `{name}` cannot be set{hint if name in options_of(type(self)) else ''}."
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"`{type(self).__name__}` is immutable, `{name}` cannot be deleted.")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(same(getattr(self, name), getattr(other, name)) for name in options_of(type(self)))

    def __hash__(self) -> int:
        return hash((type(self), *(hash_part(getattr(self, name)) for name in options_of(type(self)))))

    def __repr__(self) -> str:
        differing = [
            f"{name}={value!r}"
            for name, option in options_of(type(self)).items()
            if not same(value := getattr(self, name), option.default)
        ]
        return f"{type(self).__name__}({', '.join(differing)})"


def options_of(cls: type) -> dict[str, Option]:
    """Collect the options of a class, those of its bases first.

    Args:
        cls: a subclass of `Options`.

    Returns:
        The options by name, in the order of their declaration.

    Raises:
        TaskRunnerError: an option has a name that the base class needs for itself.
    """
    # Not in `__init_subclass__`: a `@dataclass` above the class has not been at work by then. Kept on the class.
    kept: dict[str, Option] | None = vars(cls).get("_collected_options")
    if kept is not None:
        return kept
    options: dict[str, Option] = {}
    constants: set[str] = set()
    for base in reversed(cls.__mro__):
        for name, annotation in _annotations(base).items():
            # A constant of a base stays one if a subclass forgets `ClassVar`; `_` is what dataclasses call KW_ONLY.
            if _is_constant(annotation) or name in constants or name == "_":
                constants.add(name)
                options.pop(name, None)
                continue
            if hasattr(Options, name) or _is_abstract(cls, name):
                raise TaskRunnerError(f"`{cls.__name__}` cannot have an option `{name}`: it is the name of a method.")
            options[name] = Option(name, annotation, _default(cls, name), base)
    type.__setattr__(cls, "_collected_options", options)
    return options


def refuse_unknown(cls: type, names: Iterable[str]) -> None:
    """Refuse options that a class does not have.

    Args:
        cls: a subclass of `Options`.
        names: the names of options.

    Raises:
        TaskRunnerOptionError: one does not exist; the text has the near match and those that do.
    """
    options = options_of(cls)
    for name in names:
        if name not in options:
            have = f"Its options: {', '.join(options)}." if options else "It has no options."
            raise TaskRunnerOptionError(f"`{cls.__name__}` has no option `{name}`{did_you_mean(name, options)} {have}")


def _annotations(cls: type) -> dict[str, Any]:
    if sys.version_info >= (3, 14):  # annotations are a function there, and evaluating it may fail
        from annotationlib import Format, get_annotations

        return get_annotations(cls, format=Format.STRING)
    annotations: dict[str, Any] = vars(cls).get("__annotations__", {})
    return annotations


def _is_constant(annotation: Any) -> bool:
    head = annotation if isinstance(annotation, str) else str(annotation)
    return head.partition("[")[0].rpartition(".")[2].strip() in ("ClassVar", "InitVar")


def _is_abstract(cls: type, name: str) -> bool:
    return any(getattr(vars(base).get(name), "__isabstractmethod__", False) for base in cls.__mro__)


def _default(cls: type, name: str) -> Any:
    field = getattr(cls, "__dataclass_fields__", {}).get(name)
    if field is None:
        return getattr(cls, name, _MISSING)
    missing = sys.modules["dataclasses"].MISSING
    if field.default_factory is not missing:
        return field.default_factory()
    return _MISSING if field.default is missing else field.default


def _checked(runner: str, option: Option, value: Any) -> Any:
    """Return the value, coerced where pydantic would, or say why it does not fit."""
    simple = simple_types(option.annotation)
    if type(value) in simple or object in simple:
        return value
    if type(value) is int and float in simple:
        return float(value)
    try:
        return fit(option.annotation, option.owner, value)
    except ValueError as error:
        raise TaskRunnerOptionError(
            f"`{runner}` takes `{option.describe()}` as its option `{option.name}`, "
            f"not {short(value)} ({type(value).__name__}){error}."
        ) from None
