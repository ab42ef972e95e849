/* SPDX-License-Identifier: MIT */
/*
 * SIGIO and SIGURG: sockets that tell their owner by a signal (O_ASYNC, F_SETOWN, F_SETSIG).
 *
 * The backing socket stores and checks all of it, as it stores options; what it cannot do is notice.  So a process that sets an
 * owner or O_ASYNC on a TAS socket gets one thread that waits for those sockets' events, on a wait set of its own, and sends
 * the signals, with the rights of the process itself.  It blocks every signal and holds no reference to a socket.
 *
 * A thread may not send si_code > 0 (POLL_IN and so on, SI_KERNEL) to anybody but itself, so signals go out as SI_SIGIO,
 * whose fields are the same, and tas_signal_info() puts the code right where the program is given it.
 *
 * A forked child has no such thread: as long as the process that asked lives, it tells the owner, whoever that is.
 */
#include <limits.h>
#include <string.h>

#include "sockets/sock.h"

struct watch {
	struct tas_obj *o;
	int fd; /* the number that O_ASYNC was set through: si_fd */
	int sig; /* F_SETSIG; 0: SIGIO */
	bool async, gone, due;
	struct f_owner_ex owner;
	uint32_t in, out, flags, error, state;
	uint64_t rx, urg;
	struct watch *next;
};

enum { DRAIN = 64, STACK = 64 << 10 };

/* table lock */
static struct watch **by_id; /* TAS_SOCK_MAX; the watches of the session of w */
static struct watch *all, *spare;
static struct tas_waiter w;
static bool running;
static _Atomic uint32_t changed; /* futex word: w is another */

/* ---- signals ---- */
static const uint32_t bands[] = {
	[POLL_IN] = EPOLLIN | EPOLLRDNORM,
	[POLL_OUT] = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND,
	[POLL_ERR] = EPOLLERR,
	[POLL_PRI] = EPOLLPRI | EPOLLRDBAND,
	[POLL_HUP] = EPOLLHUP | EPOLLERR,
};

static void send_info(const struct f_owner_ex *to, int sig, siginfo_t *info)
{
	long pid = sys0(SYS_getpid);

	if (to->type == F_OWNER_PGRP)
		sys2(SYS_kill, -to->pid, sig);
	else if (to->type == F_OWNER_TID && sys4(SYS_rt_tgsigqueueinfo, pid, to->pid, sig, SYS_P(info)) == 0)
		return;
	else if (to->type == F_OWNER_TID)
		sys2(SYS_tkill, to->pid, sig); /* of another process */
	else
		sys3(SYS_rt_sigqueueinfo, to->pid, sig, SYS_P(info));
}

/* As the kernel does without F_SETSIG: no more than the number. */
static void send_plain(const struct watch *e, int sig)
{
	siginfo_t info = {.si_signo = sig, .si_code = SI_SIGIO};

	info.si_fd = -1;
	if (e->owner.pid)
		send_info(&e->owner, sig, &info);
}

static void notify(struct watch *e, int reason)
{
	siginfo_t info = {.si_signo = e->sig, .si_code = SI_SIGIO};

	if (!e->async || !e->owner.pid)
		return;
	if (!e->sig) {
		e->due = true; /* on Linux signals of one moment are one */
		return;
	}
	info.si_band = bands[reason];
	info.si_fd = e->fd;
	send_info(&e->owner, e->sig, &info);
}

void tas_signal_info(int sig, siginfo_t *info)
{
	if (info->si_code != SI_SIGIO)
		return;
	if (info->si_fd == -1 && !info->si_band) {
		memset(info, 0, sizeof *info);
		info->si_signo = sig;
		info->si_code = SI_KERNEL;
		return;
	}
	/* Linux: signals with codes of their own keep this one */
	if (sig == SIGILL || sig == SIGFPE || sig == SIGSEGV || sig == SIGBUS || sig == SIGTRAP || sig == SIGCHLD || sig == SIGSYS)
		return;
	for (int reason = POLL_IN; reason <= POLL_HUP; reason++)
		if (bands[reason] && (uint32_t)info->si_band == bands[reason])
			info->si_code = reason;
}

