"""The conformance suite's agent in Python: agent.c's protocol, with the calls made through a socket module's objects.

``AGENT_SOCKET`` names the module: ``socket`` (the oracle, on the kernel) or ``tas_sockets``, without a preloaded
library.  A call of libc becomes the method that a Python program would use for it; its result goes back in the C
function's form (return value, errno, memory).  An exception that is no OSError with an errno is the result as text.
What Python has no call for (wild pointers, flags of accept) is answered ``u REASON``: the scenario is skipped and the
reason counted.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import importlib
import os
import resource
import signal
import socket as std
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

NAME = os.environ.get("AGENT_SOCKET", "socket")
net: Any = importlib.import_module(NAME)
waits: Any = importlib.import_module("select" if NAME == "socket" else f"{NAME}.select")
MUTATE = os.environ.get("AGENT_MUTATE", "")
CHANNEL = 900
PROGRAMS = 512  # numbers from here on are the client library's own
FILL = 0xA5
EPOLL = struct.Struct("=IQ")


class Unsupported(Exception):
    """Python has no such call."""


class Block:
    """Memory of a call."""

    def __init__(self, data: bytes, returned: bool, fields: list[Any] | None = None) -> None:
        self.mem, self.returned, self.fields = bytearray(data), returned, fields


Arg = int | Block


# ---- arguments ----
def parse(tokens: Iterator[str], blocks: list[Block], end: str = "") -> list[Any]:
    """Arguments up to ``end``; memory also in the order in which it was named."""
    out: list[Any] = []
    for token in tokens:
        kind, rest = token[:1], token[1:]
        if end and kind == end:
            break
        if not token:
            continue
        if kind in "iqdw":
            out.append(int(rest, 0))
            continue
        if kind in "[{":
            made = Block(b"", kind == "{", [])
            blocks.append(made)
            made.fields = parse(tokens, blocks, "]" if kind == "[" else "}")
            made.mem = bytearray(8 * len(made.fields))
        elif kind == "x":
            out.append(bytes.fromhex(rest))
            continue
        elif kind == "g":
            raise Unsupported("no memory with holes")
        else:
            n, _, seed = rest.partition(",")
            data = (
                bytes.fromhex(rest)
                if kind in "bB"
                else bytes((i + int(seed)) * 2654435761 % (1 << 32) >> 24 for i in range(int(n)))
                if kind == "p" and int(n) < 1 << 16
                else bytes([FILL]) * int(n)
            )
            made = Block(data, kind in "Bo")
            blocks.append(made)
        out.append(made)
    return out


def memory(arg: Any) -> Block:
    """Memory that the program has; wild pointers are C's."""
    if isinstance(arg, Block):
        return arg
    raise Unsupported("no wild or missing pointers")


def number(arg: Any) -> int:
    assert isinstance(arg, int)
    return arg


def content(arg: Any, size: int) -> bytes:
    if size == 0 and not isinstance(arg, Block):
        return b""
    m = memory(arg)
    if size != len(m.mem):
        raise Unsupported("a buffer knows its length")
    return bytes(m.mem)


# ---- objects by their numbers ----
objects: dict[int, Any] = {}
closed: dict[int, Any] = {}
sets: dict[int, Any] = {}
data_of: dict[tuple[int, int], int] = {}


def keep(made: Any) -> int:
    fd: int = made.fileno()
    objects[fd] = made
    closed.pop(fd, None)
    return fd


def sock(fd: Any) -> Any:
    """The object with this number; one that was closed; or a new one for a number that came from elsewhere."""
    n = number(fd)
    if n in objects:
        return objects[n]
    if n in closed:
        return closed[n]
    if n in sets or n < 0:
        raise Unsupported("not a socket object")
    made = net.socket(fileno=n)
    objects[n] = made
    return made


def is_socket(fd: Any) -> bool:
    return fd in objects or fd in closed


def to_tuple(family: int, raw: Any, size: int) -> Any:
    """struct sockaddr as a Python address; only what a program can say in that form."""
    b = content(raw, size)
    here = int.from_bytes(b[:2], "little") if len(b) >= 2 else -1
    if here != family or len(b) != (16 if family == std.AF_INET else 28) or family not in (std.AF_INET, std.AF_INET6):
        raise Unsupported("an address is a tuple, made for the socket's family")
    port = int.from_bytes(b[2:4], "big")
    if family == std.AF_INET:
        return std.inet_ntoa(b[4:8]), port
    return std.inet_ntop(std.AF_INET6, b[8:24]), port, 0, 0


