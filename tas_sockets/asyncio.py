"""asyncio over TAS: the standard selector event loop on a TAS epoll set, making TAS sockets.

``tas_sockets.asyncio.run(main())`` instead of ``asyncio.run(main())``; or
``asyncio.set_event_loop_policy(tas_sockets.asyncio.EventLoopPolicy())``.  Streams, servers, TLS, subprocesses and
signals are asyncio's own; kernel descriptors mix in.
"""

from __future__ import annotations

import asyncio as _std
import asyncio.base_events as _base
import asyncio.unix_events as _unix
from collections.abc import Coroutine
from typing import Any, TypeVar

import tas_sockets
from tas_sockets import _names, selectors

_T = TypeVar("_T")


def _on_tas(f: Any, module: Any) -> Any:
    """The same method, making its sockets from tas_sockets."""
    if _names.interposed():
        return f
    return _names._rebind(f, {**vars(module), "socket": tas_sockets})


_LOOP = _unix._UnixSelectorEventLoop


class SelectorEventLoop(_LOOP):
    """An event loop that waits for TAS and kernel descriptors and connects and serves through TAS."""

    def __init__(self, selector: Any = None) -> None:
        super().__init__(selectors.DefaultSelector() if selector is None else selector)

    _connect_sock = _on_tas(_base.BaseEventLoop._connect_sock, _base)  # type: ignore[attr-defined]
    create_server = _on_tas(_base.BaseEventLoop.create_server, _base)


class EventLoopPolicy(_unix._UnixDefaultEventLoopPolicy):
    """The standard policy, making the loop above."""

    _loop_factory = SelectorEventLoop


def new_event_loop() -> SelectorEventLoop:
    """A new loop."""
    return SelectorEventLoop()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """``asyncio.run`` on a loop of ours."""
    with _std.Runner(debug=debug, loop_factory=SelectorEventLoop) as runner:
        return runner.run(main)


__all__ = ["EventLoopPolicy", "SelectorEventLoop", "new_event_loop", "run"]
