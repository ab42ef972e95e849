"""Which names of the standard ``socket`` module are ours, and which are the standard module's own.

``REPLACED``, ``REBOUND`` and everything else together are ``socket.__all__`` of the running Python
(compat_tests/test_python_names.py).
"""

from __future__ import annotations

import socket as std
import types
from typing import Any

# ours, by tas_sockets._sock
REPLACED = ("close", "dup", "socket")
# the standard module's functions on top of the above: the same code, looking names up in tas_sockets instead of in
# socket.  So they behave, and can be patched by a test, like the standard ones of this very Python.
REBOUND = (
    "_fallback_socketpair",  # from 3.13 on
    "create_connection",
    "create_server",
    "fromfd",
    "getaddrinfo",
    "getfqdn",
    "has_dualstack_ipv6",
    "recv_fds",
    "send_fds",
    "socketpair",
)
# of the package itself; never overwritten
_KEEP = frozenset(
    (
        "__version__",
        "__getattr__",
        "__dir__",
        "_fill",
        "_TOOLS",
        "importlib",
        "install",
        "selectors",
        "select",
        "ssl",
        "asyncio",
    )
)


def interposed() -> bool:
    """True if this process runs under libtas_interpose.so, which carries the standard classes already."""
    with open("/proc/self/maps") as f:
        return any("libtas_interpose.so" in line for line in f)


def _rebind(f: types.FunctionType, to: dict[str, Any]) -> types.FunctionType:
    g = types.FunctionType(f.__code__, to, f.__name__, f.__defaults__, f.__closure__)
    g.__kwdefaults__, g.__doc__, g.__module__ = f.__kwdefaults__, f.__doc__, "tas_sockets"
    g.__annotations__ = dict(f.__annotations__)
    return g


def fill(names: dict[str, Any]) -> bool:
    """Puts the module's names into ``names``, the package's own; True when that was done now."""
    if "__all__" in names:
        return False
    from tas_sockets import _install, _multiprocessing

    new: dict[str, Any] = {k: v for k, v in vars(std).items() if not k.startswith("__") and k not in _KEEP}
    if not interposed():
        from tas_sockets import _sock

        _sock.socket.__module__ = "tas_sockets"
        for name in REPLACED:
            new[name] = getattr(_sock, name)
        for name in REBOUND:
            if hasattr(std, name):
                new[name] = _rebind(getattr(std, name), names)
        from tas_sockets import _os, _signals

        _os.install()
        _signals.install()
        _install.watch_spawns()
        _multiprocessing.register()
    new["install"] = _install.install
    new["__all__"] = list(std.__all__)
    names.update(new)
    return True
