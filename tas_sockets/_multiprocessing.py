"""Sockets that travel to other processes by ``multiprocessing``: pickled as a duplicate of the descriptor.

``multiprocessing.reduction`` knows the standard class only.  Ours is registered there as soon as that module is loaded.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

_NAME = "multiprocessing.reduction"


def _rebuild(duplicate: Any, family: int, kind: int, proto: int) -> Any:
    from tas_sockets._sock import socket

    return socket(family, kind, proto, fileno=duplicate.detach())


def _reduce(sock: Any) -> Any:
    from tas_sockets._ffi import lib

    if sock._ours:
        lib.glue_announce(sock.fileno())  # it will be found again by its cookie
    duplicate = sys.modules[_NAME].DupFd(sock.fileno())
    return _rebuild, (duplicate, sock.family, sock.type, sock.proto)


def _tell(reduction: Any) -> None:
    from tas_sockets._sock import socket

    reduction.ForkingPickler.register(socket, _reduce)


class _Loader(importlib.abc.Loader):
    """The module's own loader, and then the registration."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        module: types.ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        self._loader.exec_module(module)
        _tell(module)

    def __getattr__(self, name: str) -> Any:  # get_source and the like
        return getattr(self._loader, name)


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for the import of one module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def register() -> None:
    """Registers the class now, or when the module comes."""
    if _NAME in sys.modules:
        _tell(sys.modules[_NAME])
    else:
        sys.meta_path.insert(0, _Finder())
