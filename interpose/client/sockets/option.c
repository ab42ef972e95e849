/* SPDX-License-Identifier: MIT */
/*
 * Socket options.  The backing socket validates, stores and answers every option; here is what TAS acts on (mirrored
 * into the application's line of the block), what the backing socket cannot know (SO_ERROR, TCP_INFO, TCP_MAXSEG), what
 * would break data (refused), and which options an accepted socket inherits.
 */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "sockets/sock.h"

enum opt_act { ACT_NONE, ACT_MIRROR, ACT_QUICKACK };

enum { OPT_IP_LOCAL_PORT_RANGE = 51 };

/* Options that are inherited by accept; `touched` of an object has one bit for each. */
static const struct opt {
	int level, name;
	uint8_t len; /* of the value */
	bool halve; /* the kernel answers with double what was set */
	enum opt_act act;
} opts[] = {
	{SOL_SOCKET, SO_LINGER, sizeof(struct linger), false, ACT_NONE}, /* first: tas__opt_touched_linger() */
	{SOL_SOCKET, SO_KEEPALIVE, sizeof(int), false, ACT_MIRROR},
	{SOL_SOCKET, SO_RCVBUF, sizeof(int), true, ACT_MIRROR},
	{SOL_SOCKET, SO_SNDBUF, sizeof(int), true, ACT_MIRROR},
	{SOL_SOCKET, SO_RCVLOWAT, sizeof(int), false, ACT_MIRROR},
	{SOL_SOCKET, SO_RCVTIMEO, 16, false, ACT_NONE},
	{SOL_SOCKET, SO_SNDTIMEO, 16, false, ACT_NONE},
	{SOL_SOCKET, SO_REUSEADDR, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_REUSEPORT, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_OOBINLINE, sizeof(int), false, ACT_MIRROR},
	{SOL_SOCKET, SO_MARK, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_NODELAY, sizeof(int), false, ACT_MIRROR},
	{IPPROTO_TCP, TCP_CORK, sizeof(int), false, ACT_MIRROR},
	{IPPROTO_TCP, TCP_KEEPIDLE, sizeof(int), false, ACT_MIRROR},
	{IPPROTO_TCP, TCP_KEEPINTVL, sizeof(int), false, ACT_MIRROR},
	{IPPROTO_TCP, TCP_KEEPCNT, sizeof(int), false, ACT_MIRROR},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, sizeof(int), false, ACT_MIRROR},
	{IPPROTO_TCP, TCP_QUICKACK, sizeof(int), false, ACT_QUICKACK},
	{IPPROTO_TCP, TCP_MAXSEG, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_LINGER2, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_WINDOW_CLAMP, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_TOS, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_TTL, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_MTU_DISCOVER, sizeof(int), false, ACT_NONE},
	{IPPROTO_IPV6, IPV6_V6ONLY, sizeof(int), false, ACT_NONE},
	{IPPROTO_IPV6, IPV6_TCLASS, sizeof(int), false, ACT_NONE},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_DEBUG, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_DONTROUTE, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_BROADCAST, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_NO_CHECK, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_TIMESTAMP, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_TIMESTAMPNS, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_TIMESTAMPING, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_RXQ_OVFL, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_WIFI_STATUS, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_PEEK_OFF, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_NOFCS, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_SELECT_ERR_QUEUE, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_BUSY_POLL, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_MAX_PACING_RATE, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_ZEROCOPY, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_PREFER_BUSY_POLL, sizeof(int), false, ACT_NONE},
	{SOL_SOCKET, SO_BUF_LOCK, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_RECVOPTS, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_PKTINFO, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_RECVERR, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_RECVTTL, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_RECVTOS, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_FREEBIND, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_TRANSPARENT, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_MINTTL, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, sizeof(int), false, ACT_NONE},
	{IPPROTO_IP, OPT_IP_LOCAL_PORT_RANGE, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_SYNCNT, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_NOTSENT_LOWAT, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_SAVE_SYN, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_INQ, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_TX_DELAY, sizeof(int), false, ACT_NONE},
	{IPPROTO_TCP, TCP_CONGESTION, 16, false, ACT_NONE}, /* a name */
};
enum { N_OPTS = sizeof opts / sizeof *opts };
_Static_assert(N_OPTS <= 64, "touched has 64 bits");

