"""Calls by name: the modules of sockets, of waiting, and of calls by number declare them."""

from __future__ import annotations

import os
from collections.abc import Callable

from .memory import Block, Unsupported, parse

MUTATE = os.environ.get("AGENT_MUTATE", "")
Call = Callable[..., int]
CALLS: dict[str, Call] = {}


def call(function: Call) -> Call:
    CALLS[function.__name__.removeprefix("do_")] = function
    return function


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
