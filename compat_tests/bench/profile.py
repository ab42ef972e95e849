"""`make profile`: what a request costs the service: instructions by module and file (callgrind), cycles by stage.

The service runs under valgrind's callgrind, its client and server as usual. Counting begins before the client and ends
with it, so a request's share is what all of it cost, divided by the requests; rounds of polling that find nothing count
too, as they do on a processor. Apart from that polling, counts do not depend on what else the machine does.
Instructions inside the kernel are not seen.

Cycles are counted by the service itself (--fp-cycles, rdtsc) in further runs without valgrind: they hold system calls,
cache misses and whoever took the processor away meanwhile, so medians are given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from _lab import BUILD, TAS_ADDR, Lab, Service

from tas_sockets._top import STAGES

LOADS = {
    "local: 64 connections, 64 B": ("local", ("-c", "64")),
    "local: 16 connections, 32 deep": ("local", ("-c", "16", "-d", "32")),
    "local: connect + request + close": ("local", ("-c", "16", "-r")),
    "link: 64 connections, 64 B": ("link", ("-c", "64")),
    "link: connect + request + close": ("link", ("-c", "16", "-r")),
    "link: connect + close": ("link", ("-c", "16", "-0")),
}
RUNS = 5  # for cycles
CONNECTIONS = (
    4000  # at most over the link and in a run: the kernel's client has 28,000 ports and keeps them for a minute
)
_NAME = re.compile(r"\((\d+)\)(?: (.*))?")


class _Names:
    """callgrind's compressed names: said once as `(7) name`, then `(7)`."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        found = _NAME.match(text)
        if not found:
            return text
        if found[2]:
            self.known[found[1]] = found[2]
        return self.known.get(found[1], "?")


def own_costs(text: str) -> Iterator[tuple[str, str, int]]:
    """(object, source file, instructions) of a callgrind file, without what calls cost in their callees."""
    objects, files = _Names(), _Names()
    place = {"ob": "?", "fl": "?"}
    callee = False
    for line in text.splitlines():
        key, _, rest = line.partition("=")
        if key == "ob":
            place["ob"] = objects(rest)
        elif key in ("fl", "fi", "fe"):
            place["fl"] = files(rest)
        elif key in ("cob", "cfi", "cfl"):
            (objects if key == "cob" else files)(rest)
        elif key == "calls":
            callee = True
        elif line[:1] in "0123456789+-*" and line:
            if not callee:
                yield place["ob"], place["fl"], int(line.split()[1])
            callee = False


def module_of(obj: str, source: str) -> tuple[str, str]:
    """(module, file) for the table: our own folders, DPDK as one, everything else by its library."""
    ours = re.search(r"fastpath/(\w+)/([\w.]+)$", source)
    if ours:
        return ours[1], ours[2]
    if "librte_" in obj or "/rte_" in source or "dpdk" in source:
        return "DPDK", re.sub(r"\.so.*", "", Path(obj).name) if "librte_" in obj else Path(source).name
    return "libraries", Path(obj).name


def _requests(
    service: Service, options: tuple[str, ...], requests: int, counting: contextlib.AbstractContextManager[object]
) -> int:
    """A server under TAS and its client, whose life is counted. Returns how many requests it made."""
    lab = service.lab
    server = lab.tas(BUILD / "echoserver", "--port=0", env={"TAS_REQUIRE": "1"})
    port = str(server.listening())
    start, addr = (lab.kernel, TAS_ADDR) if service.link else (lab.tas, "127.0.0.1")
    with counting:
        out = start(BUILD / "rpcclient", "--json", *options, "-n", str(requests), addr, port).json(120)
    server.kill()
    return int(out["requests"])


def cycles(lab: Lab, topology: str, options: tuple[str, ...], requests: int) -> dict[str, float]:
    """Cycles of the service per request by stage, and those of rounds that found nothing (`idle`)."""
    spent: Counter[str] = Counter()

    @contextlib.contextmanager
    def counting() -> Iterator[None]:
        spent.subtract(service.counters())
        yield
        spent.update(service.counters())

    service = Service(lab, "--fp-cycles", link=topology == "link")
    try:
        done = _requests(service, options, requests, counting())
    finally:
        service.finish(check=False)
    return {name: spent[f"cycles_{name}"] / done for name in (*STAGES, "idle")}


