"""poll, select, epoll: the objects of the module that stands for select."""

from __future__ import annotations

import struct
from typing import Any

from .calls import MUTATE, call
from .memory import Block, Unsupported, memory
from .objects import closed, data_of, sets, waits

EPOLL = struct.Struct("=IQ")


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
