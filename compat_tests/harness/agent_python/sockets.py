"""Calls of sockets: methods of their objects."""

from __future__ import annotations

import fcntl
import os
import socket as std
import struct
from typing import Any

from .calls import MUTATE, call
from .memory import Block, Unsupported, content, memory, number
from .objects import closed, is_socket, keep, net, objects, put_address, sets, sock, to_tuple


@call
def do_socket(family: int, kind: int, proto: int) -> int:
    return keep(net.socket(family, kind, proto))


@call
def do_close(fd: int) -> int:
    if fd in sets:
        sets.pop(fd).close()
    elif fd in objects:
        closed[fd] = objects.pop(fd)
        closed[fd].close()
    elif fd in closed:
        closed[fd].close()
    else:
        os.close(fd)
    return 0


@call
def do_bind(fd: int, a: Any, size: int) -> int:
    s = sock(fd)
    s.bind(to_tuple(s.family, a, size))
    return 0


@call
def do_listen(fd: int, backlog: int) -> int:
    sock(fd).listen(backlog + (MUTATE == "backlog"))
    return 0


@call
def do_connect(fd: int, a: Any, size: int) -> int:
    s = sock(fd)
    s.connect(to_tuple(s.family, a, size))
    return 0


@call
def do_accept(fd: int, to: Any = 0, length: Any = 0) -> int:
    s = sock(fd)
    if bool(to) != bool(length):
        raise Unsupported("no wild or missing pointers")
    made, address = s.accept()
    put_address(address, to, length)
    return keep(made)


@call
def do_accept4(fd: int, to: Any, length: Any, flags: int) -> int:
    raise Unsupported("accept() has no flags")


@call
def do_getsockname(fd: int, to: Any, length: Any) -> int:
    put_address(sock(fd).getsockname(), memory(to), memory(length))
    return 0


@call
def do_getpeername(fd: int, to: Any, length: Any) -> int:
    put_address(sock(fd).getpeername(), memory(to), memory(length))
    return 0


@call
def do_send(fd: int, data: Any, size: int, flags: int) -> int:
    return int(sock(fd).send(content(data, size), flags))


@call
def do_sendto(fd: int, data: Any, size: int, flags: int, to: Any, length: int) -> int:
    s = sock(fd)
    return int(s.sendto(content(data, size), flags, to_tuple(s.family, to, length)))


@call
def do_recv(fd: int, to: Any, size: int, flags: int) -> int:
    if size == 0 and not isinstance(to, Block):
        return len(sock(fd).recv(0, flags))
    m = memory(to)
    if flags & std.MSG_TRUNC:  # recv() would show memory that nobody has written
        return int(sock(fd).recv_into(m.mem, size, flags)) if size else 0
    data = sock(fd).recv(size, flags)
    if MUTATE == "byte" and data:
        data = data[:-1] + bytes([data[-1] ^ 1])
    if MUTATE == "lost":
        data = data[:-1]
    m.mem[: len(data)] = data
    return len(data)


@call
def do_recvfrom(fd: int, to: Any, size: int, flags: int, name: Any, length: Any) -> int:
    memory(name)
    if int.from_bytes(memory(length).mem[:4], "little", signed=True) < 0:
        raise Unsupported("the module chooses the room for an address")
    n, address = sock(fd).recvfrom_into(memory(to).mem, size, flags)
    if address is not None:
        put_address(address, name, length)
    else:
        memory(length).mem[:4] = bytes(4)
    return int(n)


def header(arg: Any) -> tuple[Block, list[Any]]:
    """struct msghdr: the block and name, name_len, buffers, control, control_len, flags."""
    m = memory(arg)
    if not m.fields or len(m.fields) != 7:
        raise Unsupported("no such message in Python")
    name, name_len, iov, n, control, control_len, flags = m.fields
    buffers: list[Any] = []
    if n:
        parts = memory(iov).fields or []
        if len(parts) != 2 * n:
            raise Unsupported("a list of buffers knows its length")
        buffers = [(parts[i], number(parts[i + 1])) for i in range(0, 2 * n, 2)]
    return m, [name, name_len, buffers, control, control_len, flags]


@call
def do_sendmsg(fd: int, message: Any, flags: int) -> int:
    _, (name, name_len, buffers, control, _, _) = header(message)
    s = sock(fd)
    if control:
        raise Unsupported("ancillary data is a list")
    to = [to_tuple(s.family, name, name_len)] if name else []
    return int(s.sendmsg([content(b, n) for b, n in buffers], [], flags, *to))


@call
def do_recvmsg(fd: int, message: Any, flags: int) -> int:
    m, (name, _, buffers, _, control_len, _) = header(message)
    parts = [memory(b) for b, n in buffers if n == len(memory(b).mem)]
    if len(parts) != len(buffers):
        raise Unsupported("a buffer knows its length")
    n, anc, out_flags, address = sock(fd).recvmsg_into([p.mem for p in parts], control_len, flags)
    if anc:
        raise Unsupported("ancillary data is a list")
    left = 0 if address is None or not name else 16
    m.mem[:] = struct.pack("=QQQQQQQ", 0, left, 0, len(parts), 0, 0, out_flags & 0xFFFFFFFF)
    return int(n)


@call
def do_read(fd: int, to: Any, size: int) -> int:
    """Of a socket: by its file, which reads as read() does."""
    if not is_socket(fd):
        data = os.read(fd, size)
        memory(to).mem[: len(data)] = data
        return len(data)
    if size and len(memory(to).mem) != size:
        raise Unsupported("a buffer knows its length")
    with sock(fd).makefile("rwb", buffering=0) as f:
        n = f.readinto(memory(to).mem if size else bytearray())
    if n is None:
        raise BlockingIOError(11, "")
    return int(n)


@call
def do_write(fd: int, data: Any, size: int) -> int:
    if not is_socket(fd):
        return os.write(fd, content(data, size))
    with sock(fd).makefile("rwb", buffering=0) as f:
        n = f.write(content(data, size))
    if n is None:
        raise BlockingIOError(11, "")
    return int(n)


@call
def do_shutdown(fd: int, how: int) -> int:
    sock(fd).shutdown(how)
    return 0


@call
def do_getsockopt(fd: int, level: int, option: int, to: Any, length: Any) -> int:
    room, size = memory(to), memory(length)
    n = int.from_bytes(size.mem[:4], "little", signed=True)
    if n != len(room.mem) or not 0 < n <= 1024:
        raise Unsupported("getsockopt() takes 1 to 1,024 bytes")
    data = sock(fd).getsockopt(level, option, n)
    room.mem[: len(data)] = data
    size.mem[:4] = struct.pack("=i", len(data))
    return 0


@call
def do_setsockopt(fd: int, level: int, option: int, data: Any, size: int) -> int:
    raw = content(data, size)
    sock(fd).setsockopt(level, option, struct.unpack("=i", raw)[0] if size == 4 else raw)
    return 0


@call
def do_fcntl(fd: int, command: int, arg: int = 0) -> int:
    if command == fcntl.F_SETFL and is_socket(fd):
        sock(fd).setblocking(not arg & os.O_NONBLOCK)
        return 0
    if fd < 0 or arg < 0:
        raise Unsupported("no number below 0")
    return int(fcntl.fcntl(fd, command, arg))


@call
def do_dup(fd: int) -> int:
    if not is_socket(fd):
        return os.dup(fd)
    return keep(sock(fd).dup())
