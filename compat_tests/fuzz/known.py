"""Differences that are known: `known.toml`, each with its reason. A program that meets one is counted, not reported."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from .rig import Difference

PATH = Path(__file__).with_name("known.toml")


@cache
def entries() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = tomllib.loads(PATH.read_text()).get("difference", [])
    return listed


def known(d: Difference) -> str:
    """The name of the entry that says so, or nothing."""
    program = "\n".join(d.program[: d.step + 1])
    texts = {"line": d.line, "linux": d.kernel, "tas": d.tas, "program": program}
    texts["past"] = "\n".join(f"{op} => {line}" for op, line in zip(d.program, d.past, strict=False))
    texts["all"] = f"{program}\nlinux: {d.kernel}\ntas: {d.tas}"
    for e in entries():
        if all(re.search(e[k], v, re.M | (re.S if k == "all" else 0)) for k, v in texts.items() if k in e):
            return str(e["name"])
    return ""
