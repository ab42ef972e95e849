"""The standard ``select`` module over TAS: select(), poll() and epoll() for TAS and kernel descriptors in any mix."""

from __future__ import annotations

import select as _std
from collections.abc import Iterable
from errno import EINTR
from math import ceil, floor
from operator import index
from time import monotonic_ns
from types import TracebackType
from typing import Any

from tas_sockets import _names
from tas_sockets._ffi import NULL, error, fast, lib, new

error_ = OSError
FD_SETSIZE = 1024
_MAX_NS = (1 << 63) - 1
_wait = fast.epoll_wait


def _descriptor(f: Any) -> int:
    """CPython's PyObject_AsFileDescriptor."""
    if isinstance(f, int):
        fd = int(f)
    else:
        try:
            method = f.fileno
        except AttributeError:
            raise TypeError("argument must be an int, or have a fileno() method.") from None
        fd = method()
        if not isinstance(fd, int):
            raise TypeError("fileno() returned a non-integer")
    if fd > 0x7FFFFFFF or fd < -0x80000000:
        raise OverflowError("Python int too large to convert to C int")
    if fd < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
    return fd


def _away(x: float) -> int:
    """Rounds away from 0, as CPython does: a short wait is no busy loop, a negative one is forever."""
    return ceil(x) if x > 0 else floor(x)


def _nanoseconds(timeout: Any, unit: int) -> int:
    """``timeout`` in seconds / unit as ns, rounded up to the unit's digits like CPython; -1: none."""
    if timeout is None:
        return -1
    if not isinstance(timeout, (int, float)):
        if not hasattr(timeout, "__index__"):
            raise TypeError(f"'{type(timeout).__name__}' object cannot be interpreted as an integer")
        timeout = index(timeout)
    if timeout != timeout:
        raise ValueError("Invalid value NaN (not a number)")
    ns = _away(timeout * unit)
    if ns > _MAX_NS:
        raise OverflowError("timestamp too large to convert to C _PyTime_t")
    return ns


class _Clock:
    """The time that is left when a wait is begun again after a signal (PEP 475)."""

    __slots__ = ("end",)

    def __init__(self, ns: int) -> None:
        self.end = -1 if ns < 0 else monotonic_ns() + ns

    def left(self) -> int:
        return -1 if self.end < 0 else max(0, self.end - monotonic_ns())


