"""Errno tables: every call, with good and bad arguments, on a socket in every state; and what state that leaves."""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import struct
from collections.abc import Callable

from harness.agent import Agent
from harness.memory import NULL, WILD, Mem, address, group, guarded, inout, out
from harness.rig import Pair
from harness.states import ALL, LINK_STATES, OUT, STATES
from harness.suite import scenario
from harness.trace import see_received

Case = Callable[[Agent, int, Pair], object]
DONTWAIT, PEEK, TRUNC, WAITALL, OOB, ERRQUEUE, NOSIGNAL = 0x40, 0x2, 0x20, 0x100, 0x1, 0x2000, 0x4000
LEN = struct.pack("=i", 28)


def recv(size: int, flags: int) -> Case:
    return lambda s, fd, x: s.recv(fd, size, flags)


def send(data: bytes, flags: int) -> Case:
    return lambda s, fd, x: s.send(fd, data, flags)


def do(name: str, *args: int | bytes | Mem) -> Case:
    return lambda s, fd, x: s.do(name, fd, *args)


def message(
    *iov: Mem | int,
    flags: int = 0,
    control: Mem | int = 0,
    control_len: int = 0,
    name: Mem | int = 0,
    name_len: int = 0,
) -> Mem:
    """struct msghdr, returned."""
    return group(
        name,
        name_len,
        group(*iov) if iov else 0,
        len(iov) // 2,
        control,
        control_len,
        flags,
        returned=True,
        text=f"{len(iov) // 2} buffers",
    )


def see_message(r: object) -> str:
    return str(r)


def recvmsg(flags: int, *sizes: int, **more: Mem | int) -> Case:
    def run(s: Agent, fd: int, x: Pair) -> None:
        iov = [f for n in sizes for f in (out(n), n)]

        def see(r):  # type: ignore[no-untyped-def]
            if r.ret < 0:
                return str(r)
            head = r.out[0]
            name_len, control_len, flags_out = (
                struct.unpack_from("=I", head, 8)[0],
                struct.unpack_from("=Q", head, 40)[0],
                struct.unpack_from("=i", head, 48)[0],
            )
            return f"{r} {[o[:12] for o in r.out[1:]]} name {name_len} control {control_len} flags {flags_out:#x}"

        s.do("recvmsg", fd, message(*iov, **more), flags, see=see)  # type: ignore[arg-type]

    return run


def named(call: str, address_: Mem, length: Mem) -> Case:
    def see(r):  # type: ignore[no-untyped-def]
        return f"{r} length {r.out[-1].hex()}" if r.out else str(r)

    return lambda s, fd, x: s.do(call, fd, address_, length, see=see)


def connect_to(where: str) -> Case:
    def run(s: Agent, fd: int, x: Pair) -> None:
        if where == "listener":
            s.connect(fd, x.p_ip, x.listener(x.p)[1])
        elif where == "refused":
            lfd, port = x.listener(x.p)
            x.p.close(lfd)
            s.connect(fd, x.p_ip, port)
        elif where == "unspec":
            s.do("connect", fd, bytes(16), 16)
        elif where == "short":
            s.do("connect", fd, address(x.p_ip, 80), 8)
        elif where == "family":
            s.do("connect", fd, b"\x01\0" + bytes(14), 16)
        elif where == "v6":
            s.do("connect", fd, address("::1", 80), 28)
        elif where == "wild":
            s.do("connect", fd, WILD, 16)
        elif where == "negative":
            s.do("connect", fd, address(x.p_ip, 80), -1)
        elif where == "port 0":
            s.connect(fd, x.p_ip, 0)
        elif where == "broadcast":
            s.connect(fd, "255.255.255.255", 80)
        elif where == "multicast":
            s.connect(fd, "224.0.0.1", 80)
        s.poll((fd, OUT), timeout=300 if where in ("listener", "refused") else 0)

    return run


