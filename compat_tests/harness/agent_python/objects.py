"""Sockets and epoll sets by their numbers, and addresses as tuples."""

from __future__ import annotations

import importlib
import os
import socket as std
import struct
from typing import Any

from .memory import Block, Unsupported, content, memory, number

NAME = os.environ.get("AGENT_SOCKET", "socket")
net: Any = importlib.import_module(NAME)
waits: Any = importlib.import_module("select" if NAME == "socket" else f"{NAME}.select")

objects: dict[int, Any] = {}
closed: dict[int, Any] = {}
sets: dict[int, Any] = {}
data_of: dict[tuple[int, int], int] = {}


def keep(made: Any) -> int:
    fd: int = made.fileno()
    objects[fd] = made
    closed.pop(fd, None)
    return fd


def sock(fd: Any) -> Any:
    """The object with this number; one that was closed; or a new one for a number that came from elsewhere."""
    n = number(fd)
    if n in objects:
        return objects[n]
    if n in closed:
        return closed[n]
    if n in sets or n < 0:
        raise Unsupported("not a socket object")
    made = net.socket(fileno=n)
    objects[n] = made
    return made


def is_socket(fd: Any) -> bool:
    return fd in objects or fd in closed


def to_tuple(family: int, raw: Any, size: int) -> Any:
    """struct sockaddr as a Python address; only what a program can say in that form."""
    b = content(raw, size)
    here = int.from_bytes(b[:2], "little") if len(b) >= 2 else -1
    if here != family or len(b) != (16 if family == std.AF_INET else 28) or family not in (std.AF_INET, std.AF_INET6):
        raise Unsupported("an address is a tuple, made for the socket's family")
    port = int.from_bytes(b[2:4], "big")
    if family == std.AF_INET:
        return std.inet_ntoa(b[4:8]), port
    return std.inet_ntop(std.AF_INET6, b[8:24]), port, 0, 0


def put_address(address: Any, to: Any, length: Any) -> None:
    """A Python address as the C call leaves it in memory."""
    if not isinstance(to, Block) and not isinstance(length, Block) and not to and not length:
        return
    room, size = memory(to), memory(length)
    if len(address) == 2:
        raw = struct.pack("=H", std.AF_INET) + struct.pack("!H", address[1]) + std.inet_aton(address[0]) + bytes(8)
    else:
        ip = std.inet_pton(std.AF_INET6, address[0])
        raw = struct.pack("=H", std.AF_INET6) + struct.pack("!HI", address[1], address[2]) + ip
        raw += struct.pack("=I", address[3])
    if int.from_bytes(size.mem[:4], "little", signed=True) < len(raw):
        raise Unsupported("the module chooses the room for an address")
    room.mem[: len(raw)] = raw
    size.mem[:4] = struct.pack("=i", len(raw))
