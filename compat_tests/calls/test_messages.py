"""recvmmsg and sendmmsg; vectors with offsets and flags; the fortified forms and other names."""

from __future__ import annotations

import struct

from harness.memory import NULL, WILD, Mem, address, group, inout, out, pattern
from harness.rig import Pair
from harness.states import IN, RDHUP
from harness.suite import scenario
from harness.trace import Result

PRELOAD = ["preload"]
DONTWAIT, PEEK, WAITALL, WAITFORONE, TRUNC, NOSIGNAL, MORE = 0x40, 0x2, 0x100, 0x10000, 0x20, 0x4000, 0x8000
HIPRI, DSYNC, SYNC, NOWAIT, APPEND = 1, 2, 4, 8, 16


def at(data: bytes) -> Mem:
    """A pointer to these bytes."""
    return Mem(f"b{data.hex()}", repr(data))


def message(*buffers: Mem | int | bytes) -> list[Mem | int | bytes | tuple[str, int]]:
    """Fields of one struct mmsghdr, made of (buffer, length) pairs."""
    return [0, 0, group(*buffers), len(buffers) // 2, 0, 0, 0, 0]


def vector(*messages: list[Mem | int | bytes | tuple[str, int]]) -> Mem:
    return group(*[f for m in messages for f in m], returned=True, text=f"{len(messages)} messages")


def see_vector(r: Result) -> str:
    """Result, the length of each message that counts, and the bytes."""
    if r.ret < 0:
        return str(r)
    head = r.out[0]
    lens = [struct.unpack_from("=I", head, 64 * i + 56)[0] for i in range(r.ret)]
    return f"{r} {lens} {[o[:n] for o, n in zip(r.out[1:], lens, strict=False)]}"


def receive(
    x: Pair, fd: int, sizes: list[int], flags: int, timeout: Mem | int = 0, thread: int | None = None
) -> Result:
    vec = vector(*[message(out(n), n) for n in sizes])
    return x.s.do("recvmmsg", fd, vec, len(sizes), flags, timeout, see=see_vector, thread=thread)


@scenario(
    subjects=PRELOAD,
    cases={f"{n}-{f:#x}": (n, f) for n in (0, 1, 5, 30) for f in (0, DONTWAIT, WAITFORONE, PEEK, WAITFORONE | WAITALL)},
)
def test_recvmmsg(x: Pair) -> None:
    """As many messages as there are bytes for; the last waits, unless told not to."""
    n, flags = x.case
    fd, pfd = x.connected()
    x.p.send(pfd, b"0123456789"[:n] * (1 if n < 30 else 3))
    if n:
        x.s.until(fd, IN)
    if (n < 30 and not flags & (DONTWAIT | WAITFORONE)) or not n:
        receive(x, fd, [10, 10, 10], flags, thread=1)
        x.s.blocked(1)
        x.p.shutdown(pfd, 1)
        x.s.wait(1)
    else:
        receive(x, fd, [10, 10, 10], flags)


@scenario(
    subjects=PRELOAD,
    cases={"zero": (0, 0), "ms": (0, 20000000), "nsec": (0, 1000000000), "negative": (-1, 0), "long": (3600, 0)},
)
def test_recvmmsg_timeout(x: Pair) -> None:
    """The timeout is looked at after each message only."""
    fd, pfd = x.connected()
    x.p.send(pfd, b"abc")
    x.s.until(fd, IN)
    receive(x, fd, [3, 3], DONTWAIT, group(*x.case))
    x.p.send(pfd, b"abc")
    x.s.until(fd, IN)
    receive(x, fd, [3, 3], 0, group(*x.case), thread=1)
    if x.case[0] >= 0 and x.case[1] < 1000000000:
        x.s.wait(1, 60)
        x.p.send(pfd, b"def")
    x.s.wait(1)


@scenario(
    subjects=PRELOAD,
    cases=["wild vector", "none", "many", "second wild", "wild timeout", "bad flag", "closed", "cloexec"],
)
def test_recvmmsg_errors(x: Pair) -> None:
    fd, pfd = x.connected()
    x.p.send(pfd, b"0123456789")
    x.s.until(fd, IN)
    two = vector(message(out(4), 4), message(WILD, 4))
    if x.case == "wild vector":
        x.s.do("recvmmsg", fd, WILD, 2, DONTWAIT, 0)
    elif x.case == "none":
        x.s.do("recvmmsg", fd, two, 0, DONTWAIT, 0, see=str)
    elif x.case == "many":
        x.s.do("recvmmsg", fd, WILD, 2000, DONTWAIT, 0)
    elif x.case == "second wild":
        x.s.do("recvmmsg", fd, two, 2, DONTWAIT, 0, see=see_vector)
        x.s.error(fd)
        x.s.recv(fd, 20, DONTWAIT)
    elif x.case == "wild timeout":
        x.s.do("recvmmsg", fd, two, 1, DONTWAIT, WILD, see=see_vector)
    elif x.case == "cloexec":
        x.s.do("recvmmsg", fd, two, 1, 0x40000000, 0, see=lambda r: f"{r} {struct.unpack_from('=i', r.out[0], 48)}")
    elif x.case == "bad flag":
        x.s.do("recvmsg", fd, two, 0x80000000, see=str)
        x.s.do("sendmsg", fd, two, 0x80000000, see=str)
        x.s.do("recvmmsg", fd, two, 1, 0x80000000 | DONTWAIT, 0, see=see_vector)
    else:
        x.p.close(pfd)
        receive(x, fd, [4, 4, 4, 4], 0)
        receive(x, fd, [4, 4], 0)


@scenario(
    subjects=PRELOAD,
    cases=["two", "none", "wild vector", "second wild", "first wild", "half", "many", "shut", "reset", "flags"],
)
def test_sendmmsg(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    good, bad = message(at(b"abc"), 3, at(b"de"), 2), message(WILD, 4)
    if x.case == "two":
        s.do("sendmmsg", fd, vector(good, good), 2, 0, see=see_vector)
    elif x.case == "none":
        s.do("sendmmsg", fd, vector(good), 0, 0, see=see_vector)
    elif x.case == "wild vector":
        s.do("sendmmsg", fd, WILD, 2, 0)
    elif x.case == "second wild":
        s.do("sendmmsg", fd, vector(good, bad), 2, 0, see=see_vector)
    elif x.case == "first wild":
        s.do("sendmmsg", fd, vector(bad, good), 2, 0, see=see_vector)
    elif x.case == "many":
        s.do("sendmmsg", fd, vector(*[message(at(b"x"), 1)] * 20), 20, 0, see=see_vector)
    elif x.case == "shut":
        s.shutdown(fd, 1)
        s.do("sendmmsg", fd, vector(good, good), 2, NOSIGNAL, see=see_vector)
    elif x.case == "reset":
        x.p.set(pfd, 1, 13, struct.pack("=ii", 1, 0))
        x.p.close(pfd)
        s.until(fd, IN)
        s.do("sendmmsg", fd, vector(good, good), 2, NOSIGNAL, see=see_vector)
        s.do("sendmmsg", fd, vector(good, good), 2, NOSIGNAL, see=see_vector)
        return
    elif x.case == "flags":
        s.do("sendmmsg", fd, vector(good, good), 2, MORE | DONTWAIT, see=see_vector)
    s.shutdown(fd, 1)
    x.p.until(pfd, RDHUP)
    x.p.recv(pfd, 100, PEEK | DONTWAIT)


FLAGS = [0, HIPRI, DSYNC, SYNC, NOWAIT, APPEND, NOWAIT | HIPRI, 0x20, 0x40, 0x80, 1 << 30]


@scenario(
    subjects=PRELOAD,
    cases={
        f"{c}-{o}-{f:#x}": (c, o, f)
        for c in ("preadv2", "preadv64v2", "pwritev2", "pwritev64v2")
        for o in (-1, 0, 5, -2)
        for f in FLAGS
    },
)
def test_vector_with_flags(x: Pair) -> None:
    call, offset, flags = x.case
    fd, pfd = x.connected()
    x.s.nonblock(fd)
    if call.startswith("pread"):
        x.s.do(call, fd, group(out(4), 4), 1, offset, flags)
        x.p.send(pfd, b"data")
        x.s.until(fd, IN)
    x.s.do(call, fd, group(inout(b"wxyz"), 4), 1, offset, flags)
    if call.startswith("pwrite"):
        x.s.shutdown(fd, 1)
        x.p.until(pfd, RDHUP)
        x.p.recv(pfd, 50, DONTWAIT)


@scenario(
    subjects=PRELOAD, cases=["pread", "pread64", "pwrite", "pwrite64", "preadv", "preadv64", "pwritev", "pwritev64"]
)
def test_positions_are_refused(x: Pair) -> None:
    fd, pfd = x.connected()
    x.p.send(pfd, b"data")
    x.s.until(fd, IN)
    vec = x.case.rstrip("64").endswith("v")
    for offset in (0, 3, -1):
        if vec:
            x.s.do(x.case, fd, group(inout(b"wxyz"), 4), 1, offset)
        else:
            x.s.do(x.case, fd, inout(b"wxyz"), 4, offset)
    x.s.recv(fd, 10, DONTWAIT)


@scenario(subjects=PRELOAD, cases=["unread", "linger 0", "both", "plain"])
def test_last_words_before_a_reset(x: Pair) -> None:
    """What was written before a close that resets has been sent."""
    fd, pfd = x.connected()
    if x.case in ("unread", "both"):
        x.p.send(pfd, b"never read")
        x.s.until(fd, IN)
    if x.case in ("linger 0", "both"):
        x.s.set(fd, 1, 13, struct.pack("=ii", 1, 0))
    x.s.send(fd, b"last words")
    x.s.close(fd)
    x.p.until(pfd, RDHUP)
    for _ in range(3):
        x.p.recv(pfd, 20, DONTWAIT)


@scenario(
    subjects=PRELOAD,
    cases=[
        "__read_chk",
        "__recv_chk",
        "__recvfrom_chk",
        "__poll_chk",
        "__ppoll_chk",
        "__read",
        "__write",
        "__send",
        "__connect",
        "__close",
        "__fcntl",
        "fcntl64",
        "__dup2",
        "__poll",
        "__select",
    ],
)
def test_other_names(x: Pair) -> None:
    """Names that libc exports besides: each is the call that it stands for."""
    fd, pfd = x.connected()
    s, call = x.s, x.case
    x.p.send(pfd, b"0123456789")
    s.until(fd, IN)
    poll = inout(struct.pack("=ihh", fd, IN, 0))
    if call == "__read_chk":
        s.do(call, fd, out(4), 4, 4)
    elif call == "__recv_chk":
        s.do(call, fd, out(4), 4, 4, PEEK)
    elif call == "__recvfrom_chk":
        s.do(call, fd, out(4), 4, 8, 0, NULL, NULL)
    elif call == "__poll_chk":
        s.do(call, poll, 1, 0, 8)
    elif call == "__ppoll_chk":
        s.do(call, poll, 1, group(0, 0), NULL, 8)
    elif call == "__read":
        s.do(call, fd, out(4), 4)
    elif call == "__write":
        s.do(call, fd, b"abc", 3)
        x.p.until(pfd, IN)
        x.p.recv(pfd, 10)
    elif call == "__send":
        s.do(call, fd, b"abc", 3, 0)
        x.p.until(pfd, IN)
        x.p.recv(pfd, 10)
    elif call == "__connect":
        s.do(call, fd, bytes(16), 16)
        x.p.until(pfd, IN)
    elif call == "__close":
        s.do(call, fd)
        s.do(call, fd)
        x.p.until(pfd, IN)
    elif call in ("__fcntl", "fcntl64"):
        s.do(call, fd, 3, 0)
        other = s.do(call, fd, 0, 100).ret
        s.recv(other, 4)
    elif call == "__dup2":
        s.do(call, fd, 101)
        s.recv(101, 4)
    elif call == "__poll":
        s.do(call, poll, 1, 0)
    else:
        s.do(call, fd + 1, inout((1 << fd).to_bytes(128, "little")), NULL, NULL, group(0, 0))


# ---- fast open, as it is without a cookie ----
FASTOPEN = 0x20000000


@scenario(
    cases=["plain", "nonblock", "dontwait", "again", "refused", "no_address", "unspec", "listener", "message", "off"]
)
def test_msg_fastopen(x: Pair) -> None:
    """Connects and sends; without a cookie there is no data in the SYN, and only a blocking call waits for the rest."""
    s = x.s
    lfd, port = x.listener(x.p)
    if x.case == "refused":
        x.p.close(lfd)
    if x.case == "off":
        x.sysctl("net.ipv4.tcp_fastopen", "2")
    fd = s.socket()
    to = bytes([0, 0]) * 8 if x.case == "unspec" else address(x.p_ip, port)
    if x.case == "nonblock":
        s.nonblock(fd)
    if x.case == "listener":
        s.bind(fd, x.s_ip)
        s.listen(fd)
    flags = FASTOPEN | NOSIGNAL | (0x40 if x.case == "dontwait" else 0)
    if x.case == "message":
        s.do(
            "sendmsg",
            fd,
            group(at(to), len(to), group(pattern(5), 5), 1, 0, 0, 0),
            flags,
            text=f"{fd}, message to {x.p_ip}",
        )
    elif x.case == "no_address":
        s.do("sendto", fd, b"hello", 5, flags, 0, 0)
    else:
        s.do("sendto", fd, b"hello", 5, flags, to, len(to), text=f"{fd}, hello, FASTOPEN, {x.p_ip}")
    if x.case == "again":
        s.do("sendto", fd, b"again", 5, flags, to, len(to), text=f"{fd}, again, FASTOPEN, {x.p_ip}")
    if x.case in ("nonblock", "dontwait"):
        s.until(fd, 4)
        s.do("sendto", fd, b"then", 4, flags, to, len(to), text=f"{fd}, then, FASTOPEN, {x.p_ip}")
    s.error(fd)
    if x.case in ("plain", "again", "message", "nonblock", "dontwait"):
        afd = x.p.accept(lfd).ret
        x.p.until(afd, IN)
        x.p.recv(afd, 20)


@scenario
def test_fastopen_connect(x: Pair) -> None:
    lfd, port = x.listener(x.p)
    fd = x.s.socket()
    x.s.set(fd, 6, 30, 1)
    x.s.connect(fd, x.p_ip, port)
    x.s.getpeername(fd)
    x.s.send(fd, b"hello")
    afd = x.p.accept(lfd).ret
    x.p.until(afd, IN)
    x.p.recv(afd, 20)
