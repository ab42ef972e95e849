/* SPDX-License-Identifier: MIT */
/*
 * poll and select.  Without a TAS socket among the descriptors: the kernel with the caller's arguments.  Otherwise TAS
 * sockets are looked at here, everything else by the real ppoll on a copy of the array in which TAS connections are
 * left out (listeners stay, for their kernel half), with a wait set's eventfd and the control socket at its end.
 */
#include <string.h>

#include "sockets/sock.h"

enum { ON_STACK = 128, WAKE = 0, CONTROL = 1, OWN = 2, BLIND_NS = 2000000 };

struct job {
	struct pollfd *user;
	struct pollfd *k; /* n + OWN */
	struct tas_obj **o; /* n; NULL: the kernel's business */
	nfds_t n;
	bool kernel; /* any descriptor for the kernel */
	bool sets; /* an epoll set */
	bool near; /* a connection whose other end may be ours as well */
	bool orphan; /* a listener whose service is dead */
	struct tas_waiter w; /* w.ss NULL: none */
	struct tas_sig_mark sig; /* at the entry of the call */
	bool subscribed;
	bool blind; /* nobody wakes us: look now and then */
};

static void put_objs(struct job *j)
{
	for (nfds_t i = 0; i < j->n; i++)
		if (j->o[i])
			tas__obj_put(j->o[i]);
}

/* Fills the copies. */
static void prepare(struct job *j)
{
	for (nfds_t i = 0; i < j->n; i++) {
		int fd = j->user[i].fd;
		struct tas_obj *o = fd < 0 ? NULL : tas__obj_get(fd);

		if (o && atomic_load_explicit(&o->kind, memory_order_acquire) == TAS_OBJ_PLAIN && !atomic_load(&o->so_error)) {
			tas__obj_put(o);
			o = NULL;
		}
		if (o && atomic_load(&o->kind) == TAS_OBJ_LISTEN && tas__listener_revive(o, fd)) {
			tas__obj_put(o);
			o = tas__obj_get(fd);
		}
		j->o[i] = o;
		j->k[i] = (struct pollfd){.fd = fd, .events = j->user[i].events};
		if (fd >= 0 && tas__state(fd) == TAS_FD_INTERNAL)
			j->k[i].fd = INT32_MAX; /* POLLNVAL: not the program's */
		else if (fd >= 0 && tas__state(fd) == TAS_FD_EPOLL)
			tas__ep_expose(fd);
		j->sets |= fd >= 0 && tas__state(fd) == TAS_FD_EPOLL;
		j->near |= o && tas__obj_near(o);
		if (o && atomic_load(&o->kind) == TAS_OBJ_CONN)
			j->k[i].fd = -1;
		else if (fd >= 0)
			j->kernel = true;
		if (o && atomic_load(&o->kind) == TAS_OBJ_LISTEN && !tas__alive(o->ss))
			j->orphan = true;
	}
	for (int i = 0; i < OWN; i++)
		j->k[j->n + (nfds_t)i] = (struct pollfd){.fd = -1, .events = i == WAKE ? POLLIN : 0};
}

static int look(struct job *j)
{
	int ready = 0;

	for (nfds_t i = 0; i < j->n; i++) {
		short r = 0;

		if (j->o[i])
			r = (short)(tas__obj_ready(j->o[i]) &
				    ((uint32_t)(uint16_t)j->user[i].events | POLLERR | POLLHUP));
		j->user[i].revents = r;
		ready += r != 0;
	}
	return ready;
}

/* Adds what the kernel said. */
static int merge(struct job *j)
{
	int ready = 0;

	for (nfds_t i = 0; i < j->n; i++) {
		if (j->k[i].fd != -1)
			j->user[i].revents |= j->k[i].revents;
		ready += j->user[i].revents != 0;
	}
	return ready;
}

/* What the kernel says of an epoll set is what its TAS members say. */
static void refresh_sets(struct job *j)
{
	for (nfds_t i = 0; j->sets && i < j->n; i++)
		if (j->user[i].fd >= 0 && tas__state(j->user[i].fd) == TAS_FD_EPOLL)
			tas__ep_refresh(j->user[i].fd);
}

