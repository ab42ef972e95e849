/* SPDX-License-Identifier: MIT */
/*
 * Readiness, and waiting for it on one socket.  The rules are those of Linux's tcp_poll(); flags are loaded before
 * counters, because the service publishes the last bytes before it says that they are the last.
 */
#include "sockets/sock.h"

enum { TURNS = 16, SETTLE_NS = 1000000000, SETTLE_YIELD_NS = 200000, SETTLE_NAP_MAX_NS = 2000000 };

static uint32_t listener_ready(struct tas_obj *o)
{
	struct tas_block *b = tas__block(o);

	if (!tas__obj_live(o))
		return 0; /* its kernel half goes on */
	if (atomic_load(&b->a.shut) & TAS_SHUT_RD)
		return 0; /* the kernel half says HUP */
	return tas__rx_avail(b) ? EPOLLIN | EPOLLRDNORM : 0;
}

static bool writable(struct tas_obj *o)
{
	for (int i = 0; i < TURNS; i++) {
		struct tas_block *b = tas__block(o);
		tas_off_t direct = atomic_load_explicit(&b->s.direct, memory_order_relaxed);
		uint32_t len;
		uint64_t room = tas__tx_room(o, &len);

		/* Linux: a third of what is in use must be free (sk_stream_is_writeable); here of the ring */
		if (len && room * 3 >= len)
			return true;
		/* tell the service, or a direct peer, that somebody waits for room */
		if (direct)
			atomic_store_explicit(&b->c.want_room, 1, memory_order_seq_cst);
		else if (!atomic_load_explicit(&b->a.tx_want, memory_order_relaxed))
			atomic_store_explicit(&b->a.tx_want, len ? len : 16384, memory_order_seq_cst);
		room = tas__tx_room(o, &len);
		if (len && room * 3 >= len)
			return true;
		/* pairs: the service stores direct, then looks at the other word.  Who hears of it has changed: once more */
		if (atomic_load_explicit(&b->s.direct, memory_order_seq_cst) == direct && !tas__moved(b))
			return false;
	}
	return false; /* its peer plays with it */
}

static __attribute__((noinline)) uint32_t ready_of(struct tas_obj *o, uint32_t want)
{
	struct tas_block *b;
	uint32_t flags, shut, state, lowat, r = 0;
	uint64_t avail;
	bool live, rd, wr;

	switch (atomic_load_explicit(&o->kind, memory_order_acquire)) {
	case TAS_OBJ_LISTEN:
		return listener_ready(o);
	case TAS_OBJ_PLAIN: /* what the kernel does not know of it */
		return tas__obj_error(o, false) ? EPOLLERR : 0;
	}
	b = tas__block(o);
	live = tas__obj_live(o);
	flags = atomic_load_explicit(&b->s.flags, memory_order_acquire);
	state = atomic_load_explicit(&b->s.state, memory_order_acquire);
	shut = atomic_load_explicit(&b->a.shut, memory_order_acquire);
	avail = tas__rx_avail(b);
	rd = !live || (flags & (TAS_F_RX_EOF | TAS_F_RESET)) || (shut & TAS_SHUT_RD);
	wr = !live || (flags & (TAS_F_TX_EOF | TAS_F_RESET)) || (shut & TAS_SHUT_WR);
	if ((rd && wr) || state == TAS_S_CLOSE)
		r |= EPOLLHUP;
	if (rd)
		r |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	if (live && (state == TAS_S_SYN_SENT || state == TAS_S_SYN_RECV))
		goto error;
	lowat = atomic_load_explicit(&b->a.rcvlowat, memory_order_relaxed);
	if (!lowat)
		lowat = 1;
	if (tas__urg_mark(b) == tas__rx_from(b) && !tas__urg_inline(b))
		lowat++; /* the urgent byte is nothing to read */
	if (tas__urg_there(b))
		r |= EPOLLPRI;
	if (avail >= lowat)
		r |= EPOLLIN | EPOLLRDNORM;
	if (wr)
		r |= EPOLLOUT | EPOLLWRNORM;
	else if (!(want & (EPOLLOUT | EPOLLWRNORM)) && !(atomic_load_explicit(&o->flags, memory_order_relaxed) & TAS_OF_ASYNC))
		; /* nobody asks, and what to look at takes time */
	else if (writable(o))
		r |= EPOLLOUT | EPOLLWRNORM;
	else
		atomic_store_explicit(&o->no_space, true, memory_order_relaxed);
error:
	/* The service publishes the error, then the flags: one that came after our look at the flags waits for the next look,
	 * so that ERR is never seen without the HUP that belongs to it. */
	if ((!live || (flags & (TAS_F_RESET | TAS_F_ERROR)) || atomic_load_explicit(&o->so_error, memory_order_relaxed)) &&
	    tas__obj_error(o, false))
		r |= EPOLLERR;
	if ((atomic_load_explicit(&o->flags, memory_order_relaxed) & TAS_OF_ERRQUEUE) && tas__errqueue_any(o))
		r |= EPOLLERR;
	return r;
}

