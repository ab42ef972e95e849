/* SPDX-License-Identifier: MIT */
/*
 * Local connections: two applications of one service.  Never segments: bytes are copied from the writer's transmit extents to the
 * reader's receive extents, FIN and RST are flags.  Semantics (states, errors, order) are those of Linux over loopback.
 */
#include <errno.h>
#include <string.h>

#include "abi/tas_extent.h"
#include "fast/sock.h"

enum { PUMP_BUDGET = 512 * 1024, PUMP_COST = 32, TS_OPTION = 12 };
static const uint64_t retry_ns = 5 * 1000 * 1000, connect_timeout_ns = 127ull * 1000 * 1000 * 1000;

static void show_state(struct tas_sock *s)
{
	bool out = s->app_fin && s->acked == s->written, in = s->rx_eof;
	uint32_t was = s->base.b ? atomic_load_explicit(&s->base.b->s.state, memory_order_relaxed) : TAS_S_CLOSE;
	/* our FIN waits behind bytes that the reader has no room for */
	enum tas_sock_state waits = !in ? TAS_S_FIN_WAIT1 : was == TAS_S_FIN_WAIT1 || was == TAS_S_CLOSING ? TAS_S_CLOSING : TAS_S_LAST_ACK;

	if (s->app_fin && !out)
		tas__sock_state(s, waits);
	else
		tas__sock_state(s, out && in ? TAS_S_CLOSE : out ? TAS_S_FIN_WAIT2 : in ? TAS_S_CLOSE_WAIT : TAS_S_ESTABLISHED);
}

/* Not while it is direct: the peer's writer may be in memory that goes with s. */
static void part(struct tas_sock *s)
{
	if (s->u.local.peer)
		s->u.local.peer->u.local.peer = NULL;
	s->u.local.peer = NULL;
}

/* s learns that its connection is no more.  Frees it if the application has closed it. */
static void reset(struct tas_sock *s)
{
	part(s);
	if (s->base.closed) {
		tas__sock_free(s);
		return;
	}
	if (s->dead)
		return;
	s->dead = true;
	/* Linux tcp_reset(): EPIPE in CLOSE_WAIT, else ECONNRESET */
	tas__sock_error(s, s->rx_eof && !s->app_fin ? EPIPE : ECONNRESET);
	tas__sock_flags(s, TAS_F_RESET | TAS_F_TX_EOF);
	tas__sock_state(s, TAS_S_CLOSE);
	tas__port_del(s);
	tas__wake_soon(s, TAS_WAKE_IN | TAS_WAKE_OUT);
}

/* Copies up to len bytes; returns how many there was memory for. */
static uint32_t copy(struct tas_sock *from, struct tas_sock *to, uint32_t len)
{
	uint32_t done = 0;

	if (!tas__rx_reserve(to, to->delivered, len, to->delivered))
		return 0;
	while (done < len) {
		struct tas_span src = tas__tx_data(from, from->acked + done, from->acked + len);
		struct tas_span dst = tas__rx_space(to, to->delivered + done, to->delivered + len);
		uint32_t n = src.len < dst.len ? src.len : dst.len;

		if (!n)
			break;
		memcpy(tas__mem_ptr(to->base.set, dst.off), tas__mem_ptr(from->base.set, src.off), n);
		done += n;
	}
	return done;
}

/* So many bytes of from are in the memory of to. */
static void deliver(struct tas_sock *from, struct tas_sock *to, uint32_t moved)
{
	uint32_t segs = (moved + TAS_LOCAL_MSS - 1) / TAS_LOCAL_MSS;

	if (from->urg_written)
		tas__rx_urgent(to, from->urg_written);
	tas_count(from->core, TAS_CTR_bytes_local, moved);
	from->u.local.segs_out += segs;
	to->u.local.segs_in += segs;
	from->u.local.sent_at = to->u.local.got_at = from->core->now;
	to->delivered += moved;
	atomic_store_explicit(&to->base.b->s.rx_delivered, to->delivered, memory_order_release);
	tas__tx_acked(from, from->acked + moved);
}

bool tas__local_drain(struct tas_sock *from)
{
	struct tas_sock *to = from->u.local.peer;
	int changed = tas__app_read(from);
	uint32_t moved;

	if (changed < 0) { /* who is about to write to the peer's memory must be gone first: in a moment */
		from->u.local.nonsense = true;
		tas__timer_set(from, from->core->now);
		return false;
	}
	if (changed & (TAS_CH_DEAF | TAS_CH_SHUT)) { /* seen here first, as in tas__sock_hint(); the rest of it is pump()'s */
		tas__wake_soon(from, TAS_WAKE_IN);
		if (changed & TAS_CH_SHUT)
			tas__sock_flags(from, TAS_F_TX_EOF);
		if ((changed & TAS_CH_SHUT) && from->acked != from->written)
			show_state(from);
		return false;
	}
	while (from->written != from->acked) {
		moved = copy(from, to, (uint32_t)(from->written - from->acked));
		if (!moved)
			return false;
		deliver(from, to, moved);
		tas__wake_soon(to, TAS_WAKE_IN);
	}
	if (to->rcv_limit < to->delivered)
		to->rcv_limit = to->delivered;
	return true;
}

