"""Builds ``tas_sockets._tas``: the client library compiled into one extension (cffi, API mode).

The extension is self-contained: it needs no libtas_sockets.so at run time, and exports only its init functions, one
of cffi's and one of ``_fast.c``.
setuptools runs this through ``cffi_modules`` of setup.py; by hand: ``python -m tas_sockets._build_ffi`` builds in
place.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import cffi  # type: ignore[import-untyped,unused-ignore]

ROOT = Path(__file__).resolve().parent.parent
CLIENT = "interpose/client"

# Of the client library, by name; the declarations are its headers' own.
CLIENT_CALLS = (
    "tas_attach",
    "tas_attached",
    "tas_before_exec",
    "tas_before_spawn",
    "tas_close",
    "tas_close_range",
    "tas_dup2",
    "tas_dup3",
    "tas_epoll_create1",
    "tas_fcntl",
    "tas_getsockopt",
    "tas_ioctl",
    "tas_listen",
    "tas_note_close",
    "tas_note_unknown",
    "tas_setsockopt",
    "tas_shutdown",
)
# The system's types, as far as Python fills or reads their fields.
SYSTEM = """
typedef unsigned socklen_t;
struct iovec { void *iov_base; size_t iov_len; ...; };
struct msghdr { void *msg_name; unsigned msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
	void *msg_control; size_t msg_controllen; int msg_flags; ...; };
struct pollfd { int fd; short events; short revents; ...; };
"""


def declarations() -> str:
    """What cffi is told: _glue.h between its marks, and the client library's calls from its headers."""
    glue = (ROOT / "tas_sockets/_glue.h").read_text().split("/* cffi:")[1].partition("*/")[2]
    headers = "".join((ROOT / CLIENT / h).read_text() for h in ("tas.h", "tas_sockets.h"))
    calls = []
    for name in CLIENT_CALLS:
        found = re.search(rf"^TAS_\w+ ([\w ]+\b{name}\([^;]*\);)$", headers, re.M)
        if not found:
            raise SystemExit(f"{name} is not declared in {CLIENT}")
        calls.append(found[1])
    return "\n".join((SYSTEM, glue, *calls))


BY_HAND = __name__ == "__main__"


def place(path: str) -> str:
    """setuptools wants paths relative to the project, cffi's own compiler absolute ones."""
    return str(ROOT / path) if BY_HAND else path


def sources() -> list[str]:
    """C files of the extension."""
    client = sorted(
        p.relative_to(ROOT).as_posix() for d in ("lowlevel", "sockets") for p in (ROOT / CLIENT / d).glob("*.c")
    )
    return [place(p) for p in ("tas_sockets/_glue.c", "tas_sockets/_fast.c", *client)]


ffibuilder = cffi.FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "tas_sockets._tas",
    '#include "_glue.h"',
    sources=sources(),
    include_dirs=[place(p) for p in ("tas_sockets", "fastpath", CLIENT)],
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=[
        *(
            "-std=gnu11",
            "-O2",
            "-g",
            "-fno-strict-aliasing",
            "-fvisibility=hidden",
            "-ftls-model=initial-exec",
            "-pthread",
        ),
        *(["-fsanitize=" + os.environ["SAN"]] if os.environ.get("SAN") else []),
    ],
    extra_link_args=["-pthread", "-Wl,--version-script=" + str(ROOT / "tas_sockets" / "_exports.map")],
    py_limited_api=False,
)

if BY_HAND:
    with tempfile.TemporaryDirectory() as tmp:
        built = Path(ffibuilder.compile(tmpdir=tmp))
        here = ROOT / "tas_sockets" / built.name
        shutil.copy(built, here)
    print(here)