/* Bytes, or none, on a connection that lives, has seen nothing else, and of which nobody asks whether it can be written to: most looks. */
uint32_t tas__obj_ready_of(struct tas_obj *o, uint32_t want)
{
	const struct tas_block *b = atomic_load_explicit(&o->b, memory_order_acquire);

	if (atomic_load_explicit(&o->kind, memory_order_acquire) != TAS_OBJ_CONN || (want & (EPOLLOUT | EPOLLWRNORM)) || tas__moved(b) ||
	    !tas__obj_live(o) || atomic_load_explicit(&b->s.state, memory_order_acquire) != TAS_S_ESTABLISHED ||
	    (atomic_load_explicit(&b->s.flags, memory_order_acquire) & ~(uint32_t)(TAS_F_LOCAL | TAS_F_NEAR)) ||
	    atomic_load_explicit(&b->a.shut, memory_order_acquire) || atomic_load_explicit(&b->s.rx_urg, memory_order_acquire) ||
	    atomic_load_explicit(&b->a.rcvlowat, memory_order_relaxed) > 1 || atomic_load_explicit(&o->so_error, memory_order_relaxed) ||
	    (atomic_load_explicit(&o->flags, memory_order_relaxed) & (TAS_OF_ASYNC | TAS_OF_ERRQUEUE)))
		return ready_of(o, want);
	return atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire) >
			       atomic_load_explicit(&b->a.rx_consumed, memory_order_relaxed)
		       ? EPOLLIN | EPOLLRDNORM
		       : 0;
}

void tas__obj_kick(struct tas_obj *o)
{
	struct tas_block *b = tas__block(o);
	uint64_t mask = tas__table_lock();

	tas__ep_kick(o, 0);
	tas__table_unlock(mask);
	sys_futex(&b->a.shut, FUTEX_WAKE, INT32_MAX, NULL);
	if (!atomic_load(&o->ss->dead))
		tas__wake_subscribers(o->ss, b);
}

/* Linux, tcp_set_rcvlowat(): what is there may be enough now, which is news for readers. */
void tas__obj_lowat(struct tas_obj *o)
{
	uint64_t mask;

	if (!(tas__obj_ready(o) & EPOLLIN))
		return;
	mask = tas__table_lock();
	tas__ep_kick(o, EPOLLIN | EPOLLRDNORM);
	tas__table_unlock(mask);
	if (!atomic_load(&o->ss->dead))
		tas__wake_subscribers(o->ss, tas__block(o));
}

/* ---- waiting on one socket ---- */
/* Which rounds over our hints the service has come to, for a comparison later; never 0. */
static uint64_t stuck_mark(const uint32_t rounds[TAS_CORES_MAX])
{
	uint64_t sum = 0;

	for (int i = 0; i < TAS_CORES_MAX; i++)
		sum += rounds[i];
	return sum << 1 | 1;
}

