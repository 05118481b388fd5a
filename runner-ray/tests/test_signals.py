"""Who hears SIGTERM after Ray has opened or shut down a session; what Ray does to it is done here by hand."""

from __future__ import annotations

import ctypes
import os
import signal

import pytest
from runner_ray._signals import _Handler, sigterm_kept

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Ray has no such handler on Windows")


def by_hand(*_):
    """A handler in Python."""


def by_somebody_else(*_):
    """Another one."""


@pytest.fixture(autouse=True)
def _handlers_of_this_process():
    """Those are put back; meanwhile Ctrl-C is not ignored, as it is in the background of a shell."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def of_the_system() -> int:
    ctypes.pythonapi.PyOS_getsig.restype = ctypes.c_void_p
    return ctypes.pythonapi.PyOS_getsig(signal.SIGTERM) or 0


def put_by_ray(handler: int) -> None:
    ctypes.pythonapi.PyOS_setsig.argtypes = [ctypes.c_int, ctypes.c_void_p]
    ctypes.pythonapi.PyOS_setsig(signal.SIGTERM, handler)


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN, by_hand])
@pytest.mark.parametrize("meanwhile", [signal.SIG_DFL, signal.SIG_IGN, by_hand, by_somebody_else, None])
@pytest.mark.parametrize("by_ray", [int(signal.SIG_DFL), int(signal.SIG_IGN)])
def test_what_python_knows_is_in_force_after_the_block_and_soon_within_it(wait_until, before, meanwhile, by_ray):
    """A flow run on the main thread may begin or end while a session is opened or shut down on another."""
    signal.signal(signal.SIGTERM, before)
    known = of_the_system()
    with sigterm_kept():
        if meanwhile is not None:
            signal.signal(signal.SIGTERM, meanwhile)
            known = of_the_system()
        put_by_ray(by_ray)
        wait_until(lambda: of_the_system() == known, "the handler is put back")
        put_by_ray(by_ray)
    assert of_the_system() == known


def test_a_flow_that_begins_meanwhile_where_ctrl_c_is_ignored(wait_until, monkeypatch):
    """As in the background of a shell: then no other handler in Python shows how Python puts them."""
    looks = []
    put_back = _Handler.put_back
    monkeypatch.setattr(_Handler, "put_back", lambda self: (put_back(self), looks.append(1)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with sigterm_kept():
        signal.signal(signal.SIGTERM, by_hand)
        known = of_the_system()
        before = len(looks)
        wait_until(lambda: len(looks) > before + 1, "one look that has begun since")
        put_by_ray(int(signal.SIG_DFL))
        wait_until(lambda: of_the_system() == known, "the handler is put back")
    assert of_the_system() == known


def test_a_handler_in_c_stays():
    """An application's, which Python does not know."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    theirs = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: None)
    address = ctypes.cast(theirs, ctypes.c_void_p).value
    put_by_ray(address)
    with sigterm_kept():
        put_by_ray(int(signal.SIG_DFL))
    assert of_the_system() == address
