"""Programs that may make system calls themselves: who has `syscall` instructions besides libc.

Looks from outside into the files that a process has mapped as code; the process itself does nothing for it.
"""

from __future__ import annotations

import re
from pathlib import Path

OURS = re.compile(r"(libc[.-]|ld-linux|ld-2|libpthread[.-]|librt[.-]|libtas)[^/]*$")
CALL = b"\x0f\x05"
# A call as compilers and assemblers write it: its number is loaded shortly before, and no branch lies between; or its
# result is looked at, or returned.  Two such bytes by chance are rarely followed by that.
NUMBER = re.compile(rb"[\xb8][\x00-\xff][\x00\x01]\x00\x00[^\xe8\xe9\xeb\xc3]{0,30}$", re.DOTALL)
RESULT = (b"\x48\x3d\x01\xf0\xff\xff", b"\x48\x3d\x00\xf0\xff\xff", b"\xc3", b"\x48\x85\xc0", b"\x85\xc0")
GO = b"\xff Go buildinf:"


def sites(code: bytes) -> int:
    """How many system calls a piece of a program makes."""
    found, at = 0, code.find(CALL)
    while at >= 0:
        found += code.startswith(RESULT, at + 2) or bool(NUMBER.search(code, max(0, at - 35), at))
        at = code.find(CALL, at + 2)
    return found


def of_process(pid: int) -> list[dict[str, object]]:
    """The objects of a process that have any, apart from libc and its linker, and from TAS."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        area, mode, offset, _, _, *name = line.split(maxsplit=5)
        if "x" in mode and name and name[0].startswith("/") and not OURS.search(name[0]):
            begin, end = (int(a, 16) for a in area.split("-"))
            parts.setdefault(name[0], []).append((int(offset, 16), end - begin))
    result: list[dict[str, object]] = []
    for path, ranges in parts.items():
        try:
            with open(f"/proc/{pid}/root{path}", "rb") as file:
                image = file.read()
        except OSError:  # deleted, or another user's
            continue
        found = sum(sites(image[offset : offset + length]) for offset, length in ranges)
        if found:
            result.append({"pid": pid, "object": path, "sites": found, "go": GO in image})
    return result
