"""Where the service, the interposer and the control socket are."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import stat
from pathlib import Path

from tas_sockets._control import SOCKET_DEFAULT

INTERPOSER = "libtas_interpose.so"


class NotFoundError(Exception):
    """A part of TAS is not where it can be found; the text says how to get it."""


def checkout() -> Path | None:
    """The source tree that this package lies in, if it does."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").exists() and (root / "fastpath").exists() else None


def _candidates(installed: str, built: str) -> list[Path]:
    """Places in the order tried: $TAS_BUILD, the build folder of the checkout, the prefix of an installation."""
    places = []
    if os.environ.get("TAS_BUILD"):
        return [Path(os.environ["TAS_BUILD"]).resolve() / built]
    root = checkout()
    if root:
        places.append(root / "build" / built)
    places.append(Path(__file__).resolve().parent / "native" / built)  # in a wheel
    # PREFIX/lib/tas/tas_sockets/_paths.py
    places.append(Path(__file__).resolve().parents[3] / installed)
    return places


def service() -> str:
    """The service's program.

    Raises:
        NotFoundError: there is none.
    """
    places = _candidates("sbin/tas", "tas")
    for p in places:
        if os.access(p, os.X_OK):
            return str(p)
    found = shutil.which("tas")
    if found and "TAS_BUILD" not in os.environ:
        return found
    raise NotFoundError(f"no service program (tried {', '.join(map(str, places))}): run `make`")


def interposer() -> str:
    """What to put into LD_PRELOAD: a path, or the bare name if the dynamic linker finds it.

    Raises:
        NotFoundError: there is none.
    """
    places = _candidates("lib/" + INTERPOSER, INTERPOSER)
    for p in places:
        if p.exists():
            return str(p)
    if "TAS_BUILD" not in os.environ and ctypes.util.find_library("tas_interpose"):
        return INTERPOSER
    raise NotFoundError(f"no {INTERPOSER} (tried {', '.join(map(str, places))}): run `make`")


def default_socket() -> str:
    """$TAS_SOCKET, or the path that libraries use without it."""
    return os.environ.get("TAS_SOCKET") or SOCKET_DEFAULT


def private_socket() -> str:
    """Where `tasctl exec` starts a service for this user; its folder is made if missing.

    Raises:
        NotFoundError: no folder that is this user's alone.
    """
    if os.geteuid() == 0:
        folder = Path(SOCKET_DEFAULT).parent
    elif os.environ.get("XDG_RUNTIME_DIR") and os.access(os.environ["XDG_RUNTIME_DIR"], os.W_OK):
        folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "tas"
    else:
        folder = Path(f"/tmp/tas-{os.geteuid()}")
    folder.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, exist_ok=True)
    st = folder.lstat()
    if not stat.S_ISDIR(st.st_mode) or st.st_uid != os.geteuid() or st.st_mode & 0o022:
        raise NotFoundError(f"{folder} is not a folder that only this user can write: set XDG_RUNTIME_DIR")
    return str(folder / "tas.sock")
