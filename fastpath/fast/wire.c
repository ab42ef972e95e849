/* SPDX-License-Identifier: MIT */
/*
 * Connections over the link: the engine (tcp/) on one side, stream memory and applications on the other.
 *
 * Memory follows need: an embryo has none; id, block and extents come with the acknowledgement of our SYN and go when the
 * application has closed and every byte is acknowledged.  What is left in FIN_WAIT2, LAST_ACK or TIME_WAIT is this struct.
 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/random.h>

#include "fast/wire.h"

enum { PMTU_MIN = 552, ACK_WAIT = 50000 /* ns: what an application that is awake needs to answer */ };

/* Of this service, for all numbers that nobody else may guess. */
static const uint8_t *secret(void)
{
	static uint8_t key[16];
	static bool keyed;

	tas_shared_in();
	if (!keyed)
		keyed = getrandom(key, sizeof key, 0) == sizeof key;
	tas_shared_out();
	return key;
}

/* RFC 7323 §5.4, Linux secure_tcp_ts_off(): one for each pair of addresses, so that its timestamps grow from connection to connection. */
static uint32_t ts_offset_for(const struct tas_sock *s)
{
	uint32_t pair[2];

	memcpy(&pair[0], s->base.local.ip, 4);
	memcpy(&pair[1], s->base.peer.ip, 4);
	return (uint32_t)tcp_siphash(secret(), pair, sizeof pair);
}

static void config_for(const struct tas_sock *s, struct tcp_config *cfg)
{
	struct tas_route r;

	tas_net_route(&s->base.peer, &r);
	*cfg = (struct tcp_config){
		.mss = (uint16_t)((r.mtu ? r.mtu : 1500) - 40),
		.ecn = true,
		.rcv_wnd_max = tas_config.tcp_rxbuf_len,
		.timestamps = true,
		.sack = true,
		.ack_wait = ACK_WAIT,
		.syn_timeout = tas_config.tcp_handshake_timeout,
		.syn_retries = (uint8_t)tas_config.tcp_handshake_retries,
		.cc = (uint8_t)tas_config.cc,
	};
	if (s->maxseg && s->maxseg < cfg->mss)
		cfg->mss = (uint16_t)s->maxseg;
	if (s->syncnt)
		cfg->syn_retries = (uint8_t)s->syncnt;
	cfg->ts_offset = ts_offset_for(s);
}

static uint32_t isn_for(const struct tas_sock *s)
{
	struct {
		uint32_t local, peer;
		uint16_t local_port, peer_port;
	} tuple = { .local_port = s->base.local.port, .peer_port = s->base.peer.port };

	memcpy(&tuple.local, s->base.local.ip, 4);
	memcpy(&tuple.peer, s->base.peer.ip, 4);
	return tcp_isn(secret(), &tuple, sizeof tuple, s->core->now);
}

static void settle(struct tas_sock *s)
{
	tas__output_soon(s);
	tas__timer_set(s, tcp_deadline(&s->u.tcp));
}

static void options(struct tas_sock *s)
{
	struct tcp_opts o = {
		.nodelay = s->opts_seen & TAS_O_NODELAY,
		.cork = s->opts_seen & TAS_O_CORK,
		.keepalive = s->opts_seen & TAS_O_KEEPALIVE,
		.quickack = s->opts_seen & TAS_O_QUICKACK,
		.keep_idle = s->keep_seen[0],
		.keep_intvl = s->keep_seen[1],
		.keep_cnt = s->keep_seen[2],
		.user_timeout = s->keep_seen[3],
		.linger2 = s->linger2,
	};

	tcp_app_options(&s->u.tcp, &o, s->core->now);
}

/* Linux, secs_to_retrans(): the number of doubling timeouts, from one second on, that are no shorter than so many seconds. */
static uint8_t timeouts_in(uint32_t seconds)
{
	uint32_t timeout = 1, period = 1;
	uint8_t n = seconds > 0;

	while (seconds > period && n < 255) {
		n++;
		timeout = timeout < 60 ? timeout * 2 : 120;
		period += timeout;
	}
	return n;
}

