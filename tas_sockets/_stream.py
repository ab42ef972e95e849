"""Sockets that may be TAS's: which they are, timeouts, and the methods that move bytes.

Timeouts are CPython's: a socket with one has a non-blocking descriptor, and its methods wait themselves.  A call that a
signal interrupts is begun again after the handlers have run (PEP 475), with what is left of the time.  Where an
argument is wrong the inherited method is called: it raises the standard error before it does anything.
"""

from __future__ import annotations

import _socket
import socket as std
import sys
from collections.abc import Callable
from errno import EINTR
from operator import index
from time import monotonic_ns
from typing import Any

from tas_sockets import _address, _start
from tas_sockets._ffi import Buffer, Refused, error, fast, lib, readable

_STREAM, _TCP = int(_socket.SOCK_STREAM), int(_socket.IPPROTO_TCP)
_INET = (_address.AF_INET, _address.AF_INET6)
_TYPE_FLAGS = _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
number_of = _socket.socket.fileno
_recv, _recv_into, _send, _sendall = fast.recv, fast.recv_into, fast.send, fast.sendall


class Stream(std.socket):
    """The part of ``tas_sockets.socket`` that knows whether TAS may carry it, and moves bytes."""

    __slots__ = ("_family", "_ns", "_ours")
    _ours: bool  # may be TAS's: a TCP socket
    _ns: int  # timeout in ns; -1: none (blocking, or non-blocking by the descriptor's flag)
    _family: int

    def __new__(cls, *args: Any, **kwargs: Any) -> Stream:
        self = super().__new__(cls, *args, **kwargs)
        self._ours, self._ns, self._family = False, -1, 0
        return self

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        super().__init__(family, type, proto, fileno)
        self._family = int(_socket.socket.family.__get__(self))
        if (
            self._family in _INET
            and _socket.socket.type.__get__(self) & ~_TYPE_FLAGS == _STREAM
            and self.proto in (0, _TCP)
        ):
            self._ours = True
            self._note_timeout()
            if fileno is None:
                _start.service()
                lib.glue_made(number_of(self))
            else:
                lib.glue_look(number_of(self))

    def __del__(self, _note: Callable[[int], None] = lib.tas_note_close, _no: Callable[[Any], int] = number_of) -> None:
        if self._ours and _no(self) >= 0:
            _note(_no(self))
        super().__del__()  # type: ignore[misc]

    # ---- timeouts ----
    def _note_timeout(self) -> None:
        t = self.timeout
        self._ns = max(1, int(t * 1e9)) if t else -1

    def _deadline(self) -> int:
        return self._ns if self._ns < 0 else monotonic_ns() + self._ns

    def settimeout(self, value: float | None, /) -> None:
        """As the standard method: seconds, None to block, 0 not to."""
        same = self._ours and (value is None or type(value) is float) and value == self.timeout
        # as it is (ssl.SSLSocket.do_handshake): the descriptor's flag, without giving up the interpreter's lock
        if same and fast.mode(number_of(self), value is not None) == 0:
            return
        super().settimeout(value)
        if self._ours:
            self._note_timeout()
            lib.glue_nonblock(number_of(self))

    def setblocking(self, flag: bool, /) -> None:
        """As the standard method."""
        super().setblocking(flag)
        if self._ours:
            self._note_timeout()
            lib.glue_nonblock(number_of(self))

    # ---- receive ----
    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """At most ``bufsize`` bytes; b"" at the end of the stream."""
        if self._ours:
            try:
                return _recv(self, self._ns, bufsize, flags)
            except Refused:
                pass
        return super().recv(bufsize, flags)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receives into ``buffer``; the number of bytes."""
        if self._ours:
            try:
                return _recv_into(self, self._ns, buffer, nbytes, flags)
            except Refused:
                pass
        return super().recv_into(buffer, nbytes, flags)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """recv() with an address, which a stream socket has none of: (data, None)."""
        if self._ours:
            try:
                return _recv(self, self._ns, bufsize, flags), None
            except Refused:
                pass
        return super().recvfrom(bufsize, flags)

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """recv_into() with an address: (number of bytes, None)."""
        if self._ours:
            try:
                return _recv_into(self, self._ns, buffer, nbytes, flags), None
            except Refused:
                pass
        return super().recvfrom_into(buffer, nbytes, flags)

    # ---- send ----
    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """Sends what fits; the number of bytes."""
        if self._ours:
            try:
                return _send(self, self._ns, data, flags)
            except Refused:
                pass
        return super().send(data, flags)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Sends everything; after an error nobody knows how much has gone."""
        if self._ours:
            try:
                return _sendall(self, self._ns, data, flags)
            except Refused:
                pass
        return super().sendall(data, flags)

    def sendto(self, data: Buffer, *args: Any) -> int:
        """sendto(data[, flags], address): a connected stream socket ignores or refuses the address, as Linux does."""
        if not self._ours or not 1 <= len(args) <= 2:
            return super().sendto(data, *args)
        try:
            buf = readable(data)
            flags = index(args[0]) if len(args) == 2 else 0
        except (TypeError, ValueError, BufferError):
            return super().sendto(data, *args)
        to = _address.parse(args[-1], self._family, "sendto")
        sys.audit("socket.sendto", self, args[-1])
        deadline = self._deadline()
        while True:
            r = lib.glue_sendto(number_of(self), buf, len(buf), flags, to, deadline)
            if r >= 0:
                return r
            if r != -EINTR:
                buf = None  # the traceback holds this frame, not the program's buffer
                raise error(r)
