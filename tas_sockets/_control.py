"""The control protocol of the service, as far as tools need it (`fastpath/abi/tas_msg.h`).

One SOCK_SEQPACKET packet is one message: ``struct tas_msg``, followed by JSON text in replies to TAS_MSG_ADMIN.
The numbers below are compared with the C header by ``compat_tests/test_control_layout.py``.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from enum import IntEnum
from typing import Any

MAGIC = 0x31534154
MSG_SIZE = 16 + 38 * 8
TEXT_MAX = 49152
SOCKET_DEFAULT = "/run/tas/tas.sock"
ABI_MIN, ABI_MAX = 5, 5

HEADER = struct.Struct("<IHHIi")  # magic, op, n_fds, seq, err
ADMIN = struct.Struct("<IIII")  # what, cursor, more, text_len

OP_ADMIN = 18
OP_SHUTDOWN = 19


class What(IntEnum):
    """``enum tas_admin_what``."""

    STATUS = 1
    CONNS = 2
    STATS = 3
    PROCS = 4
    RAW = 5


class ServiceError(Exception):
    """The service answered with an error, or nonsense, or not at all."""


class Control:
    """A control connection to the service at ``path``.

    Raises:
        OSError: nobody listens there (FileNotFoundError, ConnectionRefusedError), or no permission.
    """

    def __init__(self, path: str, timeout: float = 10.0) -> None:
        self._seq = 0
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._sock.settimeout(timeout)
            self._sock.connect(path)
        except OSError:
            self._sock.close()
            raise

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def _call(self, op: int, body: bytes = b"") -> bytes:
        """Sends a request and returns the whole reply, checked."""
        self._seq += 1
        request = HEADER.pack(MAGIC, op, 0, self._seq, 0) + body
        try:
            self._sock.send(request.ljust(MSG_SIZE, b"\0"))
            reply = self._sock.recv(MSG_SIZE + TEXT_MAX)
        except TimeoutError as e:
            raise ServiceError("the service does not answer") from e
        if not reply:
            raise ServiceError("the service closed the connection")
        if len(reply) < MSG_SIZE:
            raise ServiceError(f"reply of {len(reply)} bytes, expected {MSG_SIZE}: another version?")
        magic, rop, _, seq, err = HEADER.unpack_from(reply)
        if magic != MAGIC or rop != op or seq != self._seq:
            raise ServiceError(f"reply with magic {magic:#x}, operation {rop}, sequence {seq}: another version?")
        if err:
            raise ServiceError(os.strerror(-err) if err < 0 else f"refused ({err})")
        return reply

    def ask(self, what: What) -> Any:
        """The JSON text about ``what``, decoded; listings that come in several parts are joined."""
        parts: list[str] = []
        cursor = 0
        while True:
            reply = self._call(OP_ADMIN, ADMIN.pack(what, cursor, 0, 0))
            _, _, cursor, length = ADMIN.unpack_from(reply, HEADER.size)
            parts.append(reply[MSG_SIZE : MSG_SIZE + length].decode())
            if not cursor:
                break
        try:
            return _join(parts)
        except ValueError as e:
            raise ServiceError(f"the service's answer is no JSON: {e}") from e

    def shutdown(self) -> None:
        """Ends the service."""
        try:
            self._call(OP_SHUTDOWN)
        except ConnectionError:
            return
        except ServiceError as e:
            if "closed" not in str(e):
                raise

    def wait_hangup(self, timeout: float) -> bool:
        """True once the service has closed this connection, False after ``timeout`` seconds."""
        self._sock.settimeout(timeout)
        try:
            return self._sock.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


def _join(parts: list[str]) -> Any:
    if len(parts) == 1:
        return json.loads(parts[0])
    try:
        values = [json.loads(p) for p in parts]
    except ValueError:
        return json.loads("".join(parts))
    if all(isinstance(v, list) for v in values):
        return [item for v in values for item in v]
    return values[-1]
