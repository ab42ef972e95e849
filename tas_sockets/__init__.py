"""TAS sockets: TCP acceleration as a service.

``import tas_sockets as socket`` gives every name of the standard ``socket`` module; TCP sockets are carried by TAS
where it serves the address, and by the kernel otherwise.  The names are there from the first use of one of them on (the
package's tools, such as ``tasctl``, do without the extension).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from socket import *  # noqa: F403

    from tas_sockets._install import install as install
    from tas_sockets._sock import close as close  # type: ignore[assignment]
    from tas_sockets._sock import dup as dup  # type: ignore[assignment]
    from tas_sockets._sock import socket as socket
else:
    import importlib
    import sys

    _TOOLS = frozenset(("asyncio", "select", "selectors", "ssl", "tasctl"))  # submodules: imported, not looked up

    def _fill(name: str) -> bool:
        if name in _TOOLS or (name.startswith("__") and name not in ("__all__", "__file__")):
            return False
        if name.startswith("_") and name != "__all__":
            # a submodule of ours, or a private name that programs use, such as _GLOBAL_DEFAULT_TIMEOUT
            names = sys.modules.get("tas_sockets._names")
            if not hasattr(names.std if names else importlib.import_module("socket"), name):
                return False
        return bool(importlib.import_module("tas_sockets._names").fill(globals()))

    def __getattr__(name: str) -> Any:
        if _fill(name) and name in globals():
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        _fill("__all__")
        return sorted(globals())
