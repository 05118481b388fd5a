"""Whether, and when, a task that failed is tried again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Delays = float | Sequence[float] | Callable[[int], Sequence[float]] | None


def exponential_backoff(factor: float) -> Callable[[int], list[float]]:
    """Make delays that double: `factor`, 2 x `factor`, 4 x `factor`, ...

    Args:
        factor: the first delay, in seconds.

    Returns:
        A callable for `retry_delay_seconds=`.

    Raises:
        ConfigurationError: the factor is negative or no number.

    Example:
        >>> from riverrun import exponential_backoff
        >>> exponential_backoff(10)(4)
        [10.0, 20.0, 40.0, 80.0]
    """
    check_seconds("factor", factor, owner="exponential_backoff()")

    def delays(retries: int) -> list[float]:
        return [float(factor) * 2**attempt for attempt in range(retries)]

    return delays


def check_retries(retries: object, *, owner: str) -> int:
    """Give the number of retries, or say what is wrong with it."""
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        msg = f"{owner}: retries must be a whole number, 0 or more, not {retries!r}."
        raise ConfigurationError(msg)
    return retries


def check_seconds(option: str, value: object, *, owner: str, zero: bool = True) -> float:
    """Give a number of seconds, or say what is wrong with it."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and (value > 0 or (zero and value == 0))
    if not good or value == float("inf"):
        bound = "0 or more" if zero else "more than 0"
        msg = f"{owner}: {option} must be a number of seconds, {bound}, not {value!r}."
        raise ConfigurationError(msg)
    return value  # type: ignore[return-value]


def delays_for(retry_delay_seconds: Delays, retries: int, *, owner: str) -> tuple[float, ...]:
    """Give the delays in seconds before each retry; the last one stands for all that follow.

    Args:
        retry_delay_seconds: a number, a list, or a callable that makes a list from the number of retries.
        retries: how many retries there are.
        owner: the task, for an error.

    Raises:
        ConfigurationError: a delay is negative or no number, or a list is empty.
    """
    if retry_delay_seconds is None:
        return (0.0,)
    given: Any = retry_delay_seconds(retries) if callable(retry_delay_seconds) else retry_delay_seconds
    if not isinstance(given, (list, tuple)):
        return (check_seconds("retry_delay_seconds", given, owner=owner),)
    if not given and retries:
        msg = f"{owner}: retry_delay_seconds is an empty list. Give one delay, or one for each retry."
        raise ConfigurationError(msg)
    return tuple(check_seconds("retry_delay_seconds", delay, owner=owner) for delay in given) or (0.0,)


def next_delay(delays: Sequence[float], attempt: int, jitter_factor: float) -> float:
    """Give the delay in seconds after the given attempt (1 for the first).

    With a jitter factor j, it lies at random between the delay and (1 + j) times the delay.
    """
    delay = delays[min(attempt - 1, len(delays) - 1)]
    return delay * (1 + random.random() * jitter_factor) if jitter_factor and delay else delay  # noqa: S311 - spreads load, guards nothing
