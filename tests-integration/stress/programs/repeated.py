"""Many short rounds of what races: time limits, retries, cancellations and waits, from several threads at once.

`python repeated.py RUNNER SEED FOLDER`: on the two local runners each round is a flow run of its own, and four threads
play them beside each other; elsewhere many rounds are one flow run, since each has to start a cluster.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
import traceback
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import under_watch
from riverrun import CancelledError, ResultTimeout, RunTimeout, as_completed, flow, gather, task, wait

if TYPE_CHECKING:
    from collections.abc import Callable

IS_LOCAL = under_watch.RUNNER in {"sequential", "concurrent"}
THREADS = 4
ROUNDS = 60 if IS_LOCAL else 15
"""For each thread; elsewhere for each flow run."""


class Planned(Exception):
    pass


@task
def double(number: int, seconds: float = 0) -> int:
    time.sleep(seconds)
    return 2 * number


@task
async def double_async(number: int, seconds: float = 0) -> int:
    await asyncio.sleep(seconds)
    return 2 * number


@task
def fail_first(folder: str, times: int) -> int:
    """Fail so often, and give how often this was called then: by a file, for this may be in any process."""
    with open(folder, "a") as file:  # noqa: PTH123
        file.write("x")
    with open(folder) as file:  # noqa: PTH123
        count = len(file.read())
    if count <= times:
        raise Planned("planned")
    return count


def limits(rng: random.Random, check: Callable[..., None]) -> None:
    """Runs that overrun their limit are TimedOut; those that may or may not are one thing or the other."""
    over = double_async.with_options(timeout_seconds=rng.choice([0.001, 0.02, 0.05]), retries=rng.randint(0, 1))
    close = rng.choice([double, double_async]).with_options(timeout_seconds=0.02)
    never, perhaps = over(1, 600), [close(number, rng.uniform(0, 0.04)) for number in range(3)]
    dependent = double(never)
    for number, future in enumerate(perhaps):
        state = future.wait()
        check(state.name in {"Completed", "TimedOut"}, state)
        if state.is_completed():
            check(future.result() == 2 * number, future.result())
        else:
            check(type(future.result(raise_on_failure=False)) is RunTimeout, state)
    check(never.wait().name == "TimedOut", never.state)
    check(never.task_run.run_count == 1 + over.retries, never.task_run.run_count)
    check(dependent.wait().name == "NotReady", dependent.state)


def retries(rng: random.Random, check: Callable[..., None]) -> None:
    """A run is tried again as often as it failed, and no more."""
    fails = [rng.randint(0, 3) for _ in range(4)]
    stem = under_watch.FOLDER / f"count-{rng.getrandbits(60)}"
    delay = rng.choice([0, 0.001, [0.001, 0.01]])
    tried = fail_first.with_options(retries=2, retry_delay_seconds=delay, retry_jitter_factor=rng.choice([None, 0.5]))
    futures = [tried(f"{stem}-{number}", times) for number, times in enumerate(fails)]
    dependents = [double(future) for future in futures]
    for times, future, dependent in zip(fails, futures, dependents, strict=True):
        state = future.wait()
        check(future.task_run.run_count == min(times, 2) + 1, times, future.task_run.run_count)
        if times > 2:
            check(state.name == "Failed", state)
            check(dependent.wait().name == "NotReady", dependent.state)
        else:
            check(future.result() == times + 1, state)
            check(dependent.result() == 2 * (times + 1), dependent.state)


def cancellations(rng: random.Random, check: Callable[..., None]) -> None:
    """What `cancel()` says is what has become of the run: at any moment, from two threads."""
    kinds = [rng.choice([double, double_async]) for _ in range(8)]
    futures = [kind(number, rng.choice([0, 0.002, 0.02])) for number, kind in enumerate(kinds)]
    dependents = [double(future) for future in futures]
    answers: dict[int, list[bool]] = {number: [] for number in range(8)}
    order = [rng.sample(range(8), rng.randint(0, 8)) for _ in range(2)]
    pauses = [rng.uniform(0, 0.01) for _ in range(2)]

    def cancel(numbers: list[int], pause: float) -> None:
        for number in numbers:
            time.sleep(pause)
            answers[number].append(futures[number].cancel())

    in_threads([partial(cancel, *each) for each in zip(order, pauses, strict=True)])
    for number, (future, dependent) in enumerate(zip(futures, dependents, strict=True)):
        state, after = future.wait(), dependent.wait()
        said = (number, answers[number], state, after)
        if state.name == "Cancelled":
            check(any(answers[number]), "cancelled, and nobody was told", *said)
            check(isinstance(future.result(raise_on_failure=False), CancelledError), *said)
            check(after.name in {"NotReady", "Cancelled"}, *said)
        else:
            check(state.name == "Completed", *said)
            # A coroutine is cancelled at its next await, if there is one; on a loop of this process it may be past its
            # last. All else that `cancel()` says yes to must be cancelled.
            may_be_past = IS_LOCAL and kinds[number] is double_async
            check(may_be_past or not any(answers[number]), "cancel() said yes, and it was not", *said)
            check((future.result(), dependent.result()) == (2 * number, 4 * number), *said)


def waits(rng: random.Random, check: Callable[..., None]) -> None:
    """Waits with limits end with the value, or say that there is none yet; the value comes all the same."""
    called: list[Any] = []
    futures = [rng.choice([double, double_async])(number, rng.choice([0, 0.005, 0.03])) for number in range(10)]
    for future in futures:
        future.add_done_callback(called.append)
        try:
            check(future.result(timeout=rng.choice([0, 0.0001, 0.005, 0.01])) % 2 == 0, future.state)
        except ResultTimeout as error:
            check(future.name in str(error), error)
    done, not_done = wait(futures, timeout=rng.uniform(0, 0.02))
    check(len(done) + len(not_done) == 10, done, not_done)
    check(all(future.done() for future in done), done)
    seen: list[Any] = []
    try:
        seen.extend(as_completed(futures, timeout=rng.uniform(0, 0.05)))
    except ResultTimeout as error:
        check(f"{10 - len(seen)} of 10 futures" in str(error), error, seen)
    check(gather(futures) == [2 * number for number in range(10)], futures)
    # A callback is called on the thread that ends the run, which may be about to: the flow's end waits for it.
    check(len(called) == len({id(future) for future in called}), "a callback was called twice", called)


def many_threads(rng: random.Random, check: Callable[..., None]) -> None:
    """Several threads of one flow submit, and wait for what all of them have submitted."""
    futures: list[Any] = []
    gate = threading.Barrier(THREADS)
    seconds = rng.choice([0, 0.001, 0.01])

    def work(start: int) -> None:
        futures.extend(double(start + number, seconds) for number in range(5))
        futures.extend(double_async.map(range(start, start + 3), seconds))
        gate.wait(under_watch.START_TIMEOUT)
        mine = list(futures)
        check(len(mine) == 8 * THREADS, len(mine))
        seen = list(as_completed(mine))
        check({future.task_run_id for future in seen} == {future.task_run_id for future in mine}, seen)
        check(len(seen) == len(mine), seen)

    in_threads([partial(copy_context().run, work, 100 * number) for number in range(THREADS)])
    wanted = sorted(2 * (100 * thread + number) for thread in range(THREADS) for number in [*range(5), *range(3)])
    check(sorted(gather(futures)) == wanted, futures)


SCENES = [limits, retries, cancellations, waits, many_threads]


def in_threads(functions: list[Callable[[], None]]) -> None:
    """Call each on a thread of its own, and wait for all; an exception of one of them is raised here."""
    errors: list[BaseException] = []

    def call(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=call, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


class Rounds:
    """Plays the scenes, and gathers what was not as it must be."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def play(self, numbers: list[int], seeds: list[int]) -> str:
        for number, seed in zip(numbers, seeds, strict=True):
            lots = random.Random(seed)
            scene = lots.choice(SCENES)
            told = f"round {number}, {scene.__name__}"
            try:
                scene(lots, partial(self._check, told))
            except Exception:  # noqa: BLE001 - a fault that is told with the others
                self.faults.append(f"{told}: {traceback.format_exc()}")
        # A flow that returns a value is Completed, whatever its runs were; the scenes have looked at these.
        return "ended"

    def _check(self, told: str, holds: object, *what: object) -> None:
        if not holds:
            self.faults.append(f"{told}, line {traceback.extract_stack()[-2].lineno}: {what!r}")


def main() -> int:
    rng = under_watch.lots()
    seeds = [[rng.getrandbits(60) for _ in range(ROUNDS)] for _ in range(THREADS)]
    under_watch.write("plan", {"threads": THREADS, "rounds": ROUNDS})
    rounds = Rounds()
    played = flow(rounds.play, task_runner=under_watch.made_runner())

    def one_by_one(own_seeds: list[int]) -> None:
        for number, seed in enumerate(own_seeds):
            played([number], [seed])

    if IS_LOCAL:
        in_threads([partial(one_by_one, own_seeds) for own_seeds in seeds])
    else:
        for own_seeds in seeds[:2]:
            played(list(range(len(own_seeds))), own_seeds)
    under_watch.write("faults", rounds.faults)
    under_watch.mark("ended")
    return len(rounds.faults) > 0


if __name__ == "__main__":
    sys.exit(main())
