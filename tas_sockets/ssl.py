"""The standard ``ssl`` module over TAS.

OpenSSL reads and writes a descriptor by itself, which would miss TAS; so TLS runs on two memory buffers, and this
module moves their bytes through the socket.  ``SSLSocket`` is the standard class on top of ``tas_sockets.socket``: only
what it calls its ``_sslobj`` differs.
"""

from __future__ import annotations

import functools
import socket as std
import ssl as _std
import types
from collections.abc import Callable
from ssl import MemoryBIO, SSLError, SSLWantReadError, SSLWantWriteError
from typing import Any

from tas_sockets import _names
from tas_sockets._sock import socket

_CHUNK = 32 * 1024
_HEADER = 5
_RECORD = 16384


class _Pump:
    """What ``SSLSocket`` expects of OpenSSL's object, moving the bytes itself.

    Timeouts are those of the socket, for the whole of one operation's waits each.
    """

    def __init__(self, sock: SSLSocket, make: Callable[[MemoryBIO, MemoryBIO], Any], server: bool) -> None:
        self._sock = sock
        self._server = server
        self._in, self._out = MemoryBIO(), MemoryBIO()
        self._unsent = b""
        self._taken = 0  # bytes of a write() whose record has not gone completely
        self._buf = bytearray(_CHUNK)
        self._header, self._want = b"", 0  # of the record that is being read: its header so far, or what its body lacks
        self._tls = make(self._in, self._out)

    def __getattr__(self, name: str) -> Any:  # version, cipher, getpeercert, context, session, owner, pending, …
        return getattr(self._tls, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("context", "session", "owner", "server_hostname"):
            setattr(self._tls, name, value)
        else:
            object.__setattr__(self, name, value)

    def _flush(self) -> None:
        """Sends what TLS has written.  BlockingIOError and TimeoutError leave the rest for the next call."""
        while self._unsent or self._out.pending:
            data = self._unsent or self._out.read()
            self._unsent = data
            n = socket.send(self._sock, data)
            self._unsent = data[n:]

    def _fill(self) -> None:
        """Feeds TLS one header or one body of a record (RFC 8446 §5.1), never more.

        What TLS has not asked for stays in the socket, as with OpenSSL's own reading: select() sees it, and after
        unwrap() the plain socket finds what came behind the last record.
        """
        want = self._want or _HEADER - len(self._header)
        part = memoryview(self._buf)[: min(want, _CHUNK)]
        n = socket.recv_into(self._sock, part)
        if not n:
            self._in.write_eof()
            return
        self._in.write(part[:n])
        if self._want:
            self._want -= n
            return
        self._header += bytes(part[:n])
        if len(self._header) == _HEADER:
            self._want = int.from_bytes(self._header[3:], "big")
            self._header = b""

    def _run(self, what: str, call: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                try:
                    result = call(*args)
                except SSLWantReadError:
                    self._flush()
                    self._fill()
                    continue
                except SSLError:
                    self._flush_quietly()  # the alert
                    raise
                self._flush()
                return result
            except TimeoutError:
                raise TimeoutError(f"The {what} operation timed out") from None
            except BlockingIOError:
                if self._unsent:
                    raise SSLWantWriteError(
                        _std.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)"
                    ) from None
                raise SSLWantReadError(_std.SSL_ERROR_WANT_READ, "The operation did not complete (read)") from None
            except SSLError:
                raise
            except OSError:
                if call == self._tls.read and _broken_is_eof():
                    raise _eof() from None
                raise

    def _flush_quietly(self) -> None:
        try:
            self._flush()
        except OSError:
            return

    def do_handshake(self) -> None:
        """As OpenSSL does, mind no client that is gone before its session tickets: what it has sent can be read."""
        try:
            self._run("handshake", self._tls.do_handshake)
        except (BrokenPipeError, ConnectionResetError):
            if not self._server or self._tls.version() != "TLSv1.3" or not self._unsent:
                raise
            self._unsent = b""

    def read(self, *args: Any) -> Any:
        return self._run("read", self._tls.read, *args)

    def write(self, data: Any) -> Any:
        """As OpenSSL's: what did not fit is tried again by the next call, which has to give the same data."""
        if not self._taken:
            if self._sock.timeout == 0:
                data = memoryview(data).cast("B")[:_RECORD]
            while True:
                try:
                    self._taken = self._tls.write(data)
                    break
                except SSLWantReadError:
                    self._run("write", self._tls.do_handshake)
        try:
            self._flush()
        except TimeoutError:
            raise TimeoutError("The write operation timed out") from None
        except BlockingIOError:
            raise SSLWantWriteError(_std.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)") from None
        except OSError:
            if _broken_is_eof():
                raise _eof() from None
            raise
        n, self._taken = self._taken, 0
        return n

    def shutdown(self) -> socket:
        """Sends and awaits close_notify; the plain socket."""
        self._run("read", self._tls.shutdown)
        return self._sock

    def verify_client_post_handshake(self) -> Any:
        result = self._tls.verify_client_post_handshake()
        self._flush()
        return result


@functools.cache
def _broken_is_eof() -> bool:
    """Does this Python's ssl say of a broken connection that it has ended, whatever the error was?

    It does until 3.12.2 or so (gh-115627), in read() and write().
    """
    ours, theirs = std.socketpair()
    theirs.close()
    with ours:
        tls = _Context(_std.PROTOCOL_TLS_CLIENT)._wrap_socket(ours, False, "x")  # type: ignore[attr-defined]
        try:
            tls.read(1)  # its first message meets EPIPE
        except _std.SSLEOFError:
            return True
        except OSError:
            return False
    return False


def _eof() -> _std.SSLEOFError:
    return _std.SSLEOFError(_std.SSL_ERROR_EOF, "EOF occurred in violation of protocol")


class SSLSocket(_std.SSLSocket, socket):  # type: ignore[misc]
    """``ssl.SSLSocket`` on a TAS socket."""

    _sslobj: Any

    def _real_close(self, *args: Any) -> None:
        self._sslobj = None
        socket._real_close(self)

    def shutdown(self, how: int) -> None:
        """As the standard method."""
        self._checkClosed()  # type: ignore[attr-defined]
        self._sslobj = None
        socket.shutdown(self, how)


_Context = _std.SSLContext


class SSLContext(_Context):
    """``ssl.SSLContext`` whose sockets are those above."""

    sslsocket_class = SSLSocket

    def _wrap_socket(
        self, sock: SSLSocket, server_side: bool, server_hostname: Any = None, *, owner: Any = None, session: Any = None
    ) -> Any:
        wrap = super()._wrap_bio  # type: ignore[misc]

        def make(incoming: MemoryBIO, outgoing: MemoryBIO) -> Any:
            return wrap(incoming, outgoing, server_side, server_hostname, owner=owner, session=session)

        if getattr(sock, "_ours", False):
            return _Pump(sock, make, server_side)
        return super()._wrap_socket(sock, server_side, server_hostname, owner=owner, session=session)  # type: ignore[misc]


def _rebound() -> dict[str, Any]:
    """The standard module's functions that make contexts and sockets, on the classes above."""
    names: dict[str, Any] = {k: v for k, v in vars(_std).items() if not k.startswith("__")}
    if not _names.interposed():
        names.update(SSLSocket=SSLSocket, SSLContext=SSLContext, socket=socket)
        import tas_sockets

        names["create_connection"] = lambda *a, **k: tas_sockets.create_connection(*a, **k)
        originals = [
            "create_default_context",
            "_create_unverified_context",
            "_create_default_https_context",
            "_create_stdlib_context",
            "get_server_certificate",
        ]
        if hasattr(_std, "wrap_socket"):
            originals.append("wrap_socket")
        for name in originals:
            f = getattr(_std, name)
            if isinstance(f, types.FunctionType):
                names[name] = _names._rebind(f, globals())
        names["_create_default_https_context"] = names["create_default_context"]
        names["_create_stdlib_context"] = names["_create_unverified_context"]
    return names


globals().update(_rebound())
