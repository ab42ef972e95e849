"""The Python world on TAS: what a program prints on the standard modules, after ``install()`` and under the interposer.

The packages come from PyPI into a virtual environment of their own in the build folder, made at the first run.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _lab import BUILD, KERNEL_ONLY, ROOT, until
from _python_programs import FLASK_APP, PRELUDE, PROGRAMS, Program

from tas_sockets._control import Control, What

pytest.importorskip("tas_sockets._sock", exc_type=ImportError)
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(KERNEL_ONLY, reason="no service in kernel mode"),
    pytest.mark.timeout(600),
]

PACKAGES = (
    *("cffi", "requests", "httpx", "aiohttp", "flask", "gunicorn", "uvicorn", "django", "redis", "psycopg[binary]"),
    *("pymongo", "grpcio", "twisted", "tornado", "trio", "gevent", "uvloop"),
)


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter of an environment with the packages."""
    venv = BUILD / "python-programs"
    done = venv / "packages"
    if not done.exists() or done.read_text() != " ".join(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120)
        pip = [str(venv / "bin/pip"), "install", "-q", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(pip, check=True, timeout=560)
        done.write_text(" ".join(PACKAGES))
    return str(venv / "bin/python")


@dataclass
class World:
    """A service, and what programs need besides."""

    folder: Path
    socket: str
    certificate: str

    def carried(self) -> int:
        with Control(self.socket) as c:
            return int(c.ask(What.STATS)["counters"].get("conn_local", 0))

    def preload(self) -> dict[str, str]:
        return {
            **os.environ,
            "TAS_SOCKET": self.socket,
            "TAS_REQUIRE": "1",
            "LD_PRELOAD": str(BUILD / "libtas_interpose.so"),
        }


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="tas-programs-"))
    folder.chmod(0o755)  # another user's server lies inside
    certificate = folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(certificate), "-out", f"{certificate}.crt"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    with certificate.open("a") as f:
        f.write(Path(f"{certificate}.crt").read_text())
    (folder / "flask_app.py").write_text(FLASK_APP)
    socket = str(folder / "tas.sock")
    r, w = os.pipe()
    service = subprocess.Popen(
        [str(BUILD / "tas"), "--link=none", "--quiet", f"--socket={socket}", f"--ready-fd={w}"], pass_fds=(w,)
    )
    os.close(w)
    with os.fdopen(r, "rb") as f:
        assert f.read(1)
    yield World(folder, socket, str(certificate))
    service.send_signal(signal.SIGTERM)
    assert service.wait(20) == 0
    shutil.rmtree(folder)


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as s:
        return int(s.getsockname()[1])


def _listens(port: int) -> bool:
    """In the kernel's table, where a TAS listener is, too."""
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return any(line.split()[3:4] == ["0A"] and f":{port:04X} " in line for line in lines)


def _redis(world: World, port: int) -> list[str]:
    return ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(world.folder)]


def _postgres(world: World, port: int) -> list[str]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        pytest.skip("no PostgreSQL server is installed")
    data = world.folder / "postgres"
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    if not data.exists():
        data.mkdir(mode=0o700)
        if user:
            owner = pwd.getpwnam("postgres")
            os.chown(data, owner.pw_uid, owner.pw_gid)
        initdb = [*user, str(programs[-1].with_name("initdb")), "-A", "trust", "-U", "postgres", "-D", str(data)]
        subprocess.run(initdb, check=True, capture_output=True, timeout=120, cwd="/tmp")
    settings = ("-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "listen_addresses=127.0.0.1")
    return [*user, str(programs[-1]), "-D", str(data), "-p", str(port), *settings]


@pytest.fixture
def server(program: Program, world: World, way: str) -> Iterator[int]:
    """The port of the server that the program needs, on TAS where the program is."""
    if not program.needs:
        yield 0
        return
    port = _free_port()
    argv = {"redis": _redis, "postgres": _postgres}[program.needs](world, port)
    env = dict(os.environ) if way == "standard" else world.preload()
    p = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/tmp")
    try:
        until(f"{program.needs} listens", lambda: _listens(port) or p.poll() is not None, 30)
        assert p.poll() is None
        yield port
    finally:
        p.terminate()
        p.wait(30)


def _run(python: str, program: Program, world: World, way: str, port: int) -> str:
    script = world.folder / f"run_{program.name.replace(' ', '-')}.py"
    install = "import tas_sockets; tas_sockets.install()\n" if way == "install" else ""
    names = f"INSTALL = {install!r}\nCERTIFICATE, SERVER_PORT = {world.certificate!r}, {port}\n"
    names += f"FLASK_APP = {str(world.folder / 'flask_app.py')!r}\n"
    script.write_text(install + PRELUDE + names + program.script)
    env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "TAS_SOCKET")}
    env["PYTHONPATH"] = str(ROOT)
    if way != "standard":
        env |= {"TAS_SOCKET": world.socket, "TAS_REQUIRE": "1", "TAS_BUILD": str(BUILD)}
    argv = [python, *(("-m", "tas_sockets") if way == "module" else ()), str(script)]
    p = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=150, cwd=world.folder, check=False)
    assert p.returncode == 0, f"{p.stdout[-1500:]}\n{p.stderr[-4000:]}"
    return p.stdout


_seen: dict[str, str] = {}


@pytest.mark.parametrize("way", ["standard", "install", "module"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_a_program_sees_what_it_sees_on_the_standard_modules(
    python: str, world: World, program: Program, way: str, server: int
) -> None:
    least = {"standard": 0, "install": program.install, "module": program.module}[way]
    if least is None:
        pytest.skip("not a way for this program: docs/python.md")
    before = world.carried()
    out = _run(python, program, world, way, server)
    assert out, "the program printed nothing"
    if way == "standard":
        _seen[program.name] = out
        return
    assert out == _seen.setdefault(program.name, out)
    assert world.carried() - before >= least