/* Moves what can be moved.  True: from is gone. */
static bool pump(struct tas_sock *from)
{
	struct tas_sock *to = from->u.local.peer;
	uint64_t n = from->written - from->acked, room;

	if (!to || from->u.local.direct)
		return false;
	if (to->base.closed) {
		if (n) { /* data for a closed socket is answered by RST, and what that still had to send is lost */
			reset(to);
			reset(from);
			return true;
		}
	} else if (n && to->app_deaf && to->app_fin) { /* Linux: so is data after shutdown(SHUT_RDWR), and both are told */
		if (from->urg_written)
			tas__rx_urgent(to, from->urg_written);
		reset(to);
		reset(from);
		return true;
	} else if (n) {
		room = to->rcv_limit - to->delivered;
		n = n < room ? n : room;
		n = n < PUMP_BUDGET ? n : PUMP_BUDGET;
		if (n) {
			uint32_t moved = copy(from, to, (uint32_t)n);

			if (!moved) {
				tas_count(from->core, TAS_CTR_tcp_no_memory, 1);
				tas__timer_set(from, from->core->now + retry_ns);
				return false;
			}
			deliver(from, to, moved);
			if (from->acked != from->written && to->rcv_limit != to->delivered)
				tas__output_soon(from);
			if (from->acked != from->written || !from->app_fin)
				tas__wake_soon(to, TAS_WAKE_IN);
			tas__direct_consider(from, moved);
		}
	}
	if (from->app_fin && from->acked == from->written && !to->rx_eof) {
		to->rx_eof = true;
		tas__sock_flags(to, TAS_F_RX_EOF);
		show_state(to);
		show_state(from);
		tas__wake_soon(to, TAS_WAKE_IN | TAS_WAKE_OUT); /* Linux, tcp_fin(): a change of state is news for everybody */
		if (to->app_fin)
			tas__wake_soon(from, TAS_WAKE_IN | TAS_WAKE_OUT);
		if (from->rx_eof) /* Linux: LAST_ACK ends in CLOSE, which has no port */
			tas__port_del(from);
	}
	/* one without FIN waits for a lock (tas__sock_close_now()) */
	if (from->base.closed && from->app_fin && from->acked == from->written) {
		part(from);
		tas__sock_free(from);
		return true;
	}
	return false;
}

unsigned tas__local_output(struct tas_sock *s)
{
	pump(s);
	return PUMP_COST;
}

void tas__local_timer(struct tas_sock *s)
{
	if (s->listener) {
		tas__listener_unpend(s->listener, s);
		tas__local_abandon(s, ETIMEDOUT);
		return;
	}
	if (s->base.closed && s->u.local.retry_ns) { /* the last close waits for a lock */
		tas__sock_close_now(s);
		return;
	}
	if (tas__is_direct(s)) {
		tas__direct_timer(s);
		return;
	}
	if (s->u.local.nonsense && !s->dead && !s->base.closed) {
		tas__sock_hint(s);
		return;
	}
	if (s->stall_at && s->stall_at <= s->core->now)
		tas__tx_stalled(s);
	if (s->stall_at)
		tas__timer_set(s, s->stall_at);
	pump(s);
}

void tas__local_hint(struct tas_sock *s, int changed)
{
	if (changed & TAS_CH_SHUT)
		tas__sock_flags(s, TAS_F_TX_EOF);
	if (changed & TAS_CH_SHUT && s->u.local.peer && s->acked != s->written)
		show_state(s);
	if (s->listener) /* still waiting for a place in the accept queue */
		return;
	if (changed & (TAS_CH_WRITTEN | TAS_CH_SHUT)) {
		if (!s->u.local.peer && !s->dead) {
			if (changed & TAS_CH_WRITTEN) {
				reset(s); /* the peer has closed and is gone */
				return;
			}
			show_state(s);
			if (s->app_fin && s->rx_eof) /* as in pump() */
				tas__port_del(s);
			tas__wake_soon(s, TAS_WAKE_IN | TAS_WAKE_OUT);
		} else if (pump(s)) {
			return;
		}
	}
	if ((changed & TAS_CH_CONSUMED) && s->u.local.peer)
		pump(s->u.local.peer);
}

