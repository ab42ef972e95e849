"""The Python module has every name of the standard one, and leaves no method that moves data to the kernel."""

from __future__ import annotations

import _socket
import socket as std
import subprocess
import sys

import _python_names
import pytest

tas = pytest.importorskip("tas_sockets._sock", exc_type=ImportError)

import tas_sockets  # noqa: E402
from tas_sockets import _names, select, selectors, ssl  # noqa: E402

# methods of the C class that touch nothing but the object or the backing descriptor, where the kernel is right
INHERITED = {"fileno", "detach", "getblocking", "gettimeout", "sendmsg_afalg"}


def test_all_names_are_there() -> None:
    """Ours are the running Python's, and those are the list of its version (a newer one may have more)."""
    ours = set(getattr(tas_sockets, "__all__"))  # noqa: B009
    assert ours == set(std.__all__)
    for name in std.__all__:
        assert hasattr(tas_sockets, name), name
    listed = _python_names.expected(sys.version_info[:2])
    assert listed <= ours
    if sys.version_info < (3, 14):
        assert ours - _python_names.BLUETOOTH - _python_names.PATCHES == listed


def test_name_lists_are_the_standard_functions() -> None:
    functions = {n for n in std.__all__ if getattr(getattr(std, n), "__module__", "") == "socket"}
    functions -= {n for n in functions if isinstance(getattr(std, n), type)}
    ours = set(_names.REBOUND) | set(_names.REPLACED)
    constant = {n for n in functions if not callable(getattr(std, n))}
    assert functions - ours - constant == set()


def test_every_method_that_reaches_the_socket_is_ours() -> None:
    c_methods = {n for n in dir(_socket.socket) if not n.startswith("__") and callable(getattr(_socket.socket, n))}
    classes = [c for c in tas_sockets.socket.__mro__ if c.__module__.startswith("tas_sockets")]
    ours = {n for c in classes for n in vars(c)} | set(vars(std.socket)) & {"close", "detach"}
    assert c_methods - ours == INHERITED - ours


@pytest.mark.parametrize(("ours", "standard"), [(select, "select"), (selectors, "selectors"), (ssl, "ssl")])
def test_other_modules_are_complete(ours: object, standard: str) -> None:
    module = __import__(standard)
    public = [n for n in dir(module) if not n.startswith("_")]
    assert [n for n in public if not hasattr(ours, n)] == []


def test_install_refuses_when_it_is_too_late() -> None:
    code = "import http.client, tas_sockets\ntas_sockets.install()"
    p = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert p.returncode == 1
    assert "RuntimeError: tas_sockets.install() is too late: http.client" in p.stderr


def test_install_replaces_the_modules() -> None:
    code = (
        "import tas_sockets\ntas_sockets.install(); tas_sockets.install()\n"
        "import socket, select, selectors, ssl, http.client, asyncio\n"
        "assert socket is tas_sockets and issubclass(ssl.SSLSocket, socket.socket)\n"
        "assert select.epoll is selectors.EpollSelector._selector_cls\n"
        "assert http.client.socket is tas_sockets"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_tools_do_without_the_extension() -> None:
    code = "import sys, tas_sockets.tasctl\nassert 'tas_sockets._tas' not in sys.modules and 'cffi' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