static int poll_kernel_now(struct job *j, const sigset_t *mask)
{
	struct timespec none = {0, 0};
	int r;

	refresh_sets(j);
	r = j->kernel || mask ? sys_ppoll(j->k, j->n, &none, mask) : 0;
	if (r <= 0 || !j->sets)
		return r;
	/* another process may have made a set's memory meanwhile; the service may have rung for what makes no member ready */
	for (nfds_t i = 0; i < j->n; i++)
		if ((j->k[i].revents & POLLIN) && tas__state(j->user[i].fd) == TAS_FD_EPOLL)
			tas__ep_recall(j->user[i].fd);
	refresh_sets(j);
	return sys_ppoll(j->k, j->n, &none, NULL);
}

/* Subscribes to every TAS socket; false: not possible, look now and then. */
static bool subscribe(struct job *j)
{
	for (nfds_t i = 0; i < j->n; i++) {
		struct tas_obj *o = j->o[i];

		if (!o || !o->ss || !tas__alive(o->ss))
			continue;
		if (!j->w.ss && tas__waiter_get(o->ss, false, &j->w) < 0)
			return false;
		if (o->ss == j->w.ss && tas__obj_subscribe(&j->w, o, false) < 0)
			return false;
	}
	return true;
}

static void unsubscribe(struct job *j)
{
	if (!j->w.ss)
		return;
	for (nfds_t i = 0; i < j->n; i++)
		if (j->o[i] && j->o[i]->ss && j->o[i]->ss == j->w.ss)
			tas__obj_unsubscribe(&j->w, j->o[i]);
	tas__waiter_put(&j->w);
}

/* One sleep.  Like sys_ppoll on the whole. */
static int sleep_once(struct job *j, uint64_t end, const sigset_t *mask)
{
	struct pollfd *own = j->k + j->n;
	uint64_t cap = j->orphan ? TAS_REVIVE_MS * 1000000ull : UINT64_MAX;
	struct timespec ts;
	nfds_t n = j->n;
	int r;

	if (!j->subscribed) {
		j->subscribed = true;
		j->blind = !subscribe(j);
		if (j->w.ss) {
			own[WAKE].fd = j->w.fd;
			own[CONTROL].fd = atomic_load(&j->w.ss->ctl);
		}
	}
	if (j->w.ss)
		tas__waiter_arm(&j->w);
	if (look(j))
		return 0;
	if (j->blind)
		cap = BLIND_NS;
	else
		n += OWN;
	r = tas__ppoll(j->k, n, tas__left(end, cap, &ts), mask, j->sig, false, own[WAKE].fd);
	if (r == -EINVAL && !j->blind) { /* RLIMIT_NOFILE has no room for ours */
		j->blind = true;
		return 0;
	}
	if (r > 0 && own[WAKE].revents)
		tas__waiter_drain(&j->w);
	if (r > 0 && (own[CONTROL].revents & (POLLHUP | POLLERR)) && j->w.ss)
		tas__session_died(j->w.ss);
	return r;
}

static void revive_orphans(struct job *j)
{
	for (nfds_t i = 0; j->orphan && i < j->n; i++) {
		struct tas_obj *o = j->o[i];

		if (!o || atomic_load(&o->kind) != TAS_OBJ_LISTEN || !tas__listener_revive(o, j->user[i].fd))
			continue;
		tas__obj_put(o);
		j->o[i] = tas__obj_get(j->user[i].fd);
		unsubscribe(j);
		j->subscribed = false;
		j->k[j->n + WAKE].fd = j->k[j->n + CONTROL].fd = -1;
	}
}

static struct tas_session *live_session(struct job *j)
{
	for (nfds_t i = 0; i < j->n; i++)
		if (j->o[i] && j->o[i]->ss && tas__alive(j->o[i]->ss))
			return j->o[i]->ss;
	return NULL;
}

