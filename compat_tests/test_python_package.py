"""From the source to a program of an ordinary user: sdist, wheel made of it elsewhere, clean environment, the example.

Every example runs with an empty /run of its own, so that no service is there beforehand.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _lab import KERNEL_ONLY, ROOT

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(KERNEL_ONLY, reason="no service in kernel mode"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a /run of its own, and another user, need root"),
    pytest.mark.timeout(600),
]

ATTACHED = """
from tas_sockets._ffi import lib
print("on TAS" if lib.tas_attached() else "on the kernel")
"""


def _clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("TAS_") and k not in ("PYTHONPATH", "LD_PRELOAD")}


def _do(*argv: str | Path, cwd: Path = ROOT, timeout: float = 550) -> str:
    p = subprocess.run(
        [str(a) for a in argv], cwd=cwd, env=_clean(), capture_output=True, text=True, timeout=timeout, check=False
    )
    assert p.returncode == 0, f"{argv}:\n{p.stdout[-2000:]}\n{p.stderr[-4000:]}"
    return p.stdout


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tas-package-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def sdist(folder: Path) -> Path:
    _do(sys.executable, "setup.py", "-q", "sdist", "-d", folder)
    (made,) = folder.glob("*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(folder: Path, sdist: Path) -> Path:
    """Built from the unpacked sdist, by pip, in an environment that pip makes."""
    with tarfile.open(sdist) as t:
        t.extractall(folder / "elsewhere")
    (source,) = (folder / "elsewhere").iterdir()
    _do(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(folder: Path, wheel: Path) -> Path:
    """The interpreter of an environment that has nothing but the wheel."""
    _do(sys.executable, "-m", "venv", folder / "venv")
    _do(folder / "venv/bin/pip", "install", "-q", "--disable-pip-version-check", wheel, cwd=folder)
    return folder / "venv/bin/python"


def _example() -> str:
    """The Python example of the README."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found
    return found[1]


def _run(python: Path, folder: Path, *before: str, code: str = ATTACHED) -> subprocess.CompletedProcess[str]:
    script = folder / "example.py"
    script.write_text(_example() + code)
    runtime = folder / "runtime"
    runtime.mkdir(exist_ok=True, mode=0o777)
    runtime.chmod(0o777)
    # empty /run and /tmp, as on a machine where nothing has run yet
    shell = 'mount -t tmpfs tmpfs /run && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", shell, "sh", *before, str(python), str(script)]
    env = {**_clean(), "XDG_RUNTIME_DIR": str(runtime)}
    return subprocess.run(argv, cwd="/", env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_sdist_has_what_a_build_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as t:
        names = {n.partition("/")[2] for n in t.getnames()}
    needed = {"Makefile", "setup.py", "pyproject.toml", "LICENSE", "tas_sockets/_fast.c", "tas_sockets/py.typed"}
    assert needed <= names
    assert "fastpath/service/main.c" in names


def test_the_wheel_has_the_libraries_and_the_service(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as z:
        names = set(z.namelist())
    native = {n.rpartition("/")[2] for n in names if n.startswith("tas_sockets/native/")}
    assert native == {"libtas.so", "libtas_sockets.so", "libtas_interpose.so", "tas"}
    assert "tas_sockets/py.typed" in names
    assert any(re.fullmatch(r"tas_sockets/_tas\..*\.so", n) for n in names)


def test_the_readmes_example_starts_a_private_service_as_root(python: Path, folder: Path) -> None:
    p = _run(python, folder)
    assert (p.stdout, p.stderr, p.returncode) == ("b'hello over TAS'\non TAS\n", "", 0)


def test_the_readmes_example_starts_a_private_service_as_an_ordinary_user(python: Path, folder: Path) -> None:
    p = _run(python, folder, "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    assert (p.stdout, p.stderr, p.returncode) == ("b'hello over TAS'\non TAS\n", "", 0)


def test_whole_programs_run_under_the_interposer_of_the_wheel(python: Path, folder: Path) -> None:
    code = "import tas_sockets._names as n; print(n.interposed())"
    shell = 'mount -t tmpfs tmpfs /run && exec "$@"'
    argv = ("unshare", "--mount", "sh", "-c", shell, "sh", str(python), "-m", "tas_sockets", "-c", code)
    assert _do(*argv, cwd=Path("/")) == "True\n"


def test_without_a_service_there_is_one_warning_and_the_kernel(python: Path, folder: Path) -> None:
    (program,) = (folder / "venv").glob("lib/*/site-packages/tas_sockets/native/tas")
    program.rename(folder / "tas.away")
    try:
        more = "for _ in range(3): socket.create_server(('127.0.0.1', 0)).close()\n"
        p = _run(python, folder, "env", "PATH=/usr/bin:/bin", code=more + ATTACHED)
    finally:
        (folder / "tas.away").rename(program)
    assert (p.stdout, p.returncode) == ("b'hello over TAS'\non the kernel\n", 0)
    assert re.fullmatch(r"tas: no service at /run/tas/tas.sock .*; using the kernel's TCP\n", p.stderr)
