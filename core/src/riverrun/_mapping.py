"""One call per element: what `task.map()` does with its arguments, and the list it gives."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from riverrun._engine import checked_wait_for
from riverrun._futures import TaskFuture, check_may_block
from riverrun._inputs import Annotation, Upstream, UpstreamList, allow_failure, unmapped
from riverrun._steps import dispatch
from riverrun._waiting import DoneAndNotDone, all_done, result_of, wait
from riverrun.exceptions import MappingLengthMismatch, MappingMissingIterable
from riverrun.states import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from riverrun._engine import Home
    from riverrun._pending_run import PendingRun
    from riverrun._tasks import Task

R_co = TypeVar("R_co", covariant=True)

LOOK_AHEAD: Final = 64
"""How many elements of a generator are submitted ahead of what the user has read, unless `max_in_flight` says."""


class Window:
    """Lets so many runs through at once; the others wait in line and hold no slot."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._line: deque[PendingRun] = deque()
        self._lock = threading.Lock()

    def acquire(self, run: PendingRun) -> None:
        """Dispatch a run that is ready, now or later."""
        with self._lock:
            if (
                run.run.final is not None
            ):  # cancelled; looked at here, so that `release` sees the place, or this the end
                return
            if not self._free:
                self._line.append(run)
                return
            self._free -= 1
            run.has_place = True
        dispatch(run)

    def release(self, run: PendingRun) -> None:
        """Note that a run is final, and let the next one in its place."""
        with self._lock:
            if not run.has_place:  # it became final while it stood in line
                return
            run.has_place = False
            following = None
            while self._line and following is None:
                candidate = self._line.popleft()
                if candidate.run.final is None:
                    following = candidate
                    following.has_place = True
            if following is None:
                self._free += 1
        if following is not None:
            dispatch(following)


class TaskFutureList(UpstreamList, Sequence[TaskFuture[R_co]]):
    """The futures of a map, in the order of the elements.

    Where the elements come from a generator, it is read as the list is: some way ahead of an iteration, and to its
    end for `len()`, `result()`, `wait()` or a negative index. A list that nobody looks into is read to its end when
    the flow ends; where an iteration has stopped, nothing more is read.
    """

    def __init__(self, futures: list[TaskFuture[R_co]], source: Source | None = None) -> None:
        self._futures = futures
        self._source = source

    def all(self) -> list[TaskFuture[R_co]]:
        """Give all futures; a generator is read to its end."""
        if self._source is not None:
            self._source.read_all()
            self._source = None
        return self._futures

    def __len__(self) -> int:
        return len(self.all())

    @overload
    def __getitem__(self, index: int) -> TaskFuture[R_co]: ...
    @overload
    def __getitem__(self, index: slice) -> TaskFutureList[R_co]: ...
    def __getitem__(self, index: int | slice) -> TaskFuture[R_co] | TaskFutureList[R_co]:
        if isinstance(index, slice):
            return TaskFutureList(self.all()[index])
        if self._source is not None and index >= 0:
            self._source.leave_to_reader()
            while len(self._futures) <= index and self._source.read(ahead_of=index):
                pass
            return self._futures[index]
        return self.all()[index]

    def __iter__(self) -> Iterator[TaskFuture[R_co]]:
        index = 0
        if self._source is not None:
            self._source.leave_to_reader()
        while True:
            if self._source is not None:
                while len(self._futures) <= index + self._source.size and self._source.read(ahead_of=index):
                    pass
            if index >= len(self._futures):
                return
            yield self._futures[index]
            index += 1

    async def __aiter__(self) -> AsyncIterator[TaskFuture[R_co]]:
        for future in self:
            if not future.done():
                await all_done([future])
            yield future

    def __await__(self) -> Generator[Any, None, list[R_co]]:
        futures = self.all()
        yield from all_done(futures).__await__()
        return (yield from result_of(lambda: [future.result() for future in futures], futures).__await__())

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R_co]:  # noqa: FBT001, FBT002
        """Wait for all, and give their values in order.

        Args:
            timeout: how long to wait for all of them together, in seconds; None: as long as it takes.
            raise_on_failure: if false, exceptions stand in the places of values that are missing.

        Raises:
            ResultTimeout: the time is over.
            Exception: the first failure, in the order of the elements.
        """
        futures = self.all()
        for future in futures:
            if not future.done():
                check_may_block(future, "futures.result()", "await futures")
        if timeout is not None:
            wait(futures, timeout)
            timeout = 0
        return [future.result(timeout, raise_on_failure) for future in futures]

    def wait(self, timeout: float | None = None) -> DoneAndNotDone[R_co]:
        """Wait for all, and give `(done, not_done)`; `timeout` in seconds."""
        return wait(self.all(), timeout)

    def __repr__(self) -> str:
        more = "" if self._source is None else " so far, more to come"
        return f"<TaskFutureList of {len(self._futures)} futures{more}>"


class Source:
    """The elements of a generator that have not been submitted, and how to submit them."""

    def __init__(
        self, elements: Iterator[Any], submit: Callable[[Any], TaskFuture[Any]], home: Home, size: int
    ) -> None:
        self.size = size
        self.futures: list[TaskFuture[Any]] = []
        self._elements: Iterator[Any] | None = elements
        self._submit = submit
        self._home = home
        home.unread.append(self)
        self._untouched = True
        while len(self.futures) < size and self._read_one():
            pass

    def _read_one(self) -> bool:
        if self._elements is None:
            return False
        try:
            element = next(self._elements)
        except BaseException as error:
            self._elements = None
            self.leave_to_reader()
            if isinstance(error, StopIteration):
                return False
            raise
        self.futures.append(self._submit(element))
        return True

    def leave_to_reader(self) -> None:
        """Leave it to the user how far the generator is read: the end of the flow does not read on."""
        if self._untouched:
            self._untouched = False
            self._home.unread.remove(self)

    def read(self, *, ahead_of: int) -> bool:
        """Submit one more element, if that is not too far ahead of the given index; false if there is none."""
        if len(self.futures) > ahead_of:
            loop = self._home.loop
            unfinished = [future for future in self.futures[ahead_of:] if not future.done()]
            if len(unfinished) >= self.size or (loop is not None and unfinished):
                return False
        return self._read_one()

    def read_all(self) -> None:
        """Submit all elements; outside of an event loop, no more than the look-ahead is unfinished at once."""
        position = 0
        while self._read_one():
            if self._home.loop is None and len(self.futures) - position > self.size:
                self.futures[position].wait()
                position += 1