static int find(int level, int name)
{
	for (int i = 0; i < N_OPTS; i++)
		if (opts[i].level == level && opts[i].name == name)
			return i;
	return -1;
}

bool tas__opt_touched_linger(const struct tas_obj *o)
{
	return atomic_load_explicit(&o->touched, memory_order_relaxed) & 1;
}

static int int_opt(int fd, int level, int name)
{
	int v = 0;
	socklen_t len = sizeof v;

	return sys_getsockopt(fd, level, name, &v, &len) < 0 ? 0 : v;
}

uint32_t tas__opts_of(int fd)
{
	return (int_opt(fd, IPPROTO_TCP, TCP_NODELAY) ? TAS_O_NODELAY : 0) |
	       (int_opt(fd, IPPROTO_TCP, TCP_CORK) ? TAS_O_CORK : 0) |
	       (int_opt(fd, SOL_SOCKET, SO_KEEPALIVE) ? TAS_O_KEEPALIVE : 0) |
	       (int_opt(fd, SOL_SOCKET, SO_OOBINLINE) ? TAS_O_OOBINLINE : 0);
}

/* What was never set has the value that it began with, in the block as well: 0. */
static uint32_t flag_of(uint64_t touched, int fd, int level, int name, uint32_t flag)
{
	return touched & (1ull << find(level, name)) && int_opt(fd, level, name) ? flag : 0;
}

static void mirror_one(uint64_t touched, int fd, int level, int name, _Atomic uint32_t *to)
{
	if (touched & (1ull << find(level, name)))
		atomic_store_explicit(to, (uint32_t)int_opt(fd, level, name), memory_order_relaxed);
}

/* Copies what TAS acts on from the backing socket to the block. */
void tas__opts_mirror(struct tas_obj *o, int fd)
{
	struct tas_block *b = tas__block(o);
	struct tas_app_line *a = &b->a;
	uint64_t t = atomic_load_explicit(&o->touched, memory_order_relaxed);
	uint32_t now = atomic_load_explicit(&a->opts, memory_order_relaxed) & TAS_O_QUICKACK;

	atomic_store_explicit(&a->more, 0, memory_order_relaxed);
	now |= flag_of(t, fd, IPPROTO_TCP, TCP_NODELAY, TAS_O_NODELAY);
	now |= flag_of(t, fd, IPPROTO_TCP, TCP_CORK, TAS_O_CORK);
	now |= flag_of(t, fd, SOL_SOCKET, SO_KEEPALIVE, TAS_O_KEEPALIVE);
	now |= flag_of(t, fd, SOL_SOCKET, SO_OOBINLINE, TAS_O_OOBINLINE);
	mirror_one(t, fd, SOL_SOCKET, SO_RCVLOWAT, &a->rcvlowat);
	mirror_one(t, fd, SOL_SOCKET, SO_RCVBUF, &a->rcvbuf);
	mirror_one(t, fd, SOL_SOCKET, SO_SNDBUF, &a->sndbuf);
	mirror_one(t, fd, IPPROTO_TCP, TCP_KEEPIDLE, &a->keep_idle);
	mirror_one(t, fd, IPPROTO_TCP, TCP_KEEPINTVL, &a->keep_intvl);
	mirror_one(t, fd, IPPROTO_TCP, TCP_KEEPCNT, &a->keep_cnt);
	mirror_one(t, fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &a->user_timeout);
	atomic_store(&a->opts, now);
	if (tas__moved(b)) /* meanwhile */
		tas__opts_mirror(o, fd);
	else
		tas__hint(o->ss, b, o->id);
}