void tas__wire_passive(struct tas_sock *s, const struct tcp_seg *syn, const uint32_t *isn)
{
	const struct tas_lock_line *of = &s->listener->base.b->c;
	struct tcp_config cfg;

	tas__wire_options(s, of);
	config_for(s, &cfg);
	cfg.syn_retries = s->syncnt ? (uint8_t)s->syncnt : 0;
	cfg.defer = timeouts_in(atomic_load_explicit(&of->defer, memory_order_relaxed));
	tas__buffers(s, &s->listener->base.b->a);
	s->rcv_limit = s->rcv_buf;
	tcp_open_passive(&s->u.tcp, &cfg, isn ? *isn : isn_for(s), syn, s->rcv_limit, s->core->now);
	s->opts_seen = s->listener->u.lis.opts;
	options(s);
}

/* s is placed, with both addresses.  0 or -errno. */
int tas__wire_connect(struct tas_sock *s, uint32_t opts)
{
	struct tcp_config cfg;

	if (tas__tx_first(s) < 0)
		return -ENOBUFS;
	config_for(s, &cfg);
	s->rcv_limit = s->rcv_buf;
	tcp_open_active(&s->u.tcp, &cfg, isn_for(s), s->rcv_limit, s->core->now);
	s->opts_seen = opts;
	options(s);
	tas__flow_add(s);
	settle(s);
	return 0;
}

static bool take_place(struct tas_sock *s)
{
	struct tas_sock *l = s->listener;

	if (!tas__accept_room(l)) {
		tas_count(s->core, TAS_CTR_tcp_listen_overflow, 1);
		return false;
	}
	if (tas__sock_place(s, l->base.set, l->base.ident.domain) < 0 || tas__tx_first(s) < 0) {
		tas__sock_unplace(s);
		tas_count(s->core, TAS_CTR_tcp_no_memory, 1);
		return false;
	}
	atomic_store_explicit(&s->base.b->a.opts, s->opts_seen, memory_order_relaxed);
	atomic_store_explicit(&s->base.b->a.rcvbuf, s->rcvbuf_seen, memory_order_relaxed);
	atomic_store_explicit(&s->base.b->a.sndbuf, s->sndbuf_seen, memory_order_relaxed);
	tas__wire_inherit(s);
	tas__sock_publish(s, TAS_S_SYN_RECV);
	return true;
}

/* The embryo becomes a connection that an application can see. */
static bool promote(struct tas_sock *s)
{
	bool ok;

	tas_shared_in();
	ok = take_place(s);
	tas_shared_out();
	return ok;
}

static void embryo_gone(struct tas_sock *s)
{
	if (!s->listener)
		return;
	tas_shared_in();
	s->listener->u.lis.embryos--;
	tas_shared_out();
	s->listener = NULL;
	s->core->stack->n_embryos--;
}

static void connected(struct tas_sock *s)
{
	struct tas_sock *l = s->listener;

	if (l) {
		embryo_gone(s);
		tas_count(s->core, TAS_CTR_conn_passive, 1);
		tas__sock_state(s, TAS_S_ESTABLISHED);
		atomic_store_explicit(&s->base.b->s.mss, tcp_mss(&s->u.tcp), memory_order_relaxed);
		tas_shared_in();
		tas__accept_push(l, s);
		tas_shared_out();
		return;
	}
	tas_count(s->core, TAS_CTR_conn_active, 1);
	tas__sock_state(s, TAS_S_ESTABLISHED);
	tas__wake_soon(s, TAS_WAKE_OUT);
}

static void time_wait(struct tas_sock *s, bool in)
{
	if (s->in_time_wait == in)
		return;
	s->in_time_wait = in;
	s->core->stack->n_time_wait += in ? 1 : -1u;
}

void tas__wire_forget(struct tas_sock *s)
{
	time_wait(s, false);
	embryo_gone(s);
	tas__sock_free(s);
}