def map_task(
    home: Home, task: Task[Any, R_co], args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Iterable[Any] | None
) -> TaskFutureList[R_co]:
    """Submit one call for each element of the iterables among the arguments.

    Raises:
        MappingMissingIterable: there is no iterable among them.
        MappingLengthMismatch: there are several, of different lengths.
    """
    names = [
        *task.signature.positional[: len(args)],
        *(f"argument {i + 1}" for i in range(len(task.signature.positional), len(args))),
    ]
    arguments = dict(zip([*names, *kwargs], [_readable(value) for value in (*args, *kwargs.values())], strict=True))
    mapped = {name: value for name, value in arguments.items() if _is_mapped(value)}
    if not mapped:
        for value in arguments.values():
            if isinstance(_inner(value), TaskFuture):
                _inner(value).result()  # it was to be mapped over, and failed: that is what the user has to know
        given = ", ".join(f"{name}: {type(value).__name__}" for name, value in arguments.items()) or "no arguments"
        msg = (
            f"{task.name}.map() needs at least one iterable to map over, and got {given}. To call it once, write "
            f"{task.name}(...)."
        )
        raise MappingMissingIterable(msg)
    columns = [_column(value) for value in arguments.values()]
    keys = list(kwargs)
    wait_for = None if wait_for is None else list(checked_wait_for(wait_for, task))  # for each of them, so not used up
    window = Window(task.max_in_flight) if task.max_in_flight else None

    def submit(element: tuple[Any, ...]) -> TaskFuture[Any]:
        return home.submit(
            task, element[: len(args)], dict(zip(keys, element[len(args) :], strict=True)), wait_for, window
        )

    rows = _rows(columns, mapped, task.name)
    if all(hasattr(_inner(value), "__len__") for value in mapped.values()):
        return TaskFutureList([submit(row) for row in rows])
    source = Source(rows, submit, home, task.max_in_flight or LOOK_AHEAD)
    return TaskFutureList(source.futures, source)


def _inner(value: Any) -> Any:
    return value.value if isinstance(value, allow_failure) else value


def _readable(value: Any) -> Any:
    """Wait for a future whose value is to be mapped over."""
    inner = _inner(value)
    if isinstance(inner, TaskFuture):
        if not inner.done():
            check_may_block(inner, "map(future)", "map(await future)")
        state = inner.wait()
        if state is not None and state.is_completed() and _is_mapped(state.data):
            return allow_failure(state.data) if inner is not value else state.data
    elif isinstance(inner, State) and inner.is_completed() and _is_mapped(inner.data):
        return inner.data
    return value


def _is_mapped(value: Any) -> bool:
    """Say whether an argument is mapped over: an iterable whose elements people mean when they pass it."""
    if isinstance(value, allow_failure):
        return _is_mapped(value.value)
    if isinstance(value, (str, bytes, bytearray, Mapping, Annotation, State, Upstream, type)):
        return False
    # A data frame iterates over the names of its columns, a pydantic model over its fields, a file over its lines.
    if hasattr(value, "__dataframe__") or hasattr(value, "__pydantic_core_schema__") or hasattr(value, "readline"):
        return False
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0


def _column(value: Any) -> Iterator[Any] | Any | None:
    if isinstance(value, allow_failure) and _is_mapped(value):
        return (allow_failure(element) for element in value.value)
    if isinstance(value, TaskFutureList):
        return iter(value)
    if _is_mapped(value):
        return iter(value)
    return _Repeated(value.value if isinstance(value, unmapped) else value)


class _Repeated:
    """An endless column of one value."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __next__(self) -> Any:
        return self._value


_END: Final = object()


def _rows(columns: list[Any], mapped: dict[str, Any], name: str) -> Iterator[tuple[Any, ...]]:
    """Give the arguments of one call after the other."""
    lengths = {key: len(_inner(value)) for key, value in mapped.items() if hasattr(_inner(value), "__len__")}
    if len(set(lengths.values())) > 1:
        _raise_mismatch(name, ", ".join(f"{key}: {length}" for key, length in lengths.items()))
    return _generated_rows(columns, list(mapped), name, next(iter(lengths.values()), None))


def _generated_rows(columns: list[Any], names: list[str], name: str, length: int | None) -> Iterator[tuple[Any, ...]]:
    """Give the rows; a generator beside something with a length may be endless, but not shorter than that."""
    count = 0
    while count != length:
        row = tuple([next(column) if isinstance(column, _Repeated) else next(column, _END) for column in columns])
        ended = sum(value is _END for value in row)
        if ended == len(names):
            return
        if ended:
            _raise_mismatch(name, f"one of {', '.join(names)} ended after {count} elements, and another did not")
        yield row
        count += 1


def _raise_mismatch(name: str, lengths: str) -> None:
    msg = (
        f"{name}.map() got iterables of different lengths ({lengths}). Wrap what is not to be mapped over in "
        f"unmapped(...)."
    )
    raise MappingLengthMismatch(msg)
