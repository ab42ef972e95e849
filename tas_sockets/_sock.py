"""``socket.socket`` over TAS: a subclass of the standard class.

The object's own kernel TCP socket is the backing descriptor of a TAS socket (number, flags, options, identity).
Methods that move data, wait, name or end the connection go to the client library, which hands on to the kernel what is
not TAS's; everything else is inherited.  Sockets of other families and types use the inherited methods throughout.

Timeouts are CPython's: a socket with one has a non-blocking descriptor, and its methods wait themselves.  A call that a
signal interrupts is begun again after the handlers have run (PEP 475), with what is left of the time.  Where an
argument is wrong the inherited method is called: it raises the standard error before it does anything.
"""

from __future__ import annotations

import _socket
import fcntl
import io
import os
import socket as std
import struct
import sys
from collections.abc import Callable, Iterable
from errno import EAGAIN, ECONNRESET, EINPROGRESS, EINTR, EISCONN
from operator import index
from time import monotonic_ns
from typing import Any, NoReturn, TypeVar

from tas_sockets import _address, _start
from tas_sockets._ffi import NULL, Buffer, CData, error, lib, new, new_uncleared, readable, unpack, view, writable

_T = TypeVar("_T")
_STREAM, _TCP = int(_socket.SOCK_STREAM), int(_socket.IPPROTO_TCP)
_INET = (_address.AF_INET, _address.AF_INET6)
_TYPE_FLAGS = _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
_fileno = _socket.socket.fileno
_recv, _send = lib.glue_recv, lib.glue_send

# Receive buffers, taken for one call each: by any thread, also by a signal handler between two lines of another recv().
SCRATCH = 256 * 1024
_scratch: list[CData] = []
_CMSG = struct.Struct("@Nii")


def _refuse(r: int) -> None:
    """Raises what ``r`` says; returns when the call was interrupted, after the signal's handlers have run."""
    if r != -EINTR:
        raise error(r)


def _align(n: int) -> int:
    return (n + 7) & ~7


