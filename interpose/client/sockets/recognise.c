/* SPDX-License-Identifier: MIT */
/*
 * Numbers that nobody has met yet: what the kernel and the service say of them.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "sockets/sock.h"

static int tcp_state_of(int fd)
{
	uint8_t st = 0;
	socklen_t len = 1;
	int r = sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &st, &len);

	return r < 0 ? r : st;
}

static void state_if_unknown(int fd, enum tas_fd_state st)
{
	uint8_t unknown = TAS_FD_UNKNOWN;

	tas__set_state(fd, (enum tas_fd_state)tas__state(fd)); /* raises the mark of used numbers */
	__atomic_compare_exchange_n(&tas_fd_states[fd], &unknown, (uint8_t)st, false, __ATOMIC_ACQ_REL,
				    __ATOMIC_RELAXED);
}

/* Asks the service.  1: it is a TAS socket and adopted, 0: none, -errno. */
static int resolve(int fd)
{
	struct tas_msg m = {0};
	struct tas_dropped old = {NULL, NULL};
	struct tas_session *ss;
	struct tas_obj *o;
	uint64_t mask;
	int r;

	if (tas__session_attach(&ss) < 0)
		return 0;
	r = tas__ask_until_moved(ss, &m, TAS_MSG_RESOLVE, fd);
	if (r) {
		tas__session_put(ss);
		return r < 0 ? r : 0;
	}
	mask = tas__table_lock();
	tas__session_moved(ss, m.u.sock.set_id);
	o = tas__obj_find(ss, m.u.sock.id, m.u.sock.gen);
	if (!o) {
		o = tas__obj_new(TAS_OBJ_CONN);
		if (o && tas__obj_bind_block(o, ss, &m.u.sock) < 0) {
			tas__ghost_put(o); /* without number and claim so far */
			o = NULL;
		}
		if (o) {
			bool listens = atomic_load(&o->b->s.state) == TAS_S_LISTEN;

			atomic_store(&o->kind, listens ? TAS_OBJ_LISTEN : TAS_OBJ_CONN);
			atomic_store(&o->flags, TAS_OF_BOUND | TAS_OF_SHARED | TAS_OF_CONNECTED | TAS_OF_ANNOUNCED);
			tas__opts_touch_all(o);
			o->backlog = 4096;
		}
	}
	r = o ? tas__number_set(fd, TAS_FD_TAS, o, &old) : -ENOMEM;
	tas__table_unlock(mask);
	tas__drop_done(old);
	tas__session_put(ss);
	return r < 0 ? r : 1;
}

/* The first TAS socket met shows that others came with it: find them all, so that numbers of one socket count together.
 */
static void resolve_all(int but)
{
	static _Atomic bool busy;
	char buf[2048];
	int dir;
	long n;

	if (atomic_exchange(&busy, true))
		return;
	dir = (int)sys4(SYS_openat, AT_FDCWD, SYS_P("/proc/self/fd"), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	while (dir >= 0 && (n = sys3(SYS_getdents64, dir, SYS_P(buf), sizeof buf)) > 0) {
		for (long at = 0; at < n;) {
			struct {
				uint64_t ino, off;
				unsigned short len;
				unsigned char type;
				char name[];
			} *d = (void *)(buf + at);
			int fd = 0;
			const char *c = d->name;

			for (; *c >= '0' && *c <= '9'; c++)
				fd = fd * 10 + (*c - '0');
			if (c != d->name && fd != but && fd != dir && tas__state(fd) == TAS_FD_UNKNOWN)
				tas__recognise(fd);
			at += d->len;
		}
	}
	if (dir >= 0)
		sys_close(dir);
	atomic_store(&busy, false);
}

static int adopt_plain(int fd)
{
	uint64_t mask = tas__table_lock();
	struct tas_dropped old = {NULL, NULL};
	struct tas_obj *o = tas__obj_new(TAS_OBJ_PLAIN);
	int r = -ENOMEM;

	if (o) {
		tas__opts_touch_all(o);
		atomic_store(&o->flags, TAS_OF_SHARED);
		r = tas__number_set(fd, TAS_FD_PLAIN, o, &old);
	}
	tas__table_unlock(mask);
	tas__drop_done(old);
	if (r < 0 && o)
		tas__obj_put(o);
	return r < 0 ? TAS_FD_KERNEL : TAS_FD_PLAIN;
}

int tas__recognise(int fd)
{
	int st;

	if (fd < 0 || (unsigned)fd >= TAS_FD_TABLE_MAX)
		return TAS_FD_UNKNOWN;
	if (!tas__may(TAS_MAY_RECOGNISE)) /* it was looked at before the filter, or is new: made without us */
		return TAS_FD_UNKNOWN;
	st = tcp_state_of(fd);
	if (st == -EBADF)
		return TAS_FD_UNKNOWN;
	if (st == -ENOTSOCK && tas__ep_recognise(fd))
		return TAS_FD_EPOLL;
	if (st != TAS_S_CLOSE && st != TAS_S_LISTEN) { /* no TCP socket, or a connection of the kernel's */
		state_if_unknown(fd, TAS_FD_KERNEL);
		return tas__state(fd);
	}
	if (resolve(fd) == 1) {
		resolve_all(fd);
		return TAS_FD_TAS;
	}
	if (st == TAS_S_CLOSE)
		return adopt_plain(fd);
	state_if_unknown(fd, TAS_FD_KERNEL);
	return tas__state(fd);
}

/* A PLAIN number that was there at a fork or came from elsewhere, and whose kernel socket says that it is not
 * connected: another process may have made it one of TAS.  True: it has become TAS here too. */
int tas__plain_recheck(int fd)
{
	struct tas_obj *o;
	bool shared;

	if (tas__state(fd) != TAS_FD_PLAIN || !tas__ever_attached())
		return 0;
	o = tas__obj_get(fd);
	if (!o)
		return 0;
	shared = atomic_load(&o->kind) == TAS_OBJ_PLAIN && (atomic_load(&o->flags) & TAS_OF_SHARED);
	tas__obj_put(o);
	return shared && resolve(fd) == 1;
}
