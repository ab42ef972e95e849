"""Whether a service rests when nobody uses it, after every scenario, at next to no cost.

Two looks.  Right after a scenario, when everything is closed, every thread of the service has to go to sleep (one that
polls for ever never does).  Then, while the oracle runs the same scenario and nobody uses the service, processor time
of its threads is counted (one that is woken again and again sleeps, but not for long), against the time in which the
machine had a processor for them.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from _diagnosis import first_line
from _lab import Service

SLEEPY = 2.0  # seconds in which all threads go to sleep
SHARE = 0.1  # of a processor: more is suspicious
CALM = (
    0.03  # what acquits then: the end of what the last scenario left (a FIN that is sent again, a neighbour that asks)
)
LOOK, LOOKS = 0.05, 20  # seconds and number of the looks that may acquit


class Rest:
    """One service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.folder = Path(f"/proc/{service.pid}/task")
        self.before = self._times()

    def _times(self) -> dict[str, tuple[float, float, float]]:
        """Of each thread: the time now, for how long it has run, and for how long it waited for a processor."""
        found = {}
        for task in self.folder.glob("*"):
            run, wait, *_ = (int(n) / 1e9 for n in f"{first_line(task / 'schedstat')} 0 0".split(" ") if n.isdecimal())
            found[task.name] = (time.monotonic(), run, wait)
        return found

    def _share(self) -> float:
        """The busiest thread's running, of the time in which it was not kept waiting."""
        busiest = 0.0
        for name, (now, run, wait) in self._times().items():
            then, ran, waited = self.before.get(name, (now, run, wait))
            free = max(now - then - (wait - waited), run - ran)
            busiest = max(busiest, (run - ran) / free if free else 0.0)
        return busiest

    def _running(self) -> str:
        """A thread that does not sleep."""
        for task in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                name, _, rest = (task / "stat").read_text().rpartition(") ")
                if rest[0] != "S":
                    return f"thread {name.partition('(')[2]} ({rest[0]})"
        return ""

    def asleep(self) -> str:
        """Waits until all threads sleep, and begins the second look; what does not sleep."""
        end = time.monotonic() + SLEEPY
        while (who := self._running()) and time.monotonic() < end:
            time.sleep(0.0005)
        self.before = self._times()
        return f"the service does not go to sleep: {who}" if who else ""

    def worked(self) -> str:
        """The second look's end: whether it took processor time, also when looked at again."""
        share = self._share()
        if share <= SHARE:
            return ""
        for _ in range(LOOKS):
            self.before = self._times()
            time.sleep(LOOK)
            share = self._share()
            if share <= CALM:
                return ""
        return f"the service takes {share:.0%} of a processor while nobody uses it"
