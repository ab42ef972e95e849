"""``install()``: the standard modules' names for everything that is imported afterwards."""

from __future__ import annotations

import sys
import types
from typing import Any

# Modules that may hold the originals: what the standard ``socket`` needs itself, and users of pipes and names only.
_MAY_HOLD = frozenset(
    (
        *("_socket", "_ssl", "select", "selectors", "socket", "ssl"),
        *("subprocess", "_posixsubprocess", "signal", "site", "email.utils", "__main__"),
    )
)
_REPLACED = ("socket", "select", "selectors", "ssl")


def watch_spawns() -> None:
    """Sockets that another program may inherit are announced to the service before it starts.

    The interpreter's audit events say when; fork needs none (pthread_atfork).
    """
    from tas_sockets._ffi import lib

    spawn, execute = lib.tas_before_spawn, lib.tas_before_exec
    spawning = {"subprocess.Popen", "os.posix_spawn", "os.system", "os.spawn", "pty.spawn"}

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in spawning:
            spawn()
        elif event == "os.exec":
            execute()

    sys.addaudithook(hook)


def _sendfile_too() -> None:
    """os.sendfile() names a socket by number, as asyncio does: for that it has to go through the library."""
    import functools
    import os

    from tas_sockets._ffi import error, lib

    standard = os.sendfile

    @functools.wraps(standard)
    def sendfile(out_fd: int, in_fd: int, offset: int | None, count: int, *more: Any, **kw: Any) -> int:
        if more or kw or type(out_fd) is not int or type(in_fd) is not int:
            return standard(out_fd, in_fd, offset, count, *more, **kw)
        r = lib.glue_sendfile(out_fd, in_fd, -1 if offset is None else offset, count, -1)
        if r < 0:
            raise error(r)
        return r

    os.sendfile = sendfile


def _holders() -> list[str]:
    """Modules that took something of the originals already."""
    originals = {id(sys.modules[n]): n for n in _REPLACED if n in sys.modules}
    if "socket" in sys.modules:
        originals[id(sys.modules["socket"].socket)] = "socket.socket"
    found = []
    for name, module in list(sys.modules.items()):
        if name in _MAY_HOLD or name.split(".")[0] == "tas_sockets" or not isinstance(module, types.ModuleType):
            continue
        if any(id(v) in originals for v in list(vars(module).values())):
            found.append(name)
    return sorted(found)


def install() -> None:
    """Makes ``socket``, ``select``, ``selectors`` and ``ssl`` those of TAS for everything imported from now on.

    To be called once, before anything else that uses the network is imported; calling it again does nothing.  Under the
    interposer there is nothing to do.

    Raises:
        RuntimeError: modules that use the originals are loaded already; the text names them.
    """
    import tas_sockets
    from tas_sockets import _names

    if sys.modules.get("socket") is tas_sockets or _names.interposed():
        return
    holders = _holders()
    if holders:
        raise RuntimeError(
            f"tas_sockets.install() is too late: {', '.join(holders)} use the standard modules already; call it before "
            "they are imported, or run the program with `python -m tas_sockets`"
        )
    tas_sockets.socket  # noqa: B018  (fills the module)
    from tas_sockets import select, selectors, ssl

    sys.modules["socket"] = tas_sockets
    sys.modules["select"] = select
    sys.modules["selectors"] = selectors
    sys.modules["ssl"] = ssl
    _sendfile_too()
