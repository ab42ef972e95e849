"""Starting and ending the service as a daemon."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tas_sockets import _paths
from tas_sockets._control import Control, ServiceError

START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0


class StartError(Exception):
    """The service did not start; the text is what it said."""


def running(path: str) -> bool:
    """True if a service listens at ``path``."""
    try:
        Control(path, timeout=2).close()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def option(options: Sequence[str], name: str) -> str | None:
    """The value of ``--name=VALUE`` or ``--name VALUE`` among service options, the last one if repeated."""
    value = None
    for i, text in enumerate(options):
        if text == f"--{name}" and i + 1 < len(options):
            value = options[i + 1]
        elif text.startswith(f"--{name}="):
            value = text.split("=", 1)[1]
    return value


def log_path(socket_path: str) -> str:
    return os.path.splitext(socket_path)[0] + ".log"


def start(options: Sequence[str], socket_path: str) -> int:
    """Starts the service with ``options``, listening at ``socket_path``, and waits until it is ready.

    Its output goes to the file of the socket's name with the ending ``.log``.

    Returns:
        Its process id.  It goes on when this process ends.

    Raises:
        StartError: it ended, or was not ready after a minute.
        NotFoundError: there is no service program.
    """
    program = _paths.service()
    Path(socket_path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    log = log_path(socket_path)
    ready_r, ready_w = os.pipe()
    argv = [program, *options]
    if option(options, "socket") is None:
        argv.append(f"--socket={socket_path}")
    argv.append(f"--ready-fd={ready_w}")
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with open(fd, "wb") as out:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(ready_w,),
                start_new_session=True,
                cwd="/",
                env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"},
            )
        os.close(ready_w)
        ready_w = -1
        readable, _, _ = select.select([ready_r], [], [], START_TIMEOUT)
        if readable and os.read(ready_r, 64):
            child.returncode = 0  # it outlives us: no ResourceWarning
            return child.pid
        if readable:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
        how = "did not get ready in time" if not readable else _how_it_ended(child.poll())
        child.kill()
        child.wait()
    finally:
        os.close(ready_r)
        if ready_w >= 0:
            os.close(ready_w)
    said = Path(log).read_text(errors="replace").strip()
    raise StartError(f"{said}\ntas {how}" if said else f"tas {how}")


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "closed its ready descriptor without a word"
    return f"ended with status {code}" if code >= 0 else f"was ended by signal {-code}"


def stop(socket_path: str) -> None:
    """Ends the service at ``socket_path`` and waits until it is gone.

    Raises:
        OSError: nobody listens there.
        ServiceError: it refused, or is still there after a quarter of a minute.
    """
    with Control(socket_path) as control:
        pid = peer_pid(control)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            pidfd = -1
        control.shutdown()
        hung_up = control.wait_hangup(STOP_TIMEOUT)
    if pidfd >= 0:
        gone, _, _ = select.select([pidfd], [], [], STOP_TIMEOUT)
        os.close(pidfd)
        hung_up = bool(gone)
    if not hung_up:
        raise ServiceError(f"the service (process {pid}) is still there after {STOP_TIMEOUT:.0f} s")


def peer_pid(control: Control) -> int:
    """Process id of the service at the other end."""
    import socket
    import struct

    with socket.socket(fileno=os.dup(control.fileno())) as s:
        pid, _, _ = struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