def cycles_markdown(found: dict[str, list[dict[str, float]]]) -> str:
    """Medians over runs: stages, a column per load."""
    lines = [f"| cycles per request | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    columns = [{name: median(run[name] for run in runs) for name in runs[0]} for runs in found.values()]
    for name in (*STAGES, "idle"):
        lines.append(f"| {name} | {' | '.join(f'{c[name]:,.0f}' for c in columns)} |")
    work = [sum(c[name] for name in STAGES) for c in columns]
    lines.append(f"| **all but idle** | {' | '.join(f'**{n:,.0f}**' for n in work)} |")
    return "\n".join(lines) + "\n"


def instructions(lab: Lab, topology: str, options: tuple[str, ...], requests: int) -> Counter[tuple[str, str]]:
    """Instructions per request by (module, file)."""
    out = lab.tmp / "callgrind.out"
    out.unlink(missing_ok=True)

    @contextlib.contextmanager
    def counting() -> Iterator[None]:
        for state in ("on", "off"):
            command = ["callgrind_control", f"--instr={state}", str(service.pid)]
            subprocess.run(command, check=True, capture_output=True)
            if state == "on":
                yield

    valgrind = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", "-q")
    service = Service(lab, link=topology == "link", via=valgrind)
    try:
        done = _requests(service, options, requests, counting())
    finally:
        service.finish(check=False)
    total: Counter[tuple[str, str]] = Counter()
    for obj, source, cost in own_costs(out.read_text()):
        total[module_of(obj, source)] += cost
    return Counter({key: round(cost / done) for key, cost in total.items()})


def markdown(found: dict[str, Counter[tuple[str, str]]]) -> str:
    """One table: modules with their files of at least 1 % in some load, a column per load."""
    totals = {load: sum(costs.values()) for load, costs in found.items()}
    lines = [f"| part | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for module in sorted({m for costs in found.values() for m, _ in costs}):
        files = sorted({f for costs in found.values() for m, f in costs if m == module})
        sums = [sum(n for (m, _), n in costs.items() if m == module) for costs in found.values()]
        lines.append(f"| **{module}** | {' | '.join(f'**{n:,}**' for n in sums)} |")
        for name in files:
            row = [costs[module, name] for costs in found.values()]
            if any(100 * n >= totals[load] for load, n in zip(found, row, strict=True)):
                lines.append(f"| {name} | {' | '.join(f'{n:,}' for n in row)} |")
    lines.append(f"| **all** | {' | '.join(f'**{n:,}**' for n in totals.values())} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    p = argparse.ArgumentParser(prog="make profile", description="Instructions and cycles of the service per request.")
    p.add_argument("--only", default="", metavar="TEXT", help="loads whose name contains TEXT")
    p.add_argument("--requests", type=int, default=20_000, metavar="N")
    p.add_argument("--out", type=Path, default=BUILD / "bench", help="folder for profile.json and profile.md")
    args = p.parse_args()
    wanted = {name: load for name, load in LOADS.items() if args.only in name}
    if not wanted:
        print(f"profile: no load contains {args.only!r}; loads:", *LOADS, sep="\n  ")
        return 2
    found = {}
    spent: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="tasprofile-") as tmp:
        Path(tmp).chmod(0o755)
        lab = Lab(Path(tmp))
        try:
            for name, (topology, options) in wanted.items():
                most = CONNECTIONS if topology == "link" and options[-1] in ("-r", "-0") else 10 * args.requests
                found[name] = instructions(lab, topology, options, min(args.requests, most))
                spent[name] = [cycles(lab, topology, options, most) for _ in range(RUNS)]
        finally:
            lab.close(check=False)
    args.out.mkdir(parents=True, exist_ok=True)
    plain = {name: {f"{m}/{f}": n for (m, f), n in costs.items()} for name, costs in found.items()}
    (args.out / "profile.json").write_text(json.dumps({"instructions": plain, "cycles": spent}, indent=1))
    text = markdown(found) + "\n" + cycles_markdown(spent)
    (args.out / "profile.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
