/* SPDX-License-Identifier: MIT */
/*
 * Bridges: a connection for a program that cannot have the library (a static binary, a set-user-ID program), over a stream of the
 * kernel's in place of the backing socket.  What comes in is sent into the stream, what is read from it goes out; an end of either
 * is passed on.  The service does what an application would: under the locks of the block, which it takes if they are free.
 *
 * A bridge keeps the backing descriptor: so the kernel's last close comes when the bridge ends, if nobody else has the socket.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "abi/tas_extent.h"
#include "fast/sock.h"
#include "slow/control.h"

enum { BRIDGES_MAX = 1024, RETRY_NS = 2 * 1000 * 1000, BUDGET = 256 * 1024 };

struct tas_bridge {
	struct tas_pollable io; /* first: our end of the stream */
	struct tas_sock *s;
	int fd; /* of the backing socket */
	bool runs, due;
	bool in_ended;  /* the program has been told that nothing more comes */
	bool out_ended; /* it has said that nothing more goes out */
	bool gone;      /* it has closed its end */
	struct tas_bridge *next, **pprev, *next_due;
};

static struct {
	struct tas_bridge *all, *due, **tail;
	uint32_t n;
	_Atomic uint32_t n_due;
	struct tas_pollable timer; /* somebody had the lock */
} br = { .timer.fd = -1 };

static void schedule(struct tas_bridge *b)
{
	if (!b->runs || b->due)
		return;
	b->due = true;
	b->next_due = NULL;
	if (!br.due)
		br.tail = &br.due;
	*br.tail = b;
	br.tail = &b->next_due;
	br.n_due++;
}

void tas__bridge_wake(struct tas_bridge *b)
{
	tas_shared_in();
	schedule(b);
	tas_shared_out();
	if (!tas_alone)
		tas_kick(&tas_cores[0]);
}

bool tas__bridges_due(void)
{
	return atomic_load_explicit(&br.n_due, memory_order_relaxed);
}

uint32_t tas__bridges_count(void)
{
	return br.n;
}

static void unlink_due(struct tas_bridge *b)
{
	struct tas_bridge **p = &br.due;

	if (!b->due)
		return;
	while (*p != b)
		p = &(*p)->next_due;
	*p = b->next_due;
	if (br.tail == &b->next_due)
		br.tail = p;
	br.n_due--;
	b->due = false;
}

/* The stream goes; if the socket was nobody else's, the kernel will say that the backing descriptor was the last. */
void tas__bridge_end(struct tas_bridge *b)
{
	unlink_due(b);
	if (b->s)
		b->s->bridge = NULL;
	if (b->runs)
		tas_loop_del(&b->io);
	close(b->io.fd);
	close(b->fd);
	*b->pprev = b->next;
	if (b->next)
		b->next->pprev = b->pprev;
	free(b);
	if (--br.n)
		return;
	tas_loop_del(&br.timer);
	close(br.timer.fd);
	br.timer.fd = -1;
	tas__exit_if_unused();
}

/* ---- locks: taken if they are free ---- */
static void try_again(struct tas_pollable *p, uint32_t events)
{
	uint64_t n;

	(void)events;
	if (read(p->fd, &n, sizeof n) == sizeof n)
		for (struct tas_bridge *b = br.all; b; b = b->next)
			schedule(b);
}

static void try_later(void)
{
	const struct itimerspec in = { .it_value.tv_nsec = RETRY_NS };

	timerfd_settime(br.timer.fd, 0, &in, NULL);
}

static bool lock(_Atomic uint32_t *w)
{
	if (tas__block_lock(w))
		return true;
	try_later();
	return false;
}

/* ---- from the connection to the program ---- */
/* True: bytes were taken. */
static bool pump_in(struct tas_bridge *b)
{
	struct tas_sock *s = b->s;
	struct tas_app_line *a = &s->base.b->a;
	uint64_t at, from;
	ssize_t n = 0;

	if (b->in_ended || !lock(&s->base.b->c.lock_rx))
		return false;
	from = at = atomic_load_explicit(&a->rx_consumed, memory_order_acquire);
	while (at >= s->consumed && at < s->delivered && at - from < BUDGET) {
		struct tas_span p = tas__rx_space(s, at, s->delivered);

		n = p.len ? send(b->io.fd, tas__mem_ptr(s->base.set, p.off), p.len, MSG_DONTWAIT | MSG_NOSIGNAL) : -1;
		if (n <= 0)
			break;
		at += (uint64_t)n;
	}
	atomic_store_explicit(&a->rx_consumed, at, memory_order_release);
	tas__block_unlock(&s->base.b->c.lock_rx);
	if (n < 0 && errno != EAGAIN) { /* the program has gone, or reads no more: Linux resets who sends to it */
		atomic_fetch_or(&a->shut, TAS_ABORT);
		b->gone = true;
	} else if (at == s->delivered && (s->rx_eof || s->dead)) {
		shutdown(b->io.fd, SHUT_WR);
		b->in_ended = true;
	} else if (at < s->delivered && n >= 0) {
		schedule(b);
	}
	return at != from;
}

