"""Builds ``tas_sockets._tas``: the client library compiled into one extension (cffi, API mode).

The extension is self-contained: it needs no libtas_sockets.so at run time, and exports only its init function.
setuptools runs this through ``cffi_modules`` of setup.py; by hand: ``python -m tas_sockets._build_ffi`` builds in
place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import cffi  # type: ignore[import-untyped,unused-ignore]

ROOT = Path(__file__).resolve().parent.parent
CLIENT = "interpose/client"

CDEF = """
#define GLUE_TIMEOUT ...
struct glue_addr { int family; unsigned port, flow, scope; unsigned char ip[16]; ...; };
struct iovec { void *iov_base; size_t iov_len; ...; };
struct msghdr { void *msg_name; unsigned msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
	void *msg_control; size_t msg_controllen; int msg_flags; ...; };
struct pollfd { int fd; short events; short revents; ...; };
struct epoll_event { uint32_t events; ...; };

int glue_made(int fd);
int glue_look(int fd);
ssize_t glue_recv(int fd, void *buf, size_t n, int flags, int64_t deadline);
ssize_t glue_send(int fd, const char *buf, size_t n, int flags, int64_t deadline);
ssize_t glue_send_at(int fd, const char *buf, size_t off, size_t n, int flags, int64_t deadline);
ssize_t glue_sendto(int fd, const char *buf, size_t n, int flags, const struct glue_addr *to, int64_t deadline);
ssize_t glue_recvmsg(int fd, struct msghdr *m, int flags, int64_t deadline);
ssize_t glue_sendmsg(int fd, const struct msghdr *m, int flags, int64_t deadline);
ssize_t glue_sendfile(int fd, int in, int64_t off, size_t n, int64_t deadline);
int glue_accept(int fd, struct glue_addr *from, int64_t deadline);
int glue_bind(int fd, const struct glue_addr *a);
int glue_connect(int fd, const struct glue_addr *a);
int glue_connected(int fd, int64_t deadline);
int glue_getname(int fd, int peer, struct glue_addr *a);
int glue_nonblock(int fd);
void glue_announce(int fd);
int glue_select(int *r, int nr, int *w, int nw, int *x, int nx, int64_t timeout_ns);
int glue_poll(struct pollfd *p, int n, int64_t timeout_ns);
int glue_epoll_wait(int ep, struct epoll_event *ev, int max, int64_t timeout_ns);
int glue_epoll_ctl(int ep, int op, int fd, uint32_t events);
uint32_t glue_event_events(const struct epoll_event *ev, int i);
int glue_event_fd(const struct epoll_event *ev, int i);

int tas_attach(void);
bool tas_attached(void);
int tas_listen(int fd, int backlog);
int tas_shutdown(int fd, int how);
int tas_close(int fd);
int tas_dup(int fd);
int tas_fcntl(int fd, int cmd, unsigned long arg);
int tas_getsockopt(int fd, int level, int name, void *val, unsigned *len);
int tas_setsockopt(int fd, int level, int name, const char *val, unsigned len);
int tas_epoll_create1(int flags);
void tas_note_close(int fd);
void tas_note_unknown(int fd);
void tas_before_spawn(void);
void tas_before_exec(void);
void tas_exec_failed(void);
"""


BY_HAND = __name__ == "__main__"


def place(path: str) -> str:
    """setuptools wants paths relative to the project, cffi's own compiler absolute ones."""
    return str(ROOT / path) if BY_HAND else path


def sources() -> list[str]:
    """C files of the extension."""
    client = sorted(
        p.relative_to(ROOT).as_posix() for d in ("lowlevel", "sockets") for p in (ROOT / CLIENT / d).glob("*.c")
    )
    return [place(p) for p in ("tas_sockets/_glue.c", *client)]


ffibuilder = cffi.FFI()
ffibuilder.cdef(CDEF)
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