def put_address(address: Any, to: Any, length: Any) -> None:
    """A Python address as the C call leaves it in memory."""
    if not isinstance(to, Block) and not isinstance(length, Block) and not to and not length:
        return
    room, size = memory(to), memory(length)
    if len(address) == 2:
        raw = struct.pack("=H", std.AF_INET) + struct.pack("!H", address[1]) + std.inet_aton(address[0]) + bytes(8)
    else:
        ip = std.inet_pton(std.AF_INET6, address[0])
        raw = struct.pack("=H", std.AF_INET6) + struct.pack("!HI", address[1], address[2]) + ip
        raw += struct.pack("=I", address[3])
    if int.from_bytes(size.mem[:4], "little", signed=True) < len(raw):
        raise Unsupported("the module chooses the room for an address")
    room.mem[: len(raw)] = raw
    size.mem[:4] = struct.pack("=i", len(raw))


# ---- calls ----
Call = Callable[..., int]
CALLS: dict[str, Call] = {}


def call(function: Call) -> Call:
    CALLS[function.__name__.removeprefix("do_")] = function
    return function


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


@call
def do_poll(table: Any, n: int, timeout: int) -> int:
    if not n and not isinstance(table, Block):
        table = Block(b"", False)
    m = memory(table)
    entries = list(struct.iter_unpack("=ihh", m.mem))
    if len(entries) != n:
        raise Unsupported("a poll object knows its members")
    if len({fd for fd, _, _ in entries}) != n or any(fd < 0 for fd, _, _ in entries):
        raise Unsupported("a poll object has each number once, and none below 0")
    p = waits.poll()
    for fd, events, _ in entries:
        p.register(closed.get(fd, fd), events & 0xFFFF)
    found = dict(p.poll(timeout if timeout >= 0 else None))
    for i, (fd, events, _) in enumerate(entries):
        mask = found.get(fd, 0)
        if MUTATE == "event":
            mask &= ~1
        struct.pack_into("=ihH", m.mem, 8 * i, fd, events, mask)
    return len(found)


@call
def do_select(n: int, r: Any, w: Any, e: Any, timeout: Any) -> int:
    blocks = [memory(a) for a in (r, w, e)]
    masks = [int.from_bytes(b.mem, "little") for b in blocks]
    if n < 0 or any(m >> n for m in masks):
        raise Unsupported("select() counts by itself")
    lists = [[i for i in range(1024) if m >> i & 1] for m in masks]
    tv = memory(timeout).fields
    if not tv:
        raise Unsupported("a timeout is a number of seconds")
    got = waits.select(*lists, tv[0] + tv[1] / 1e6)
    for b, ready in zip(blocks, got, strict=True):
        b.mem[:] = sum(1 << fd for fd in ready).to_bytes(128, "little")
    return sum(map(len, got))


@call
def do_epoll_create1(flags: int) -> int:
    made = waits.epoll(-1, flags)
    sets[made.fileno()] = made
    return int(made.fileno())


def epoll_set(ep: Any) -> Any:
    if ep not in sets:
        raise Unsupported("not an epoll object")
    return sets[ep]


@call
def do_epoll_ctl(ep: int, op: int, fd: int, event: Any) -> int:
    s = epoll_set(ep)
    if fd < 0:
        raise Unsupported("no number below 0")
    if op == 2:
        s.unregister(fd)
        return 0
    events, data = EPOLL.unpack(memory(event).mem)
    if op == 1:
        s.register(fd, events)
    elif op == 3:
        s.modify(fd, events)
    else:
        raise Unsupported("a method each for ADD, DEL, MOD")
    data_of[ep, fd] = data
    return 0


@call
def do_epoll_wait(ep: int, to: Any, most: int, timeout: int) -> int:
    m = memory(to)
    found = epoll_set(ep).poll(timeout / 1000 if timeout >= 0 else None, most)
    for i, (fd, events) in enumerate(found):
        if MUTATE == "event":
            events &= ~1
        EPOLL.pack_into(m.mem, 12 * i, events, data_of.get((ep, fd), fd))
    return len(found)


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


def run(text: str) -> str:
    """Makes the call and says what it gave."""
    name, _, *tokens = text.split(" ")
    blocks: list[Block] = []
    try:
        args = parse(iter(tokens), blocks)
        function = CALLS.get(name)
        if function is None:
            raise Unsupported(f"{name} is no call of Python's")
        ret, error = function(*args), 0
    except Unsupported as e:
        return f"u {e}"
    except OSError as e:
        if e.errno is None:
            return f"{type(e).__name__}: {e}"
        ret, error = -1, e.errno
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    if MUTATE == "errno" and error == 107:
        error = 32
    return " ".join([f"r {ret} {error}", *(f"x{b.mem.hex()}" for b in blocks if b.returned)])