class socket(std.socket):
    """socket(family=AF_INET, type=SOCK_STREAM, proto=0, fileno=None) -> a socket that uses TAS where it can.

    Arguments, methods and exceptions are those of the standard class.  A stream socket of AF_INET or AF_INET6 is
    carried by TAS when connect() or listen() names an address that TAS serves, and by the kernel otherwise.
    """

    __slots__ = ("_family", "_ns", "_ours")
    _ours: bool  # may be TAS's: a TCP socket
    _ns: int  # timeout in ns; -1: none (blocking, or non-blocking by the descriptor's flag)
    _family: int

    def __new__(cls, *args: Any, **kwargs: Any) -> socket:
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
                lib.glue_made(_fileno(self))
            else:
                lib.glue_look(_fileno(self))

    def __del__(self, _note: Callable[[int], None] = lib.tas_note_close, _no: Callable[[Any], int] = _fileno) -> None:
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
        super().settimeout(value)
        if self._ours:
            self._note_timeout()
            lib.glue_nonblock(_fileno(self))

    def setblocking(self, flag: bool, /) -> None:
        """As the standard method."""
        super().setblocking(flag)
        if self._ours:
            self._note_timeout()
            lib.glue_nonblock(_fileno(self))

    # ---- receive ----
    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """At most ``bufsize`` bytes; b"" at the end of the stream."""
        if not self._ours:
            return super().recv(bufsize, flags)
        if type(bufsize) is not int:
            bufsize = index(bufsize)
        ns = self._ns
        deadline = ns if ns < 0 else monotonic_ns() + ns
        try:
            buf = _scratch.pop()
        except IndexError:
            buf = new_uncleared("char[]", SCRATCH)
        try:
            if not 0 < bufsize <= SCRATCH:
                if bufsize <= 0:
                    return super().recv(bufsize, flags)
                return self._recv_large(bufsize, flags, deadline)
            while True:
                r = _recv(_fileno(self), buf, bufsize, flags, deadline)
                if r >= 0:
                    return unpack(buf, r)
                if r != -EINTR:
                    raise error(r)
        finally:
            _scratch.append(buf)

    def _recv_large(self, n: int, flags: int, deadline: int) -> bytes:
        buf = new_uncleared("char[]", n)
        while True:
            r = _recv(_fileno(self), buf, n, flags, deadline)
            if r >= 0:
                return unpack(buf, r)
            _refuse(r)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receives into ``buffer``; the number of bytes."""
        if not self._ours:
            return super().recv_into(buffer, nbytes, flags)
        try:
            buf = writable(buffer)
        except (TypeError, ValueError, BufferError):
            return super().recv_into(buffer, nbytes, flags)
        size = len(buf)
        if nbytes:
            if not 0 < nbytes <= size:
                return super().recv_into(buffer, nbytes, flags)
            size = nbytes
        if not size:
            return 0
        ns = self._ns
        deadline = ns if ns < 0 else monotonic_ns() + ns
        while True:
            r = _recv(_fileno(self), buf, size, flags, deadline)
            if r >= 0:
                return r
            if r != -EINTR:
                buf = None  # the traceback holds this frame, not the program's buffer
                raise error(r)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """recv() with an address, which a stream socket has none of: (data, None)."""
        if not self._ours or bufsize <= 0:
            return super().recvfrom(bufsize, flags)
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """recv_into() with an address: (number of bytes, None)."""
        if not self._ours:
            return super().recvfrom_into(buffer, nbytes, flags)
        if nbytes:
            try:
                size = len(writable(buffer))
            except (TypeError, ValueError, BufferError):
                return super().recvfrom_into(buffer, nbytes, flags)
            if not 0 < nbytes <= size:
                return super().recvfrom_into(buffer, nbytes, flags)
        return self.recv_into(buffer, nbytes, flags), None

    # ---- send ----
    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """Sends what fits; the number of bytes."""
        if not self._ours:
            return super().send(data, flags)
        buf: Any = data
        if type(data) is not bytes:
            try:
                buf = readable(data)
            except (TypeError, ValueError, BufferError):
                return super().send(data, flags)
        ns = self._ns
        deadline = ns if ns < 0 else monotonic_ns() + ns
        while True:
            r = _send(_fileno(self), buf, len(buf), flags, deadline)
            if r >= 0:
                return r
            if r != -EINTR:
                buf = None
                raise error(r)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Sends everything; after an error nobody knows how much has gone."""
        if not self._ours:
            return super().sendall(data, flags)
        buf: Any = data
        if type(data) is not bytes:
            try:
                buf = readable(data)
            except (TypeError, ValueError, BufferError):
                return super().sendall(data, flags)
        size = len(buf)
        ns = self._ns
        deadline = ns if ns < 0 else monotonic_ns() + ns
        sent = 0
        while True:
            r = lib.glue_send_at(_fileno(self), buf, sent, size - sent, flags, deadline)
            if r >= 0:
                sent += r
                if sent >= size:
                    return None
            elif r != -EINTR:
                buf = None
                raise error(r)

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
            r = lib.glue_sendto(_fileno(self), buf, len(buf), flags, to, deadline)
            if r >= 0:
                return r
            if r != -EINTR:
                buf = None
                raise error(r)

    # ---- messages ----
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
        try:
            parts = [readable(b) for b in buffers]
            ancdata = list(ancdata)
            control = _control(ancdata)
            index(flags)
        except (TypeError, ValueError, BufferError, struct.error):
            return super().sendmsg(buffers, ancdata, flags, address)
        m, keep = _message(parts)
        if address is not None:
            keep.append(_address.parse(address, self._family, "sendmsg"))  # a stream socket does not look at it
        sys.audit("socket.sendmsg", self, address)
        if control:
            keep.append(new("char[]", control))
            m.msg_control, m.msg_controllen = keep[-1], len(control)
        deadline = self._deadline()
        while True:
            r = lib.glue_sendmsg(_fileno(self), m, flags, deadline)
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
            r = lib.glue_recvmsg(_fileno(self), m, flags, deadline)
            if r >= 0:
                break
            if r != -EINTR:
                keep.clear()
                parts.clear()
                raise error(r)
        raw = bytes(view(keep[-1], m.msg_controllen)) if room and m.msg_controllen else b""
        return r, _ancillary(raw), m.msg_flags, None

    # ---- names ----
    def bind(self, address: Any, /) -> None:
        """bind(address): asks the service, then the kernel, which decides."""
        if not self._ours:
            return super().bind(address)
        a = _address.parse(address, self._family, "bind")
        sys.audit("socket.bind", self, address)
        r = lib.glue_bind(_fileno(self), a)
        if r < 0:
            raise error(r)
        return None

    def getsockname(self) -> Any:
        """The own address."""
        return self._name(0) if self._ours else super().getsockname()

    def getpeername(self) -> Any:
        """The address of the other end."""
        return self._name(1) if self._ours else super().getpeername()

    def _name(self, peer: int) -> Any:
        a = new("struct glue_addr *")
        r = lib.glue_getname(_fileno(self), peer, a)
        if r < 0:
            raise error(r)
        return _address.made(a)

    # ---- connections ----
    def listen(self, backlog: int = 128, /) -> None:
        """listen([backlog])."""
        if not self._ours:
            return super().listen(backlog)
        backlog = index(backlog)
        if abs(backlog) > 0x7FFFFFFF:
            return super().listen(backlog)
        r = lib.tas_listen(_fileno(self), max(backlog, 0))
        if r < 0:
            raise error(r)
        return None

    def _accept(self) -> tuple[int, Any]:
        if not self._ours:
            return super()._accept()  # type: ignore[misc,no-any-return]
        a = new("struct glue_addr *")
        deadline = self._deadline()
        while True:
            r = lib.glue_accept(_fileno(self), a, deadline)
            if r >= 0:
                return r, _address.made(a)
            _refuse(r)

    def accept(self) -> tuple[socket, Any]:
        """(new socket, address of the client)."""
        fd, address = self._accept()
        sock = socket(self.family, self.type, self.proto, fileno=fd)
        if std.getdefaulttimeout() is None and self.gettimeout():
            sock.setblocking(True)
        return sock, address

    def _connect(self, address: Any, caller: str) -> int:
        """0, -errno or GLUE_TIMEOUT."""
        a = _address.parse(address, self._family, caller)
        sys.audit("socket.connect", self, address)
        deadline = self._deadline()
        r = lib.glue_connect(_fileno(self), a)
        if r == 0 or not (r == -EINTR or (r == -EINPROGRESS and self._ns >= 0)):
            return r
        if r == -EINTR and self.timeout == 0:
            return r
        while True:
            r = lib.glue_connected(_fileno(self), deadline)
            if r != -EINTR:
                return 0 if r == -EISCONN else r

    def connect(self, address: Any, /) -> None:
        """connect(address)."""
        if not self._ours:
            return super().connect(address)
        r = self._connect(address, "connect")
        if r < 0:
            raise error(r)
        return None

    def connect_ex(self, address: Any, /) -> int:
        """connect(address) that returns errno; EAGAIN for a timeout."""
        if not self._ours:
            return super().connect_ex(address)
        r = self._connect(address, "connect_ex")
        return EAGAIN if r == lib.GLUE_TIMEOUT else -r

    def shutdown(self, how: int, /) -> None:
        """shutdown(how)."""
        if not self._ours or not isinstance(how, int):
            return super().shutdown(how)
        r = lib.tas_shutdown(_fileno(self), how)
        if r < 0:
            raise error(r)
        return None

    def _real_close(
        self, _ss: Any = std.socket, _close: Any = lib.tas_close, _detach: Any = _socket.socket.detach
    ) -> None:
        # no globals: this runs at the interpreter's end as well
        if not self._ours:
            _ss._real_close(self)
            return
        fd = _detach(self)
        if fd >= 0:
            r = _close(fd)
            if r < 0 and r != -ECONNRESET:
                raise error(r)

    def dup(self) -> socket:
        """Another socket object for the same connection, not inheritable."""
        fd = dup(_fileno(self))
        sock = self.__class__(self.family, self.type, self.proto, fileno=fd)
        sock.settimeout(self.gettimeout())
        return sock

    def set_inheritable(self, inheritable: bool) -> None:
        """As the standard method; the service is told that the socket may reach another program."""
        super().set_inheritable(inheritable)
        if inheritable and self._ours:
            lib.glue_announce(_fileno(self))

    # ---- options ----
    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> Any:
        """An int, or bytes where ``buflen`` is given."""
        if not self._ours or not 0 <= buflen <= 1024:
            return super().getsockopt(level, optname, buflen)
        n = new("unsigned *", buflen or 4)
        value = new("int *") if not buflen else new("char[]", buflen)
        r = lib.tas_getsockopt(_fileno(self), level, optname, value, n)
        if r < 0:
            raise error(r)
        return value[0] if not buflen else bytes(view(value, n[0]))

    def setsockopt(self, level: int, optname: int, value: Any, *optlen: Any) -> None:
        """setsockopt(level, optname, int | bytes-like) or (level, optname, None, length)."""
        if not self._ours or (value is None) != bool(optlen) or len(optlen) > 1:
            return super().setsockopt(level, optname, value, *optlen)
        try:
            if value is None:
                data, n = NULL, index(optlen[0])
            else:
                data = readable(_INT.pack(index(value)) if hasattr(value, "__index__") else value)
                n = len(data)
            r = lib.tas_setsockopt(_fileno(self), level, optname, data, n)
        except (TypeError, ValueError, BufferError, OverflowError, struct.error):
            return super().setsockopt(level, optname, value, *optlen)
        if r < 0:
            raise error(r)
        return None

    # ---- files ----
    def _sendfile_use_sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """The standard method reaches the kernel by number; this one reads the file into the transmit ring."""
        if not self._ours:
            return super()._sendfile_use_sendfile(file, offset, count)  # type: ignore[misc,no-any-return]
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]
        try:
            source = file.fileno()
            size = os.fstat(source).st_size
        except (AttributeError, OSError) as e:  # io.UnsupportedOperation is an OSError
            _give_up(e)
        if not size:
            return 0
        if self.timeout == 0:
            raise ValueError("non-blocking sockets are not supported")
        total = 0
        try:
            while True:
                block = min(count - total if count else size, 1 << 30)
                if block <= 0:
                    break
                # the timeout is that of every wait, not of the whole
                r = lib.glue_sendfile(_fileno(self), source, offset, block, self._deadline())
                if r == 0:
                    break
                if r > 0:
                    offset += r
                    total += r
                elif r != -EINTR:
                    e2 = error(r)
                    if total == 0 and r != lib.GLUE_TIMEOUT:
                        _give_up(e2)
                    raise e2
            return total
        finally:
            if total > 0 and hasattr(file, "seek"):
                file.seek(offset)


_INT = struct.Struct("@i")


def _give_up(why: BaseException) -> NoReturn:
    raise std._GiveupOnSendfile(why)  # type: ignore[attr-defined]


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


# ---- functions on numbers ----
def dup(fd: int, /) -> int:
    """A new number for the same socket, not inheritable."""
    r = lib.tas_fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
    if r < 0:
        raise error(r)
    return r


def close(fd: int, /) -> None:
    """Closes a socket by its number, as os.close(), which must not be used for TAS sockets."""
    if type(fd) is not int:
        _socket.close(fd)  # raises, or knows how
        return
    r = lib.tas_close(fd)
    if r < 0 and r != -ECONNRESET:
        raise error(r)


SocketIO = std.SocketIO
__all__ = ["SCRATCH", "SocketIO", "close", "dup", "io", "socket"]
