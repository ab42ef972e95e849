"""A TCP peer made of single packets: scapy on a packet socket at the other end of the subject's link.

The wire has an IP and an Ethernet address of its own, which no kernel has: it answers ARP itself, and whoever else is
on the link ignores its packets, so nobody sends a RST behind its back.  What a sender leaves to hardware (sums,
cutting) is done here before anybody looks.  What it sees is noted with relative sequence numbers and without what is a
stack's own choice (window sizes but for zero, values of timestamps and of the window scale, IP identification).
"""

from __future__ import annotations

import importlib
import itertools
import select
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from _lab import TAS_ADDR, Netns

from .trace import Trace

l2: Any = importlib.import_module("scapy.layers.l2")
inet: Any = importlib.import_module("scapy.layers.inet")
packet_raw: Any = importlib.import_module("scapy.packet").Raw
utils: Any = importlib.import_module("scapy.utils")

WIRE_ADDR = "10.77.0.50"
WIRE_MAC = "02:77:00:00:00:50"
OUTGOING = 4  # PACKET_OUTGOING
SOL_PACKET, PACKET_VNET_HDR = 263, 15
VNET_HEADER, NEEDS_CSUM, PUSH_OR_FIN, CWR = 10, 1, 0x09, 0x80
FULL = (("MSS", 1460), ("SAckOK", b""), ("Timestamp", (0, 0)), ("NOP", None), ("WScale", 7))
SIMPLE = (("MSS", 1460),)
SACK = (("MSS", 1460), ("NOP", None), ("NOP", None), ("SAckOK", b""))
TIMES = (("MSS", 1460), ("NOP", None), ("NOP", None), ("Timestamp", (0, 0)))
Options = Iterable[tuple[Any, Any]]
_ports = itertools.count(20001)


def raw_header(packet: Any, change: Callable[[bytearray], object], data: bytes = b"", checksum: bool = True) -> Any:
    """The packet with its TCP header changed byte by byte, and a checksum that is right again."""
    packet = inet.IP(bytes(packet))
    header = bytearray(bytes(packet[inet.TCP]))
    change(header)
    header[16:18] = b"\0\0"
    ip = inet.IP(src=packet.src, dst=packet.dst, flags="DF", proto=6)
    total = inet.in4_chksum(6, ip, bytes(header) + data)
    header[16:18] = (total if checksum else total ^ 0x5555).to_bytes(2, "big")
    return ip / packet_raw(bytes(header) + data)


def on_the_wire(header: bytes, frame: bytes) -> list[bytes]:
    """What hardware would send of a frame with the kernel's virtio header: single segments with their sums."""
    if not header[0] & NEEDS_CSUM:
        return [frame]
    size, start = (int.from_bytes(header[i : i + 2], "little") for i in (4, 6))
    ether, ip, tcp = frame[:14], frame[14:start], frame[start:]
    own = 4 * (tcp[12] >> 4)
    data = tcp[own:]
    out = []
    for at in range(0, max(len(data), 1), size if header[1] else max(len(data), 1)):
        piece = data[at : at + size] if header[1] else data
        head, over = bytearray(tcp[:own]), bytearray(ip)
        head[4:8] = ((int.from_bytes(tcp[4:8], "big") + at) % (1 << 32)).to_bytes(4, "big")
        if at + len(piece) < len(data):
            head[13] &= ~PUSH_OR_FIN
        if at:
            head[13] &= ~CWR
        head[16:18] = b"\0\0"
        over[2:4] = (len(ip) + own + len(piece)).to_bytes(2, "big")
        over[10:12] = b"\0\0"
        over[10:12] = utils.checksum(bytes(over)).to_bytes(2, "big")
        head[16:18] = inet.in4_chksum(6, inet.IP(bytes(over)), bytes(head) + piece).to_bytes(2, "big")
        out.append(ether + over + head + piece)
    return out


