"""Calls in threads of their own."""

from __future__ import annotations

import signal
import threading

from .calls import run


class Worker(threading.Thread):
    """A call in a thread of its own."""

    def __init__(self, text: str) -> None:
        super().__init__(daemon=True)
        self.text, self.result = text, ""

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, range(1, signal.NSIG))
        self.result = run(self.text)

    def sleeps(self) -> bool:
        try:
            with open(f"/proc/self/task/{self.native_id}/stat") as f:
                return ") S" in f.read()
        except OSError:
            return False


threads: dict[int, Worker] = {}


def start(n: int, text: str) -> None:
    threads[n] = Worker(text)
    threads[n].start()


def ended(n: int, seconds: float) -> str | None:
    threads[n].join(seconds)
    return None if threads[n].is_alive() else threads.pop(n).result


def blocked(n: int) -> str:
    """Blocked is who sleeps eight times in a row, a millisecond apart (once may be for the interpreter's lock)."""
    asleep = 0
    for _ in range(3000):
        result = ended(n, 0.001)
        if result is not None:
            return result
        asleep = asleep + 1 if threads[n].sleeps() else 0
        if asleep == 8:
            return "blocked"
    return "spinning"
