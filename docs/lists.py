"""The lists in the code, for the site: interposed calls (preload/calls.h), options (abi/tas_options.h), recipes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALLS = ROOT / "interpose" / "preload" / "calls.h"
OPTIONS = ROOT / "fastpath" / "abi" / "tas_options.h"
RECIPES = ROOT / "apps" / "recipes"
EFFECTS = {
    "ACTS": "acts",
    "GIVES": "answered by TAS",
    "SAME": "the kernel's answer",
    "STORED": "stored, not acted on",
    "REFUSED": "refused",
}


def _arguments(text: str, start: int) -> tuple[list[str], int]:
    """The arguments of a macro call whose bracket opens at ``start``, and where it ends."""
    depth, quoted, found, at = 0, False, [""], start
    while True:
        c = text[at]
        quoted ^= c == '"'
        depth += 0 if quoted else (c in "([{") - (c in ")]}")
        at += 1
        if depth == 0:
            return [" ".join(a.split()).strip('"') for a in found], at
        if c == "," and depth == 1 and not quoted:
            found.append("")
        elif at > start + 1:
            found[-1] += c


def _entries(path: Path, macro: str, kinds: str) -> list[tuple[str, list[str]]]:
    """KIND(...) of a list, in order; a comment is ("", [text])."""
    text = path.read_text()
    start = text.index(f"#define {macro}(")
    text = text[text.index("\n", start) : re.compile(r"[^\\]\n").search(text, start).end()]  # type: ignore[union-attr]
    pattern, found, at = re.compile(rf"/\* (.+?) \*/|\b({kinds})\("), [], 0
    while match := pattern.search(text, at):
        args, at = ([match[1]], match.end()) if match[1] else _arguments(text, match.end() - 1)
        found.append((match[2] or "", args))
    return found


def calls() -> dict[str, list[list[str]]]:
    """By group: names, prototype, where it goes."""
    groups: dict[str, list[list[str]]] = {}
    rows: dict[str, list[str]] = {}
    for kind, args in _entries(CALLS, "TAS_CALLS", "FD|OWN|NEW|SAME"):
        if not kind:
            group = groups.setdefault(args[0], [])
        elif kind == "SAME":
            rows[args[1]][0] += f"\n{args[0]}"
        else:
            rows[args[1]] = [args[1], f"{args[0]} {args[1]}{args[2]}", args[-1]]
            group.append(rows[args[1]])
    return groups


def options(level: str) -> list[list[str]]:
    """Of one level (SOL_SOCKET …), or "ioctl": name, effect, what accept does, text."""
    if level == "ioctl":
        return [[a[0], EFFECTS[a[1]], "", a[2]] for _, a in _entries(OPTIONS, "TAS_IOCTLS", "I")]
    found = [a for m in ("TAS_OPTIONS_MARKED", "TAS_OPTIONS_PLAIN") for _, a in _entries(OPTIONS, m, "O")]
    return [
        [a[1], EFFECTS[a[3]], "inherited" if a[4] == "INHERITED" else "", a[5]]
        for a in sorted(found, key=lambda a: a[1])
        if a[0] == level
    ]


def programs() -> list[list[str]]:
    """By name: recipe, who is on TAS, what it exercises; read from the source, for its modules need a laboratory."""
    found = []
    for path in RECIPES.glob("[!_]*.py"):
        for node in ast.parse(path.read_text()).body:
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "recipe":
                    more = {k.arg: k.value for k in call.keywords}
                    modes = ast.unparse(more["modes"]).strip("(,)").lower() if "modes" in more else "server"
                    found.append([ast.literal_eval(call.args[0]), modes, ast.literal_eval(more["exercises"])])
    return sorted(found)