class Wire:
    """The other end of the link of ``ns``'s interface."""

    def __init__(self, ns: Netns, interface: str) -> None:
        with ns.entered():
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            self.sock.bind((interface, 0))
        self.sock.setblocking(False)
        self.trace = Trace()
        self.flows: dict[tuple[int, int], Flow] = {}
        self.strange: list[Any] = []
        self.target = ""
        self.mutate = ""
        self.resolve()

    def resolve(self) -> None:
        """Learns the subject's Ethernet address, and tells ours."""
        ask = l2.Ether(src=WIRE_MAC, dst="ff:ff:ff:ff:ff:ff") / l2.ARP(
            op=1, hwsrc=WIRE_MAC, psrc=WIRE_ADDR, pdst=TAS_ADDR
        )
        end = time.monotonic() + 5
        while not self.target:
            self._send(ask)
            self.take(time.monotonic() + 0.2)
            if time.monotonic() > end:
                raise AssertionError("nobody answers ARP at the other end of the link")

    def close(self) -> None:
        self.sock.close()

    def frame(self, payload: Any) -> None:
        """Sends an IP packet."""
        self._send(l2.Ether(src=WIRE_MAC, dst=self.target) / payload)

    def _send(self, frame: Any) -> None:
        self.sock.send(bytes(VNET_HEADER) + bytes(frame))

    def take(self, until: float) -> bool:
        """Reads what comes until then, or until something for us has come: true."""
        while True:
            left = until - time.monotonic()
            if not select.select([self.sock], [], [], max(0.0, left))[0]:
                if left <= 0:
                    return False
                continue
            raw, where = self.sock.recvfrom(1 << 17)
            if where[2] == OUTGOING:
                continue
            frames = on_the_wire(raw[:VNET_HEADER], raw[VNET_HEADER:])
            if any([self._dispatch(frame) for frame in frames]):
                return True

    def _dispatch(self, raw: bytes) -> bool:
        kind = raw[12:14]
        if kind == b"\x08\x06":
            arp = l2.Ether(raw).getlayer(l2.ARP)
            if arp.op == 1 and arp.pdst == WIRE_ADDR:
                reply = l2.ARP(op=2, hwsrc=WIRE_MAC, psrc=WIRE_ADDR, hwdst=arp.hwsrc, pdst=arp.psrc)
                self._send(l2.Ether(src=WIRE_MAC, dst=arp.hwsrc) / reply)
            if arp.psrc == TAS_ADDR:
                self.target = arp.hwsrc
            return False
        if kind != b"\x08\x00" or raw[30:34] != socket.inet_aton(WIRE_ADDR):
            return False
        packet = inet.IP(raw[14 : 14 + int.from_bytes(raw[16:18], "big")])
        tcp = packet.getlayer(inet.TCP)
        if tcp is None:
            return False
        flow = self.flows.get((tcp.sport, tcp.dport))
        if flow and "A" in tcp.flags:
            flow.acked = tcp.ack
        if self.mutate == "flag":  # how the suite proves that it would notice
            tcp.flags = int(tcp.flags) ^ 0x08
        elif self.mutate == "number":
            tcp.ack += 1
        elif self.mutate == "lost" and tcp.payload:
            return False
        packet.time = time.monotonic()
        (flow.queue if flow else self.strange).append(packet)
        return True

    # ---- flows ----
    def flow(self, port: int) -> Flow:
        """A connection to be, from a port of ours to that one of the subject."""
        return Flow(self, port, next(_ports))

    def incoming(self, port: int) -> Flow:
        """What the subject opens by a SYN to our ``port``; the SYN is left to be seen."""
        end = time.monotonic() + 3
        while True:
            for packet in self.strange:
                if packet[inet.TCP].dport == port:
                    flow = Flow(self, packet[inet.TCP].sport, port)
                    flow.queue = [p for p in self.strange if p[inet.TCP].sport == flow.port]
                    self.strange = [p for p in self.strange if p not in flow.queue]
                    return flow
            if not self.take(end) and time.monotonic() > end:
                raise AssertionError(f"nothing came to port {port}")

    def end_flows(self) -> None:
        """Ends on the subject's side what it still holds: a RST where it expects the next byte."""
        self.take(time.monotonic() + 0.005)
        for flow in list(self.flows.values()):
            flow.end()
        self.flows.clear()
        self.strange.clear()


