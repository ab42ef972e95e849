/* SPDX-License-Identifier: MIT */
/*
 * Several fast-path threads (docs/internals.md, "Several threads").
 *
 * Every thread but core 0's has a gate: it is inside while it does a round, outside while it yields or sleeps.  Core 0 asks
 * everybody out (`out`), waits until nobody is inside, and is alone until it lets them in again.  That is how all rare work is
 * done that is not a connection's own: sessions, processes, listeners' ends, epoll sets, listings.  A thread that sleeps or
 * yields need not be waited for, nor woken; one that is inside comes out after its round.
 *
 *   thread   inside = 1 (seq_cst); looks at out        core 0   out = 1 (seq_cst); looks at inside of each
 *
 * so at least one of both sees the other.  What a thread has written before it went out is seen by core 0, and the other way round.
 *
 * Packets: steer.c.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <rte_lcore.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "service/threads.h"
#include "slow/stack.h"

enum { SPINS = 200 /* some 5 µs: most work that core 0 is alone for is shorter */, EVENTS = 16, TAKE_IN = 8 /* bursts of a queue */ };
enum { KICK_HINTS = 1, KICK_PACKETS = 2 };
enum { OUTSIDE = 0, INSIDE = 1, AWAITED = 2 /* inside, and core 0 sleeps until it comes out */ };
#define KICK UINT64_MAX	      /* epoll data of the own eventfd */
#define PORT (UINT64_MAX - 1) /* of the own queue's descriptor; others are process slots */
static const uint64_t short_wait = 2000, full_wait = 20000, scale_every = 100000000, look_busy = 30000, look_idle = 5000;
static const uint64_t port_quiet = 50000, port_every = 2000; /* as loop.c */

struct thread {
	_Alignas(128) _Atomic uint32_t inside;
	_Atomic uint32_t asleep; /* write kick to wake it */
	_Atomic uint32_t kicked; /* KICK_*: there is something for it */
	_Atomic uint32_t at_work;
	_Alignas(128) pthread_t id;
	bool made;
	int epfd, kick;
	uint64_t until; /* it sleeps until then, if nothing happens; 0: awake.  Read alone */
	uint64_t round, looked, last_packet, next_port;
	bool woken; /* this round follows a sleep that an event ended */
	struct tas_idle idle;
};

bool tas_alone = true;
_Thread_local struct tas_core *tas_this;

static struct thread threads[TAS_CORES_MAX];
static unsigned n_running = 1; /* core 0's own */
static unsigned depth;	       /* of tas_alone_in() */
static _Atomic uint32_t out, waiting;
static _Atomic bool ending;
static pthread_mutex_t shared;
static struct tas_pollable kicked = { .fd = -1 };
static uint64_t next_scale;