/* True: s is gone. */
static bool finished(struct tas_sock *s)
{
	enum tcp_state st = tcp_state(&s->u.tcp);

	time_wait(s, st == TCP_S_TIME_WAIT);
	if (st == TCP_S_CLOSE) {
		if (s->listener || s->base.closed) {
			tas__wire_forget(s);
			return true;
		}
		tas__flow_del(s);
		tas__port_del(s);
		return false;
	}
	if (s->base.closed && s->base.b && s->acked == s->written)
		tas__sock_unplace(s);
	return false;
}

static void failed(struct tas_sock *s, int error)
{
	s->dead = true;
	tas__sock_error(s, error);
	tas__sock_flags(s, TAS_F_RESET | TAS_F_TX_EOF);
}

/* What the engine says happened → what the application sees. */
void tas__wire_result(struct tas_sock *s, const struct tcp_result *res)
{
	unsigned wake = 0;

	if (!res->events)
		return;
	if (res->events & TCP_EV_CONNECTED && s->base.b)
		connected(s);
	if (res->events & TCP_EV_URG && s->base.b && !s->base.closed) {
		tas__rx_urgent(s, tcp_rx_urgent(&s->u.tcp) + 1);
		wake |= TAS_WAKE_IN;
	}
	if (res->delivered > s->delivered && s->base.b && !s->base.closed) {
		tas_count(s->core, TAS_CTR_bytes_in, res->delivered - s->delivered);
		s->delivered = res->delivered;
		atomic_store_explicit(&s->base.b->s.rx_delivered, s->delivered, memory_order_release);
		wake |= TAS_WAKE_IN;
	}
	if (res->events & TCP_EV_FIN) {
		s->rx_eof = true;
		tas__sock_flags(s, TAS_F_RX_EOF);
		wake |= TAS_WAKE_IN | TAS_WAKE_OUT; /* Linux, tcp_fin(): a change of state is news for everybody */
	}
	if (res->events & TCP_EV_ERROR && !s->dead) {
		failed(s, res->error);
		wake |= TAS_WAKE_IN | TAS_WAKE_OUT;
	}
	/* Linux, tcp_rcv_state_process(): the acknowledgement of the own FIN is an event */
	if (tcp_state(&s->u.tcp) == TCP_S_FIN_WAIT2 && s->base.b &&
	    atomic_load_explicit(&s->base.b->s.state, memory_order_relaxed) == TAS_S_FIN_WAIT1)
		wake |= TAS_WAKE_IN | TAS_WAKE_OUT;
	tas__sock_state(s, (enum tas_sock_state)tcp_state(&s->u.tcp));
	if (res->acked > s->acked)
		tas__tx_acked(s, res->acked);
	if (res->events & TCP_EV_CLOSED)
		wake |= TAS_WAKE_IN | TAS_WAKE_OUT;
	if (wake)
		tas__wake_soon(s, wake);
}

/* What the network said of a living connection, for SO_ERROR, until an acknowledgement shows that it goes on.  Linux with IP_RECVERR:
 * an error like any other, told to everybody who waits. */
static void soft_error(struct tas_sock *s)
{
	int error = tcp_soft_error(&s->u.tcp);

	if (!s->base.b)
		return;
	if (error && s->ip & TAS_PKT_RECVERR) {
		tas__sock_error(s, error);
		tas__sock_flags(s, TAS_F_ERROR);
		tas__wake_soon(s, TAS_WAKE_IN | TAS_WAKE_OUT);
		return;
	}
	if (error || s->soft_told)
		atomic_store_explicit(&s->base.b->c.soft_error, (uint32_t)error, memory_order_relaxed);
	s->soft_told = error;
}

/* An embryo's handshake ends with seg: it needs a place in the accept queue. */
static bool completes(const struct tas_sock *s, const struct tcp_seg *seg)
{
	return s->listener && !s->base.b && (seg->flags & TCP_F_ACK) && !(seg->flags & (TCP_F_SYN | TCP_F_RST)) &&
	       !tcp_defers(&s->u.tcp, seg);
}

bool tas__wire_takes_last(const struct tas_sock *s, const struct tcp_seg *seg)
{
	struct tas_sock *l = s->listener;
	bool last;

	if (!completes(s, seg))
		return false;
	tas_shared_in();
	last = tas__accept_queued(l) + 1 == l->u.lis.limit;
	tas_shared_out();
	return last;
}

