"""`make bench`: TAS beside Linux in one run, interleaved, as ratios.

A repetition runs every row once on each stack, one after the other, the stack that begins alternating; a row's figure
is the median over repetitions, its spread the smallest and largest. With each repetition: the round trip of a cache
line between the CPUs, the load of the machine, on which CPU each thread was last seen, and medians per placement of
server and service. Results: a table, a JSON file, the table as Markdown, and plots.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from _lab import BUILD, ROOT, sweep

from . import report
from .measure import repeat
from .rows import chosen, rows

DOCS = ROOT / "docs" / "bench"


def main() -> int:
    p = argparse.ArgumentParser(prog="make bench", description="TAS beside Linux in one run, interleaved, as ratios.")
    p.add_argument("--quick", action="store_true", help="a short list of rows, 3 repetitions instead of 7")
    p.add_argument("--reps", type=int, metavar="N", help="so many repetitions")
    p.add_argument("--only", default="", metavar="TEXT", help="rows whose `topology: name` contains TEXT")
    p.add_argument("--list", action="store_true", help="name the rows and end")
    p.add_argument("--out", type=Path, default=BUILD / "bench", help="folder for result.json, table.md, plots")
    p.add_argument("--docs", action="store_true", help=f"put table and plots into {DOCS.relative_to(ROOT)} as well")
    args = p.parse_args()
    if args.list:
        print(*rows(), sep="\n")
        return 0
    if os.geteuid() != 0:
        print("bench: network namespaces and a tap need root", file=sys.stderr)
        return 1
    wanted = chosen(args.only, args.quick)
    if not wanted:
        print(f"bench: no row contains {args.only!r}; rows:", *rows(), sep="\n  ")
        return 2
    sweep()
    args.out.mkdir(parents=True, exist_ok=True)

    def keep(result: dict[str, object]) -> None:
        (args.out / "result.json").write_text(json.dumps(result, indent=1))

    with tempfile.TemporaryDirectory(prefix="tasbench-") as tmp:
        Path(tmp).chmod(0o755)
        result = repeat(wanted, args.reps or (3 if args.quick else 7), Path(tmp), keep)
    (args.out / "table.md").write_text(report.markdown(result))
    print(report.table(result))
    made = [args.out / "table.md", *report.plots(result, args.out)]
    print(*made, sep="\n")
    if args.docs:
        for path in made:
            shutil.copy(path, DOCS)
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
