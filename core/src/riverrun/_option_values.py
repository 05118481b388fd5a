"""The values of options: whether they fit their annotation, and how they are kept, compared and shown."""

from __future__ import annotations

import sys
from typing import Any

_SIMPLE = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "bytes": bytes,
    "None": type(None),
    "object": object,
    "Any": object,
    "typing.Any": object,
}

_LONGEST = 80  # characters of a value in a message


def simple_types(annotation: Any) -> set[type]:
    """Find the built-in types that an annotation accepts, without evaluating it.

    Args:
        annotation: a type, a union, or their text.

    Returns:
        The types whose exact instances fit for certain; others may fit too.
    """
    if isinstance(annotation, str):
        return {_SIMPLE[part] for part in _alternatives(annotation) if part in _SIMPLE}
    alternatives = getattr(annotation, "__args__", ()) if type(annotation).__name__ == "UnionType" else (annotation,)
    simple = set(_SIMPLE.values())
    return {object if part is Any else part for part in alternatives if part is Any or part in simple}


def _alternatives(annotation: str) -> list[str]:
    """Split `int | dict[str, int | None]` at the bars which are outside brackets."""
    parts, depth = [""], 0
    for character in annotation:
        depth += (character in "[(") - (character in "])")
        if character == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def fit(annotation: Any, owner: type, value: Any) -> Any:
    """Let pydantic check a value, and coerce it where it would.

    Args:
        annotation: what the option was annotated with.
        owner: the class with the annotation.
        value: what was given.

    Returns:
        The value, coerced; as it is where the annotation means nothing to pydantic.

    Raises:
        ValueError: the value does not fit; the text has the place inside it, or is empty.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    meaning = _evaluate(annotation, owner) if isinstance(annotation, str) else annotation
    adapter: TypeAdapter[Any]
    try:
        try:
            adapter = TypeAdapter(meaning, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:  # models and dataclasses bring a configuration of their own
            adapter = TypeAdapter(meaning)
    except Exception:  # noqa: BLE001 - an annotation without meaning is no reason to refuse a runner
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"[{key!r}]" for key in first["loc"]) if "|" not in str(meaning) else ""
        raise ValueError(f": at {place}: {first['msg']}" if place else "") from None


class _Names(dict[str, Any]):
    """The names that an annotation may use; those that only a type checker imports mean `Any`."""

    def __missing__(self, name: str) -> Any:
        return Any


def _evaluate(annotation: str, owner: type) -> Any:
    import builtins

    module = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
    try:
        return eval(annotation, {}, _Names({**vars(builtins), **module}))  # noqa: S307 - the author's own source
    except Exception:  # noqa: BLE001 - say `absent.Name`, where `absent` is imported for a type checker only
        return Any


def own(value: Any) -> Any:
    """Copy built-in containers, all the way down, so that later changes by the caller do not show.

    Args:
        value: any value.

    Returns:
        The value itself where it is no list, dict or set.
    """
    kind = type(value)
    if kind is dict:
        return {key: own(item) for key, item in value.items()}
    if kind is list:
        return [own(item) for item in value]
    if kind is set:
        return set(value)
    return value


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal; values that cannot say so (arrays) are not, unless they are one object."""
    try:
        return one is other or bool(one == other)
    except Exception:  # noqa: BLE001 - comparing foreign objects may raise anything
        return False


def hash_part(value: Any) -> int:
    """Hash a value; all those that cannot be hashed get one number, so that equal values have equal hashes."""
    if isinstance(value, frozenset):  # it equals a set, which cannot be hashed
        return 0
    try:
        return hash(value)
    except TypeError:
        return 0


def short(value: Any) -> str:
    """Show a value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
