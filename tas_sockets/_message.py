"""sendmsg, recvmsg and their kin: vectors, control messages, and descriptors that travel in them."""

from __future__ import annotations

import _socket
import struct
import sys
from collections.abc import Iterable
from errno import EINTR
from operator import index
from typing import Any, TypeVar

from tas_sockets import _address
from tas_sockets._ffi import (
    Buffer,
    CData,
    Refused,
    error,
    fast,
    lib,
    new,
    new_uncleared,
    readable,
    unpack,
    view,
    writable,
)
from tas_sockets._stream import Stream, number_of

_T = TypeVar("_T")
_CMSG = struct.Struct("@Nii")


def _message(parts: list[CData], sizes: list[int] | None = None) -> tuple[CData, list[CData]]:
    """A ``struct msghdr`` over ``parts``, and what has to live as long."""
    m = new("struct msghdr *")
    iov = new("struct iovec[]", max(1, len(parts)))
    for i, p in enumerate(parts):
        iov[i].iov_base = p
        iov[i].iov_len = len(p) if sizes is None else sizes[i]
    m.msg_iov, m.msg_iovlen = iov, len(parts)
    return m, [iov, *parts]


def _control(ancdata: Iterable[tuple[int, int, Buffer]]) -> bytes:
    """Control messages in the kernel's layout."""
    out = bytearray()
    for level, kind, data in ancdata:
        raw = bytes(memoryview(data))
        level, kind = index(level), index(kind)
        out += _CMSG.pack(_CMSG.size + len(raw), level, kind) + raw.ljust(_align(len(raw)), b"\0")
    return bytes(out)


def _ancillary(raw: bytes) -> list[tuple[int, int, bytes]]:
    """The other way round."""
    out = []
    at = 0
    while at + _CMSG.size <= len(raw):
        n, level, kind = _CMSG.unpack_from(raw, at)
        if n < _CMSG.size:
            break
        out.append((level, kind, raw[at + _CMSG.size : at + n]))
        at += _align(n)
    return out


def _align(n: int) -> int:
    return (n + 7) & ~7


class Messages(Stream):
    """The part of ``tas_sockets.socket`` that moves messages."""

    __slots__ = ()

    def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        """Gathers ``buffers``; descriptors that leave with SCM_RIGHTS are announced to the service first."""
        if not self._ours:
            ancdata = list(ancdata)
            self._announce(ancdata)
            return super().sendmsg(buffers, ancdata, flags, address)
        if address is None and ancdata == ():
            try:
                return fast.sendmsg(self, self._ns, buffers, flags)
            except Refused:
                return super().sendmsg(buffers, ancdata, flags, address)
        try:
            parts = [readable(b) for b in buffers]
            ancdata = list(ancdata)
            control = _control(ancdata)
            index(flags)
        except (TypeError, ValueError, BufferError, struct.error):
            return super().sendmsg(buffers, ancdata, flags, address)
        m, keep = _message(parts)
        to = None if address is None else _address.parse(address, self._family, "sendmsg")
        sys.audit("socket.sendmsg", self, address)
        if control:
            keep.append(new("char[]", control))
            m.msg_control, m.msg_controllen = keep[-1], len(control)
        deadline = self._deadline()
        while True:
            if to is None:
                r = lib.glue_sendmsg(number_of(self), m, flags, deadline)
            else:
                r = lib.glue_sendmsg_to(number_of(self), m, flags, to, deadline)
            if r >= 0:
                return r
            if r != -EINTR:
                m = None
                parts.clear()
                keep.clear()
                raise error(r)

    @staticmethod
    def _announce(ancdata: Iterable[Any]) -> None:
        for item in ancdata:
            try:
                level, kind, data = item
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    raw = bytes(data)
                    for (fd,) in struct.iter_unpack("@i", raw[: len(raw) & ~3]):
                        lib.glue_announce(fd)
            except (TypeError, ValueError, BufferError):
                return  # the inherited method says what is wrong

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """(data, ancillary data, flags, address)."""
        if not self._ours or bufsize < 0 or ancbufsize < 0 or ancbufsize > 0x7FFFFFFF:
            return self._received(super().recvmsg(bufsize, ancbufsize, flags))
        buf = new_uncleared("char[]", max(1, bufsize))
        r, anc, out, address = self._recvmsg([(buf, bufsize)], ancbufsize, flags)
        return unpack(buf, r), anc, out, address

    def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Any], int, Any]:
        """Scatters into ``buffers``: (number of bytes, ancillary data, flags, address)."""
        if not isinstance(buffers, (str, int)):
            buffers = tuple(buffers)
        if not self._ours or ancbufsize < 0 or ancbufsize > 0x7FFFFFFF:
            return self._received(super().recvmsg_into(buffers, ancbufsize, flags))
        if not ancbufsize:
            try:
                n, flags = fast.recvmsg_into(self, self._ns, buffers, flags)
                return n, [], flags, None
            except Refused:
                return super().recvmsg_into(buffers, ancbufsize, flags)
        try:
            parts = [writable(b) for b in buffers]
        except (TypeError, ValueError, BufferError):
            return super().recvmsg_into(buffers, ancbufsize, flags)
        try:
            return self._recvmsg([(p, len(p)) for p in parts], ancbufsize, flags)
        finally:
            parts.clear()

    @staticmethod
    def _received(result: tuple[_T, list[Any], int, Any]) -> tuple[_T, list[Any], int, Any]:
        """Numbers that came with a message may be anything."""
        for level, kind, data in result[1]:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for (fd,) in struct.iter_unpack("@i", data[: len(data) & ~3]):
                    lib.tas_note_unknown(fd)
        return result

    def _recvmsg(self, parts: list[tuple[CData, int]], room: int, flags: int) -> tuple[int, list[Any], int, Any]:
        m, keep = _message([p for p, _ in parts], [n for _, n in parts])
        if room:
            keep.append(new("char[]", room))
            m.msg_control = keep[-1]
        deadline = self._deadline()
        while True:
            m.msg_controllen = room
            r = lib.glue_recvmsg(number_of(self), m, flags, deadline)
            if r >= 0:
                break
            if r != -EINTR:
                keep.clear()
                parts.clear()
                raise error(r)
        raw = bytes(view(keep[-1], m.msg_controllen)) if room and m.msg_controllen else b""
        return r, _ancillary(raw), m.msg_flags, None