void tas__opts_inherit(struct tas_obj *listener, int from, struct tas_obj *o, int to)
{
	uint64_t t = atomic_load_explicit(&listener->touched, memory_order_relaxed);
	bool mirror = false;

	atomic_store(&o->touched, t);
	for (int i = 0; i < N_OPTS; i++) {
		union {
			int n;
			char room[16];
		} v;
		socklen_t len = opts[i].len;

		if (!(t & (1ull << i)) || opts[i].act == ACT_QUICKACK)
			continue;
		if (sys_getsockopt(from, opts[i].level, opts[i].name, &v, &len) < 0)
			continue;
		if (opts[i].halve)
			v.n /= 2;
		sys_setsockopt(to, opts[i].level, opts[i].name, &v, len);
		mirror |= opts[i].act == ACT_MIRROR;
	}
	if (mirror)
		tas__opts_mirror(o, to);
}

/* ---- setsockopt ---- */
static int refused(const struct tas_obj *o, int level, int name, socklen_t len)
{
	if (level != IPPROTO_TCP)
		return 0;
	if (atomic_load(&o->kind) == TAS_OBJ_CONN &&
	    (name == TCP_FASTOPEN || name == TCP_FASTOPEN_CONNECT || name == TCP_FASTOPEN_NO_COOKIE))
		return -EINVAL; /* Linux: only before there is a connection */
	if (name == TCP_ULP && len)
		return -ENOENT; /* Linux: no such upper layer protocol */
	if (name == TCP_REPAIR)
		return -EPERM;
	return 0;
}

int tas_setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	struct tas_obj *o = tas__obj_get(fd);
	int r = 0, i;

	if (!o)
		return sys_setsockopt(tas__raw(fd), level, name, val, len);
	if (atomic_load(&o->kind) != TAS_OBJ_PLAIN)
		r = tas__wild(val) ? 0 : refused(o, level, name, len);
	if (r == 0)
		r = sys_setsockopt(fd, level, name, val, len);
	i = r == 0 ? find(level, name) : -1;
	if (i >= 0) {
		atomic_fetch_or(&o->touched, 1ull << i);
		if (atomic_load_explicit(&o->kind, memory_order_acquire) != TAS_OBJ_PLAIN && tas__obj_live(o)) {
			if (opts[i].act == ACT_QUICKACK && *(const int *)val)
				atomic_fetch_or(&o->b->a.opts, TAS_O_QUICKACK);
			else if (opts[i].act == ACT_QUICKACK)
				atomic_fetch_and(&o->b->a.opts, ~(uint32_t)TAS_O_QUICKACK);
			if (opts[i].act != ACT_NONE)
				tas__opts_mirror(o, fd);
			if (level == SOL_SOCKET && name == SO_RCVLOWAT && atomic_load(&o->kind) == TAS_OBJ_CONN)
				tas__obj_lowat(o);
		}
	}
	tas__obj_put(o);
	return r;
}

/* ---- getsockopt ---- */
/* Copies at most *len bytes, as Linux does, and says how many. */
static int give(void *val, socklen_t *len, const void *from, size_t n)
{
	if (tas__wild(len))
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	if (tas__wild(val))
		return -EFAULT;
	if (*len > n)
		*len = (socklen_t)n;
	memcpy(val, from, *len);
	return 0;
}

