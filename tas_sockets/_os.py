"""Functions of ``os`` and ``fcntl`` that take descriptor numbers, for numbers that are TAS's.

Without the interposer they would reach the backing descriptor only.  They are put in place when a program first uses
``tas_sockets``; any other number goes to the standard function, with its arguments as they came.
"""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable
from errno import EINTR
from typing import Any, TypeVar

from tas_sockets._ffi import Refused, error, fast, lib, new, readable, writable

_F = TypeVar("_F", bound=Callable[..., Any])
_PLAIN, _TAS, _EPOLL = 2, 3, 4  # enum tas_fd_state
_OURS = (_PLAIN, _TAS, _EPOLL)
_FIONREAD, _FIONBIO, _TIOCOUTQ, _SIOCATMARK = 0x541B, 0x5421, 0x5411, 0x8905
_DUPLICATES = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC)
_state = fast.state


def _instead(module: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Puts the decorated function, which gets the standard one first, into the standard one's place."""

    def place(f: Callable[..., Any]) -> None:
        standard = getattr(module, name)
        setattr(module, name, functools.wraps(standard)(functools.partial(f, standard)))

    return place


def _checked(r: int) -> int:
    if r < 0:
        raise error(r)
    return r


def _read(standard: Any, fd: Any, n: Any, /) -> Any:
    if _state(fd) == _TAS:
        try:
            return fast.recv(fd, -1, n, 0)
        except Refused:
            pass
    return standard(fd, n)


def _write(standard: Any, fd: Any, data: Any, /) -> Any:
    if _state(fd) == _TAS:
        try:
            return fast.send(fd, -1, data, 0)
        except Refused:
            pass
    return standard(fd, data)


def _readv(standard: Any, fd: Any, buffers: Any, /) -> Any:
    if _state(fd) == _TAS and buffers:  # without any, Linux does not look at the connection
        try:
            return fast.recvmsg_into(fd, -1, buffers, 0)[0]
        except Refused:
            pass
    return standard(fd, buffers)


def _writev(standard: Any, fd: Any, buffers: Any, /) -> Any:
    if _state(fd) == _TAS:
        try:
            return fast.sendmsg(fd, -1, buffers, 0)
        except Refused:
            pass
    return standard(fd, buffers)


def _close(standard: Any, fd: Any) -> None:
    if _state(fd) in _OURS:
        fast.closing(fd)
        _checked(lib.glue_close(fd))
    else:
        standard(fd)


def _closerange(standard: Any, low: Any, high: Any, /) -> None:
    if type(low) is int and type(high) is int and high > max(low, 0):
        lib.tas_close_range(max(low, 0), high - 1, 0)
    else:
        standard(low, high)


def _dup(standard: Any, fd: Any, /) -> Any:
    if _state(fd) in _OURS:
        return _checked(lib.tas_fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))
    return standard(fd)


def _dup2(standard: Any, fd: Any, fd2: Any, inheritable: Any = True) -> Any:
    if _state(fd) not in _OURS and _state(fd2) not in _OURS:
        return standard(fd, fd2, inheritable)
    if inheritable or fd == fd2:
        return _checked(lib.tas_dup2(fd, fd2))
    return _checked(lib.tas_dup3(fd, fd2, os.O_CLOEXEC))


def _sendfile(standard: Any, out_fd: Any, in_fd: Any, offset: Any, count: Any, *more: Any, **kw: Any) -> Any:
    if more or kw or type(in_fd) is not int or _state(out_fd) != _TAS:
        return standard(out_fd, in_fd, offset, count, *more, **kw)
    while (r := lib.glue_sendfile(out_fd, in_fd, -1 if offset is None else offset, count, -1)) == -EINTR:
        pass
    return _checked(r)


def _set_blocking(standard: Any, fd: Any, blocking: Any, /) -> None:
    standard(fd, blocking)
    if _state(fd) == _TAS:
        lib.glue_nonblock(fd)


def _set_inheritable(standard: Any, fd: Any, inheritable: Any, /) -> None:
    standard(fd, inheritable)
    if inheritable and _state(fd) in (_PLAIN, _TAS):
        lib.glue_announce(fd)


def _number(fd: Any) -> Any:
    """fcntl takes objects with a fileno(), too."""
    return fd if isinstance(fd, int) or not hasattr(fd, "fileno") else fd.fileno()


def _fcntl(standard: Any, fd: Any, cmd: Any, arg: Any = 0, /) -> Any:
    n = _number(fd)
    if _state(n) not in _OURS or not isinstance(arg, int):
        return standard(fd, cmd, arg)
    if cmd in _DUPLICATES:
        return _checked(lib.tas_fcntl(n, cmd, arg))
    r = standard(fd, cmd, arg)
    if cmd == fcntl.F_SETFL:
        lib.glue_nonblock(n)
    return r


def _ioctl(standard: Any, fd: Any, request: Any, arg: Any = 0, mutate_flag: Any = True, /) -> Any:
    n = _number(fd)
    if _state(n) != _TAS or request not in (_FIONREAD, _FIONBIO, _TIOCOUTQ, _SIOCATMARK):
        return standard(fd, request, arg, mutate_flag)
    try:
        into: Any = writable(arg) if mutate_flag else None
    except (TypeError, ValueError, BufferError):
        into = None
    if isinstance(arg, int) or len(readable(arg)) < 4:
        return standard(fd, request, arg, mutate_flag)
    if into is not None:
        return _checked(lib.tas_ioctl(n, request, into))
    copy = new("char[]", bytes(readable(arg)))
    _checked(lib.tas_ioctl(n, request, copy))
    return bytes(copy)[: len(readable(arg))]


def install() -> None:
    """Puts the functions in place, once."""
    _instead(os, "read")(_read)
    _instead(os, "write")(_write)
    _instead(os, "readv")(_readv)
    _instead(os, "writev")(_writev)
    _instead(os, "close")(_close)
    _instead(os, "closerange")(_closerange)
    _instead(os, "dup")(_dup)
    _instead(os, "dup2")(_dup2)
    _instead(os, "sendfile")(_sendfile)
    _instead(os, "set_blocking")(_set_blocking)
    _instead(os, "set_inheritable")(_set_inheritable)
    _instead(fcntl, "fcntl")(_fcntl)
    _instead(fcntl, "ioctl")(_ioctl)
