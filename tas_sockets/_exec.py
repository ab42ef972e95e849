"""`tasctl exec`: runs a program on TAS, with a private service when none is running.

The program takes the place of tasctl (execve), so its exit status, its signals and its terminal are its own by nature.
A private service ends with its last client; until the program has attached there might be none, so a keeper, a daemon
outside the program's process tree, holds a control connection as long as the program lives.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from typing import NoReturn

from tas_sockets import _paths, _service
from tas_sockets._control import Control


def exec_program(options: Sequence[str], argv: Sequence[str]) -> NoReturn:
    """Replaces this process by ``argv`` under the interposer.

    With ``options`` the program gets a private service of its own; without, whatever service runs, or else the user's
    shared private one, which is started if need be.

    Raises:
        NotFoundError: no interposer, or a service is needed and there is no program for it.
        StartError: the private service did not start.
        OSError: ``argv`` cannot be run.
    """
    interposer = _paths.interposer()
    path = _paths.default_socket()
    if options:
        private = _paths.private_socket()
        path = _service.option(options, "socket") or private.replace("tas.sock", f"exec-{os.getpid()}.sock")
        _keep(path, [*_link(options), "--exit-when-unused", "--quiet"])
    elif not _service.running(path):
        if not os.environ.get("TAS_SOCKET"):
            path = _paths.private_socket()
        _keep(path, ["--link=none", "--exit-when-unused", "--quiet"])
    os.environ["TAS_SOCKET"] = path
    preload = os.environ.get("LD_PRELOAD", "")
    if interposer not in preload.split(":"):
        os.environ["LD_PRELOAD"] = f"{preload}:{interposer}" if preload else interposer
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(argv[0], list(argv))


def _link(options: Sequence[str]) -> list[str]:
    """The options, with --link=none unless they say otherwise."""
    given = _service.option(options, "link") is not None or _service.option(options, "ip-addr") is not None
    return list(options) if given else ["--link=none", *options]


def _keep(path: str, options: Sequence[str]) -> None:
    """Makes sure that a service listens at ``path`` while this process, and what it becomes, lives."""
    me = os.pidfd_open(os.getpid())
    answer_r, answer_w = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answer_r)
        status = 1
        try:
            os.setsid()
            if os.fork() == 0:
                _keeper(path, options, me, answer_w)
            status = 0
        finally:
            os._exit(status)
    os.close(answer_w)
    os.close(me)
    os.waitpid(child, 0)
    with os.fdopen(answer_r, "rb") as f:
        answer = f.read().decode()
    if answer != "ready":
        raise _service.StartError(answer or "the process that starts the service ended")


def _keeper(path: str, options: Sequence[str], owner: int, answer: int) -> NoReturn:
    try:
        text, control, started = "ready", None, False
        try:
            if not _service.running(path):
                try:
                    _service.start(options, path)
                    started = True
                except _service.StartError:
                    if not _service.running(path):  # else another tasctl exec was faster
                        raise
            control = Control(path)
        except Exception as e:
            text = str(e) or repr(e)
        os.write(answer, text.encode())
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        keep = {0, 1, 2, owner, control.fileno() if control else 0}
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in keep:
                try:
                    os.close(int(name))
                except OSError:
                    continue
        os.chdir("/")
        if control:
            watch = select.poll()
            watch.register(owner, select.POLLIN)
            watch.register(control.fileno(), select.POLLIN)  # the service's end ends the keeper as well
            watch.poll()
            if started:
                os.unlink(_service.log_path(path))
    finally:
        os._exit(0)