static int run(struct job *j, uint64_t end, const sigset_t *mask)
{
	struct tas_session *ss = live_session(j);
	struct tas_spin spin = {0};
	uint64_t active = 0;
	int r;

	for (nfds_t i = 0; i < j->n; i++) {
		uint64_t a = j->o[i] ? atomic_load_explicit(&j->o[i]->active, memory_order_relaxed) : 0;

		if (a > active)
			active = a;
	}
	for (;;) {
		bool now = !end || (end != UINT64_MAX && tas__now() >= end);
		int ready = look(j);

		if (!ready && now && j->near && ss && tas__settle(ss))
			ready = look(j);
		r = poll_kernel_now(j, ready || now ? mask : NULL);
		if (r < 0 && !ready)
			return r;
		ready = r > 0 ? merge(j) : ready;
		if (ready || now)
			return ready;
		if (tas__sig_came(j->sig, false))
			return -EINTR;
		if (ss && tas__spin(ss, &spin, active))
			continue;
		r = sleep_once(j, end, mask);
		if (r < 0)
			return r;
		revive_orphans(j);
	}
}

/* Any TAS socket, epoll set or internal number among them? */
static bool ours(const struct pollfd *fds, nfds_t n)
{
	for (nfds_t i = 0; i < n; i++) {
		uint8_t st;

		if (fds[i].fd < 0)
			continue;
		st = tas__state(fds[i].fd);
		if (st == TAS_FD_UNKNOWN)
			st = (uint8_t)tas__recognise(fds[i].fd);
		if (st == TAS_FD_TAS || st == TAS_FD_EPOLL || st == TAS_FD_INTERNAL ||
		    (st == TAS_FD_PLAIN && (atomic_load_explicit(&tas__plain_errors, memory_order_relaxed) ||
					    atomic_load_explicit(&tas__connecting, memory_order_relaxed))))
			return true;
	}
	return false;
}

static int poll_ours(struct pollfd *fds, nfds_t n, uint64_t end, const sigset_t *mask)
{
	struct pollfd k[ON_STACK + OWN];
	struct tas_obj *o[ON_STACK];
	struct job j = {.user = fds, .n = n, .k = k, .o = o, .sig = tas__sig_mark()};
	size_t size = 0;
	int r;

	if (n > ON_STACK) {
		size = (n + OWN) * (sizeof *k + sizeof *o);
		j.o = sys_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		if (!j.o)
			return -ENOMEM;
		j.k = (struct pollfd *)(j.o + n + OWN);
	}
	prepare(&j);
	r = run(&j, end, mask);
	unsubscribe(&j);
	put_objs(&j);
	if (size)
		sys_munmap(j.o, size);
	return r;
}

static uint64_t end_of(const struct timespec *timeout)
{
	return timeout && !timeout->tv_sec && !timeout->tv_nsec ? 0 : tas__deadline(timeout);
}

static bool bad_time(const struct timespec *t)
{
	return t && (t->tv_sec < 0 || (unsigned long)t->tv_nsec > 999999999);
}

int tas_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	struct timespec ts;
	struct rlimit rl = {0, 0};

	if (!fds || bad_time(timeout) || (mask && tas__wild(mask)) || !ours(fds, n)) {
		if (timeout)
			ts = *timeout;
		return (int)tas__sleep5(SYS_ppoll, SYS_P(fds), n, timeout ? SYS_P(&ts) : 0, SYS_P(mask), 8);
	}
	if (tas__may(TAS_MAY_PRLIMIT) && sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, SYS_P(&rl)) == 0 && n > rl.rlim_cur)
		return -EINVAL;
	return poll_ours(fds, n, end_of(timeout), mask);
}

/* ---- select ---- */
#define SET_IN (POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR)
#define SET_OUT (POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR)
#define SET_EX POLLPRI

/* fd_set by words: numbers beyond FD_SETSIZE are allowed when the caller's memory is that large, as in the kernel. */
static bool set_has(const fd_set *s, int fd)
{
	return s && (((const unsigned long *)s)[fd / 64] >> (fd % 64) & 1);
}

static void set_clear_to(fd_set *s, int n)
{
	if (s)
		memset(s, 0, ((size_t)n + 63) / 64 * 8);
}

static void set_add(fd_set *s, int fd)
{
	((unsigned long *)s)[fd / 64] |= 1ul << (fd % 64);
}

