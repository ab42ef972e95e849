"""What idle connections cost: the kernel's memory and the service's shared memory, stated apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _lab import BUILD

from .stacks import Stack


def _kernel_bytes() -> int:
    """Slab and page memory of the kernel's objects; sockets' queues are pages of their own."""
    found = dict(re.findall(r"^(\w+):\s+(\d+)", Path("/proc/meminfo").read_text(), re.M))
    return sum(int(found[key]) for key in ("Slab", "KernelStack", "PageTables")) * 1024


def kernel(count: int) -> Callable[[Stack], dict[str, Any]]:
    """Kernel memory per endpoint of ``count`` connections between two programs that had one request each."""

    def run(s: Stack) -> dict[str, Any]:
        server = s.server(BUILD / "echoserver", "--port=0")
        try:
            port = str(server.listening())
            before = _kernel_bytes()
            shared = sum(x.gauges()["chunk_bytes_used"] for x in s.services)
            client = s.client(
                BUILD / "rpcclient", "--json", "-c", str(count), "-n", str(count), "--hold=3", s.addr, port
            )
            client.line("^holding", 60)
            kernel_each = (_kernel_bytes() - before) / (2 * count)
            shared_each = (sum(x.gauges()["chunk_bytes_used"] for x in s.services) - shared) / (2 * count)
            client.ok()
        finally:
            server.kill()
        return {"value": kernel_each, "shared_memory": shared_each}

    return run
