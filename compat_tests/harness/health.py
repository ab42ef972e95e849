"""Whether a service rests when nobody uses it, after every scenario, at next to no cost.

Two looks.  Right after a scenario, when everything is closed, every thread of the service has to go to sleep (one that
polls for ever never does).  Then, while the oracle runs the same scenario and nobody uses the service, processor
time of its threads is counted (one that is woken again and again sleeps, but not for long), which does not grow when the
machine is busy with others.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from _diagnosis import first_line
from _lab import Service

SLEEPY = 2.0  # seconds in which all threads go to sleep
LEAST = 0.02  # seconds that a look takes when the first was suspicious
SHARE = 0.2  # of a processor: more is work
TRIES = 20  # after suspicion: what the last scenario left (a FIN that is sent again, a neighbour that asks) passes


class Rest:
    """One service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.folder = Path(f"/proc/{service.pid}/task")
        self.since, self.taken = time.monotonic(), self._processor()

    def _processor(self) -> float:
        """Seconds that its threads have run."""
        said = [first_line(task / "schedstat").split(" ")[0] for task in self.folder.glob("*")]
        return sum(int(n) for n in said if n.isdecimal()) / 1e9

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
        self.since, self.taken = time.monotonic(), self._processor()
        return f"the service does not go to sleep: {who}" if who else ""

    def worked(self) -> str:
        """The second look's end: whether it took processor time, also when looked at again."""
        for _ in range(TRIES):
            share = (self._processor() - self.taken) / (time.monotonic() - self.since)
            if share <= SHARE:
                return ""
            self.since, self.taken = time.monotonic(), self._processor()
            time.sleep(LEAST)
        return f"the service takes {share:.0%} of a processor while nobody uses it"