def _numbers(objects: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Members and their numbers.  A fileno() may change the very list that is being read."""
    try:
        given = objects if isinstance(objects, list) else list(objects)
    except TypeError:
        raise TypeError("arguments 1-3 must be sequences") from None
    seq: list[Any] = []
    numbers: list[int] = []
    while len(seq) < len(given):
        o = given[len(seq)]
        fd = _descriptor(o)
        if fd >= FD_SETSIZE:
            raise ValueError("filedescriptor out of range in select()")
        if len(seq) >= FD_SETSIZE:
            raise ValueError("too many file descriptors in select()")
        seq.append(o)
        numbers.append(fd)
    return seq, numbers


def select(
    rlist: Iterable[Any], wlist: Iterable[Any], xlist: Iterable[Any], timeout: float | None = None, /
) -> tuple[list[Any], list[Any], list[Any]]:
    """The members of each list that are ready, after ``timeout`` seconds at most."""
    if timeout is not None and not isinstance(timeout, (int, float)) and not hasattr(timeout, "__index__"):
        raise TypeError("timeout must be a float or None")
    ns = _nanoseconds(timeout, 1_000_000_000)
    if timeout is not None and ns < 0:
        raise ValueError("timeout must be non-negative")
    lists = [_numbers(x) for x in (rlist, wlist, xlist)]
    clock = _Clock(ns)
    while True:
        sets = [new("int[]", numbers) if numbers else NULL for _, numbers in lists]
        r = lib.glue_select(
            sets[0], len(lists[0][1]), sets[1], len(lists[1][1]), sets[2], len(lists[2][1]), clock.left()
        )
        if r >= 0:
            break
        if r != -EINTR:
            raise error(r)
    a, b, c = (
        [o for o, hit in zip(seq, s, strict=True) if hit] if seq else []
        for (seq, _), s in zip(lists, sets, strict=True)
    )
    return a, b, c


class _Poll:
    """Descriptors to wait for; made by poll()."""

    _fds: dict[int, int]
    _busy: bool
    _table: Any

    def __new__(cls) -> _Poll:
        raise TypeError(f"cannot create '{cls.__module__}.{cls.__qualname__}' instances")

    @classmethod
    def _make(cls) -> _Poll:
        self = object.__new__(cls)
        self._fds, self._busy, self._table = {}, False, None
        return self

    def register(self, fd: Any, eventmask: int = _std.POLLIN | _std.POLLPRI | _std.POLLOUT, /) -> None:
        """Adds a descriptor, or changes what it waits for."""
        self._fds[_descriptor(fd)] = _events(eventmask)
        self._table = None

    def modify(self, fd: Any, eventmask: int, /) -> None:
        """Changes what a descriptor waits for; OSError ENOENT when it is not there."""
        n, events = _descriptor(fd), _events(eventmask)
        if n not in self._fds:
            raise FileNotFoundError(2, "No such file or directory")
        self._fds[n] = events
        self._table = None

    def unregister(self, fd: Any, /) -> None:
        """Removes a descriptor; KeyError when it is not there."""
        del self._fds[_descriptor(fd)]
        self._table = None

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """(descriptor, events) of those that are ready, after ``timeout`` milliseconds at most."""
        if timeout is not None and not isinstance(timeout, (int, float)) and not hasattr(timeout, "__index__"):
            raise TypeError("timeout must be an integer or None")
        ms = -1 if timeout is None else _away(timeout if isinstance(timeout, (int, float)) else index(timeout))
        if ms > 0x7FFFFFFF:
            raise OverflowError("timeout is too large")
        if self._busy:
            raise RuntimeError("concurrent poll() invocation")
        self._busy = True
        try:
            if self._table is None:
                self._table = new("struct pollfd[]", max(1, len(self._fds)))
                for p, (fd, events) in zip(self._table, self._fds.items(), strict=False):
                    p.fd, p.events = fd, events - 0x10000 if events > 0x7FFF else events
            table, n = self._table, len(self._fds)
            clock = _Clock(-1 if ms < 0 else ms * 1_000_000)
            while True:
                r = lib.glue_poll(table, n, clock.left())
                if r >= 0:
                    break
                if r != -EINTR:
                    raise error(r)
            return [(table[i].fd, table[i].revents & 0xFFFF) for i in range(n) if table[i].revents] if r else []
        finally:
            self._busy = False


def _events(mask: int) -> int:
    n = index(mask)
    if n < 0:
        raise ValueError("value must be positive")
    if n > 0xFFFF:
        raise OverflowError("Python int too large for C unsigned short")
    return n


def poll() -> _Poll:
    """A new polling object."""
    return _Poll._make()


class epoll:
    """epoll(sizehint=-1, flags=0) -> an epoll set whose descriptor is a real one."""

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        sizehint, flags = index(sizehint), index(flags)
        self._fd = -1
        if sizehint < -1 or sizehint == 0:
            raise ValueError("sizehint must be positive or -1")
        if flags & ~_std.EPOLL_CLOEXEC:
            raise OSError(22, "invalid flags")
        self._open(lib.tas_epoll_create1(_std.EPOLL_CLOEXEC))

    def _open(self, fd: int) -> None:
        if fd < 0:
            raise error(fd)
        self._fd = fd

    @classmethod
    def fromfd(cls, fd: int, /) -> epoll:
        """An object for a descriptor that exists."""
        self = cls.__new__(cls)
        self._open(index(fd))
        return self

    def _check(self) -> int:
        if self._fd < 0:
            raise ValueError("I/O operation on closed epoll object")
        return self._fd

    def close(self) -> None:
        """Closes the descriptor; again: nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            r = lib.tas_close(fd)
            if r < 0:
                raise error(r)

    def __del__(self, _close: Any = lib.tas_close) -> None:
        if getattr(self, "_fd", -1) >= 0:
            _close(self._fd)
            self._fd = -1

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._fd < 0

    def fileno(self) -> int:
        """The set's descriptor."""
        return self._check()

    def _ctl(self, op: int, fd: Any, events: int) -> None:
        ep = self._check()
        r = lib.glue_epoll_ctl(ep, op, _descriptor(fd), events)
        if r < 0:
            raise error(r)

    def register(self, fd: Any, eventmask: int = _std.EPOLLIN | _std.EPOLLPRI | _std.EPOLLOUT) -> None:
        """Adds a descriptor."""
        self._ctl(1, fd, _mask(eventmask))

    def modify(self, fd: Any, eventmask: int) -> None:
        """Changes what a descriptor waits for."""
        self._ctl(3, fd, _mask(eventmask))

    def unregister(self, fd: Any) -> None:
        """Removes a descriptor."""
        self._ctl(2, fd, 0)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """(descriptor, events) of at most ``maxevents`` that are ready, after ``timeout`` seconds at most."""
        ep = self._check()
        if timeout is None or timeout == -1:
            ns = -1
        else:
            if not isinstance(timeout, (int, float)):
                raise TypeError("timeout must be an integer or None")
            ns = _away(timeout * 1000) * 1_000_000  # milliseconds, rounded up, as CPython
            if ns > 0x7FFFFFFF * 1_000_000:
                raise OverflowError("timeout is too large")
        maxevents = index(maxevents)
        if maxevents == -1:
            maxevents = FD_SETSIZE - 1
        elif maxevents < 1:
            raise ValueError(f"maxevents must be greater than 0, got {maxevents}")
        if ns <= 0:
            while (ready := _wait(ep, maxevents, ns)) is None:
                ep = self._check()
        else:
            clock = _Clock(ns)
            while (ready := _wait(ep, maxevents, clock.left())) is None:
                ep = self._check()
        return ready

    def __enter__(self) -> epoll:
        self._check()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _mask(events: int) -> int:
    n = index(events)
    if not 0 <= n <= 0xFFFFFFFF:
        raise OverflowError(
            "can't convert negative value to unsigned int"
            if n < 0
            else "Python int too large to convert to C unsigned int"
        )
    return n


if _names.interposed():  # the standard calls reach TAS by themselves
    globals().update(select=_std.select, poll=_std.poll, epoll=_std.epoll)


def __getattr__(name: str) -> Any:
    """Constants and everything else are the standard module's."""
    if name == "error":
        return OSError
    if name in ("__path__", "__all__"):
        raise AttributeError(name)
    return getattr(_std, name)
