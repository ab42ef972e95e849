"""The first TCP socket of a process makes sure that there is a service."""

from __future__ import annotations

import os
import threading

_lock = threading.Lock()
_done = 0  # pid for which it was looked after


def service() -> None:
    """Once per process: uses the running service, or starts a private one for this user (`--link=none`).

    ``TAS_SOCKET`` in the environment says where the service is; then none is started.
    """
    global _done
    if _done:
        return
    with _lock:
        if _done:
            return
        _done = os.getpid()
        if "TAS_SOCKET" not in os.environ:
            _look()


def _look() -> None:
    from tas_sockets import _exec, _paths, _service

    try:
        path = _paths.default_socket()
        if _service.running(path):
            return
        path = _paths.private_socket()
        _exec._keep(path, ["--link=none", "--exit-when-unused", "--quiet"])
    except (_paths.NotFoundError, _service.StartError, OSError):
        return  # the client library warns when it finds nobody
    os.environ["TAS_SOCKET"] = path