/* On every core: nothing is under way, or a round was completed that began after busy was `from`. */
static bool hints_done(struct tas_session *ss, const uint32_t from[TAS_CORES_MAX])
{
	uint32_t n = ss->r->h.n_cores;

	for (uint32_t i = 0; i < n && i < TAS_CORES_MAX; i++) {
		struct tas_core_hints *h = &ss->r->core[i];
		/* busy after dirty: the service raises it before it takes dirty */
		bool dirty = tas_bitmap_any(&h->dirty);
		uint32_t busy = atomic_load_explicit(&h->busy, memory_order_acquire);

		if ((dirty || (busy & 1)) && busy - from[i] < 2 + (from[i] & 1))
			return false;
	}
	return true;
}

static void rounds(struct tas_session *ss, uint32_t from[TAS_CORES_MAX])
{
	for (int i = 0; i < TAS_CORES_MAX; i++)
		from[i] = atomic_load_explicit(&ss->r->core[i].busy, memory_order_acquire);
}

bool tas__settled(struct tas_session *ss)
{
	uint32_t from[TAS_CORES_MAX];

	rounds(ss, from);
	return hints_done(ss, from);
}

/* Yields at first; on a loaded machine the service may need its whole turn, and more, before it comes to us: then naps,
 * so as not to be what it waits for.  A service that does nothing for a second (stopped, traced) is not waited for again
 * until it has moved. */
bool tas__settle(struct tas_session *ss)
{
	struct timespec nap = {0, 50000};
	uint32_t from[TAS_CORES_MAX];
	uint64_t begin, now;

	if (!tas__alive(ss))
		return false;
	rounds(ss, from);
	if (hints_done(ss, from))
		return true; /* perhaps since a moment ago: the caller looked before that */
	if (atomic_load_explicit(&ss->stuck, memory_order_relaxed) == stuck_mark(from))
		return false;
	begin = now = tas__now();
	while (!hints_done(ss, from) && tas__alive(ss)) {
		if (now - begin > SETTLE_NS) {
			atomic_store_explicit(&ss->stuck, stuck_mark(from), memory_order_relaxed);
			break;
		}
		if (now - begin < SETTLE_YIELD_NS && tas__may(TAS_MAY_YIELD)) {
			sys0(SYS_sched_yield);
		} else {
			sys2(SYS_nanosleep, SYS_P(&nap), 0);
			if (nap.tv_nsec < SETTLE_NAP_MAX_NS)
				nap.tv_nsec *= 2;
		}
		now = tas__now();
	}
	return true;
}

/* ns; 0: none */
static uint64_t timeout_option(int fd, bool in)
{
	struct {
		int64_t s, us;
	} tv = {0, 0};
	socklen_t len = sizeof tv;

	if (sys_getsockopt(fd, SOL_SOCKET, in ? SO_RCVTIMEO : SO_SNDTIMEO, &tv, &len) < 0)
		return 0;
	return (uint64_t)tv.s * 1000000000u + (uint64_t)tv.us * 1000u;
}

void tas__obj_before_filter(struct tas_obj *o, int fd)
{
	for (int in = 0; in < 2; in++)
		atomic_store(&o->timeout[in], timeout_option(fd, in));
}

static uint64_t timeout_of(const struct tas_obj *o, int fd, bool in)
{
	uint64_t ns = tas__may(TAS_MAY_RECOGNISE) ? timeout_option(fd, in) : atomic_load(&o->timeout[in]);

	return ns ? tas__now() + ns : UINT64_MAX;
}

static bool unchanged(struct tas_obj *o, struct tas_block *b, _Atomic uint32_t *ev, uint32_t seen, uint32_t shut)
{
	return atomic_load_explicit(ev, memory_order_seq_cst) == seen &&
	       atomic_load_explicit(&b->a.shut, memory_order_seq_cst) == shut && tas__alive(o->ss);
}

