/* SPDX-License-Identifier: MIT */
/*
 * Waiting: spin a little, then sleep.
 *
 * Three sleeps.  park: one socket, no timeout: futex_waitv on the socket's event word, on a word of the application's
 * own line, and on the service's liveness word; signals restart it exactly as they restart recv().  Wait sets:
 * everything else sleeps in the caller's ppoll with an eventfd that the service writes when the wait set's `sleeping`
 * was 1.
 */
#include <sched.h>

#include "lowlevel/low.h"

enum { SPIN_US = 20, HOG_US = 300, RECENT_US = 2000, HOLD_US = 2000, HOLD_MAX_US = 100000, BLIND_NS = 5000000, BESIDE_ROUNDS = 2,
       TRIES_MIN = 4, SKIP_MAX = 64 };

uint64_t tas__now(void)
{
	struct timespec ts = {0};

	sys2(SYS_clock_gettime, CLOCK_MONOTONIC, SYS_P(&ts));
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Cycles per microsecond; a guess until a millisecond lies between the first call and this one. */
uint64_t tas__per_us(void)
{
	static _Atomic uint64_t rate, tsc0, ns0;
	uint64_t r = atomic_load_explicit(&rate, memory_order_relaxed), t, n;

	if (r)
		return r;
	t = tas__tsc();
	n = tas__now();
	if (!atomic_load(&tsc0)) {
		atomic_store(&ns0, n);
		atomic_store(&tsc0, t);
	}
	if (n - atomic_load(&ns0) < 1000000)
		return 2500;
	r = (t - atomic_load(&tsc0)) * 1000 / (n - atomic_load(&ns0));
	if (r < 100)
		r = 100;
	atomic_store(&rate, r);
	return r;
}

/* The service polls for this process on the processor that we would spin on. */
static bool beside_service(struct tas_session *ss)
{
	return !atomic_load_explicit(&ss->r->core[0].need_wakeup, memory_order_relaxed) &&
	       atomic_load_explicit(&ss->r->cpu, memory_order_relaxed) == (uint32_t)sched_getcpu();
}

/*
 * Did looking help?  A yield does not always let in whom we wait for: the scheduler (EEVDF) may choose the one who yields again and again
 * while the other, who was displaced on this processor, is not eligible; then nothing comes before we sleep.  So spins that found
 * nothing, TRIES_MIN of them in a row, are left out: the next 1, then 2, 4 … SKIP_MAX, with a try in between, until one succeeds.
 */
static __thread struct {
	uint8_t failed; /* spins in a row */
	bool gave_up;   /* the last one */
	uint16_t skip, left;
} luck;

/* A wait begins.  False: sleep at once. */
static bool worth_a_try(void)
{
	if (!luck.gave_up) { /* it ended because there was something */
		luck.failed = 0;
		luck.skip = luck.left = 0;
	}
	if (luck.failed < TRIES_MIN)
		return true;
	if (luck.left) {
		luck.left--;
		return false;
	}
	luck.skip = !luck.skip ? 1 : luck.skip < SKIP_MAX ? (uint16_t)(luck.skip * 2) : luck.skip;
	luck.left = luck.skip;
	return true;
}

static bool give_up(void)
{
	luck.gave_up = true;
	if (luck.failed < TRIES_MIN)
		luck.failed++;
	return false;
}

/*
 * Yield first.  Back within a microsecond: nobody else wants this CPU, so look at memory for a moment before the next
 * yield.  Away for long: somebody does not cooperate; sleep at once, and do not try again for a while.
 *
 * If the service is on this processor, each look takes it from the service: when two did not help, sleep.  It works on undisturbed,
 * and when it has let us in we give the processor back by sleeping again, where a yield may be answered with another turn.  Only who says
 * so (gives_way): the reader of a stream would be woken for every piece.
 */
bool tas__spin(struct tas_session *ss, struct tas_spin *s, uint64_t active)
{
	static _Atomic uint64_t hold_until, hold_us;
	static __thread uint64_t alone_until;
	uint64_t us = tas__per_us(), t = tas__tsc(), limit = ss->r->h.poll_us < SPIN_US ? ss->r->h.poll_us : SPIN_US, d;

	if (!tas__may(TAS_MAY_YIELD))
		return false;
	if (!s->rounds++) {
		s->start = t;
		if (t - active > RECENT_US * us || t < atomic_load_explicit(&hold_until, memory_order_relaxed))
			return false;
		if (!worth_a_try())
			return false;
		luck.gave_up = false;
	}
	if (s->gives_way && s->rounds > BESIDE_ROUNDS && beside_service(ss))
		return false;
	if (t - s->start > limit * us)
		return give_up();
	if (t < alone_until) {
		__builtin_ia32_pause();
		return true;
	}
	sys0(SYS_sched_yield);
	d = tas__tsc() - t;
	alone_until = d < us ? t + d + us * 3 / 2 : 0;
	if (d > HOG_US * us) {
		uint64_t h = atomic_load_explicit(&hold_us, memory_order_relaxed);

		h = !h ? HOLD_US : h < HOLD_MAX_US ? h * 2 : h;
		atomic_store_explicit(&hold_us, h, memory_order_relaxed);
		atomic_store_explicit(&hold_until, t + d + h * us, memory_order_relaxed);
	} else if (d < 20 * us) {
		atomic_store_explicit(&hold_us, 0, memory_order_relaxed);
	}
	return true;
}

int tas__park(struct tas_session *ss, _Atomic uint32_t *w1, uint32_t v1, _Atomic uint32_t *w2, uint32_t v2,
	      _Atomic uint32_t *news, uint32_t v)
{
	uint32_t a = atomic_load(&ss->r->alive);
	struct futex_waitv f[4] = {
		{.val = v1, .uaddr = (uintptr_t)w1, .flags = FUTEX_32},
		{.val = v2, .uaddr = (uintptr_t)w2, .flags = FUTEX_32},
		{.uaddr = (uintptr_t)&ss->r->alive, .flags = FUTEX_32},
		{.val = v, .uaddr = (uintptr_t)news, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG},
	};
	long r;

	/* at its owner's death the kernel wakes only where this bit says that somebody waits */
	if (!(a & (FUTEX_WAITERS | FUTEX_OWNER_DIED)))
		a = atomic_fetch_or(&ss->r->alive, FUTEX_WAITERS) | FUTEX_WAITERS;
	f[2].val = a;
	if (!tas__alive(ss))
		return 0;
	r = tas__may(TAS_MAY_WAITV) ? tas__sleep5(SYS_futex_waitv, SYS_P(f), 4, 0, 0, 0) : -EPERM;
	if (r == -ENOSYS || r == -EPERM) {
		/* a sandbox that does not know the call: the others of the four are seen a moment later */
		struct timespec nap = {0, BLIND_NS};

		r = tas__sleep5(SYS_futex, w1, FUTEX_WAIT, v1, SYS_P(&nap), 0);
	}
	tas__alive(ss); /* the one whom the kernel woke wakes the others */
	return r == -EINTR || r == -ECANCELED ? (int)r : 0;
}

/* ---- wait sets ---- */
static int waiter_open(struct tas_session *ss, unsigned i)
{
	struct tas_msg m = {.u.ws.index = i};
	int fd = (int)sys2(SYS_eventfd2, 0, O_NONBLOCK | O_CLOEXEC), r;

	if (fd < 0)
		return fd;
	fd = tas__internal_fd(fd);
	atomic_store(&ss->r->ws[i].sleeping, 0);
	atomic_store(&ss->r->ws[i].open, 1);
	r = tas__ask(ss, &m, TAS_MSG_WS_OPEN, &fd, 1);
	if (r) {
		tas__internal_close(fd);
		return r < 0 ? r : -EIO;
	}
	ss->ws_fd[i] = fd;
	ss->ws_open[i / 64] |= 1ull << (i % 64);
	return 0;
}

/* Bits of word w of the indices that may be had: below TAS_WS_BITMAPS with a ready bitmap, the rest without. */
static uint64_t kind_of(unsigned w, bool bitmap)
{
	uint64_t with = w ? 0 : (1ull << TAS_WS_BITMAPS) - 1;

	return bitmap ? with : ~with;
}

static int waiter_pick(struct tas_session *ss, bool bitmap)
{
	unsigned to = bitmap ? 1 : TAS_WS_MAX / 64;
	int r;

	for (unsigned w = 0; w < to; w++) { /* one that is open already */
		uint64_t can = ss->ws_open[w] & ~ss->ws_busy[w] & kind_of(w, bitmap);

		if (can)
			return (int)(w * 64 + (unsigned)__builtin_ctzll(can));
	}
	for (unsigned w = 0; w < to; w++) {
		uint64_t can = ~ss->ws_open[w] & ~ss->ws_busy[w] & kind_of(w, bitmap);

		if (!can)
			continue;
		if (!tas__may(TAS_MAY_OPEN))
			return -EPERM;
		unsigned i = w * 64 + (unsigned)__builtin_ctzll(can);

		r = waiter_open(ss, i);
		return r < 0 ? r : (int)i;
	}
	return -ENOBUFS;
}

int tas__waiter_get(struct tas_session *ss, bool bitmap, struct tas_waiter *w)
{
	uint64_t mask = tas__signals_block();
	int i;

	tas__mutex_lock(&ss->ws_lock);
	i = waiter_pick(ss, bitmap);
	if (i >= 0)
		ss->ws_busy[i / 64] |= 1ull << (i % 64);
	tas__mutex_unlock(&ss->ws_lock);
	tas__signals_restore(mask);
	if (i < 0)
		return i;
	tas__session_ref(ss);
	*w = (struct tas_waiter){.ss = ss, .index = (uint32_t)i, .fd = ss->ws_fd[i]};
	tas__waiter_drain(w);
	return 0;
}

void tas__waiter_put(struct tas_waiter *w)
{
	struct tas_session *ss = w->ss;
	uint64_t mask;

	if (!ss)
		return;
	tas__waiter_disarm(w);
	mask = tas__signals_block();
	tas__mutex_lock(&ss->ws_lock);
	ss->ws_busy[w->index / 64] &= ~(1ull << (w->index % 64));
	tas__mutex_unlock(&ss->ws_lock);
	tas__signals_restore(mask);
	w->ss = NULL;
	tas__session_put(ss);
}

void tas__waiter_arm(struct tas_waiter *w)
{
	/* pairs with the service's exchange after it published: one of both sees the other */
	atomic_exchange_explicit(&w->ss->r->ws[w->index].sleeping, 1, memory_order_seq_cst);
}

void tas__waiter_disarm(struct tas_waiter *w)
{
	atomic_store_explicit(&w->ss->r->ws[w->index].sleeping, 0, memory_order_seq_cst);
}

void tas__waiter_drain(struct tas_waiter *w)
{
	uint64_t n;

	sys_read(w->fd, &n, sizeof n);
}

void tas__waiter_signal(struct tas_waiter *w)
{
	uint64_t one = 1;

	sys_write(w->fd, &one, sizeof one);
}

uint32_t tas__waiter_sub(const struct tas_waiter *w)
{
	return w->ss->slot << 16 | (w->index + 1);
}

static struct tas_msg sub_message(uint32_t sub, uint32_t id, uint32_t gen, uint32_t flags)
{
	if (sub >> 16 == TAS_EP_SLOT)
		flags |= TAS_SUB_EPOLL;
	return (struct tas_msg){.u.subscribe = {.id = id, .gen = gen, .ws = (sub & 0xffff) - 1, .flags = flags}};
}

int tas__subscribe(struct tas_session *ss, uint32_t me, struct tas_block *b, uint32_t id, uint32_t gen, bool exclusive)
{
	uint32_t flag = exclusive ? TAS_SUB_EXCLUSIVE : 0;
	struct tas_msg m;

	for (int i = 0; i < TAS_SUBS; i++) {
		uint32_t v = atomic_load_explicit(&b->c.subs[i], memory_order_relaxed);

		if ((v & ~(uint32_t)TAS_SUB_EXCLUSIVE) != me)
			continue;
		if (!exclusive) /* a word that names this wait set is written by its holders only */
			atomic_compare_exchange_strong(&b->c.subs[i], &v, me);
		return 0;
	}
	for (int i = 0; i < TAS_SUBS; i++) {
		uint32_t none = 0;

		/* seq_cst: before the look at readiness that follows */
		if (atomic_compare_exchange_strong(&b->c.subs[i], &none, me | flag))
			return 0;
	}
	atomic_store(&b->c.subs_lost, 1);
	m = sub_message(me, id, gen, flag);
	return tas__ask(ss, &m, TAS_MSG_SUBSCRIBE, NULL, 0);
}

void tas__unsubscribe(struct tas_session *ss, uint32_t me, struct tas_block *b, uint32_t id, uint32_t gen)
{
	struct tas_msg m;

	for (int i = 0; i < TAS_SUBS; i++) {
		uint32_t v = atomic_load_explicit(&b->c.subs[i], memory_order_relaxed);

		if ((v & ~(uint32_t)TAS_SUB_EXCLUSIVE) == me && atomic_compare_exchange_strong(&b->c.subs[i], &v, 0))
			return;
	}
	if (atomic_load(&b->c.subs_lost) && tas__alive(ss)) {
		m = sub_message(me, id, gen, 0);
		tas__ask(ss, &m, TAS_MSG_UNSUBSCRIBE, NULL, 0);
	}
}

/* ---- bells ---- */
/* Its place, if this one has it. */
static struct tas_bell_known *bell_known(struct tas_session *ss, uint64_t key)
{
	struct tas_bell_known *k = &ss->bell[key % TAS_BELLS_KNOWN];

	return atomic_load_explicit(&k->key, memory_order_seq_cst) == key ? k : NULL;
}

/* Takes fd; -1: we get none for this key. */
static void bell_keep(struct tas_bell_known *k, uint64_t key, int fd)
{
	int had = atomic_load_explicit(&k->fd, memory_order_relaxed) - 1;

	atomic_store_explicit(&k->key, 0, memory_order_seq_cst);
	if (fd >= 0 && had >= 0) {
		/* the number stays, so that nobody writes into what else may get it */
		if (sys3(SYS_dup3, fd, had, O_CLOEXEC) < 0)
			key = 0;
		tas__internal_close(fd);
	} else if (fd >= 0) {
		atomic_store_explicit(&k->fd, fd + 1, memory_order_relaxed);
	}
	atomic_store_explicit(&k->refused, fd < 0, memory_order_relaxed);
	atomic_store_explicit(&k->key, key, memory_order_seq_cst);
}

void tas__bell_learn(struct tas_session *ss, tas_off_t at)
{
	struct tas_msg m = {.op = TAS_MSG_BELL, .u.bell.at = at};
	uint64_t mask, key;
	unsigned n = 1;
	int fd = -1;

	if (!tas__may(TAS_MAY_OPEN) || tas__rpc(ss, &m, NULL, 0, &fd, &n) < 0)
		return;
	if (n != 1 && m.err != -EACCES)
		return; /* it has gone, or we have no room for a descriptor */
	key = m.u.bell.key;
	fd = n == 1 ? tas__internal_fd(fd) : -1;
	mask = tas__signals_block();
	tas__mutex_lock(&ss->ws_lock);
	if (key && !bell_known(ss, key))
		bell_keep(&ss->bell[key % TAS_BELLS_KNOWN], key, fd);
	else
		tas__internal_close(fd);
	tas__mutex_unlock(&ss->ws_lock);
	tas__signals_restore(mask);
}

/* Marks the bell of the epoll set that sub names, and wakes who sleeps behind it.  False: the service has to; *unknown: since we do not
 * have its eventfd, and did not ask for it. */
static inline bool bell_ring(struct tas_session *ss, struct tas_bell *bell, uint32_t sub, uint32_t id, bool *unknown)
{
	const struct tas_bell_known *k;
	const uint64_t one = 1;
	uint32_t was;
	uint64_t key;

	tas_bell_mark(bell, id);
	/* pairs: the service takes the key away, then the marks; the sleeper says so, then looks at them */
	key = atomic_load_explicit(&bell->key, memory_order_seq_cst);
	if (!key || atomic_load_explicit(&bell->sub, memory_order_relaxed) != sub)
		return false; /* it was that set's once: the service hangs up another */
	was = atomic_load_explicit(&bell->sleeping, memory_order_seq_cst);
	if (was != TAS_BELL_OPEN)
		return was == TAS_BELL_AWAKE;
	k = bell_known(ss, key);
	if (!k || atomic_load_explicit(&k->refused, memory_order_relaxed)) {
		*unknown = !k;
		return false; /* whoever marks meanwhile is to find the sleeper as well */
	}
	if (!atomic_compare_exchange_strong(&bell->sleeping, &was, TAS_BELL_AWAKE))
		return was == TAS_BELL_AWAKE;
	sys_write(atomic_load_explicit(&k->fd, memory_order_relaxed) - 1, &one, sizeof one);
	/* it may have become another set's meanwhile, who then waits for what we took: the service marks what the socket names */
	return atomic_load_explicit(&bell->key, memory_order_seq_cst) == key && bell_known(ss, key);
}

/* A wait set of this process. */
static __attribute__((noinline)) void own_ready(struct tas_session *ss, uint32_t ws, uint32_t id)
{
	const uint64_t one = 1;

	if (ws < TAS_WS_BITMAPS)
		tas_bitmap_set(&ss->r->ready[ws], id);
	if (atomic_load_explicit(&ss->r->ws[ws].sleeping, memory_order_seq_cst) &&
	    atomic_exchange_explicit(&ss->r->ws[ws].sleeping, 0, memory_order_seq_cst))
		sys_write(ss->ws_fd[ws], &one, sizeof one);
}

bool tas__tell_subscribers(struct tas_session *ss, struct tas_block *b, uint32_t id, struct tas_bell *bell, tas_off_t *learn)
{
	bool others = atomic_load_explicit(&b->c.subs_lost, memory_order_relaxed) != 0;
	uint32_t has_bell = bell ? atomic_load_explicit(&b->c.bell_sub, memory_order_relaxed) : 0;
	bool unknown = false, rings = false;

#pragma GCC unroll 6
	for (int i = 0; i < TAS_SUBS; i++) {
		uint32_t v = atomic_load_explicit(&b->c.subs[i], memory_order_seq_cst);

		if (__builtin_expect(!v, 1))
			continue;
		if (v >> 16 != ss->slot || (v & 0xffff) - 1 >= TAS_WS_MAX || id >= TAS_SOCK_MAX) { /* exclusive ones, too */
			rings |= v == has_bell;
			others |= v != has_bell;
			continue;
		}
		own_ready(ss, (v & 0xffff) - 1, id);
	}
	if (rings)
		others |= !bell_ring(ss, bell, has_bell, id, &unknown);
	if (__builtin_expect(unknown, 0))
		*learn = atomic_load_explicit(&b->c.bell, memory_order_relaxed);
	return others;
}

void tas__wake_subscribers(struct tas_session *ss, struct tas_block *b)
{
	for (int i = 0; i < TAS_SUBS; i++) {
		uint32_t v = atomic_load(&b->c.subs[i]) & ~(uint32_t)TAS_SUB_EXCLUSIVE, ws = (v & 0xffff) - 1;
		uint64_t one = 1;

		if (v && v >> 16 == ss->slot && ws < TAS_WS_MAX && atomic_exchange(&ss->r->ws[ws].sleeping, 0))
			sys_write(ss->ws_fd[ws], &one, sizeof one);
	}
}
