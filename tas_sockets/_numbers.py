"""Functions on descriptor numbers of TAS sockets."""

from __future__ import annotations

import _socket
import fcntl
from errno import ECONNRESET

from tas_sockets._ffi import error, fast, lib


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
    fast.closing(fd)
    r = lib.glue_close(fd)
    if r < 0 and r != -ECONNRESET:
        raise error(r)
