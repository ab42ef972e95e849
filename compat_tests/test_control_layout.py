"""The numbers in tas_sockets/_control.py are those of the C headers."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from _lab import ROOT

from tas_sockets import _control

PROGRAM = r"""
#include <stdio.h>
#include "abi/tas_msg.h"
#define N(name, value) printf("%s\"%s\": %llu", sep, name, (unsigned long long)(value)), sep = ", "
int main(void)
{
	const char *sep = "{";
	N("magic", TAS_ABI_MAGIC);
	N("size", sizeof(struct tas_msg));
	N("text_max", TAS_MSG_TEXT_MAX);
	N("abi_min", TAS_ABI_MIN);
	N("abi_max", TAS_ABI_MAX);
	N("at_magic", offsetof(struct tas_msg, magic));
	N("at_op", offsetof(struct tas_msg, op));
	N("at_n_fds", offsetof(struct tas_msg, n_fds));
	N("at_seq", offsetof(struct tas_msg, seq));
	N("at_err", offsetof(struct tas_msg, err));
	N("at_what", offsetof(struct tas_msg, u.admin.what));
	N("at_cursor", offsetof(struct tas_msg, u.admin.cursor));
	N("at_more", offsetof(struct tas_msg, u.admin.more));
	N("at_text_len", offsetof(struct tas_msg, u.admin.text_len));
	N("op_admin", TAS_MSG_ADMIN);
	N("op_shutdown", TAS_MSG_SHUTDOWN);
	N("status", TAS_ADMIN_STATUS);
	N("conns", TAS_ADMIN_CONNS);
	N("stats", TAS_ADMIN_STATS);
	N("procs", TAS_ADMIN_PROCS);
	N("raw", TAS_ADMIN_RAW);
	printf("}\n");
	fprintf(stderr, "%s", TAS_SOCKET_DEFAULT);
	return 0;
}
"""


def test_tools_and_service_agree_on_the_layout_of_messages(tmp_path: Path) -> None:
    (tmp_path / "layout.c").write_text(PROGRAM)
    built = ["gcc", "-std=gnu11", f"-I{ROOT}/fastpath", "-o", str(tmp_path / "layout"), str(tmp_path / "layout.c")]
    subprocess.run(built, check=True)
    run = subprocess.run([str(tmp_path / "layout")], check=True, capture_output=True, text=True)
    what = _control.What
    assert json.loads(run.stdout) == {
        "magic": _control.MAGIC,
        "size": _control.MSG_SIZE,
        "text_max": _control.TEXT_MAX,
        "abi_min": _control.ABI_MIN,
        "abi_max": _control.ABI_MAX,
        # HEADER <IHHIi and, behind it, ADMIN <IIII
        "at_magic": 0,
        "at_op": 4,
        "at_n_fds": 6,
        "at_seq": 8,
        "at_err": 12,
        "at_what": _control.HEADER.size,
        "at_cursor": _control.HEADER.size + 4,
        "at_more": _control.HEADER.size + 8,
        "at_text_len": _control.HEADER.size + 12,
        "op_admin": _control.OP_ADMIN,
        "op_shutdown": _control.OP_SHUTDOWN,
        "status": what.STATUS,
        "conns": what.CONNS,
        "stats": what.STATS,
        "procs": what.PROCS,
        "raw": what.RAW,
    }
    assert run.stderr == _control.SOCKET_DEFAULT


def answers(sock: socket.socket, texts: list[str]) -> None:
    """A service that gives ``texts`` one by one, as its cursor says."""
    conn, _ = sock.accept()
    with conn:
        while request := conn.recv(1000):
            magic, op, _, seq, _ = _control.HEADER.unpack_from(request)
            what, cursor, _, _ = _control.ADMIN.unpack_from(request, _control.HEADER.size)
            text = texts[cursor].encode()
            more = cursor + 1 if cursor + 1 < len(texts) else 0
            head = _control.HEADER.pack(magic, op, 0, seq, 0) + _control.ADMIN.pack(what, cursor, more, len(text))
            conn.send(head.ljust(_control.MSG_SIZE, b"\0") + text)


@pytest.mark.parametrize(
    ("texts", "want"),
    [
        (['{"a": 1}'], {"a": 1}),
        (["[1, 2]", "[]", "[3]"], [1, 2, 3]),
        (["[1, ", "2]"], [1, 2]),
    ],
)
def test_listings_in_parts_are_joined(tmp_path: Path, texts: list[str], want: object) -> None:
    path = str(tmp_path / "fake.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen()
        thread = threading.Thread(target=answers, args=(server, texts))
        thread.start()
        with _control.Control(path) as control:
            assert control.ask(_control.What.CONNS) == want
        thread.join()
