"""Signals that come while a blocked call looks, spins or is about to sleep.

The library counts handlers that ran: a signal between two looks interrupts a call like one that finds it asleep.  So
the interpreter's own handler gets one of ours (C, ``glue_signal``) before it, for each signal with a Python handler.
"""

from __future__ import annotations

import functools
import signal
from typing import Any

from tas_sockets._ffi import lib


def _count(number: int) -> None:
    if callable(signal.getsignal(number)):
        lib.glue_signal(number)


def install() -> None:
    """For the handlers that are there, and those that come by ``signal.signal``."""
    for number in signal.valid_signals():
        _count(int(number))
    standard = signal.signal

    @functools.wraps(standard)
    def counted(signalnum: Any, handler: Any) -> Any:
        before = standard(signalnum, handler)
        _count(int(signalnum))
        return before

    signal.signal = counted
