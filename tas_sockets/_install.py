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
# A child that multiprocessing has spawned imports it before the program's own first line.
_MAY_BE_GIVEN = frozenset(("multiprocessing",))
_REPLACED = ("socket", "select", "selectors", "ssl")
_KEPT = {
    "socket": ("socket",),
    "select": ("select", "poll", "epoll"),
    "selectors": ("SelectSelector", "PollSelector", "EpollSelector"),
    "ssl": ("SSLContext", "SSLSocket"),
}


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


def _originals() -> dict[int, str]:
    """What is about to be replaced: modules, and classes that programs derive from or keep."""
    found = {id(sys.modules[n]): n for n in _REPLACED if n in sys.modules}
    for module, names in _KEPT.items():
        if module in sys.modules:
            found |= {id(getattr(sys.modules[module], n)): f"{module}.{n}" for n in names}
    return found


def _holders() -> list[types.ModuleType]:
    """Modules that took something of the originals already."""
    originals = _originals()
    found = []
    for name, module in list(sys.modules.items()):
        if name in _MAY_HOLD or name.split(".")[0] == "tas_sockets" or not isinstance(module, types.ModuleType):
            continue
        if any(id(v) in originals for v in list(vars(module).values())):
            found.append(module)
    return found


def _hand_over(module: types.ModuleType, ours: dict[str, types.ModuleType]) -> None:
    """A module that only names the originals in its globals gets ours."""
    originals = _originals()
    for name, value in list(vars(module).items()):
        path = originals.get(id(value))
        if path:
            of, _, inner = path.partition(".")
            setattr(module, name, getattr(ours[of], inner) if inner else ours[of])


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
    late = sorted(m.__name__ for m in holders if m.__name__.split(".")[0] not in _MAY_BE_GIVEN)
    if late:
        raise RuntimeError(
            f"tas_sockets.install() is too late: {', '.join(late)} use the standard modules already; call it before "
            "they are imported, or run the program with `python -m tas_sockets`"
        )
    tas_sockets.socket  # noqa: B018  (fills the module)
    from tas_sockets import select, selectors, ssl

    ours: dict[str, types.ModuleType] = {"socket": tas_sockets, "select": select, "selectors": selectors, "ssl": ssl}
    for module in holders:
        _hand_over(module, ours)
    sys.modules.update(ours)