void tas__local_close(struct tas_sock *s, bool abort_it)
{
	struct tas_sock *peer = s->u.local.peer;

	if (s->listener) {
		tas__listener_unpend(s->listener, s);
		tas__sock_free(s);
		return;
	}
	/* Linux: none after both FINs; the connection has ended */
	if (abort_it && peer && !peer->dead && !(s->rx_eof && peer->rx_eof)) {
		part(s);
		reset(peer);
		peer = NULL;
	}
	if (!s->base.closed) { /* counters made no sense: the application still holds it */
		reset(s);
		return;
	}
	if (!peer || s->dead) {
		part(s);
		tas__sock_free(s);
		return;
	}
	bool over = s->rx_eof && peer->rx_eof;
	bool unread = !over && (peer->written != peer->acked || s->delivered != s->consumed); /* sent to us, after the close */

	if (peer->base.closed && (unread || s->written != s->acked)) { /* whatever either has for the other is for nobody */
		reset(peer);
		reset(s);
		return;
	}
	s->app_fin = true;
	bool gone = pump(s); /* if not, it lingers until the reader has room */

	if (unread) {
		if (!gone) {
			part(s);
			tas__sock_free(s);
		}
		reset(peer);
	}
}

void tas__local_abandon(struct tas_sock *s, int error)
{
	if (s->base.closed) {
		tas__sock_free(s);
		return;
	}
	s->dead = true;
	tas__sock_error(s, error);
	tas__sock_flags(s, TAS_F_RESET | TAS_F_TX_EOF);
	tas__sock_state(s, TAS_S_CLOSE);
	tas__port_del(s);
	tas__wake_soon(s, TAS_WAKE_IN | TAS_WAKE_OUT);
}

static void stream_start(struct tas_sock *s, const struct tas_app_line *a)
{
	tas__buffers(s, a);
	s->rcv_limit = s->rcv_buf;
}

/* Linux: TCP_MAXSEG of either side bounds it. */
static uint32_t local_mss(const struct tas_sock *a, const struct tas_sock *b)
{
	uint32_t mss = TAS_LOCAL_MSS + TS_OPTION;

	if (a->maxseg && a->maxseg < mss)
		mss = a->maxseg;
	if (b->maxseg && b->maxseg < mss)
		mss = b->maxseg;
	return mss - TS_OPTION;
}

int tas__local_establish(struct tas_sock *a, struct tas_sock *l)
{
	struct tas_sock *b = tas__sock_new(a->core, TAS_K_LOCAL);

	if (!b)
		return -ENOMEM;
	b->base.local = a->base.peer;
	b->base.peer = a->base.local;
	b->base.netns = l->base.netns;
	b->reuse = l->reuse;
	b->reuseport = l->reuseport;
	if (tas__sock_place(b, l->base.set, l->base.ident.domain) < 0 || tas__tx_first(b) < 0) {
		tas__sock_free(b);
		return -ENOBUFS;
	}
	stream_start(b, &l->base.b->a);
	atomic_store_explicit(&b->base.b->a.opts, l->u.lis.opts, memory_order_relaxed);
	atomic_store_explicit(&b->base.b->a.rcvbuf, b->rcvbuf_seen, memory_order_relaxed);
	atomic_store_explicit(&b->base.b->a.sndbuf, b->sndbuf_seen, memory_order_relaxed);
	a->u.local.peer = b;
	b->u.local.peer = a;
	a->u.local.got_at = a->u.local.sent_at = b->u.local.got_at = b->u.local.sent_at = a->core->now;
	tas__wire_options(b, &l->base.b->c);
	tas__wire_inherit(b);
	atomic_store_explicit(&b->base.b->s.mss, local_mss(a, b), memory_order_relaxed);
	atomic_store_explicit(&a->base.b->s.mss, local_mss(a, b), memory_order_relaxed);
	tas__sock_flags(b, TAS_F_LOCAL | (a->base.set == b->base.set ? TAS_F_NEAR : 0));
	if (a->base.set == b->base.set)
		tas__sock_flags(a, TAS_F_NEAR);
	tas__sock_publish(b, TAS_S_ESTABLISHED);
	tas__port_add(b);
	tas__accept_push(l, b);
	tas__sock_state(a, TAS_S_ESTABLISHED);
	tas_count(a->core, TAS_CTR_conn_local, 1);
	tas__wake_soon(a, TAS_WAKE_OUT);
	return 0;
}

/* a is placed and published in SYN_SENT.  0: established, or waiting for room in the accept queue as Linux's SYN would. */
int tas__local_connect(struct tas_sock *a, struct tas_sock *l)
{
	if (tas__tx_first(a) < 0)
		return -ENOBUFS;
	stream_start(a, &a->base.b->a);
	tas__sock_flags(a, TAS_F_LOCAL);
	if (tas__accept_room(l))
		return tas__local_establish(a, l);
	tas_count(a->core, TAS_CTR_tcp_listen_overflow, 1);
	tas__listener_pend(l, a);
	tas__timer_set(a, a->core->now + connect_timeout_ns);
	return 0;
}
