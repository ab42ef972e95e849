"""Checks the C sources against the project's rules: who may include whom, and the form of a file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# Folder: what it may include from (design: abi -> tcp -> {fast, slow} -> service; abi -> client -> preload).
LAYERS = {
    "fastpath/abi": ("abi",),
    "fastpath/tcp": ("abi", "tcp"),
    "fastpath/fast": ("abi", "tcp", "fast", "slow"),
    "fastpath/slow": ("abi", "tcp", "fast", "slow"),
    "fastpath/service": ("abi", "tcp", "fast", "slow", "service"),
    "interpose/client": ("abi", "lowlevel", "sockets", "tas.h", "tas_sockets.h"),
    "interpose/preload": ("abi", "lowlevel", "tas.h", "tas_sockets.h"),
    "apps": (),
}
PARTS = ("abi", "tcp", "fast", "slow", "service", "lowlevel", "sockets", "preload")
TCP_FORBIDDEN = re.compile(r"#include <(rte_|time\.h|sys/time\.h|malloc\.h)|\b(malloc|calloc|clock_gettime)\(")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")


def problems(path: Path) -> list[str]:
    text = path.read_text()
    found = []
    if "SPDX-License-Identifier: MIT" not in "".join(text.splitlines()[:3]):
        found.append(f"{path}:1: no licence in the first lines")
    allowed = next((v for k, v in LAYERS.items() if str(path).startswith(k + "/")), None)
    if allowed is not None:
        for m in re.finditer(r'^#include "([^"]+)"', text, re.M):
            part = m[1].split("/")[0]
            if "/" in m[1] and part in PARTS and part not in allowed:
                line = text.count("\n", 0, m.start()) + 1
                found.append(f"{path}:{line}: includes {m[1]}, which is not below {path.parent}")
    for n, line in enumerate(text.splitlines(), 1):
        if len(line.expandtabs(8)) > 160:
            found.append(f"{path}:{n}: much longer than 120 columns")
        if UNFINISHED.search(line):
            found.append(f"{path}:{n}: {UNFINISHED.search(line)[0]}")  # type: ignore[index]
        if str(path).startswith("fastpath/tcp/") and TCP_FORBIDDEN.search(line):
            found.append(f"{path}:{n}: the engine knows no DPDK, allocator or clock")
    return found


def main() -> int:
    files = subprocess.run(["git", "ls-files", "*.c", "*.h"], capture_output=True, text=True, check=True).stdout.split()
    found = [p for name in files if Path(name).exists() for p in problems(Path(name))]
    print("\n".join(found) or f"layers: {len(files)} C files in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
