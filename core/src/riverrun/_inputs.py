"""Find futures in the arguments of a call, and put values in their place.

Lists, tuples, sets, dicts (and their subclasses and views), dataclasses and pydantic models are looked into; arrays,
data frames and everything else are not. What holds no future is passed on as it is, never copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import ItemsView, KeysView, ValuesView
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from riverrun.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")


class Upstream:
    """What stands for a value that is not there yet. `TaskFuture` is the only subclass."""

    __slots__ = ()


class UpstreamList:
    """Many of them, in order. `TaskFutureList` is the only subclass; a task gets a plain list of the values."""

    __slots__ = ()

    def all(self) -> list[Any]:
        """Give the futures."""
        raise NotImplementedError


class Annotation(Generic[T]):
    """A remark about one argument; it is taken off before the task sees the value."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation[T]):  # noqa: N801 - reads like a function, as do the two below
    """In `task.map(...)`: repeat this value for every element instead of mapping over it.

    Example:
        >>> from riverrun import flow, task, unmapped
        >>> @task
        ... def add(x, many):
        ...     return x + sum(many)
        >>> @flow(task_runner="sequential")
        ... def totals():
        ...     return add.map([1, 2], unmapped([10, 20])).result()
        >>> totals()
        [31, 32]
    """

    __slots__ = ()


class allow_failure(Annotation[T]):  # noqa: N801
    """Run the task even if this upstream fails; the task then gets the exception as the argument's value."""

    __slots__ = ()


class quote(Annotation[T]):  # noqa: N801
    """Pass this value on as it is: do not look for futures inside it."""

    __slots__ = ()


class Slot:
    """Stands, in a call that travels, for a value that is on the cluster already; the worker puts it in its place."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


ATOMIC: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, range, type})
_SEQUENCES: Final = (list, tuple, set, frozenset, deque)
_VIEWS: Final = (KeysView, ValuesView, ItemsView)


class Found:
    """What `find` found.

    Attributes:
        upstreams: the futures and States, in order, each with "may it fail?".
        annotated: whether there is an annotation, which is taken off, or a list of futures, which becomes a list.
    """

    __slots__ = ("annotated", "upstreams")

    def __init__(self) -> None:
        self.upstreams: list[tuple[Any, bool]] = []
        self.annotated = False


def find(values: Iterable[Any]) -> Found | None:
    """Find the futures, States and annotations among the values, at any depth; None if there are none.

    Example:
        >>> from riverrun._inputs import find
        >>> find([1, "text", [2, {"three": 3}]]) is None
        True
    """
    found: Found | None = None
    for value in values:
        if type(value) not in ATOMIC:
            if found is None:
                found = Found()
            if isinstance(value, Upstream):
                found.upstreams.append((value, False))
            else:
                _find(value, found, may_fail=False, inside=None)
    return found if found is not None and (found.upstreams or found.annotated) else None


def _find(value: Any, found: Found, *, may_fail: bool, inside: set[int] | None) -> None:
    kind = type(value)
    if isinstance(value, (Upstream, State)):
        found.upstreams.append((value, may_fail))
    elif isinstance(value, Annotation):
        found.annotated = True
        if kind is not quote:
            _find(value.value, found, may_fail=may_fail or kind is allow_failure, inside=inside)
    else:
        if isinstance(value, UpstreamList):
            found.annotated = True  # also an empty one becomes a list
        parts = _parts(value)
        # The types are compared in C: a list of 10,000 numbers costs 0.2 ms, not 2.
        if not parts or ATOMIC.issuperset(map(type, parts)):
            return
        inside = set() if inside is None else inside
        if id(value) in inside:  # a container that holds itself
            return
        inside.add(id(value))
        for part in parts:
            if isinstance(part, Upstream):
                found.upstreams.append((part, may_fail))
            elif type(part) not in ATOMIC:
                _find(part, found, may_fail=may_fail, inside=inside)
        inside.discard(id(value))


def upstreams_in(values: Iterable[Any]) -> list[Any]:
    """Give the futures and States among the values, at any depth, in order."""
    found = find(values)
    return [] if found is None else [upstream for upstream, _ in found.upstreams]


def _parts(value: Any) -> Iterable[Any] | None:
    """Give what a container holds, as something that can be walked twice; None for what is not looked into."""
    if isinstance(value, _SEQUENCES):
        return value
    if isinstance(value, UpstreamList):
        return value.all()
    if isinstance(value, _VIEWS):
        return list(value)
    if isinstance(value, dict):
        if ATOMIC.issuperset(map(type, value)):
            return value.values()
        return [*value.keys(), *value.values()]
    fields = _fields(value)
    return None if fields is None else fields.values()


def _fields(value: Any) -> dict[str, Any] | None:
    """Give the fields of a dataclass or a pydantic model by name; None for everything else."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__") and kind is not type:
        return {name: getattr(value, name) for name in kind.__dataclass_fields__ if hasattr(value, name)}
    if hasattr(kind, "__pydantic_core_schema__"):
        return {**value.__dict__, **(getattr(value, "__pydantic_extra__", None) or {})}
    return None