# ---- threads ----
class Worker(threading.Thread):
    """A call in a thread of its own."""

    def __init__(self, text: str) -> None:
        super().__init__(daemon=True)
        self.text, self.result = text, ""

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, range(1, signal.NSIG))
        self.result = run(self.text)

    def sleeps(self) -> bool:
        try:
            with open(f"/proc/self/task/{self.native_id}/stat") as f:
                return ") S" in f.read()
        except OSError:
            return False


threads: dict[int, Worker] = {}


def ended(n: int, seconds: float) -> str | None:
    threads[n].join(seconds)
    return None if threads[n].is_alive() else threads.pop(n).result


def blocked(n: int) -> str:
    """Blocked is who sleeps eight times in a row, a millisecond apart (once may be for the interpreter's lock)."""
    asleep = 0
    for _ in range(3000):
        result = ended(n, 0.001)
        if result is not None:
            return result
        asleep = asleep + 1 if threads[n].sleeps() else 0
        if asleep == 8:
            return "blocked"
    return "spinning"


# ---- signals, processes, reset ----
counted: dict[int, int] = {}


def count(n: int, _frame: object) -> None:
    counted[n] = counted.get(n, 0) + 1


def handler(n: int, flags: int) -> str:
    signal.signal(n, signal.SIG_DFL if flags == -1 else signal.SIG_IGN if flags == -2 else count)
    if flags >= 0:
        signal.siginterrupt(n, not flags & 0x10000000)
    return "0"


def show_counted() -> str:
    shown = "".join(f" {n}:{c}" for n, c in sorted(counted.items()))
    counted.clear()
    return f"n{shown}"


def channel_open(path: str) -> None:
    global received
    s = std.socket(std.AF_UNIX)
    s.connect(path)
    os.dup2(s.fileno(), CHANNEL, inheritable=False)
    s.close()
    received = b""
    os.write(CHANNEL, f"hello {os.getpid()}\n".encode())


def fork(path: str) -> str:
    pid = os.fork()
    if pid:
        return str(pid)
    os.close(CHANNEL)
    threads.clear()
    channel_open(path)
    return "child"


def reset() -> str:
    stuck = sum(t.is_alive() for t in threads.values())
    threads.clear()
    for n in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPROF, signal.SIGINT, signal.SIGUSR2}:
        if signal.getsignal(n) is count or n == signal.SIGPIPE:
            signal.signal(n, signal.SIG_IGN if n == signal.SIGPIPE else signal.SIG_DFL)
    counted.clear()
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for o in [*objects.values(), *sets.values()]:
        with contextlib.suppress(OSError):
            o.close()
    for table in (objects, closed, sets, data_of):
        table.clear()
    for fd in [int(n) for n in os.listdir("/proc/self/fd")]:
        if fd in INHERITED or not 2 < fd < PROGRAMS:
            continue
        with contextlib.suppress(OSError):
            os.close(fd)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    return f"stuck {stuck}"


# ---- the loop ----
received = b""
INHERITED: frozenset[int] = frozenset()


def serve(text: str, path: str) -> str:
    kind, _, rest = text.partition(" ")
    if kind == "c":
        return run(rest)
    if kind == "n":
        return show_counted()
    if kind == "r":
        return reset()
    if kind == "f":
        return fork(path)
    if kind == "x":
        os._exit(0)
    if kind == "e":
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    first, _, more = rest.partition(" ")
    n = int(first)
    if kind == "t":
        threads[n] = Worker(more)
        threads[n].start()
        return "ok"
    if kind == "s":
        return handler(n, int(more))
    if kind == "K":
        return "u threads cannot be cancelled"
    if n not in threads:
        return "none"
    if kind == "k":
        signal.pthread_kill(threads[n].ident or 0, int(more))
        return "0"
    if kind == "b":
        return blocked(n)
    result = ended(n, int(more) / 1000)
    return "blocked" if result is None else result


def main() -> int:
    global received, INHERITED
    path = sys.argv[1]
    faulthandler.register(signal.SIGPROF, all_threads=True)
    INHERITED = frozenset(int(n) for n in os.listdir("/proc/self/fd"))
    channel_open(path)
    while True:
        while b"\n" not in received:
            more = os.read(CHANNEL, 1 << 20)
            if not more:
                return 0
            received += more
        line, received = received.split(b"\n", 1)
        reply = serve(line.decode(), path).encode() + b"\n"
        while reply:
            reply = reply[os.write(CHANNEL, reply) :]


if __name__ == "__main__":
    sys.exit(main())