static nfds_t gather(int n, const fd_set *r, const fd_set *w, const fd_set *e, struct pollfd *p)
{
	nfds_t k = 0;

	for (int fd = 0; fd < n; fd++) {
		short ev = (short)((set_has(r, fd) ? POLLIN | POLLRDNORM | POLLRDBAND : 0) |
				   (set_has(w, fd) ? POLLOUT | POLLWRNORM | POLLWRBAND : 0) |
				   (set_has(e, fd) ? POLLPRI : 0));

		if (!ev)
			continue;
		if (p)
			p[k] = (struct pollfd){.fd = fd, .events = ev};
		k++;
	}
	return k;
}

static int scatter(int n, fd_set *r, fd_set *w, fd_set *e, const struct pollfd *p, nfds_t k)
{
	int count = 0;

	for (nfds_t i = 0; i < k; i++)
		if (p[i].revents & POLLNVAL)
			return -EBADF;
	set_clear_to(r, n);
	set_clear_to(w, n);
	set_clear_to(e, n);
	for (nfds_t i = 0; i < k; i++) {
		if ((p[i].events & POLLIN) && (p[i].revents & SET_IN)) {
			set_add(r, p[i].fd);
			count++;
		}
		if ((p[i].events & POLLOUT) && (p[i].revents & SET_OUT)) {
			set_add(w, p[i].fd);
			count++;
		}
		if ((p[i].events & POLLPRI) && (p[i].revents & SET_EX)) {
			set_add(e, p[i].fd);
			count++;
		}
	}
	return count;
}

static int select_raw(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout, const sigset_t *mask)
{
	struct timespec ts;
	struct {
		const sigset_t *mask;
		size_t len;
	} m = {mask, 8};

	if (timeout)
		ts = *timeout;
	return (int)tas__sleep6(SYS_pselect6, n, SYS_P(r), SYS_P(w), SYS_P(e), timeout ? SYS_P(&ts) : 0, SYS_P(&m));
}

/* Does the kernel's table reach to a number that is not open?  It leaves alone what lies beyond. */
static bool kernel_knows(int fd)
{
	size_t size = ((size_t)fd / 64 + 1) * 8;
	fd_set *set = sys_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct timespec none = {0, 0};
	int r;

	if (!set)
		return true;
	set_add(set, fd);
	r = select_raw(fd + 1, set, NULL, NULL, &none, NULL);
	sys_munmap(set, size);
	return r == -EBADF;
}

/* select refuses a closed number before it waits; of those behind the end of the kernel's table it says nothing, nor does
 * it write to their part of the sets. */
static nfds_t open_ones(int *n, const struct pollfd *p, nfds_t k, int *err)
{
	*err = 0;
	for (nfds_t i = 0; i < k; i++) {
		int fd = p[i].fd;

		if (tas__state(fd) == TAS_FD_INTERNAL) {
			*err = -EBADF;
		} else if (tas__may(TAS_MAY_OPEN) && sys_fcntl(fd, F_GETFD, 0) == -EBADF) {
			if (!kernel_knows(fd)) {
				*n = fd & ~63;
				return i;
			}
			*err = -EBADF;
		}
		if (*err)
			break;
	}
	return k;
}

int tas_pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout, const sigset_t *mask)
{
	struct pollfd stack[ON_STACK], *p = stack;
	nfds_t k;
	int ret;

	if (n <= 0 || bad_time(timeout) || (mask && tas__wild(mask)))
		return select_raw(n, r, w, e, timeout, mask);
	if (n > (int)TAS_FD_TABLE_MAX)
		n = TAS_FD_TABLE_MAX;
	k = gather(n, r, w, e, NULL);
	if (k > ON_STACK) {
		p = sys_mmap(NULL, k * sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		if (!p)
			return -ENOMEM;
	}
	gather(n, r, w, e, p);
	if (ours(p, k)) {
		k = open_ones(&n, p, k, &ret);
		if (!ret)
			ret = poll_ours(p, k, end_of(timeout), mask);
		if (ret >= 0)
			ret = scatter(n, r, w, e, p, k);
	} else {
		ret = select_raw(n, r, w, e, timeout, mask);
	}
	if (p != stack)
		sys_munmap(p, k * sizeof *p);
	return ret;
}