/* ---- from the program to the connection ---- */
/* The ring to write to at offset w, as an application chooses it (client/sockets/send.c), and its base. */
static const struct tas_ring *ring_for(struct tas_sock *s, uint64_t w, uint64_t *base)
{
	struct tas_app_line *a = &s->base.b->a;
	const struct tas_ring *best = NULL;

	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		struct tas_tx_base *t = &a->tx_base[i];

		if (!s->tx[i].gen)
			continue;
		if (atomic_load_explicit(&t->gen, memory_order_acquire) != s->tx[i].gen) { /* an offer: answered now */
			atomic_store_explicit(&t->base, w, memory_order_relaxed);
			atomic_store_explicit(&t->epoch, 0, memory_order_relaxed);
			atomic_store_explicit(&t->gen, s->tx[i].gen, memory_order_release);
			*base = w;
			return &s->tx[i];
		}
		uint64_t at = atomic_load_explicit(&t->base, memory_order_relaxed);

		if (at <= w && (!best || at > *base || (at == *base && (int32_t)(s->tx[i].gen - best->gen) > 0))) {
			best = &s->tx[i];
			*base = at;
		}
	}
	return best;
}

/* The program's end is closed altogether, not only shut for writing: then our sending fails. */
static bool hung_up(const struct tas_bridge *b)
{
	const char c = 0;

	return !b->in_ended && send(b->io.fd, &c, 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE;
}

/* True: bytes were written, or the end was. */
static bool pump_out(struct tas_bridge *b)
{
	struct tas_sock *s = b->s;
	struct tas_app_line *a = &s->base.b->a;
	const struct tas_ring *r;
	uint64_t base = 0, w, used;
	struct tas_span p;
	bool full = false;
	ssize_t n = 0;

	if (b->out_ended || !lock(&s->base.b->c.lock_tx))
		return false;
	w = atomic_load_explicit(&a->tx_written, memory_order_acquire);
	r = ring_for(s, w, &base);
	used = w - (s->acked > base ? s->acked : base);
	if (!r || used >= r->len) {
		full = true;
		atomic_store_explicit(&a->tx_want, r ? 2 * r->len : 16384, memory_order_relaxed);
		n = -EAGAIN;
	} else {
		p = tas_extent_span(r->off, base, r->len, w, w + (r->len - used));
		n = recv(b->io.fd, tas__mem_ptr(s->base.set, p.off), p.len, MSG_DONTWAIT);
		n = n < 0 ? -errno : n;
		if (n > 0)
			atomic_store_explicit(&a->tx_written, w + (uint64_t)n, memory_order_release);
	}
	tas__block_unlock(&s->base.b->c.lock_tx);
	if (n > 0) {
		schedule(b); /* there may be more */
		return true;
	}
	if (n == -EAGAIN || n == -EINTR)
		return full; /* so that the service sees tx_want */
	/* Its death is not the connection's, which others may have; ECONNRESET: it did not read what came, for which Linux resets
	 * at the last close. */
	b->gone = n != 0 || hung_up(b);
	b->out_ended = true;
	if (n || !b->gone)
		atomic_fetch_or(&a->shut, n ? TAS_ABORT : TAS_SHUT_WR);
	return true;
}

static void run(struct tas_bridge *b)
{
	struct tas_sock *s = b->s;
	bool moved;

	if (!s) { /* another core has ended it */
		tas__bridge_end(b);
		return;
	}
	if (tas__direct_end(s)) {
		try_later();
		return;
	}
	moved = !s->dead && pump_out(b);
	moved |= pump_in(b);
	if (moved && !tas__sock_hint(s)) /* frees it at most when it is closed, and then the bridge is gone, too */
		return;
	if (b->gone || (b->out_ended && hung_up(b)) || (b->in_ended && (b->out_ended || s->dead)))
		tas__bridge_end(b);
}

void tas__bridges_run(void)
{
	for (uint32_t n = br.n_due; n && br.due; n--) {
		struct tas_bridge *b = br.due;

		unlink_due(b);
		run(b);
	}
}

static void ready(struct tas_pollable *io, uint32_t events)
{
	struct tas_bridge *b = (struct tas_bridge *)io;

	(void)events;
	schedule(b); /* edges: it is read and written until the kernel says EAGAIN */
}

/* ---- beginning ---- */
int tas__bridge_new(struct tas_sock_base *base, int fd, int *program, struct tas_bridge **out)
{
	struct tas_sock *s = tas__of(base);
	struct tas_bridge *b;
	int pair[2];

	if (base->kind == TAS_K_LISTENER || base->closed || s->bridge)
		return TAS_FALLBACK;
	if (br.n >= BRIDGES_MAX)
		return -ENOBUFS;
	b = calloc(1, sizeof *b);
	if (!b)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		int err = errno;

		free(b);
		return -err;
	}
	if (br.timer.fd < 0) {
		br.timer = (struct tas_pollable){ .fn = try_again, .fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC) };
		if (br.timer.fd < 0 || tas_loop_add(&br.timer, EPOLLIN)) {
			close(pair[0]);
			close(pair[1]);
			free(b);
			return -EMFILE;
		}
	}
	*b = (struct tas_bridge){ .io = { .fd = pair[0], .fn = ready }, .s = s, .fd = fd, .next = br.all, .pprev = &br.all };
	if (br.all)
		br.all->pprev = &b->next;
	br.all = b;
	br.n++;
	s->bridge = b;
	*program = pair[1];
	*out = b;
	return 0;
}

void tas__bridge_start(struct tas_bridge *b)
{
	if (!b->s || tas_loop_add(&b->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)) {
		tas__bridge_end(b);
		return;
	}
	b->runs = true;
	schedule(b);
}

/* The socket is about to go. */
void tas__bridge_orphan(struct tas_sock *s)
{
	struct tas_bridge *b = s->bridge;

	s->bridge = NULL;
	if (!b)
		return;
	if (b->runs && tas_alone) {
		tas__bridge_end(b);
		return;
	}
	b->s = NULL; /* who asked for it ends it, or core 0 */
	if (b->runs)
		tas__bridge_wake(b);
}

void tas__bridges_exit(void)
{
	while (br.all)
		tas__bridge_end(br.all);
}
