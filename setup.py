"""The extension; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# Programs and libraries that a wheel carries when `make` has built them (TAS sockets without them: `make install`).
NATIVE = ("tas", "libtas_interpose.so")


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        to = Path(self.build_lib) / "tas_sockets" / "native"
        for name in NATIVE:
            built = Path(__file__).parent / "build" / name
            if built.exists():
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy(built, to / name)


setup(cffi_modules=["tas_sockets/_build_ffi.py:ffibuilder"], cmdclass={"build_py": BuildPy})