void tas__wire_input(struct tas_sock *s, const struct tcp_seg *seg, const uint8_t *payload)
{
	struct tcp_result res = { 0 };
	struct tcp_rx_want want;

	if (completes(s, seg) && !promote(s))
		return;
	if (seg->len && payload && s->base.b && !s->base.closed) {
		want = tcp_rx_want(&s->u.tcp, seg);
		if (want.len && !tas__rx_reserve(s, want.off, want.len, tcp_rx_high(&s->u.tcp))) {
			tas_count(s->core, TAS_CTR_tcp_no_memory, 1);
			return;
		}
	}
	tcp_input(&s->u.tcp, seg, s->core->now, &res);
	if (res.rx_len && payload && s->base.b && !s->base.closed)
		tas__rx_write(s, res.rx_off, payload + res.rx_skip, res.rx_len);
	if (res.reset_reply)
		tas__wire_reset(s->core, seg, &s->base.local, &s->base.peer);
	tas__wire_result(s, &res);
	if (__builtin_expect(s->soft_told, 0))
		soft_error(s);
	if (!finished(s))
		settle(s);
}

/* Has the application yet to hear of bytes or of the end?  Its answer would take the acknowledgement along. */
static bool behind(const struct tas_sock *s)
{
	return s->base.b && !s->base.closed &&
	       (s->rx_eof || atomic_load_explicit(&s->base.b->a.rx_consumed, memory_order_relaxed) < s->delivered);
}

void tas__wire_timer(struct tas_sock *s)
{
	struct tcp_result res = { 0 };

	if (s->stall_at && s->stall_at <= s->core->now)
		tas__tx_stalled(s);
	if (s->stall_at)
		tas__timer_set(s, s->stall_at);
	if (tcp_deadline(&s->u.tcp) <= s->core->now && behind(s))
		tcp_app_slow(&s->u.tcp, s->core->now);
	if (tcp_deadline(&s->u.tcp) > s->core->now) {
		tas__timer_set(s, tcp_deadline(&s->u.tcp));
		return;
	}
	tcp_timer(&s->u.tcp, s->core->now, &res);
	tas__wire_result(s, &res);
	if (!finished(s))
		settle(s);
}

/* Sends until budget segments are out, or the port is full; returns how many. */
unsigned tas__wire_output(struct tas_sock *s, unsigned budget)
{
	uint32_t tso = tas_net_tso_max(), mss = tcp_mss(&s->u.tcp);
	struct tcp_seg seg;
	uint64_t off;
	unsigned n = 0;

	while (n < budget && !tas_net_full(s->core) && tcp_output(&s->u.tcp, s->core->now, tso > mss ? tso : mss, &seg, &off)) {
		if (seg.len && off < s->sent_high)
			tas_count(s->core, TAS_CTR_tcp_retrans, 1);
		if (off + seg.len > s->sent_high)
			s->sent_high = off + seg.len;
		tas__segment_send(s->core, s, &seg, off, &s->base.local, &s->base.peer);
		n += seg.len > mss ? seg.len / mss : 1; /* one that the port cuts counts as its pieces */
	}
	if (n >= budget || tas_net_full(s->core))
		tas__output_soon(s);
	if (!finished(s)) {
		tas__sock_state(s, (enum tas_sock_state)tcp_state(&s->u.tcp));
		tas__timer_set(s, tcp_deadline(&s->u.tcp));
	}
	return n;
}

/* Where bytes begin that MSG_MORE lets wait; UINT64_MAX: nowhere.  Read after `written`: what is newer only holds back less. */
static uint64_t more_from(const struct tas_sock *s)
{
	const struct tas_app_line *a = &s->base.b->a;

	if (!(atomic_load_explicit(&a->opts, memory_order_relaxed) & TAS_O_MORE))
		return UINT64_MAX;
	return s->written - ((uint32_t)s->written - atomic_load_explicit(&a->more, memory_order_relaxed));
}

