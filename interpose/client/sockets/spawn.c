/* SPDX-License-Identifier: MIT */
/*
 * Sockets that leave the library's sight: exec, spawn, SCM_RIGHTS.  The service is given their backing descriptors, and
 * takes the kernel's last close of those for the last close of the socket.
 */
#include <string.h>

#include "sockets/sock.h"

struct batch {
	struct tas_session *ss;
	uint32_t id[TAS_MSG_FDS_MAX];
	int fd[TAS_MSG_FDS_MAX];
	struct tas_obj *o[TAS_MSG_FDS_MAX]; /* each has a number, or a reference of the caller's */
	unsigned n;
	int err; /* the first failure */
};

static void flush(struct batch *b)
{
	struct tas_msg m = {0};
	int r;

	if (!b->n || !b->ss)
		return;
	m.u.watch.n = b->n;
	memcpy(m.u.watch.id, b->id, b->n * sizeof b->id[0]);
	r = tas__ask(b->ss, &m, TAS_MSG_WATCH, b->fd, b->n);
	for (unsigned i = 0; r < 0 && i < b->n; i++) /* to be tried again the next time */
		atomic_fetch_and(&b->o[i]->flags, ~(uint32_t)TAS_OF_WATCHED);
	b->err = b->err ? b->err : r;
	b->n = 0;
}

/* Under the table lock. */
static void add(struct batch *b, struct tas_obj *o, int fd)
{
	tas__opts_settle(o, fd);
	if (atomic_load(&o->kind) == TAS_OBJ_PLAIN || !tas__alive(o->ss))
		return;
	if (atomic_fetch_or(&o->flags, TAS_OF_WATCHED | TAS_OF_SHARED) & TAS_OF_WATCHED)
		return;
	tas__pool_part(o);
	if (b->ss != o->ss || b->n == TAS_MSG_FDS_MAX) {
		flush(b);
		b->ss = o->ss;
	}
	b->id[b->n] = o->id;
	b->o[b->n] = o;
	b->fd[b->n++] = fd;
}

/* Calls fn for every TAS number of the process, under the table lock, until it says true. */
static bool each_number(bool (*fn)(struct tas_obj *o, int fd, void *arg), void *arg)
{
	uint32_t high = atomic_load(&tas__high);
	bool stop = false;

	for (uint32_t fd = 0; fd < high && !stop; fd++) {
		struct tas_entry *e;

		if (tas__state((int)fd) != TAS_FD_TAS)
			continue;
		e = tas__entry((int)fd);
		struct tas_obj *o = e ? atomic_load(&e->p) : NULL;

		stop = o && fn(o, (int)fd, arg);
	}
	return stop;
}

static bool watch_any(struct tas_obj *o, int fd, void *arg)
{
	add(arg, o, fd);
	return false;
}

static bool survives(int fd)
{
	int f = sys_fcntl(fd, F_GETFD, 0);

	return f >= 0 && !(f & FD_CLOEXEC);
}

/* Does an epoll set with members of TAS survive?  keep: the service keeps those that do. */
static bool sets_survive(bool keep)
{
	uint32_t high = atomic_load(&tas__high);
	bool any = false;

	for (uint32_t fd = 0; fd < high; fd++) {
		if (tas__state((int)fd) != TAS_FD_EPOLL || !tas__ep_has_members((int)fd) || !survives((int)fd))
			continue;
		any = true;
		if (keep)
			tas__ep_passed((int)fd);
	}
	return any;
}

static bool watch_surviving(struct tas_obj *o, int fd, void *arg)
{
	if (survives(fd))
		add(arg, o, fd);
	return false;
}

static bool is_surviving(struct tas_obj *o, int fd, void *arg)
{
	(void)o;
	(void)arg;
	return survives(fd);
}

static bool is_any(struct tas_obj *o, int fd, void *arg)
{
	(void)o;
	(void)fd;
	(void)arg;
	return true;
}

static void watch_all(bool (*which)(struct tas_obj *, int, void *))
{
	struct batch b = {.n = 0};
	uint64_t mask;

	if (!tas__ever_attached())
		return;
	mask = tas__table_lock();
	each_number(which, &b);
	flush(&b);
	tas__table_unlock(mask);
}

void tas_before_spawn(void)
{
	watch_all(watch_any);
}

void tas_before_exec(void)
{
	struct tas_session *ss;
	struct tas_msg m = {0};

	watch_all(watch_surviving);
	if (tas__ever_attached())
		sets_survive(true);
	ss = tas__session_get();
	if (!ss)
		return;
	tas__ask(ss, &m, TAS_MSG_EXEC_BEGIN, NULL, 0);
	tas__session_put(ss);
}

void tas_exec_failed(void)
{
	struct tas_session *ss = tas__session_get();
	struct tas_msg m = {0};

	if (!ss)
		return;
	tas__ask(ss, &m, TAS_MSG_EXEC_FAILED, NULL, 0);
	tas__session_put(ss);
}

