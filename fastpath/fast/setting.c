/* SPDX-License-Identifier: MIT */
/*
 * Options that programs store in a socket's lines, as the service takes them: sizes of buffers, and what goes into packets.
 */
#include "fast/sock.h"

enum { RCV_FIRST = 65536, RCV_MIN = 1024 };

/* Linux counts what bytes need beside themselves: of a small buffer half is offered, of a large one about three quarters. */
uint32_t tas__window_of(uint32_t rcvbuf)
{
	uint64_t w = rcvbuf <= 16384 ? rcvbuf / 2 : (uint64_t)rcvbuf * 3 / 4;

	if (!rcvbuf)
		w = RCV_FIRST;
	if (w < RCV_MIN)
		w = RCV_MIN;
	return w < tas_config.tcp_rxbuf_len ? (uint32_t)w : tas_config.tcp_rxbuf_len;
}

void tas__buffers(struct tas_sock *s, const struct tas_app_line *a)
{
	s->rcvbuf_seen = atomic_load_explicit(&a->rcvbuf, memory_order_relaxed);
	s->sndbuf_seen = atomic_load_explicit(&a->sndbuf, memory_order_relaxed);
	s->rcv_buf = tas__window_of(s->rcvbuf_seen);
}

void tas__wire_options(struct tas_sock *s, const struct tas_lock_line *from)
{
	s->ip = atomic_load_explicit(&from->ip, memory_order_relaxed) &
		(TAS_PKT_TOS | 0xff << TAS_PKT_TTL_SHIFT | TAS_PKT_FRAGMENTS | TAS_PKT_RECVERR);
	s->maxseg = atomic_load_explicit(&from->maxseg, memory_order_relaxed);
	s->syncnt = atomic_load_explicit(&from->syncnt, memory_order_relaxed) & 0xff;
	s->linger2 = atomic_load_explicit(&from->linger2, memory_order_relaxed);
	if (s->linger2 > 121 && s->linger2 != UINT32_MAX) /* Linux: TCP_FIN_TIMEOUT_MAX, or it is none at all */
		s->linger2 = 0;
}

void tas__wire_inherit(struct tas_sock *s)
{
	struct tas_lock_line *c = &s->base.b->c;

	atomic_store_explicit(&c->ip, s->ip, memory_order_relaxed);
	atomic_store_explicit(&c->maxseg, s->maxseg, memory_order_relaxed);
	atomic_store_explicit(&c->syncnt, s->syncnt, memory_order_relaxed);
	atomic_store_explicit(&c->linger2, s->linger2, memory_order_relaxed);
}
