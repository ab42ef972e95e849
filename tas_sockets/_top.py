"""`tasctl top`: where the service's time goes, as differences of its counters over an interval."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from tas_sockets._control import Control, What

CLEAR = "\x1b[H\x1b[2J"
RATES = (  # name in the report, counters that it sums
    ("connections", ("conn_local", "conn_active", "conn_passive")),
    ("connects by mail", ("mails",)),
    ("bytes in", ("bytes_in", "bytes_local")),
    ("bytes out", ("bytes_out", "bytes_local")),
    ("packets in", ("rx_packets",)),
    ("packets out", ("tx_packets",)),
    ("retransmissions", ("tcp_retrans",)),
    ("hints", ("app_hints",)),
    ("wake-ups", ("app_wakeups",)),
    ("doorbells", ("doorbells",)),
    ("sleeps", ("sleeps",)),
)
SHARES = ("work", "poll", "sleep")
STAGES = ("receive", "hints", "timers", "output", "wake", "transmit", "control")


def seconds(text: str) -> float:
    """An interval that makes sense."""
    value = float(text)
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError("between 0.01 and 3600 seconds")
    return value


@dataclass(frozen=True)
class Sample:
    """What the service had counted at a moment."""

    at: float
    stats: dict[str, Any]
    processes: list[dict[str, Any]]

    @classmethod
    def take(cls, control: Control) -> Sample:
        return cls(time.monotonic(), control.ask(What.STATS), control.ask(What.PROCS))


def report(old: Sample, new: Sample) -> dict[str, Any]:
    """What happened between two samples: shares of time in percent, everything else per second.

    ``stages``: shares of the cycles spent on work; all zero without the service's ``--fp-cycles``.
    """
    took = max(new.at - old.at, 1e-6)
    before, after = old.stats["counters"], new.stats["counters"]
    cores = []
    for was, now in zip(old.stats["cores"], new.stats["cores"], strict=True):
        spent = {name: now[f"{name}_ns"] - was[f"{name}_ns"] for name in SHARES}
        whole = max(sum(spent.values()), 1)
        cores.append({name: round(100 * spent[name] / whole, 1) for name in SHARES})
        cores[-1]["rounds"] = round((now["rounds"] - was["rounds"]) / took, 1)
        for name in ("segments", "received", "steered", "steer_dropped"):
            cores[-1][name] = round((now[name] - was[name]) / took, 1)
        cores[-1]["flows"] = now["flows"]
        cores[-1]["running"] = now["running"]
    cycles = {name: after[f"cycles_{name}"] - before[f"cycles_{name}"] for name in STAGES}
    known = {(p["slot"], p["pid"]): p for p in old.processes}
    processes = []
    for p in new.processes:
        was = known.get((p["slot"], p["pid"]), {})
        rates = {n: round(max(p[n] - was.get(n, 0), 0) / took, 1) for n in ("hints", "mails")}
        processes.append({"pid": p["pid"], "comm": p["comm"], "sockets": p["claims"], **rates})
    processes.sort(key=lambda p: -p["hints"])
    return {
        "seconds": round(took, 3),
        "cores": cores,
        "rates": {name: round(sum(after[c] - before[c] for c in of) / took, 1) for name, of in RATES},
        "stages": {name: round(100 * n / max(sum(cycles.values()), 1), 1) for name, n in cycles.items()},
        "sockets": new.stats["gauges"]["sockets"],
        "processes": processes,
    }


def text(r: dict[str, Any]) -> str:
    """The report as a table for people."""
    lines = [f"{r['sockets']} sockets, {len(r['processes'])} processes", ""]
    head = f"{'core':>6} {'work':>7} {'poll':>7} {'sleep':>7} {'rounds/s':>11} {'segments/s':>11}"
    lines.append(f"{head} {'steered/s':>10} {'flows':>7}")
    for n, core in enumerate(r["cores"]):
        if not core["running"]:
            continue
        shares = " ".join(f"{core[name]:>6.1f}%" for name in SHARES)
        line = f"{n:>6} {shares} {core['rounds']:>11,.0f} {core['segments']:>11,.0f}"
        lines.append(f"{line} {core['steered']:>10,.0f} {core['flows']:>7,}")
    if any(r["stages"].values()):
        lines.append("  of work: " + ", ".join(f"{name} {share}%" for name, share in r["stages"].items()))
    lines.append("")
    lines += [f"{name:>18} {value:>15,.0f} /s" for name, value in r["rates"].items()]
    lines += ["", f"{'process':>9} {'sockets':>8} {'hints/s':>11} {'mails/s':>9}  program"]
    for p in r["processes"][:20]:
        rates = f"{p['hints']:>11,.0f} {p['mails']:>9,.0f}"
        lines.append(f"{p['pid']:>9} {p['sockets']:>8} {rates}  {p['comm']}")
    return "\n".join(lines)


def run(control: Control, *, interval: float, once: bool, as_json: bool) -> None:
    """Reports after every interval, until interrupted, or once."""
    old = Sample.take(control)
    while True:
        try:
            time.sleep(interval)
        except KeyboardInterrupt:
            return
        new = Sample.take(control)
        found = report(old, new)
        if as_json:
            print(json.dumps(found), flush=True)
        else:
            print((CLEAR if sys.stdout.isatty() and not once else "") + text(found), flush=True)
        if once:
            return
        old = new