static bool has(bool (*which)(struct tas_obj *, int, void *))
{
	uint64_t mask;
	bool r;

	if (!tas__ever_attached())
		return false;
	mask = tas__table_lock();
	r = each_number(which, NULL);
	tas__table_unlock(mask);
	return r || sets_survive(false);
}

bool tas_exec_keeps_sockets(void)
{
	return has(is_surviving);
}

bool tas_has_sockets(void)
{
	return has(is_any);
}

/* ---- without the interposer ---- */
void tas__watch_too(struct tas_obj *o, int fd)
{
	struct tas_msg m = {.u.watch = {.n = 1, .id = {o->id}, .flags = TAS_WATCH_TOO | TAS_WATCH_SILENT}};

	if (tas__trusted)
		return;
	atomic_fetch_or(&o->flags, TAS_OF_WATCHED_TOO);
	/* nobody waits for the service: a descriptor that is closed meanwhile has its last close when the service drops its own */
	tas__tell_fd(atomic_load(&o->ss->ctl), &m, TAS_MSG_WATCH, fd);
}

void tas__watch_not(struct tas_obj *o)
{
	struct tas_msg m = {.u.watch = {.n = 1, .id = {o->id}, .flags = TAS_WATCH_NOT}};

	if (atomic_fetch_and(&o->flags, ~(uint32_t)TAS_OF_WATCHED_TOO) & TAS_OF_WATCHED_TOO)
		tas__ask(o->ss, &m, TAS_MSG_WATCH, NULL, 0);
}

/* ---- SCM_RIGHTS ---- */
static void each_right(const struct msghdr *m, void (*fn)(int fd, void *arg), void *arg)
{
	struct msghdr h = *m;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			fn(fd, arg);
		}
	}
}

static void watch_right(int fd, void *arg)
{
	struct tas_obj *o;
	struct batch *b = arg;
	uint64_t mask;

	if (tas__state(fd) == TAS_FD_EPOLL)
		tas__ep_passed(fd);
	if (tas__state(fd) != TAS_FD_TAS)
		return;
	o = tas__obj_get(fd);
	if (!o)
		return;
	mask = tas__table_lock();
	add(b, o, fd);
	tas__table_unlock(mask);
	flush(b); /* while o is referenced */
	tas__obj_put(o);
}

int tas__watch_passed(const struct msghdr *m)
{
	struct batch b = {.n = 0};

	if (tas__ever_attached())
		each_right(m, watch_right, &b);
	/*
	 * Without a watch nobody would know of the last close while it is on its way: it would end at once, or never.  What the
	 * service does not have (a listener that was shut) is the kernel's alone.
	 */
	return b.err < 0 && b.err != -ENOENT && b.ss && tas__alive(b.ss) ? -ENOBUFS : 0;
}

static void forget_right(int fd, void *arg)
{
	(void)arg;
	tas__forget(fd, TAS_FD_UNKNOWN);
}

void tas__note_received(const struct msghdr *m)
{
	each_right(m, forget_right, NULL);
}

/* ---- seccomp, namespaces ---- */
/* What was direct lies in our own memory, and is known, while that can still be asked for. */
static void come_home(void)
{
	uint32_t high = atomic_load(&tas__high);

	for (uint32_t fd = 0; fd < high; fd++) {
		struct tas_obj *o = tas__state((int)fd) == TAS_FD_TAS ? tas__obj_get((int)fd) : NULL;

		if (!o)
			continue;
		if (atomic_load(&o->kind) == TAS_OBJ_CONN) {
			tas__block(o);
			if (atomic_load(&o->number) && tas__ordinary(o))
				tas__block(o);
		}
		tas__obj_put(o);
	}
}

void tas_confining(void)
{
	struct tas_session *ss = tas__session_get();
	struct tas_msg m = {0};

	if (!ss)
		return;
	tas__ask(ss, &m, TAS_MSG_MAIL_END, NULL, 0);
	come_home();
	tas__session_put(ss);
}

uint32_t tas_before_filter(const struct sock_fprog *prog)
{
	uint32_t forbidden = tas__filter_forbids(prog), high = atomic_load(&tas__high);
	struct tas_session *ss = forbidden && tas__ever_attached() ? tas__session_get() : NULL;
	struct tas_waiter w;
	struct tas_obj *o;

	if (!ss)
		return forbidden;
	for (uint32_t fd = 0; fd < high; fd++) {
		if (tas__state((int)fd) == TAS_FD_UNKNOWN)
			tas__recognise((int)fd);
		o = tas__state((int)fd) == TAS_FD_TAS ? tas__obj_get((int)fd) : NULL;
		if (o) {
			tas__obj_before_filter(o, (int)fd);
			tas__obj_put(o);
		}
	}
	if (tas__waiter_get(ss, false, &w) == 0) /* it stays open */
		tas__waiter_put(&w);
	if (forbidden & (1u << TAS_MAY_ASK | 1u << TAS_MAY_OPEN))
		tas_confining(); /* what it cannot ask for by system calls it cannot ask for by memory either */
	tas__session_put(ss);
	return forbidden;
}

void tas_filter_set(uint32_t forbidden)
{
	tas__forbid(forbidden);
}