static int give_info(struct tas_obj *o, int fd, void *val, socklen_t *len)
{
	uint8_t room[512] = { 0 }; /* the kernel's structure may be longer than ours */
	socklen_t n = sizeof room;
	struct tas_msg m = {0};
	struct tcp_info ti;

	memset(&ti, 0, sizeof ti);
	ti.tcpi_state = TAS_S_CLOSE;
	m.u.sock.id = o->id;
	m.u.sock.gen = o->gen;
	if (tas__obj_live(o) && tas__ask(o->ss, &m, TAS_MSG_INFO, NULL, 0) == 0) {
		/* Linux: a socket whose connection waits in TIME_WAIT is closed */
		ti.tcpi_state = m.u.info.state == TAS_S_TIME_WAIT ? TAS_S_CLOSE : (uint8_t)m.u.info.state;
		ti.tcpi_options = (uint8_t)m.u.info.options;
		ti.tcpi_retransmits = (uint8_t)m.u.info.retransmits;
		ti.tcpi_snd_wscale = m.u.info.snd_wscale & 0xf;
		ti.tcpi_rcv_wscale = m.u.info.rcv_wscale & 0xf;
		ti.tcpi_rto = m.u.info.rto_us;
		ti.tcpi_ato = 40000;
		ti.tcpi_snd_mss = m.u.info.snd_mss;
		ti.tcpi_rcv_mss = m.u.info.rcv_mss;
		ti.tcpi_unacked = m.u.info.unacked;
		ti.tcpi_pmtu = m.u.info.pmtu;
		ti.tcpi_rtt = m.u.info.rtt_us;
		ti.tcpi_rttvar = m.u.info.rttvar_us;
		ti.tcpi_snd_ssthresh = m.u.info.snd_ssthresh;
		ti.tcpi_snd_cwnd = m.u.info.snd_cwnd;
		ti.tcpi_advmss = m.u.info.advmss;
		ti.tcpi_reordering = m.u.info.reordering;
		ti.tcpi_rcv_space = m.u.info.rcv_space;
		ti.tcpi_total_retrans = m.u.info.total_retrans;
		ti.tcpi_bytes_acked = m.u.info.bytes_acked;
		ti.tcpi_bytes_received = m.u.info.bytes_received;
		ti.tcpi_segs_out = m.u.info.segs_out;
		ti.tcpi_segs_in = m.u.info.segs_in;
		ti.tcpi_min_rtt = m.u.info.min_rtt_us;
		ti.tcpi_bytes_sent = m.u.info.bytes_sent;
		ti.tcpi_bytes_retrans = m.u.info.bytes_retrans;
		ti.tcpi_snd_wnd = m.u.info.snd_wnd;
	}
	if (sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, room, &n) < 0 || n < sizeof ti)
		n = sizeof ti;
	memset(room, 0, sizeof room);
	memcpy(room, &ti, sizeof ti);
	return give(val, len, room, n);
}

int tas_getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	struct tas_obj *o = tas__obj_get(fd);
	uint32_t kind = o ? atomic_load_explicit(&o->kind, memory_order_acquire) : TAS_OBJ_PLAIN;
	int r = 1, n;

	if (o && level == SOL_SOCKET && name == SO_ERROR && (kind == TAS_OBJ_CONN || atomic_load(&o->so_error))) {
		if (tas__obj_near(o))
			tas__settle(o->ss);
		n = tas__obj_error(o, true);
		r = give(val, len, &n, sizeof n);
	} else if (kind == TAS_OBJ_CONN && level == IPPROTO_TCP && name == TCP_INFO) {
		r = give_info(o, fd, val, len);
	} else if (kind == TAS_OBJ_CONN && level == IPPROTO_TCP && name == TCP_MAXSEG && atomic_load(&o->b->s.mss)) {
		n = (int)atomic_load(&o->b->s.mss);
		r = give(val, len, &n, sizeof n);
	} else if (kind == TAS_OBJ_CONN &&
		   ((level == IPPROTO_IP && name == IP_MTU) || (level == IPPROTO_IPV6 && name == IPV6_MTU))) {
		n = (int)atomic_load(&o->b->s.mss) + (level == IPPROTO_IP ? 40 : 60);
		r = give(val, len, &n, sizeof n);
	}
	if (r == 1)
		r = sys_getsockopt(tas__raw(fd), level, name, val, len);
	if (o)
		tas__obj_put(o);
	return r;
}
