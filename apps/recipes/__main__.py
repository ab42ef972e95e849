"""make apps: runs recipes; a table, result.json and, for what differs, what everybody was doing (*.log)."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import _lab

from recipes import _packages
from recipes._recipe import Mode, Recipe, every
from recipes._run import Result, compare

COLUMNS = "{:<28} {:<7} {:<8} {:>9} {:>6} {:>11} {:>6}"


def _chosen(names: list[str]) -> list[Recipe]:
    known = every()
    if not names:
        return known
    chosen = [r for r in known if any(r.name == n or r.name.startswith(n + "-") for n in names)]
    if not chosen:
        sys.exit(f"no recipe is called {' or '.join(names)}; there are: {' '.join(r.name for r in known)}")
    return chosen


def _row(result: Result) -> str:
    return COLUMNS.format(
        result.recipe.name,
        result.mode.value,
        "DIFFERS" if result.differences else "same",
        f"{result.kernel.seconds:.1f}+{result.tas.seconds:.1f}",
        result.tas.connections,
        result.tas.bytes,
        len(result.tas.seen),
    )


def _entry(result: Result) -> dict[str, Any]:
    return {
        "recipe": result.recipe.name,
        "mode": result.mode.value,
        "exercises": result.recipe.exercises,
        "same": not result.differences,
        "differences": result.differences,
        "kernel": asdict(result.kernel),
        "tas": asdict(result.tas),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="make apps", description=__doc__)
    parser.add_argument("app", nargs="*", help="recipes, or programs whose recipes are meant (default: all)")
    parser.add_argument("--mode", choices=[m.value for m in Mode], help="only this mode")
    parser.add_argument("--list", action="store_true", help="says what there is")
    parser.add_argument("--no-install", action="store_true", help="missing packages are an error")
    parser.add_argument("--out", type=Path, default=_packages.FOLDER / "result.json")
    args = parser.parse_args()
    recipes = _chosen(args.app)
    if args.list:
        for r in recipes:
            print(
                f"{r.name:<28} {'/'.join(m.value for m in r.modes):<20} {'quick' if r.quick else '':<6} {r.exercises}"
            )
        return 0
    if why := _lab.missing():
        sys.exit(why)
    if not args.no_install:
        _packages.install(recipes)
    _lab.sweep()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    print(COLUMNS.format("recipe", "subject", "", "seconds", "conns", "bytes", "seen"), flush=True)
    for r in recipes:
        if needed := _packages.missing(r):
            sys.exit(f"{r.name} needs {' '.join(needed)}")
        for mode in r.modes:
            if args.mode in (None, mode.value):
                with open(args.out.parent / f"{r.name}-{mode.value}.log", "w") as log, contextlib.redirect_stderr(log):
                    results.append(compare(r, mode))
                print(_row(results[-1]), flush=True)
                for text in results[-1].differences:
                    print(f"  {text}", flush=True)
    args.out.write_text(json.dumps([_entry(r) for r in results], indent=1, default=repr))
    bad = [r for r in results if r.differences]
    print(f"{len(results)} runs of {len(recipes)} recipes, {len(bad)} differ: {args.out}")
    return 1 if bad else 0


sys.exit(main())
