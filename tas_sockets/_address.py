"""Addresses of AF_INET and AF_INET6 sockets: Python's tuples to ``struct glue_addr`` and back.

Checks, their order and their messages are those of CPython's ``Modules/socketmodule.c`` (getsockaddrarg, setipaddr).
"""

from __future__ import annotations

import _socket
from operator import index
from typing import Any

from tas_sockets._ffi import CData, new

AF_INET, AF_INET6 = int(_socket.AF_INET), int(_socket.AF_INET6)
_inet_ntop, _inet_pton = _socket.inet_ntop, _socket.inet_pton


def _host(host: object) -> str:
    """CPython's idna_converter."""
    if isinstance(host, (bytes, bytearray)):
        name = bytes(host).decode("latin-1")
    elif isinstance(host, str):
        name = host
        if not host.isascii():
            try:
                name = host.encode("idna").decode("ascii")
            except UnicodeError as e:
                raise TypeError("encoding of hostname failed") from e
    else:
        raise TypeError(f"str, bytes or bytearray expected, not {type(host).__name__}")
    if "\0" in name:
        raise TypeError("host name must not contain null character")
    return name


def _int(value: object) -> int:
    n = index(value)  # type: ignore[arg-type]
    if n > 0x7FFFFFFF:
        raise OverflowError("signed integer is greater than maximum")
    if n < -0x80000000:
        raise OverflowError("signed integer is less than minimum")
    return n


def _packed(name: str, family: int) -> tuple[bytes, int]:
    """(address, scope) of a name.

    Raises:
        OSError: of another family.  socket.gaierror: unknown.
    """
    if not name:
        return bytes(4 if family == AF_INET else 16), 0
    if name in ("<broadcast>", "255.255.255.255"):
        if family != AF_INET:
            raise OSError("address family mismatched")
        return b"\xff" * 4, 0
    try:
        return _inet_pton(family, name), 0
    except (OSError, ValueError):
        info: list[Any] = _socket.getaddrinfo(name, None, family)
    sa = info[0][4]
    return _inet_pton(family, sa[0].partition("%")[0]), sa[3] if family == AF_INET6 else 0


def parse(address: Any, family: int, caller: str) -> CData:
    """``struct glue_addr`` of what a program gave to ``caller`` (bind, connect, …)."""
    flow = scope = 0
    if family == AF_INET:
        if not isinstance(address, tuple):
            raise TypeError(f"{caller}(): AF_INET address must be tuple, not {type(address).__name__}")
        if len(address) != 2:
            raise TypeError("AF_INET address must be a pair (host, port)")
    else:
        if not isinstance(address, tuple):
            raise TypeError(f"{caller}(): AF_INET6 address must be tuple, not {type(address).__name__}")
        if not 2 <= len(address) <= 4:
            raise TypeError("AF_INET6 address must be a tuple (host, port[, flowinfo[, scopeid]])")
        if len(address) > 2:
            flow = index(address[2]) & 0xFFFFFFFF
        if len(address) > 3:
            scope = index(address[3]) & 0xFFFFFFFF
    name = _host(address[0])
    port = _int(address[1])
    ip, zone = _packed(name, family)
    if not 0 <= port <= 0xFFFF:
        raise OverflowError(f"{caller}(): port must be 0-65535.")
    if flow > 0xFFFFF:
        raise OverflowError(f"{caller}(): flowinfo must be 0-1048575.")
    a = new("struct glue_addr *")
    a.family, a.port, a.flow, a.scope = family, port, flow, scope or zone
    a.ip = ip.ljust(16, b"\0")
    return a


def made(a: CData) -> Any:
    """The tuple that Python shows for an address; None when there is none."""
    if a.family == AF_INET:
        return _inet_ntop(AF_INET, bytes(a.ip)[:4]), a.port
    if a.family == AF_INET6:
        return _inet_ntop(AF_INET6, bytes(a.ip)), a.port, a.flow, a.scope
    return None