class Flow:
    """One connection as the wire has it.  Sequence numbers are relative to each side's first."""

    def __init__(self, wire: Wire, port: int, own_port: int, iss: int = 100000) -> None:
        self.wire, self.port, self.own_port, self.iss = wire, port, own_port, iss
        self.queue: list[Any] = []
        self.irs: int | None = None
        self.seq, self.ack = 0, 0  # next of ours, next of theirs
        self.window = 64000
        self.stamps = False
        self.tsval, self.tsecr = 5000, 0
        self.acked = iss  # what the subject acknowledged last, absolute
        self.times: list[float] = []
        self.tos = 0
        wire.flows[port, own_port] = self

    # ---- sending ----
    def send(
        self,
        flags: str,
        data: bytes = b"",
        *,
        seq: int | None = None,
        ack: int | None = None,
        options: Options = (),
        tsval: int | None = None,
        change: Callable[[Any], Any] | None = None,
        **fields: Any,
    ) -> None:
        """One segment; ``seq`` (relative) given: out of turn, nothing advances.  ``change`` may damage the packet."""
        at = self.seq if seq is None else seq
        options = list(options)
        if tsval is not None or (self.stamps and not any(o[0] == "Timestamp" for o in options)):
            self.tsval += 1
            value = self.tsval if tsval is None else tsval
            options += [("NOP", None), ("NOP", None), ("Timestamp", (value, self.tsecr))]
        elif any(o[0] == "Timestamp" for o in options):
            options = [("Timestamp", (self.tsval, self.tsecr)) if o[0] == "Timestamp" else o for o in options]
        their = ((self.irs or 0) + (self.ack if ack is None else ack)) % (1 << 32) if "A" in flags else 0
        segment = inet.TCP(
            sport=self.own_port,
            dport=self.port,
            flags=flags,
            seq=(self.iss + at) % (1 << 32),
            ack=their,
            window=fields.pop("window", min(self.window, 65535)),
            options=options,
            **fields,
        )
        packet = inet.IP(src=WIRE_ADDR, dst=TAS_ADDR, flags="DF", tos=self.tos) / segment / data
        self.wire.frame(change(packet) if change else packet)
        if seq is None:
            self.seq += len(data) + ("S" in flags) + ("F" in flags)
        shown = f"{flags or 'no flags'} seq {at} ack {self.ack if ack is None else ack} length {len(data)}"
        names = [str(o[0]) for o in options if o[0] != "NOP"]
        self.wire.trace.note("wire", f"sends {shown}{' ' + ' '.join(names) if names else ''}", "")

    def icmp(self, kind: int, code: int, offset: int = 0, mtu: int = 0) -> None:
        """An ICMP error about the subject's segment at ``offset`` (relative)."""
        about = inet.IP(src=TAS_ADDR, dst=WIRE_ADDR, flags="DF") / inet.TCP(
            sport=self.port, dport=self.own_port, seq=((self.irs or 0) + offset) % (1 << 32)
        )
        error = inet.IP(src=WIRE_ADDR, dst=TAS_ADDR) / inet.ICMP(type=kind, code=code, nexthopmtu=mtu)
        self.wire.frame(error / bytes(about)[:28])
        self.wire.trace.note("wire", f"sends ICMP {kind} {code} mtu {mtu} about {offset}", "")

    # ---- seeing ----
    def gather(self, n: int, ms: int) -> list[Any]:
        """Packets of this flow: ``n`` of them, or what has come after ``ms``; not noted."""
        end = time.monotonic() + ms / 1000
        while len(self.queue) < n:
            if not self.wire.take(end) and time.monotonic() >= end:
                break
        got, self.queue = self.queue[:n], self.queue[n:]
        for packet in got:
            self._learn(packet)
        return got

    def see(self, n: int = 1, ms: int = 1500, what: Callable[[Flow, Any], str] | None = None) -> list[Any]:
        """The next ``n`` segments, noted."""
        got = self.gather(n, ms)
        for packet in got:
            self.wire.trace.note("wire", "sees", (what or Flow.text)(self, packet))
        if len(got) < n:
            self.wire.trace.note("wire", "sees", "nothing")
        return got

    def quiet(self, ms: int = 30) -> list[Any]:
        """Nothing more, or what there is."""
        got = self.gather(1 << 30, ms)
        for packet in got:
            self.wire.trace.note("wire", "sees also", self.text(packet))
        return got

    def bytes(self, total: int, ms: int = 2000, ack: bool = True, most: int = 200) -> list[int]:
        """Takes new data until there are ``total`` bytes, acknowledging each segment; notes the lengths."""
        lengths: list[int] = []
        first, end = self.ack, time.monotonic() + ms / 1000
        while self.ack - first < total and time.monotonic() < end and len(lengths) < most:
            before = self.ack
            for packet in self.gather(1, 100):
                size = len(packet[inet.TCP].payload)
                if size and self.ack > before:
                    lengths.append(size)
            if ack and self.ack > before:
                trace, self.wire.trace = self.wire.trace, Trace()
                self.send("A")
                self.wire.trace = trace
        shown = [f"{len(list(g))} x {k}" for k, g in itertools.groupby(lengths)]
        self.wire.trace.note("wire", "takes data", ", ".join(shown) or "none")
        return lengths

    def _learn(self, packet: Any) -> None:
        tcp = packet[inet.TCP]
        if self.irs is None:
            self.irs = tcp.seq if "S" in tcp.flags else tcp.seq - self.ack
        for kind, value in tcp.options:
            if kind == "Timestamp":
                self.tsecr = value[0]
        end = self.relative(tcp.seq) + len(tcp.payload) + ("S" in tcp.flags) + ("F" in tcp.flags)
        if "R" not in tcp.flags and self.relative(tcp.seq) <= self.ack:
            self.ack = max(self.ack, end)
        self.times.append(packet.time)

    def relative(self, number: int) -> int:
        n = (number - (self.irs or 0)) % (1 << 32)
        return n - (1 << 32) if n >= 1 << 31 else n

    def own(self, number: int) -> int:
        n = (number - self.iss) % (1 << 32)
        return n - (1 << 32) if n >= 1 << 31 else n

    def text(self, packet: Any) -> str:
        """A segment, without what is a stack's own choice."""
        ip, tcp = packet, packet[inet.TCP]
        said = [str(tcp.flags) or "no flags"]
        said.append(f"seq {self._their(tcp.seq, 'R' in tcp.flags, 'A' in tcp.flags)}")
        if "A" in tcp.flags:
            said.append(f"ack {self.own(tcp.ack)}")
        said.append(f"length {len(tcp.payload)}")
        if "R" not in tcp.flags:
            said.append("window" if tcp.window else "window 0")
        if "U" in tcp.flags:
            said.append(f"urgent {tcp.urgptr}")
        said += [self._option(kind, value) for kind, value in tcp.options if kind not in ("NOP", "EOL")]
        if "DF" not in str(ip.flags):
            said.append("may be fragmented")
        if ip.tos:
            said.append(f"tos {ip.tos:#x}")
        if ip.ttl != 64:
            said.append(f"ttl {ip.ttl}")
        return " ".join(said)

    def _their(self, number: int, reset: bool, acks: bool) -> str:
        """Number of theirs; of a RST that answers an ACK with no connection it is the one we sent."""
        far = abs(self.relative(number)) > 1 << 20
        if self.irs is None or (reset and far):
            return "elsewhere" if acks and far else str(number)
        return str(self.relative(number))

    def _option(self, kind: Any, value: Any) -> str:
        if kind == "MSS":
            return f"mss {value}"
        if kind == "Timestamp":
            # the newest of ours that it has seen, an older one, or none yet
            return f"ts echo {'none' if not value[1] else value[1] - 5000}"
        if kind == "SAck":
            edges = [self.own(v) for v in value]
            return "sack " + " ".join(f"{a}-{b}" for a, b in zip(edges[::2], edges[1::2], strict=True))
        return "wscale" if kind == "WScale" else str(kind)

    # ---- whole openings ----
    def open(self, options: Options = SIMPLE, flags: str = "S", last: str = "A") -> None:
        """Three-way handshake from our side; only the SYN+ACK is noted."""
        options = list(options)
        self.send(flags, options=options)
        got = self.see()
        stamped = any(o[0] == "Timestamp" for o in options)
        self.stamps = stamped and bool(got) and any(o[0] == "Timestamp" for o in got[0][inet.TCP].options)
        if last:
            self.send(last)

    def answer(self, options: Options = SIMPLE, flags: str = "SA") -> None:
        """The same from the subject's side: sees its SYN, answers, sees its ACK."""
        got = self.see()
        options = list(options)
        self.stamps = any(o[0] == "Timestamp" for o in options) and bool(got)
        self.send(flags, options=options)
        self.see()

    def end(self) -> None:
        """A RST that the subject has to believe, whatever state it is in."""
        for packet in self.queue:
            self._learn(packet)
        trace, self.wire.trace = self.wire.trace, Trace()
        self.stamps = False
        self.send("RA", seq=self.own(self.acked))
        self.wire.trace = trace