/* ---- what happened: under the table lock ---- */
static void look_closely(struct watch *e, bool tell)
{
	struct tas_block *b = tas__block(e->o);
	uint32_t in = atomic_load_explicit(&b->s.ev_in, memory_order_acquire);
	uint32_t out = atomic_load_explicit(&b->s.ev_out, memory_order_acquire);
	uint32_t flags = atomic_load_explicit(&b->s.flags, memory_order_acquire);
	uint32_t error = atomic_load_explicit(&b->s.error, memory_order_acquire);
	uint32_t state = atomic_load_explicit(&b->s.state, memory_order_acquire);
	uint64_t urg = atomic_load_explicit(&b->s.rx_urg, memory_order_acquire);
	uint64_t rx = atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire);
	uint32_t fresh = flags & ~e->flags, shut = atomic_load(&b->a.shut);
	bool gone = !tas__obj_live(e->o), failed = (fresh & TAS_F_RESET) || (gone && !e->gone);
	struct watch was = *e;

	e->in = in;
	e->out = out;
	e->flags = flags;
	e->error = error;
	e->state = state;
	e->rx = rx;
	e->urg = urg;
	e->gone = gone;
	if (!tell)
		return;
	if (urg != was.urg) {
		send_plain(e, SIGURG);
		if (e->sig)
			notify(e, POLL_PRI);
	}
	if (was.state == TAS_S_SYN_SENT && !failed && state != TAS_S_SYN_SENT)
		notify(e, POLL_OUT);
	/* Linux: no signal for data that somebody sleeps for in recv (SOCKWQ_ASYNC_WAITDATA) */
	else if (rx != was.rx && !atomic_load(&b->c.wait_in) &&
		 (tas__obj_ready(e->o) & EPOLLIN || atomic_load(&b->a.rx_consumed) >= rx))
		notify(e, POLL_IN);
	if (failed)
		notify(e, POLL_ERR);
	if (!failed && (fresh & TAS_F_RX_EOF)) { /* Linux: tcp_fin(), then tcp_data_ready() */
		notify(e, (shut & TAS_SHUT_WR) || state == TAS_S_CLOSE ? POLL_HUP : POLL_IN);
		notify(e, POLL_IN);
	}
	/* Linux: only after somebody was refused (SOCKWQ_ASYNC_NOSPACE) */
	if (out != was.out && was.state == state && !fresh && !failed && (tas__obj_ready(e->o) & EPOLLOUT) &&
	    atomic_exchange(&e->o->no_space, false))
		notify(e, POLL_OUT);
}

static void look(struct watch *e, bool tell)
{
	look_closely(e, tell);
	if (e->due)
		send_plain(e, SIGIO);
	e->due = false;
}

static void look_at_news(void)
{
	uint32_t id[DRAIN], n;

	if (!w.ss)
		return;
	do {
		n = tas_bitmap_drain(&w.ss->r->ready[w.index], id, DRAIN);
		for (uint32_t k = 0; k < n; k++)
			if (by_id[id[k]])
				look(by_id[id[k]], true);
	} while (n == DRAIN);
	if (!tas__alive(w.ss))
		for (struct watch *e = all; e; e = e->next)
			look(e, true);
}

/* ---- the thread ---- */
static void sleep_on(const struct tas_waiter *s, bool dead, uint32_t seen)
{
	struct pollfd p[2] = {{.fd = s->fd, .events = POLLIN}, {.fd = -1}};
	struct futex_waitv f = {.val = seen, .uaddr = (uintptr_t)&changed, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG};

	if (!s->ss || dead) {
		sys5(SYS_futex_waitv, SYS_P(&f), 1, 0, 0, 0);
		return;
	}
	p[1].fd = atomic_load(&s->ss->ctl);
	sys_ppoll(p, 2, NULL, NULL);
	if (p[1].revents & (POLLHUP | POLLERR))
		tas__session_died(s->ss);
}

static void *async_main(void *arg)
{
	uint64_t all_but_libc = ~(1ull << 31 | 1ull << 32); /* with the last libc makes all threads change their user */

	tas__signals_restore(all_but_libc);
	for (;;) {
		uint64_t mask = tas__table_lock();
		uint32_t seen = atomic_load(&changed);
		struct tas_waiter s = w;
		bool dead = s.ss && !tas__alive(s.ss);

		if (s.ss) {
			tas__session_ref(s.ss);
			tas__waiter_drain(&w);
			tas__waiter_arm(&w);
		}
		look_at_news();
		tas__table_unlock(mask);
		sleep_on(&s, dead, seen);
		if (s.ss)
			tas__session_put(s.ss);
	}
	return arg;
}