void tas__wire_hint(struct tas_sock *s, int changed)
{
	if (changed & TAS_CH_OPTS)
		options(s);
	if (changed & TAS_CH_URG)
		tcp_app_urgent(&s->u.tcp, s->urg_written);
	if (changed & TAS_CH_WRITTEN) {
		tcp_app_written(&s->u.tcp, s->written);
		tcp_app_more(&s->u.tcp, more_from(s));
	}
	if (changed & TAS_CH_CONSUMED)
		tcp_app_window(&s->u.tcp, s->rcv_limit);
	if (changed & TAS_CH_DEAF)
		tcp_app_deaf(&s->u.tcp);
	if (changed & TAS_CH_SHUT) {
		tcp_app_shutdown(&s->u.tcp, s->core->now);
		tas__sock_state(s, (enum tas_sock_state)tcp_state(&s->u.tcp));
		tas__sock_flags(s, TAS_F_TX_EOF);
	}
	if (changed)
		settle(s);
}

static void output_now(struct tas_sock *s)
{
	struct tcp_seg seg;
	uint64_t off;

	while (tcp_output(&s->u.tcp, s->core->now, tcp_mss(&s->u.tcp), &seg, &off))
		tas__segment_send(s->core, s, &seg, off, &s->base.local, &s->base.peer);
}

void tas__wire_close(struct tas_sock *s, bool abort_it)
{
	if (s->dead && !s->base.closed)
		return;
	if (abort_it) {
		/* Linux sends when the program writes: what may be sent is on its way before a reset */
		if (s->base.closed && !s->dead) {
			tcp_app_written(&s->u.tcp, s->written);
			output_now(s);
		}
		tcp_app_abort(&s->u.tcp, s->core->now);
		if (!s->base.closed) { /* the application still holds it: counters made no sense */
			failed(s, ECONNRESET);
			tas__wake_soon(s, TAS_WAKE_IN | TAS_WAKE_OUT);
		} else {
			s->acked = s->written; /* nothing needs the memory any more */
		}
	} else {
		tcp_app_written(&s->u.tcp, s->written);
		tcp_app_close(&s->u.tcp, s->core->now);
	}
	settle(s); /* the RST or FIN goes out with this round; then finished() */
}

void tas__wire_reset(struct tas_core *c, const struct tcp_seg *seg, const struct tas_addr *local, const struct tas_addr *peer)
{
	struct tcp_seg rst;

	if (tcp_reset_for(seg, &rst))
		tas__segment_send(c, NULL, &rst, 0, local, peer);
}

void tas__wire_goodbye(struct tas_sock *s)
{
	if (s->base.kind != TAS_K_LINK || s->in_time_wait)
		return;
	tcp_app_abort(&s->u.tcp, s->core->now);
	output_now(s);
}

/* The listener is gone: half-open connections go without a word, as on Linux. */
void tas__wire_reset_embryos(struct tas_sock *l)
{
	struct tas_sock *s, *next;

	for (s = tas__port_first(tas__port(&l->base.local)); s; s = next) {
		next = s->port_next;
		if (s->base.kind == TAS_K_LINK && s->listener == l)
			tas__wire_forget(s);
	}
}

void tas_core_icmp_error(struct tas_core *c, const struct tas_addr *src, const struct tas_addr *dst, const uint8_t *tcp8,
			 int error, bool hard, unsigned mtu)
{
	struct tas_addr local = *src, peer = *dst;
	struct tcp_result res = { 0 };
	struct tas_sock *s;
	uint32_t seq;

	memcpy(&local.port, tcp8, 2);
	memcpy(&peer.port, tcp8 + 2, 2);
	memcpy(&seq, tcp8 + 4, 4);
	seq = __builtin_bswap32(seq);
	s = tas__flow_find(c, &local, &peer);
	if (!s)
		return;
	if (mtu) { /* Linux: net.ipv4.route.min_pmtu */
		tcp_path_mtu(&s->u.tcp, seq, (uint16_t)((mtu < PMTU_MIN ? PMTU_MIN : mtu) - 40), s->core->now);
	} else {
		tcp_icmp_error(&s->u.tcp, seq, error, hard, s->core->now, &res);
		tas__wire_result(s, &res);
		soft_error(s);
	}
	if (!finished(s))
		settle(s);
}
