"""The extension, and what a wheel carries besides Python; everything else is in pyproject.toml.

`make` builds the interposer and the client libraries, and the service where pkg-config finds libdpdk, into the folder
$TAS_BUILD (`build`); the wheel gets copies.
"""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
LIBRARIES = ("libtas.so", "libtas_sockets.so", "libtas_interpose.so")


def dpdk() -> bool:
    if not shutil.which("pkg-config"):
        return False
    return subprocess.run(["pkg-config", "--exists", "libdpdk"], check=False).returncode == 0


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        out = Path(os.environ.get("TAS_BUILD", "build"))
        names = (*LIBRARIES, *(("tas",) if dpdk() else ()))
        subprocess.run(["make", f"O={out}", *(f"{out}/{name}" for name in names)], cwd=ROOT, check=True)
        to = Path(self.build_lib) / "tas_sockets" / "native"
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(parents=True)
        for name in names:
            shutil.copy(ROOT / out / name, to / name)


setup(cffi_modules=["tas_sockets/_build_ffi.py:ffibuilder"], cmdclass={"build_py": BuildPy})
