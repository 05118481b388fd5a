"""Two hundred pages are fetched from a slow server: under the concurrent runner the waits overlap."""

from __future__ import annotations

import math
import time

import anyio
from riverrun import flow, task

PAGES = 200
WAIT = 0.05
"""How long the server takes for each page, in seconds."""


@task
async def fetch(page: int) -> str:
    """Wait for a page, as a client on a network does."""
    await anyio.sleep(WAIT)
    return f"page {page} " * page


@task
def count_words(text: str) -> int:
    """Count the words of a page: a plain function, in a thread, as soon as that page is there."""
    return len(text.split())


@flow
def many_waits() -> None:
    """Fetch all pages, and say how long that took."""
    began = time.perf_counter()
    pages = fetch.map(range(PAGES))
    words = sum(count_words.map(pages).result())
    seconds = math.ceil(time.perf_counter() - began)
    print(f"{PAGES} pages, {words:,} words.")
    print(f"One after the other, the waits are {PAGES * WAIT:g} seconds.")
    print(f"Together they took less than {seconds} second{'s' if seconds > 1 else ''}.")


if __name__ == "__main__":
    many_waits()