static void futex_wait(_Atomic uint32_t *w, uint32_t v)
{
	syscall(SYS_futex, w, FUTEX_WAIT_PRIVATE, v, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *w)
{
	syscall(SYS_futex, w, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* ---- what belongs to all ---- */
void tas__shared_lock(void)
{
	pthread_mutex_lock(&shared);
}

void tas__shared_unlock(void)
{
	pthread_mutex_unlock(&shared);
}

/* ---- the gate ---- */
static void leave(struct thread *t)
{
	if (atomic_exchange_explicit(&t->inside, OUTSIDE, memory_order_seq_cst) == AWAITED)
		futex_wake(&t->inside);
}

static bool shut_out(const struct thread *t)
{
	return atomic_load_explicit(&out, memory_order_seq_cst) || !atomic_load_explicit(&t->at_work, memory_order_seq_cst);
}

static void wait_outside(struct thread *t)
{
	for (unsigned i = 0; i < SPINS && atomic_load_explicit(&out, memory_order_relaxed); i++)
		__builtin_ia32_pause();
	if (atomic_load_explicit(&out, memory_order_seq_cst)) {
		atomic_fetch_add_explicit(&waiting, 1, memory_order_seq_cst);
		futex_wait(&out, 1);
		atomic_fetch_sub_explicit(&waiting, 1, memory_order_seq_cst);
	} else if (!atomic_load_explicit(&t->at_work, memory_order_seq_cst)) {
		futex_wait(&t->at_work, 0);
	}
}

static bool ends(void)
{
	return atomic_load_explicit(&ending, memory_order_seq_cst);
}

/* False: the service ends. */
static bool enter(struct thread *t)
{
	while (!ends()) {
		if (shut_out(t)) {
			wait_outside(t);
			continue;
		}
		atomic_store_explicit(&t->inside, INSIDE, memory_order_seq_cst);
		if (!shut_out(t))
			return true;
		leave(t);
	}
	return false;
}

static void ask_out(void)
{
	atomic_store_explicit(&out, 1, memory_order_seq_cst);
	for (unsigned i = 1; i < tas_n_cores; i++) {
		struct thread *t = &threads[i];
		uint32_t inside = INSIDE;

		for (unsigned k = 0; k < SPINS && atomic_load_explicit(&t->inside, memory_order_seq_cst); k++)
			__builtin_ia32_pause();
		while (atomic_load_explicit(&t->inside, memory_order_seq_cst)) {
			inside = INSIDE;
			if (atomic_compare_exchange_strong(&t->inside, &inside, AWAITED) || inside == AWAITED)
				futex_wait(&t->inside, AWAITED);
		}
	}
}

void tas_alone_in(void)
{
	if (depth++ || tas_alone)
		return;
	ask_out();
	tas_alone = true;
	for (unsigned i = 1; i < tas_n_cores; i++) /* it may have slept for long */
		if (tas_cores[i].now < tas_cores[0].now)
			tas_cores[i].now = tas_cores[0].now;
}

/* Connections of other cores may have been worked on: what came of that is for their threads. */
void tas_alone_out(void)
{
	bool due[TAS_CORES_MAX] = { false };

	if (--depth || n_running == 1)
		return;
	for (unsigned i = 1; i < n_running; i++) {
		tas_core_wakes(&tas_cores[i]);
		tas__net_flush(&tas_cores[i]);
		due[i] = tas_core_has_work(&tas_cores[i], threads[i].until) || tas_net_full(&tas_cores[i]);
	}
	tas_alone = false;
	atomic_store_explicit(&out, 0, memory_order_seq_cst);
	if (atomic_load_explicit(&waiting, memory_order_seq_cst))
		futex_wake(&out);
	for (unsigned i = 1; i < n_running; i++)
		if (due[i])
			tas_kick(&tas_cores[i]);
}

/* ---- waking each other ---- */
static void kick(struct thread *t, uint32_t why)
{
	const uint64_t one = 1;

	/* pairs with the sleeper: asleep, then a look at kicked */
	atomic_fetch_or_explicit(&t->kicked, why, memory_order_seq_cst);
	if (atomic_load_explicit(&t->asleep, memory_order_seq_cst) && atomic_exchange_explicit(&t->asleep, 0, memory_order_seq_cst))
		(void)!write(t->kick, &one, sizeof one);
}

void tas_kick(struct tas_core *c)
{
	if (tas_n_cores > 1)
		kick(&threads[c->index], KICK_HINTS);
}

void tas__kick_packets(unsigned core)
{
	kick(&threads[core], KICK_PACKETS);
}

static bool falls_asleep(struct thread *t)
{
	atomic_store_explicit(&t->asleep, 1, memory_order_seq_cst);
	if (!atomic_load_explicit(&t->kicked, memory_order_seq_cst))
		return true;
	atomic_store_explicit(&t->asleep, 0, memory_order_relaxed);
	return false;
}

static unsigned heed(struct tas_core *c, struct thread *t)
{
	if (__builtin_expect(!atomic_load_explicit(&t->kicked, memory_order_relaxed), 1))
		return 0;
	return atomic_exchange_explicit(&t->kicked, 0, memory_order_seq_cst) & KICK_HINTS ? tas_core_listen(c) : 0;
}

static void drop_kick(int fd)
{
	uint64_t n;

	(void)!read(fd, &n, sizeof n);
}

static int hear(const struct thread *t, int fd, uint64_t what)
{
	struct epoll_event e = { .events = what >= PORT ? EPOLLIN : EPOLLIN | EPOLLET, .data.u64 = what };

	return epoll_ctl(t->epfd, EPOLL_CTL_ADD, fd, &e) && errno != EEXIST ? -errno : 0;
}

int tas_threads_hear(int fd, uint32_t slot)
{
	for (unsigned i = 1; i < n_running; i++) {
		int err = hear(&threads[i], fd, slot);

		if (err) {
			tas_threads_deaf(fd, 1);
			return err;
		}
	}
	return 0;
}

void tas_threads_deaf(int fd, unsigned first)
{
	for (unsigned i = first; i < n_running; i++)
		epoll_ctl(threads[i].epfd, EPOLL_CTL_DEL, fd, NULL);
}

/* ---- a thread ---- */
/* From the own queue, if there is one; looking costs a system call even when it is empty. */
static unsigned receive(struct tas_core *c, struct thread *t, bool now)
{
	unsigned n;

	if (c->net->n_queues == 1 || (c->now < t->next_port && !now))
		return 0;
	n = tas__net_receive(c);
	if (n)
		t->last_packet = c->now;
	t->next_port = c->now - t->last_packet > port_quiet ? c->now + port_every : 0;
	return n;
}

static unsigned port_rang(struct tas_core *c, struct thread *t)
{
	if (c->net->interrupts)
		drop_kick(c->net->queue_fd[c->index]);
	return receive(c, t, true);
}

static unsigned rung(struct tas_core *c, struct thread *t, const struct epoll_event *ev, int n)
{
	unsigned work = 0;

	for (int i = 0; i < n; i++) {
		if (ev[i].data.u64 == KICK)
			drop_kick(t->kick);
		else if (ev[i].data.u64 == PORT)
			work += port_rang(c, t);
		else
			work += tas_core_rang(c, (uint32_t)ev[i].data.u64);
	}
	return work;
}

/* Doorbells are heard while it works, too: who rings is not looked at until then. */
static unsigned look(struct tas_core *c, struct thread *t, bool busy)
{
	struct epoll_event ev[EVENTS];

	if (c->now - t->looked < (busy ? look_busy : look_idle))
		return 0;
	t->looked = c->now;
	return rung(c, t, ev, epoll_wait(t->epfd, ev, EVENTS, 0));
}

/* Its own queue's interrupt is armed, and the queue was empty after that. */
static bool port_armed(struct tas_core *c, struct thread *t)
{
	if (c->net->n_queues == 1 || !c->net->interrupts)
		return true;
	tas__link_arm(c->net, c->index, true);
	return !receive(c, t, true);
}

static void port_disarm(const struct tas_core *c)
{
	if (c->net->n_queues > 1 && c->net->interrupts)
		tas__link_arm(c->net, c->index, false);
}

static void sleep_until_news(struct tas_core *c, struct thread *t)
{
	uint64_t until = tas_core_deadline(c), now = tas__clock(), look_again = UINT64_MAX, ns;
	struct epoll_event ev[EVENTS];
	struct timespec ts;
	int n;

	if (until <= now + short_wait || !tas_core_sleep_begin(c))
		return;
	if (!port_armed(c, t) || !falls_asleep(t)) {
		port_disarm(c);
		tas_core_sleep_end(c);
		return;
	}
	if (c->net->n_queues > 1 && c->net->queue_fd[c->index] < 0)
		look_again = now + tas__nap(now - t->last_packet);
	if (tas_net_full(c) && now + full_wait < look_again)
		look_again = now + full_wait;
	until = look_again < until ? look_again : until;
	t->until = until;
	ns = until == UINT64_MAX ? 0 : until - now;
	ts = (struct timespec){ .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
	leave(t);
	n = epoll_pwait2(t->epfd, ev, EVENTS, until == UINT64_MAX ? NULL : &ts, NULL);
	atomic_store_explicit(&t->asleep, 0, memory_order_seq_cst);
	if (!enter(t))
		return;
	t->until = 0;
	c->now = tas__clock();
	tas_count(c, TAS_CTR_sleep_ns, c->now - now);
	t->round += c->now - now;
	if (rung(c, t, ev, n))
		tas__latency_woken(c->now);
	else
		t->woken = n > 0;
	tas_core_sleep_end(c);
	port_disarm(c);
	if (n > 0 || until != look_again) /* more than a look at the port */
		t->idle.last_work = c->now; /* what follows a wake comes soon */
}

static void idle(struct tas_core *c, struct thread *t)
{
	const uint64_t now = c->now; /* not to be touched outside */
	bool again = true;

	leave(t);
	if (tas_config.fp_no_ints)
		sched_yield();
	else
		again = tas__idle(&t->idle, now, tas_config.poll_ns_tas);
	if (enter(t) && !again)
		sleep_until_news(c, t);
}

static void account(struct tas_core *c, struct thread *t, unsigned work)
{
	uint64_t now = tas__clock();

	tas_count(c, TAS_CTR_rounds, 1);
	if (now > t->round)
		tas_count(c, work ? TAS_CTR_work_ns : TAS_CTR_poll_ns, now - t->round);
	c->now = t->round = now;
	if (tas_config.fp_cycles)
		tas__account_cycles(c, work);
}

static void *run(void *arg)
{
	struct tas_core *c = arg;
	struct thread *t = &threads[c->index];
	unsigned work = 0;

	tas_this = c;
	(void)rte_thread_register(); /* a cache of packet buffers; without it they come from the pool */
	enter(t);
	t->idle.last_work = t->round = tas__clock();
	c->stage_end = __builtin_ia32_rdtsc();
	while (!ends()) {
		account(c, t, work);
		work = heed(c, t);
		if (tas_net_full(c))
			tas__net_flush(c);
		work += tas__steered(c);
		work += receive(c, t, false);
		work += tas_core_poll(c);
		tas__net_flush(c);
		tas__stage(c, TAS_ST_transmit);
		work += look(c, t, work);
		tas__stage(c, TAS_ST_control);
		if (work && t->woken)
			tas__latency_woken(c->now);
		t->woken = false;
		if (work) {
			t->idle.last_work = c->now;
			if (!atomic_load_explicit(&out, memory_order_relaxed))
				continue;
			leave(t);
			enter(t);
		} else {
			idle(c, t);
		}
	}
	leave(t);
	tas__ring_thread_exit();
	rte_thread_unregister();
	return NULL;
}

/* ---- beginning, more and fewer ---- */
static int make(unsigned i)
{
	struct thread *t = &threads[i];
	char name[32];
	int err = -pthread_create(&t->id, NULL, run, &tas_cores[i]);

	if (err)
		return err;
	snprintf(name, sizeof name, "tas-fp-%u", i);
	pthread_setname_np(t->id, name);
	t->made = true;
	return 0;
}

/* Its queue gets packets from now on, or no more; what cannot be switched off is core 0's meanwhile. */
static int queue_on(unsigned i, bool on)
{
	const struct tas_net *n = tas_cores[0].net;
	int fd = n->queue_fd[i], err = 0;

	if (n->n_queues == 1)
		return 0;
	if (!on && fd >= 0)
		epoll_ctl(threads[i].epfd, EPOLL_CTL_DEL, fd, NULL);
	if (n->switched)
		err = tas__tap_queue(fd, on);
	else if (on)
		tas__loop_deaf(i);
	else
		err = tas__loop_hear(n, i);
	return err || !on || tas_config.fp_no_ints || fd < 0 ? err : hear(&threads[i], fd, PORT);
}

static void employ(unsigned i)
{
	struct thread *t = &threads[i];

	tas_cores[i].running = true;
	tas_cores[i].now = tas_cores[0].now;
	n_running = i + 1;
	tas_core_recruit(&tas_cores[i]);
	atomic_store_explicit(&t->at_work, 1, memory_order_seq_cst);
	futex_wake(&t->at_work);
	tas_kick(&tas_cores[i]);
}

/* Bounded: what comes meanwhile is no older than who waits for us. */
void tas__threads_take_in(void)
{
	for (unsigned i = 0; i < n_running; i++) {
		unsigned passes = TAKE_IN;

		while (passes-- && (i ? receive(&tas_cores[i], &threads[i], true) : tas__net_receive(&tas_cores[0])))
			;
		while (tas__steered(&tas_cores[i]))
			;
	}
}

static void steer_anew(void)
{
	for (unsigned b = 0; b < TAS_STEER_BUCKETS; b++)
		tas_steer[b] = (uint8_t)(b % n_running);
	for (unsigned i = 0; i < tas_n_cores; i++)
		tas_core_resteer(&tas_cores[i]);
	tas__queues_spread(tas_cores[0].net);
}

void tas__threads_set(unsigned n)
{
	unsigned before = n_running;
	int err = 0;

	tas__seat_leave();
	tas_alone_in();
	atomic_store_explicit(&out, 1, memory_order_seq_cst); /* new ones wait until we are done */
	for (unsigned i = 0; i < n_running; i++)
		while (tas__steered(&tas_cores[i]))
			;
	while (n_running > n && n_running > 1) {
		unsigned i = n_running - 1;

		tas__net_flush(&tas_cores[i]);
		if (tas_net_full(&tas_cores[i])) /* it stays until the port has taken what waits */
			break;
		tas_core_dismiss(&tas_cores[i]);
		while (receive(&tas_cores[i], &threads[i], true))
			;
		for (unsigned k = 0; k < i; k++)
			tas__net_flush(&tas_cores[k]);
		tas__net_flush_last(&tas_cores[i]); /* while there is a queue for it */
		if (queue_on(i, false))
			tas_warn("link %s: a queue stays that nobody reads", tas_config.link_name);
		n_running = i;
		tas_cores[i].running = false;
		atomic_store_explicit(&threads[i].at_work, 0, memory_order_seq_cst);
	}
	while (n_running < n && !err) {
		err = threads[n_running].made ? 0 : make(n_running);
		if (!err)
			err = queue_on(n_running, true);
		if (!err)
			employ(n_running);
	}
	if (err)
		tas_warn("cannot start fast-path thread %u: %s", n_running, strerror(-err));
	steer_anew();
	for (unsigned i = n_running; i < before; i++)
		tas_core_retire(&tas_cores[i]);
	if (n_running == 1)
		atomic_store_explicit(&out, 0, memory_order_seq_cst);
	tas_alone_out();
}

unsigned tas__threads_running(void)
{
	return n_running;
}

static void on_kick(struct tas_pollable *p, uint32_t events)
{
	(void)events;
	drop_kick(p->fd);
}

bool tas__threads_sleep(void)
{
	return tas_n_cores == 1 || falls_asleep(&threads[0]);
}

void tas__threads_woke(void)
{
	if (tas_n_cores > 1)
		atomic_store_explicit(&threads[0].asleep, 0, memory_order_seq_cst);
}

unsigned tas__threads_round(struct tas_core *c)
{
	unsigned work, n;

	if (tas_n_cores == 1)
		return 0;
	work = heed(c, &threads[0]);
	if (c->net->n_queues > 1)
		work += tas__steered(c);
	work += tas__late_run();
	if (tas_config.fp_no_autoscale || c->now < next_scale)
		return work;
	next_scale = c->now + scale_every;
	tas_alone_in(); /* others' counters are read */
	n = tas__scale(c->now, n_running, tas__scale_idle_ns);
	tas_alone_out();
	if (n != n_running)
		tas__threads_set(n);
	return work;
}

int tas__threads_init(struct tas_core *c)
{
	pthread_mutexattr_t a;
	int err;

	c->running = true;
	if (tas_n_cores == 1)
		return 0;
	for (unsigned i = 0; i < tas_n_cores; i++)
		threads[i].epfd = threads[i].kick = -1;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&shared, &a);
	pthread_mutexattr_destroy(&a);
	kicked = (struct tas_pollable){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fn = on_kick, .calm = true };
	err = kicked.fd < 0 ? -errno : tas__steer_init(c->net);
	err = err ? err : tas_loop_add(&kicked, EPOLLIN);
	if (err) {
		tas_warn("threads: %s", strerror(-err));
		return err;
	}
	threads[0].kick = kicked.fd;
	for (unsigned i = 1; i < tas_n_cores; i++) {
		struct thread *t = &threads[i];

		/* all of them now: the service has as many descriptors with one thread as with more */
		t->epfd = epoll_create1(EPOLL_CLOEXEC);
		t->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		err = t->epfd < 0 || t->kick < 0 ? -errno : hear(t, t->kick, KICK);
		if (err) {
			tas_warn("threads: %s", strerror(-err));
			return err;
		}
		*tas_cores[i].net = *c->net;
		tas_cores[i].net->n_tx = 0;
		tas_cores[i].net->queue = c->net->n_queues > 1 ? (uint16_t)i : 0;
	}
	tas__queues_spread(c->net);
	if (tas_config.fp_no_autoscale)
		tas__threads_set(tas_n_cores);
	return tas_config.fp_no_autoscale && n_running < tas_n_cores ? -EAGAIN : 0;
}

void tas__threads_exit(void)
{
	if (tas_n_cores == 1 || kicked.fd < 0)
		return;
	tas_alone_in();
	atomic_store_explicit(&ending, true, memory_order_seq_cst);
	atomic_store_explicit(&out, 0, memory_order_seq_cst);
	futex_wake(&out);
	for (unsigned i = 1; i < tas_n_cores; i++) {
		struct thread *t = &threads[i];

		if (t->made) {
			atomic_store_explicit(&t->at_work, 1, memory_order_seq_cst);
			futex_wake(&t->at_work);
			kick(t, KICK_HINTS);
			pthread_join(t->id, NULL);
		}
		t->made = false;
		close(t->epfd);
		close(t->kick);
	}
	tas__steer_exit();
	tas__late_exit();
	n_running = 1; /* tas_alone stays true */
	tas_loop_del(&kicked);
	close(kicked.fd);
	kicked.fd = -1;
}
