"""Arguments of a call as agent.c's protocol has them: numbers, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

FILL = 0xA5


class Unsupported(Exception):
    """Python has no such call."""


class Block:
    """Memory of a call."""

    def __init__(self, data: bytes, returned: bool, fields: list[Any] | None = None) -> None:
        self.mem, self.returned, self.fields = bytearray(data), returned, fields


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
