"""``socket.socket`` over TAS: a subclass of the standard class.

The object's own kernel TCP socket is the backing descriptor of a TAS socket (number, flags, options, identity).
Methods that move data, wait, name or end the connection go to the client library, which hands on to the kernel what is
not TAS's; everything else is inherited.  Sockets of other families and types use the inherited methods throughout.
"""

from __future__ import annotations

import _socket
import os
import socket as std
import struct
import sys
from errno import EAGAIN, ECONNRESET, EINPROGRESS, EINTR, EISCONN
from operator import index
from typing import Any, NoReturn

from tas_sockets import _address
from tas_sockets._ffi import NULL, error, fast, lib, new, readable, view
from tas_sockets._message import Messages
from tas_sockets._numbers import close, dup
from tas_sockets._stream import number_of


class socket(Messages):
    """socket(family=AF_INET, type=SOCK_STREAM, proto=0, fileno=None) -> a socket that uses TAS where it can.

    Arguments, methods and exceptions are those of the standard class.  A stream socket of AF_INET or AF_INET6 is
    carried by TAS when connect() or listen() names an address that TAS serves, and by the kernel otherwise.
    """

    __slots__ = ()

    # ---- names ----
    def bind(self, address: Any, /) -> None:
        """bind(address): asks the service, then the kernel, which decides."""
        if not self._ours:
            return super().bind(address)
        a = _address.parse(address, self._family, "bind")
        sys.audit("socket.bind", self, address)
        r = lib.glue_bind(number_of(self), a)
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
        r = lib.glue_getname(number_of(self), peer, a)
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
        r = lib.tas_listen(number_of(self), max(backlog, 0))
        if r < 0:
            raise error(r)
        return None

    def _accept(self) -> tuple[int, Any]:
        if not self._ours:
            return super()._accept()  # type: ignore[misc,no-any-return]
        a = new("struct glue_addr *")
        deadline = self._deadline()
        while True:
            r = lib.glue_accept(number_of(self), a, deadline)
            if r >= 0:
                return r, _address.made(a)
            if r != -EINTR:
                raise error(r)

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
        r = lib.glue_connect(number_of(self), a)
        if r == 0 or not (r == -EINTR or (r == -EINPROGRESS and self._ns >= 0)):
            return r
        if r == -EINTR and self.timeout == 0:
            return r
        while True:
            r = lib.glue_connected(number_of(self), deadline)
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
        r = lib.tas_shutdown(number_of(self), how)
        if r < 0:
            raise error(r)
        return None

    def _real_close(
        self,
        _ss: Any = std.socket,
        _closing: Any = fast.closing,
        _close: Any = lib.glue_close,
        _detach: Any = _socket.socket.detach,
    ) -> None:
        # no globals: this runs at the interpreter's end as well
        if not self._ours:
            _ss._real_close(self)
            return
        fd = _detach(self)
        if fd >= 0:
            _closing(fd)
            r = _close(fd)
            if r < 0 and r != -ECONNRESET:
                raise error(r)

    def dup(self) -> socket:
        """Another socket object for the same connection, not inheritable."""
        fd = dup(number_of(self))
        sock = self.__class__(self.family, self.type, self.proto, fileno=fd)
        sock.settimeout(self.gettimeout())
        return sock

    def set_inheritable(self, inheritable: bool) -> None:
        """As the standard method; the service is told that the socket may reach another program."""
        super().set_inheritable(inheritable)
        if inheritable and self._ours:
            lib.glue_announce(number_of(self))

    # ---- options ----
    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> Any:
        """An int, or bytes where ``buflen`` is given."""
        if not self._ours or not 0 <= buflen <= 1024:
            return super().getsockopt(level, optname, buflen)
        n = new("unsigned *", buflen or 4)
        value = new("int *") if not buflen else new("char[]", buflen)
        r = lib.tas_getsockopt(number_of(self), level, optname, value, n)
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
            r = lib.tas_setsockopt(number_of(self), level, optname, data, n)
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
                r = lib.glue_sendfile(number_of(self), source, offset, block, self._deadline())
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


__all__ = ["close", "dup", "socket"]
