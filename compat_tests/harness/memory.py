"""Arguments of calls that are not numbers or bytes: memory of the agent, in tokens that agent.c knows; addresses."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass


@dataclass
class Mem:
    """Memory of the agent: ``token`` as agent.c describes it, ``text`` for the trace."""

    token: str
    text: str


def out(n: int) -> Mem:
    return Mem(f"o{n}", f"room {n}")


def sink(n: int) -> Mem:
    return Mem(f"z{n}", f"room {n}")


def inout(data: bytes) -> Mem:
    return Mem(f"B{data.hex()}", short(data))


def pattern(n: int, seed: int = 0) -> Mem:
    return Mem(f"p{n},{seed}", f"pattern {n}")


def guarded(data: bytes) -> Mem:
    return Mem(f"g{data.hex()}", f"{short(data)} before a hole")


def wild(address: int = 1) -> Mem:
    return Mem(f"i{address}", "NULL" if not address else "wild")


NULL, WILD = wild(0), wild(1)


def group(*fields: int | bytes | Mem | tuple[str, int], returned: bool = False, text: str = "") -> Mem:
    """A structure: numbers are 8 bytes, ("d", n) four, ("w", n) two."""
    tokens = []
    for f in fields:
        if isinstance(f, int):
            tokens.append(f"q{f}")
        elif isinstance(f, tuple):
            tokens.append(f"{f[0]}{f[1]}")
        elif isinstance(f, bytes):
            tokens.append(f"x{f.hex()}")
        else:
            tokens.append(f.token.replace("i", "q", 1) if f.token.startswith("i") else f.token)
    a, b = "{}" if returned else "[]"
    return Mem(" ".join([a, *tokens, b]), text or "{" + ", ".join(show(f) for f in fields) + "}")


def short(data: bytes) -> str:
    return repr(data) if len(data) <= 40 else f"{data[:16]!r}...{len(data)}:{sum(data) & 0xFFFF:04x}"


def show(arg: object) -> str:
    if isinstance(arg, Mem):
        return arg.text
    if isinstance(arg, tuple):
        return str(arg[1])
    return short(arg) if isinstance(arg, bytes) else str(arg)


def address(ip: str, port: int) -> bytes:
    """struct sockaddr_in or sockaddr_in6."""
    if ":" in ip:
        return (
            struct.pack("=H", socket.AF_INET6)
            + struct.pack("!HI", port, 0)
            + socket.inet_pton(socket.AF_INET6, ip)
            + bytes(4)
        )
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(ip) + bytes(8)


def parse_address(raw: bytes) -> tuple[str, int]:
    """IP and port; other families as ("family N", 0)."""
    family = int.from_bytes(raw[:2], "little") if len(raw) >= 2 else -1
    if family == socket.AF_INET and len(raw) >= 8:
        return socket.inet_ntoa(raw[4:8]), int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET6 and len(raw) >= 24:
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), int.from_bytes(raw[2:4], "big")
    return f"family {family} {raw.hex()}", 0
