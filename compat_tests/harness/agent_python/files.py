"""Calls by number: os, fcntl and resource."""

from __future__ import annotations

import fcntl
import os
import resource
import struct
from typing import Any

from .calls import call
from .memory import Unsupported, content, memory


@call
def do_eventfd(value: int, flags: int) -> int:
    return os.eventfd(value, flags | os.EFD_CLOEXEC)


@call
def do_isatty(fd: int) -> int:
    if not os.isatty(fd):
        raise OSError(25, "")
    return 1


@call
def do_fsync(fd: int) -> int:
    os.fsync(fd)
    return 0


@call
def do_ftruncate(fd: int, size: int) -> int:
    os.ftruncate(fd, size)
    return 0


@call
def do_fstat(fd: int, to: Any) -> int:
    memory(to).mem[24:28] = struct.pack("=I", os.fstat(fd).st_mode)
    return 0


@call
def do_setrlimit(what: int, limit: Any) -> int:
    soft, hard = (m if m < 1 << 63 else -1 for m in (memory(limit).fields or [0, 0]))
    resource.setrlimit(what, (soft, hard))
    return 0


@call
def do_getrlimit(what: int, to: Any) -> int:
    memory(to).mem[:16] = struct.pack("=QQ", *(n % (1 << 64) for n in resource.getrlimit(what)))
    return 0


# ---- by number: os and fcntl ----
def buffers_of(arg: Any, n: int) -> list[bytearray]:
    """An array of struct iovec."""
    if n < 0 or n > 1024:
        raise Unsupported("a list of buffers knows its length")
    parts = memory(arg).fields if n else []
    if parts is None or len(parts) != 2 * n:
        raise Unsupported("a list of buffers knows its length")
    return [memory(parts[i]).mem for i in range(0, 2 * n, 2) if content(parts[i], parts[i + 1]) is not None]


@call
def do_readv(fd: int, iov: Any, n: int) -> int:
    return os.readv(fd, buffers_of(iov, n))


@call
def do_writev(fd: int, iov: Any, n: int) -> int:
    return os.writev(fd, buffers_of(iov, n))


@call
def do_ioctl(fd: int, request: int, arg: Any) -> int:
    if fd < 0:
        raise Unsupported("no number below 0")
    return int(fcntl.ioctl(fd, request, memory(arg).mem, True))


@call
def do_dup2(fd: int, to: int) -> int:
    if to < 0:
        raise Unsupported("no number below 0")
    return os.dup2(fd, to)


@call
def do_dup3(fd: int, to: int, flags: int) -> int:
    if flags & ~os.O_CLOEXEC or fd == to or to < 0:
        raise Unsupported("dup2() has no flags")
    return os.dup2(fd, to, inheritable=not flags)


@call
def do_sendfile(fd: int, source: int, offset: Any, count: int) -> int:
    if offset:
        raise Unsupported("sendfile() takes a number for an offset")
    return os.sendfile(fd, source, None, count)


@call
def do_pread(fd: int, to: Any, size: int, offset: int) -> int:
    data = os.pread(fd, size, offset)
    memory(to).mem[: len(data)] = data
    return len(data)


@call
def do_pwrite(fd: int, data: Any, size: int, offset: int) -> int:
    return os.pwrite(fd, content(data, size), offset)


@call
def do_lseek(fd: int, offset: int, whence: int) -> int:
    return os.lseek(fd, offset, whence)