/* With a timeout: ppoll, which a signal always interrupts, as it does recv() with SO_RCVTIMEO. */
static int wait_timed(struct tas_obj *o, struct tas_block *b, _Atomic uint32_t *ev, uint32_t seen, uint32_t shut, const struct tas_wait *t)
{
	uint64_t end = t->deadline;
	struct tas_waiter w = {0};
	struct pollfd p[2] = {{.fd = -1, .events = POLLIN}, {.fd = atomic_load(&o->ss->ctl)}};
	uint64_t slice = UINT64_MAX;
	struct timespec ts;
	int r = 0;

	if (tas__waiter_get(o->ss, false, &w) == 0) {
		if (tas__obj_subscribe(&w, o, false) == 0)
			p[0].fd = w.fd;
		tas__waiter_arm(&w);
	}
	if (p[0].fd < 0)
		slice = 2000000; /* no wait set to be had: look now and then */
	if (unchanged(o, b, ev, seen, shut)) {
		r = tas__ppoll(p, 2, tas__left(end, slice, &ts), NULL, t->sig, false, p[0].fd);
		if (r == -EINVAL) /* RLIMIT_NOFILE has no room for two */
			r = tas__ppoll(p, 0, tas__left(end, 2000000, &ts), NULL, t->sig, false, -1);
		if (r == 0)
			r = tas__now() >= end ? -EAGAIN : 0;
	}
	if (w.ss) {
		tas__obj_unsubscribe(&w, o);
		tas__waiter_put(&w);
	}
	if (p[1].revents & (POLLHUP | POLLERR))
		tas__session_died(o->ss);
	return r > 0 ? 0 : r;
}

/* A call that was restarted forgets the signals that it slept through: only those behind its first byte end it. */
static void restarted(struct tas_wait *w, bool restarts)
{
	if (restarts)
		w->sig.any = atomic_load_explicit(&tas__sigs.any, memory_order_relaxed);
}

int tas__obj_wait(struct tas_obj *o, int fd, bool in, uint32_t seen, uint32_t shut, struct tas_wait *w)
{
	struct tas_block *b = tas__block(o);
	_Atomic uint32_t *ev = in ? &b->s.ev_in : &b->s.ev_out;
	_Atomic uint32_t *waiters = in ? &b->c.wait_in : &b->c.wait_out;
	bool restarts = !w->partial && (!w->deadline || w->deadline == UINT64_MAX);
	_Atomic uint32_t *news = restarts ? &tas__sigs.news_intr : &tas__sigs.news_any;
	uint32_t v = atomic_load_explicit(news, memory_order_relaxed);
	int r = 0;

	/* after the look at the state: Linux, too, reports data rather than the signal that came with it */
	if (tas__sig_came(w->sig, restarts))
		return -EINTR;
	while (tas__spin(o->ss, &w->spin, atomic_load_explicit(&o->active, memory_order_relaxed))) {
		if (!unchanged(o, b, ev, seen, shut)) {
			w->spin = (struct tas_spin){0};
			restarted(w, restarts);
			return 0;
		}
	}
	w->spin = (struct tas_spin){0};
	if (!w->deadline)
		w->deadline = timeout_of(o, fd, in);
	if (w->deadline != UINT64_MAX)
		return wait_timed(o, b, ev, seen, shut, w);
	/* pairs with the service's bump of ev before its load of the waiters */
	atomic_fetch_add_explicit(waiters, 1, memory_order_seq_cst);
	if (unchanged(o, b, ev, seen, shut))
		r = tas__park(o->ss, ev, seen, &b->a.shut, shut, news, v);
	atomic_fetch_sub_explicit(waiters, 1, memory_order_relaxed);
	restarted(w, restarts);
	return r;
}