static bool start(void)
{
	pthread_attr_t attr;
	pthread_t t;

	if (running)
		return true;
	if (pthread_attr_init(&attr))
		return false;
	pthread_attr_setstacksize(&attr, STACK > PTHREAD_STACK_MIN ? STACK : PTHREAD_STACK_MIN);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	running = pthread_create(&t, &attr, async_main, NULL) == 0;
	pthread_attr_destroy(&attr);
	return running;
}

/* ---- which sockets ---- */
/* Under the table lock. */
static struct watch *find(const struct tas_obj *o)
{
	for (struct watch *e = all; e; e = e->next)
		if (e->o == o)
			return e;
	return NULL;
}

static bool ensure_waiter(struct tas_session *ss)
{
	if (!by_id)
		by_id = sys_mmap(NULL, TAS_SOCK_MAX * sizeof *by_id, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	if (!by_id || !tas__alive(ss))
		return false;
	if (w.ss == ss)
		return true;
	if (w.ss) { /* its service is dead */
		for (struct watch *e = all; e; e = e->next)
			by_id[e->o->id] = NULL;
		tas__waiter_put(&w);
	}
	if (tas__waiter_get(ss, true, &w) < 0) {
		w.ss = NULL;
		return false;
	}
	atomic_fetch_add(&changed, 1);
	sys_futex(&changed, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
	return true;
}

static struct watch *watch_new(struct tas_obj *o)
{
	struct watch *e = spare;

	if (!ensure_waiter(o->ss))
		return NULL;
	if (!e) {
		struct watch *m = sys_mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

		if (!m)
			return NULL;
		for (size_t k = 0; k < 4096 / sizeof *m; k++) {
			m[k].next = spare;
			spare = &m[k];
		}
		e = spare;
	}
	spare = e->next;
	*e = (struct watch){.o = o, .fd = -1, .next = all};
	all = e;
	by_id[o->id] = e;
	tas__obj_subscribe(&w, o, false);
	look(e, false);
	return e;
}

void tas__async_forget(struct tas_obj *o)
{
	struct watch **p = &all, *e;

	while (*p && (*p)->o != o)
		p = &(*p)->next;
	e = *p;
	if (!e)
		return;
	if (w.ss && w.ss == o->ss) {
		by_id[o->id] = NULL;
		if (tas__obj_live(o))
			tas__obj_unsubscribe(&w, o);
	}
	*p = e->next;
	e->next = spare;
	spare = e;
	atomic_fetch_and(&o->flags, ~(uint32_t)TAS_OF_ASYNC);
}

void tas__async_update(struct tas_obj *o, int fd)
{
	struct f_owner_ex owner = {.pid = 0};
	int fl = sys_fcntl(fd, F_GETFL, 0), sig = sys_fcntl(fd, F_GETSIG, 0);
	bool wanted, fresh = false;
	struct watch *e;
	uint64_t mask;

	sys_fcntl(fd, F_GETOWN_EX, (unsigned long)(uintptr_t)&owner);
	wanted = fl >= 0 && ((fl & O_ASYNC) || owner.pid);
	if (wanted)
		atomic_fetch_or(&o->flags, TAS_OF_ASYNC);
	if (atomic_load_explicit(&o->kind, memory_order_acquire) == TAS_OBJ_PLAIN)
		return; /* once it is one of TAS's */
	mask = tas__table_lock();
	if (!wanted) {
		tas__async_forget(o);
	} else if ((e = find(o)) || (fresh = start(), e = fresh ? watch_new(o) : NULL)) {
		if ((fl & O_ASYNC) && !e->async)
			e->fd = fd;
		e->async = fl & O_ASYNC;
		e->sig = sig > 0 ? sig : 0;
		e->owner = owner;
		if (fresh && atomic_load(&o->kind) == TAS_OBJ_CONN && !(atomic_load(&o->flags) & TAS_OF_CONNECTED)) {
			e->state = TAS_S_SYN_SENT; /* it was asked for before connect() */
			e->flags = 0;
			look(e, true);
		}
	}
	tas__table_unlock(mask);
}

/* The thread and what it waits on stay with the parent. */
void tas__async_fork_child(void)
{
	struct tas_session *ss = w.ss;

	for (struct watch *e = all, *next; e; e = next) {
		next = e->next;
		by_id[e->o->id] = NULL;
		e->next = spare;
		spare = e;
	}
	all = NULL;
	running = false;
	w.ss = NULL;
	if (ss)
		tas__session_put(ss);
}
