"""The standard ``selectors`` module over TAS: the same classes on top of tas_sockets.select."""

from __future__ import annotations

import selectors as _std
from selectors import (
    EVENT_READ,
    EVENT_WRITE,
    BaseSelector,
    SelectorKey,
)
from typing import Any

from tas_sockets import select as _select


class SelectSelector(_std.SelectSelector):
    """Selector on select()."""

    _select = staticmethod(_select.select)


class PollSelector(_std.PollSelector):
    """Selector on poll()."""

    _selector_cls = staticmethod(_select.poll)


class EpollSelector(_std.EpollSelector):
    """Selector on an epoll set."""

    _selector_cls = _select.epoll


DefaultSelector = EpollSelector

__all__ = [
    "EVENT_READ",
    "EVENT_WRITE",
    "BaseSelector",
    "DefaultSelector",
    "EpollSelector",
    "PollSelector",
    "SelectSelector",
    "SelectorKey",
]


def __getattr__(name: str) -> Any:
    if name in ("__path__", "DevpollSelector", "KqueueSelector"):
        raise AttributeError(name)
    return getattr(_std, name)