def replace(value: Any, resolve: Callable[[Any, bool], Any]) -> Any:
    """Put values in the place of futures, and take annotations off.

    Args:
        value: an argument, with futures anywhere inside.
        resolve: gives the value of a future or a State; its second argument says "may it fail?".

    Returns:
        The same object if it held no future, otherwise a new one of the same type.
    """
    if type(value) in ATOMIC:
        return value
    if isinstance(value, Upstream):
        return resolve(value, False)  # noqa: FBT003
    return _replace(value, resolve, may_fail=False, inside=set())


def _replace(value: Any, resolve: Callable[[Any, bool], Any], *, may_fail: bool, inside: set[int]) -> Any:
    kind = type(value)
    if kind in ATOMIC:
        return value
    if isinstance(value, (Upstream, State)):
        return resolve(value, may_fail)
    if isinstance(value, Annotation):
        if kind is quote:
            return value.value
        return _replace(value.value, resolve, may_fail=may_fail or kind is allow_failure, inside=inside)
    parts = _parts(value)
    if isinstance(value, UpstreamList) and not parts:
        return []
    if not parts or ATOMIC.issuperset(map(type, parts)) or id(value) in inside:
        return value
    inside.add(id(value))
    new = _rebuilt(value, lambda part: _replace(part, resolve, may_fail=may_fail, inside=inside))
    inside.discard(id(value))
    return new


def fill(value: Any, values: Sequence[Any]) -> Any:
    """Put values in the places of slots, at any depth.

    Example:
        >>> from riverrun._inputs import Slot, fill
        >>> fill({"numbers": [1, Slot(0)]}, [2])
        {'numbers': [1, 2]}
    """
    if type(value) is Slot:
        return values[value.index]
    return _fill(value, values, set())


def holds_slot(value: Any) -> bool:
    """Say whether there is a slot inside."""
    if type(value) is Slot:
        return True
    parts = None if type(value) in ATOMIC else _parts(value)
    return any(map(holds_slot, parts)) if parts else False


def _fill(value: Any, values: Sequence[Any], inside: set[int]) -> Any:
    if type(value) is Slot:
        return values[value.index]
    if type(value) in ATOMIC or isinstance(value, Annotation):
        return value
    parts = _parts(value)
    if isinstance(value, UpstreamList) and not parts:
        return []
    if not parts or ATOMIC.issuperset(map(type, parts)) or id(value) in inside:
        return value
    inside.add(id(value))
    new = _rebuilt(value, lambda part: _fill(part, values, inside))
    inside.discard(id(value))
    return new


def _rebuilt(value: Any, each: Callable[[Any], Any]) -> Any:
    """Give the container with `each` applied to its parts; the container itself if no part changed."""
    kind = type(value)
    if isinstance(value, UpstreamList):
        return [each(part) for part in value.all()]
    if isinstance(value, _VIEWS):
        return [each(part) for part in value]
    if isinstance(value, dict):
        pairs = [(each(key), each(item)) for key, item in value.items()]
        if all(a is c and b is d for (a, b), (c, d) in zip(pairs, value.items(), strict=True)):
            return value
        return _refilled(value, dict(pairs)) if kind is not dict else dict(pairs)
    if isinstance(value, _SEQUENCES):
        parts = [each(part) for part in value]
        if all(a is b for a, b in zip(parts, value, strict=True)):
            return value
        if hasattr(kind, "_make"):  # a named tuple
            return kind._make(parts)
        return _refilled(value, parts) if kind is deque else kind(parts)
    changes = {name: new for name, part in (_fields(value) or {}).items() if (new := each(part)) is not part}
    return _with_fields(value, changes) if changes else value


def _refilled(container: Any, parts: Any) -> Any:
    """Give a copy of a container that keeps what is special to it (a default factory, a maximal length)."""
    import copy

    new = copy.copy(container)
    new.clear()
    (new.update if isinstance(container, dict) else new.extend)(parts)
    return new


def _with_fields(value: Any, changes: dict[str, Any]) -> Any:
    """Give a copy of a dataclass instance or a pydantic model with other fields; no validator or `__init__` runs."""
    if hasattr(type(value), "__pydantic_core_schema__") and hasattr(value, "model_copy"):
        return value.model_copy(update=changes)
    import copy

    new = copy.copy(value)
    for name, part in changes.items():
        object.__setattr__(new, name, part)  # frozen dataclasses too: this copy is nobody else's yet
    return new