def bind_to(where: str) -> Case:
    def run(s: Agent, fd: int, x: Pair) -> None:
        raw, size = address(x.s_ip, 0), 16
        if where == "short":
            size = 8
        elif where == "family":
            raw = b"\x01\0" + bytes(14)
        elif where == "unspec any":
            raw = bytes(16)
        elif where == "unspec other":
            raw = b"\0\0" + address(x.s_ip, 0)[2:]
        elif where == "foreign":
            raw = address("192.0.2.7", 0)
        elif where == "broadcast":
            raw = address("255.255.255.255", 0)
        elif where == "multicast":
            raw = address("224.0.0.1", 0)
        elif where == "long":
            raw, size = raw + bytes(112), 128
        elif where == "too long":
            raw, size = raw + bytes(112), 129
        elif where == "wild":
            s.do("bind", fd, WILD, 16)
            return
        s.do("bind", fd, raw, size)

    return run


CASES: dict[str, Case] = {
    "recv": recv(4, 0),
    "recv_nothing": recv(0, 0),
    "recv_peek": recv(4, PEEK),
    "recv_trunc": recv(4, TRUNC),
    "recv_waitall": recv(20, WAITALL | DONTWAIT),
    "recv_oob": recv(1, OOB),
    "recv_errqueue": recv(1, ERRQUEUE),
    "recv_unknown_flag": recv(4, 0x10000000),
    "recv_wild": do("recv", WILD, 4, 0),
    "recv_null_nothing": do("recv", NULL, 0, 0),
    "recvfrom_name": lambda s, fd, x: s.do("recvfrom", fd, out(4), 4, 0, out(28), inout(LEN)),
    "recvfrom_wild_name": lambda s, fd, x: s.do("recvfrom", fd, out(4), 4, 0, WILD, inout(LEN)),
    "recvfrom_negative_length": lambda s, fd, x: s.do("recvfrom", fd, out(4), 4, 0, out(28), inout(b"\xff" * 4)),
    "read": lambda s, fd, x: s.do("read", fd, out(4), 4, see=see_received),
    "read_nothing": do("read", NULL, 0),
    "read_wild": do("read", WILD, 4),
    "readv": lambda s, fd, x: s.do("readv", fd, group(out(2), 2, out(3), 3), 2),
    "readv_wild": do("readv", WILD, 2),
    "readv_none": do("readv", NULL, 0),
    "readv_negative": do("readv", NULL, -1),
    "readv_too_many": do("readv", group(bytes(16 * 1025), text="1025 empty"), 1025),
    "readv_negative_size": do("readv", group(NULL, -1), 1),
    "preadv2": lambda s, fd, x: s.do("preadv2", fd, group(out(4), 4), 1, -1, 0),
    "preadv2_offset": lambda s, fd, x: s.do("preadv2", fd, group(out(4), 4), 1, 0, 0),
    "pread": lambda s, fd, x: s.do("pread", fd, out(4), 4, 0),
    "pwrite": do("pwrite", b"x", 1, 0),
    "lseek": do("lseek", 0, 0),
    "recvmsg": recvmsg(0, 2, 4),
    "recvmsg_peek": recvmsg(PEEK, 20),
    "recvmsg_trunc": recvmsg(TRUNC, 2),
    "recvmsg_name": recvmsg(0, 4, name=out(28), name_len=28),
    "recvmsg_control": recvmsg(0, 4, control=out(64), control_len=64),
    "recvmsg_no_buffer": recvmsg(0),
    "recvmsg_wild": do("recvmsg", WILD, 0),
    "recvmsg_wild_iov": lambda s, fd, x: s.do("recvmsg", fd, group(0, 0, WILD, 1, 0, 0, 0), 0),
    "recvmsg_too_many": lambda s, fd, x: s.do("recvmsg", fd, group(0, 0, group(bytes(16)), 1025, 0, 0, 0), 0),
    "recvmmsg": lambda s, fd, x: s.do("recvmmsg", fd, group(0, 0, group(out(4), 4), 1, 0, 0, 0, 0), 1, 0x40, NULL),
    "send": send(b"abc", NOSIGNAL),
    "send_nothing": send(b"", NOSIGNAL),
    "send_oob": send(b"!", NOSIGNAL | OOB),
    "send_unknown_flag": send(b"abc", NOSIGNAL | 0x00800000),
    "send_wild": do("send", WILD, 4, NOSIGNAL),
    "send_half_wild": do("send", guarded(b"abc"), 8000, NOSIGNAL),
    "sendto_name": lambda s, fd, x: s.do("sendto", fd, b"abc", 3, NOSIGNAL, address(x.p_ip, 9), 16),
    "sendto_wild_name": lambda s, fd, x: s.do("sendto", fd, b"abc", 3, NOSIGNAL, WILD, 16),
    "sendto_long_name": lambda s, fd, x: s.do("sendto", fd, b"abc", 3, NOSIGNAL, bytes(200), 200),
    "write": do("write", b"abc", 3),
    "write_nothing": do("write", NULL, 0),
    "write_wild": do("write", WILD, 3),
    "writev": lambda s, fd, x: s.do("writev", fd, group(b_mem(b"ab"), 2, b_mem(b"cde"), 3), 2),
    "writev_wild": do("writev", WILD, 2),
    "writev_too_many": do("writev", group(bytes(16 * 1025), text="1025 empty"), 1025),
    "sendmsg": lambda s, fd, x: s.do("sendmsg", fd, group(0, 0, group(b_mem(b"ab"), 2, b_mem(b"c"), 1), 2, 0, 0, 0), NOSIGNAL),
    "sendmsg_name": lambda s, fd, x: s.do("sendmsg", fd, group(b_mem(address(x.p_ip, 9)), 16, group(b_mem(b"ab"), 2), 1, 0, 0, 0), NOSIGNAL),
    "sendmsg_bad_control": lambda s, fd, x: s.do("sendmsg", fd, group(0, 0, group(b_mem(b"ab"), 2), 1, group(4, 0), 16, 0), NOSIGNAL),
    "sendmsg_wild": do("sendmsg", WILD, NOSIGNAL),
    "sendmsg_fds": lambda s, fd, x: s.do("sendmsg", fd, group(0, 0, group(b_mem(b"ab"), 2), 1, group(20, ("d", 1), ("d", 1), ("d", 0), ("d", 0)), 24, 0), NOSIGNAL),
    "sendmmsg": lambda s, fd, x: s.do("sendmmsg", fd, group(0, 0, group(b_mem(b"ab"), 2), 1, 0, 0, 0, 0), 1, NOSIGNAL),
    "accept": lambda s, fd, x: s.accept(fd),
    "accept4_bad_flag": lambda s, fd, x: s.accept(fd, 1),
    "accept4_flags": lambda s, fd, x: s.fcntl(s.accept(fd, 0o2004000).ret, 3),
    "accept_null": do("accept", NULL, NULL),
    "accept_null_length": lambda s, fd, x: s.do("accept", fd, out(28), NULL, see=str),
    "accept_wild": lambda s, fd, x: s.do("accept", fd, WILD, inout(LEN), see=str),
    "accept_negative_length": lambda s, fd, x: s.do("accept", fd, out(28), inout(b"\xff" * 4), see=str),
    "listen": do("listen", 5),
    "listen_negative": do("listen", -1),
    "getsockname": lambda s, fd, x: s.getsockname(fd),
    "getsockname_short": named("getsockname", out(28), inout(struct.pack("=i", 4))),
    "getsockname_negative": named("getsockname", out(28), inout(struct.pack("=i", -1))),
    "getsockname_wild": named("getsockname", WILD, inout(LEN)),
    "getsockname_wild_length": lambda s, fd, x: s.do("getsockname", fd, out(28), WILD, see=str),
    "getpeername": lambda s, fd, x: s.getpeername(fd),
    "getpeername_short": named("getpeername", out(28), inout(struct.pack("=i", 4))),
    "getpeername_negative": named("getpeername", out(28), inout(struct.pack("=i", -1))),
    "getpeername_wild": named("getpeername", WILD, inout(LEN)),
    "shutdown_rd": do("shutdown", 0),
    "shutdown_wr": do("shutdown", 1),
    "shutdown_rdwr": do("shutdown", 2),
    "shutdown_bad": do("shutdown", 3),
    "fionread": lambda s, fd, x: s.ioctl(fd, 0x541B),
    "siocoutq": lambda s, fd, x: s.ioctl(fd, 0x5411),
    "siocoutqnsd": lambda s, fd, x: s.ioctl(fd, 0x894B),
    "siocatmark": lambda s, fd, x: s.ioctl(fd, 0x8905),
    "fionread_wild": do("ioctl", 0x541B, WILD),
    "fionbio": lambda s, fd, x: (s.ioctl(fd, 0x5421, 0), s.fcntl(fd, 3), s.ioctl(fd, 0x5421, 1)),
    "ioctl_unknown": lambda s, fd, x: s.ioctl(fd, 0x5401),
    "fcntl_getfl": do("fcntl", 3, 0),
    "fcntl_unknown": do("fcntl", 77, 0),
    "dup_and_close": lambda s, fd, x: s.close(s.do("dup", fd).ret),
    "close": do("close"),
    "sendfile": lambda s, fd, x: s.do("sendfile", fd, 0, NULL, 10),
    "fstat_is_socket": lambda s, fd, x: s.do("fstat", fd, out(144), see=lambda r: f"{r} {r.out[0][24:28].hex()}"),
    "so_type": lambda s, fd, x: s.get(fd, 1, 3),
    "so_acceptconn": lambda s, fd, x: s.get(fd, 1, 30),
    # FIN_WAIT1 becomes FIN_WAIT2 when the peer's acknowledgement is no longer delayed
    "tcp_info_state": lambda s, fd, x: s.do("getsockopt", fd, 6, 11, out(1), inout(b"\1\0\0\0"), see=lambda r: r.full().replace("\\x04", "\\x05")),
    "getsockopt_wild": lambda s, fd, x: s.do("getsockopt", fd, 1, 3, WILD, inout(LEN), see=str),
    "getsockopt_negative": lambda s, fd, x: s.do("getsockopt", fd, 1, 3, out(4), inout(b"\xff" * 4), see=str),
    "nodelay": lambda s, fd, x: (s.set(fd, 6, 1, 1), s.get(fd, 6, 1)),
    "linger_reset_close": lambda s, fd, x: (s.set(fd, 1, 13, struct.pack("=ii", 1, 0)), s.close(fd)),
    **{f"connect_{w.replace(' ', '_')}": connect_to(w) for w in ("listener", "refused", "unspec", "short", "family", "v6", "wild", "negative", "port 0", "broadcast", "multicast")},
    **{f"bind_{w.replace(' ', '_')}": bind_to(w) for w in ("good", "short", "family", "unspec any", "unspec other", "foreign", "broadcast", "multicast", "long", "too long", "wild")},
}  # fmt: skip


def b_mem(data: bytes) -> Mem:
    return Mem(f"b{data.hex()}", repr(data))


def cell(x: Pair) -> None:
    """Makes the state, makes the call, and looks at what is left."""
    state, call = x.case
    made = (STATES | LINK_STATES)[state](x)
    s = x.s
    s.nonblock(made)
    CASES[call](s, made, x)
    if state == "peer_closed" and call.startswith(("send", "write")):
        s.poll((made, 0), timeout=200)
    elif call.startswith("shutdown"):
        s.poll(timeout=8)  # what the peer answers to a FIN
    s.poll((made, ALL))
    s.error(made)
    s.getpeername(made)
    s.recv(made, 4)


QUICK = [f"{state}-{call}" for state in ("connected", "listening", "peer_closed") for call in CASES]


@scenario(cases={f"{state}-{call}": (state, call) for state in STATES for call in CASES}, quick=QUICK)
def test_call_in_state(x: Pair) -> None:
    cell(x)


@scenario(peers=["link"], cases={f"{state}-{call}": (state, call) for state in LINK_STATES for call in CASES})
def test_call_while(x: Pair) -> None:
    cell(x)
