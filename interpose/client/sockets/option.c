/* SPDX-License-Identifier: MIT */
/*
 * Socket options.  The backing socket validates, stores and answers every option; here is what TAS acts on (mirrored
 * into the application's line of the block), what the backing socket cannot know (SO_ERROR, TCP_INFO, TCP_MAXSEG), what
 * would break data (refused), and which options an accepted socket inherits.  The list is abi/tas_options.h.
 */
#include <linux/in6.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "abi/tas_options.h"
#include "sockets/sock.h"

/* of kernels newer than the headers */
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef IP_RECVERR_RFC4884
#define IP_RECVERR_RFC4884 26
#endif
#ifndef IPV6_ROUTER_ALERT_ISOLATE
#define IPV6_ROUTER_ALERT_ISOLATE 30
#endif
#ifndef SO_RCVMARK
#define SO_RCVMARK 75
#endif
#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44
#endif

enum { MSS_UNSET = 536 };
enum effect { ACTS, GIVES, SAME, STORED, REFUSED };
enum { NOT, INHERITED, DOUBLED = 64 };

/* In the order of enum tas_option_bit: a place in this table is a bit of tas_obj.touched. */
static const struct opt {
	int level, name;
	uint8_t len; /* of the value, for accept; DOUBLED: the kernel answers with twice what was set */
	uint8_t effect, accept;
} opts[] = {
#define ROW(level, name, length, effect, accept, text) {level, name, length, effect, accept},
	TAS_OPTIONS_MARKED(ROW)
#undef ROW
};

/* Other names of the same thing. */
static const struct {
	int level, name, bit;
} also[] = {
	{SOL_SOCKET, SO_RCVBUFFORCE, TAS_BIT_SO_RCVBUF},
	{SOL_SOCKET, SO_SNDBUFFORCE, TAS_BIT_SO_SNDBUF},
	{SOL_SOCKET, SO_RCVTIMEO_NEW, TAS_BIT_SO_RCVTIMEO},
	{SOL_SOCKET, SO_SNDTIMEO_NEW, TAS_BIT_SO_SNDTIMEO},
	{SOL_SOCKET, SO_BINDTOIFINDEX, TAS_BIT_SO_BINDTODEVICE},
};

/* Those whose value is kept in tas_obj.flags_*: asking the kernel costs more than all else that a short connection does. */
static const uint8_t flag_bits[] = {TAS_BIT_TCP_NODELAY, TAS_BIT_SO_REUSEADDR, TAS_BIT_SO_KEEPALIVE, TAS_BIT_TCP_CORK,
				    TAS_BIT_SO_OOBINLINE, TAS_BIT_SO_REUSEPORT};

/* Of these, those that pool.c leaves in a backing socket: setting one is never refused, whatever else is set. */
enum { LATENT = 5 };

static int flag_index(int bit)
{
	for (unsigned i = 0; i < sizeof flag_bits; i++)
		if (flag_bits[i] == bit)
			return (int)i;
	return -1;
}

/* The bits that TAS does not act on. */
static const uint64_t stored[TAS_OPTION_WORDS] = {
#define BIT(bit, effect, word) | ((effect) == STORED && (bit) / 64 == (word) ? 1ull << (bit) % 64 : 0)
#define ROW0(level, name, length, effect, accept, text) BIT(TAS_BIT_##name, effect, 0)
#define ROW1(level, name, length, effect, accept, text) BIT(TAS_BIT_##name, effect, 1)
	0 TAS_OPTIONS_MARKED(ROW0),
	0 TAS_OPTIONS_MARKED(ROW1),
#undef ROW0
#undef ROW1
#undef BIT
};

static int find(int level, int name)
{
	for (int i = 0; i < TAS_OPTION_BITS; i++)
		if (opts[i].level == level && opts[i].name == name)
			return i;
	for (unsigned i = 0; i < sizeof also / sizeof *also; i++)
		if (also[i].level == level && also[i].name == name)
			return also[i].bit;
	return -1;
}

static bool touched(const struct tas_obj *o, int bit)
{
	return atomic_load_explicit(&o->touched[bit / 64], memory_order_relaxed) >> bit % 64 & 1;
}

void tas__opt_touch_v6only(struct tas_obj *o)
{
	atomic_fetch_or(&o->touched[TAS_BIT_IPV6_V6ONLY / 64], 1ull << TAS_BIT_IPV6_V6ONLY % 64);
}

bool tas__opts_touched(const struct tas_obj *o)
{
	return atomic_load_explicit(&o->touched[0], memory_order_relaxed) |
	       atomic_load_explicit(&o->touched[1], memory_order_relaxed);
}

void tas__opts_touch(struct tas_obj *o, const struct tas_obj *as)
{
	atomic_store_explicit(&o->flags_known, 0, memory_order_relaxed);
	atomic_store_explicit(&o->flags_on, 0, memory_order_relaxed);
	for (int w = 0; w < TAS_OPTION_WORDS; w++)
		atomic_store_explicit(&o->touched[w], as ? atomic_load_explicit(&as->touched[w], memory_order_relaxed) : 0,
				      memory_order_relaxed);
}

void tas__opts_touch_all(struct tas_obj *o)
{
	for (int w = 0; w < TAS_OPTION_WORDS; w++)
		atomic_store_explicit(&o->touched[w], UINT64_MAX, memory_order_relaxed);
}

bool tas__opt_touched_linger(const struct tas_obj *o)
{
	return touched(o, TAS_BIT_SO_LINGER);
}

bool tas__opts_can_undo(const struct tas_obj *o)
{
	uint32_t known = atomic_load_explicit(&o->flags_known, memory_order_relaxed);
	uint64_t can[TAS_OPTION_WORDS] = { 0 };

	for (int i = 0; i < LATENT; i++)
		if (known >> i & 1)
			can[flag_bits[i] / 64] |= 1ull << flag_bits[i] % 64;
	for (int w = 0; w < TAS_OPTION_WORDS; w++)
		if (atomic_load_explicit(&o->touched[w], memory_order_relaxed) & ~can[w])
			return false;
	return true;
}

static void settle_one(struct tas_obj *o, int fd, int bit)
{
	const int zero = 0;
	int i = flag_index(bit);

	if (i >= 0 && i < LATENT && (atomic_fetch_and(&o->latent, ~(1u << i)) >> i & 1))
		sys_setsockopt(fd, opts[bit].level, opts[bit].name, &zero, sizeof zero);
}

void tas__opts_settle(struct tas_obj *o, int fd)
{
	uint32_t left = atomic_load_explicit(&o->latent, memory_order_relaxed);

	if (left & TAS_LATENT_BLOCKS && atomic_fetch_and(&o->latent, ~(uint32_t)TAS_LATENT_BLOCKS) & TAS_LATENT_BLOCKS)
		sys_fcntl(fd, F_SETFL, atomic_load(&o->blocks) ? O_RDWR : O_RDWR | O_NONBLOCK);
	for (left &= ~(uint32_t)TAS_LATENT_BLOCKS; left; left &= left - 1)
		settle_one(o, fd, flag_bits[__builtin_ctz(left)]);
}

void tas__opts_settle_all(void)
{
	uint32_t high = atomic_load(&tas__high);

	for (uint32_t fd = 0; fd < high; fd++) {
		uint8_t st = tas__state((int)fd);
		struct tas_entry *e = st == TAS_FD_TAS || st == TAS_FD_PLAIN ? tas__entry((int)fd) : NULL;
		struct tas_obj *o = e ? atomic_load(&e->p) : NULL;

		if (o)
			tas__opts_settle(o, (int)fd);
	}
}

/* Option `bit` becomes on in the backing socket of o.  True: it is so already. */
static bool take_latent(struct tas_obj *o, int bit, bool on)
{
	int i = flag_index(bit);

	return i >= 0 && i < LATENT && (atomic_fetch_and(&o->latent, ~(1u << i)) >> i & 1) && on;
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

bool tas__opts_flag(const struct tas_obj *o, int fd, int bit)
{
	int i = flag_index(bit);

	if (!touched(o, bit))
		return false;
	if (i >= 0 && tas__obj_own(o) && (atomic_load_explicit(&o->flags_known, memory_order_relaxed) >> i & 1))
		return atomic_load_explicit(&o->flags_on, memory_order_relaxed) >> i & 1;
	return int_opt(fd, opts[bit].level, opts[bit].name) != 0;
}

static void flag_set(struct tas_obj *o, int bit, bool on)
{
	int i = flag_index(bit);

	if (i < 0)
		return;
	if (on)
		atomic_fetch_or(&o->flags_on, 1u << i);
	else
		atomic_fetch_and(&o->flags_on, ~(1u << i));
	atomic_fetch_or(&o->flags_known, 1u << i);
}

uint32_t tas__opts_now(const struct tas_obj *o, int fd)
{
	if (!tas__opts_touched(o))
		return 0;
	return (tas__opts_flag(o, fd, TAS_BIT_TCP_NODELAY) ? TAS_O_NODELAY : 0) |
	       (tas__opts_flag(o, fd, TAS_BIT_TCP_CORK) ? TAS_O_CORK : 0) |
	       (tas__opts_flag(o, fd, TAS_BIT_SO_KEEPALIVE) ? TAS_O_KEEPALIVE : 0) |
	       (tas__opts_flag(o, fd, TAS_BIT_SO_OOBINLINE) ? TAS_O_OOBINLINE : 0);
}

bool tas__opt_device(const struct tas_obj *o, int fd)
{
	return touched(o, TAS_BIT_SO_BINDTODEVICE) && int_opt(fd, SOL_SOCKET, SO_BINDTOIFINDEX) > 0;
}

void tas__opts_buffers(const struct tas_obj *o, int fd, uint32_t *rcv, uint32_t *snd)
{
	*rcv = touched(o, TAS_BIT_SO_RCVBUF) ? (uint32_t)int_opt(fd, SOL_SOCKET, SO_RCVBUF) : 0;
	*snd = touched(o, TAS_BIT_SO_SNDBUF) ? (uint32_t)int_opt(fd, SOL_SOCKET, SO_SNDBUF) : 0;
}

/* What was never set has the value that it began with, in the block as well: 0. */
static uint32_t flag_of(const struct tas_obj *o, int fd, int bit, uint32_t flag)
{
	return tas__opts_flag(o, fd, bit) ? flag : 0;
}

static int opt_of(const struct tas_obj *o, int fd, int bit)
{
	return touched(o, bit) ? int_opt(fd, opts[bit].level, opts[bit].name) : 0;
}

/* What packets say, as tas_lock_line.ip has it.  That of an IPv6 socket counts for its mapped addresses, as on Linux. */
static uint32_t packets_of(const struct tas_obj *o, int fd)
{
	uint32_t ip = (uint32_t)opt_of(o, fd, TAS_BIT_IP_TOS) & TAS_PKT_TOS;
	int ttl = opt_of(o, fd, TAS_BIT_IP_TTL);
	int path = touched(o, TAS_BIT_IP_MTU_DISCOVER) ? int_opt(fd, IPPROTO_IP, IP_MTU_DISCOVER) : IP_PMTUDISC_WANT;

	if (ttl > 0)
		ip |= (uint32_t)(ttl & 0xff) << TAS_PKT_TTL_SHIFT;
	if (path != IP_PMTUDISC_WANT && path != IP_PMTUDISC_DO)
		ip |= TAS_PKT_FRAGMENTS;
	if (opt_of(o, fd, TAS_BIT_IP_RECVERR))
		ip |= TAS_PKT_RECVERR;
	return ip;
}

uint32_t tas__opt_ports(const struct tas_obj *o, int fd)
{
	return (uint32_t)opt_of(o, fd, TAS_BIT_IP_LOCAL_PORT_RANGE);
}

void tas__opts_opening(const struct tas_obj *o, int fd, uint32_t *ip, uint32_t *maxseg, uint32_t *syncnt)
{
	*ip = packets_of(o, fd);
	*maxseg = (uint32_t)opt_of(o, fd, TAS_BIT_TCP_MAXSEG);
	if (*maxseg == MSS_UNSET && atomic_load_explicit(&o->touched[0], memory_order_relaxed) == UINT64_MAX)
		*maxseg = 0; /* nobody knows what was set, and the kernel says this if nothing was */
	*syncnt = (uint32_t)opt_of(o, fd, TAS_BIT_TCP_SYNCNT);
}

/* Those in tas_lock_line.  True: some are there. */
static bool mirror_wire(struct tas_obj *o, int fd)
{
	struct tas_lock_line *c = &o->b->c;
	uint32_t ip, maxseg, syncnt;
	int linger2 = opt_of(o, fd, TAS_BIT_TCP_LINGER2);

	if (!touched(o, TAS_BIT_IP_TOS) && !touched(o, TAS_BIT_IP_TTL) && !touched(o, TAS_BIT_IP_MTU_DISCOVER) &&
	    !touched(o, TAS_BIT_IP_RECVERR) && !touched(o, TAS_BIT_TCP_MAXSEG) && !touched(o, TAS_BIT_TCP_SYNCNT) &&
	    !touched(o, TAS_BIT_TCP_LINGER2) && !touched(o, TAS_BIT_TCP_DEFER_ACCEPT))
		return false;
	tas__opts_opening(o, fd, &ip, &maxseg, &syncnt);
	atomic_store_explicit(&c->ip, ip, memory_order_relaxed);
	if (touched(o, TAS_BIT_TCP_MAXSEG))
		atomic_store_explicit(&c->maxseg, maxseg, memory_order_relaxed);
	atomic_store_explicit(&c->syncnt, syncnt, memory_order_relaxed);
	atomic_store_explicit(&c->defer, (uint32_t)opt_of(o, fd, TAS_BIT_TCP_DEFER_ACCEPT), memory_order_relaxed);
	if (touched(o, TAS_BIT_TCP_LINGER2))
		atomic_store_explicit(&c->linger2, linger2 < 0 ? UINT32_MAX : (uint32_t)linger2 + 1, memory_order_relaxed);
	return true;
}

static void mirror_one(const struct tas_obj *o, int fd, int bit, _Atomic uint32_t *to)
{
	if (touched(o, bit))
		atomic_store_explicit(to, (uint32_t)int_opt(fd, opts[bit].level, opts[bit].name), memory_order_relaxed);
}

/* For tasctl: what was set and TAS does not act on.  Of a socket that came from elsewhere nobody knows what was set. */
static void tell_unacted(struct tas_obj *o)
{
	for (int w = 0; w < TAS_OPTION_WORDS; w++) {
		uint64_t t = atomic_load_explicit(&o->touched[w], memory_order_relaxed);

		if (t != UINT64_MAX && (t & stored[w]))
			atomic_fetch_or_explicit(&o->b->a.unacted[w], t & stored[w], memory_order_relaxed);
	}
}

/* Copies what TAS acts on from the backing socket to the block. */
void tas__opts_mirror(struct tas_obj *o, int fd)
{
	struct tas_app_line *a = &o->b->a;
	uint32_t now = atomic_load_explicit(&a->opts, memory_order_relaxed) & (TAS_O_QUICKACK | TAS_O_MORE | TAS_O_NEWS);

	if (mirror_wire(o, fd))
		now ^= TAS_O_NEWS;
	now |= flag_of(o, fd, TAS_BIT_TCP_NODELAY, TAS_O_NODELAY);
	now |= flag_of(o, fd, TAS_BIT_TCP_CORK, TAS_O_CORK);
	now |= flag_of(o, fd, TAS_BIT_SO_KEEPALIVE, TAS_O_KEEPALIVE);
	now |= flag_of(o, fd, TAS_BIT_SO_OOBINLINE, TAS_O_OOBINLINE);
	atomic_store_explicit(&a->opts, now, memory_order_release);
	mirror_one(o, fd, TAS_BIT_SO_RCVLOWAT, &a->rcvlowat);
	mirror_one(o, fd, TAS_BIT_SO_RCVBUF, &a->rcvbuf);
	mirror_one(o, fd, TAS_BIT_SO_SNDBUF, &a->sndbuf);
	mirror_one(o, fd, TAS_BIT_TCP_KEEPIDLE, &a->keep_idle);
	mirror_one(o, fd, TAS_BIT_TCP_KEEPINTVL, &a->keep_intvl);
	mirror_one(o, fd, TAS_BIT_TCP_KEEPCNT, &a->keep_cnt);
	mirror_one(o, fd, TAS_BIT_TCP_USER_TIMEOUT, &a->user_timeout);
	tell_unacted(o);
	tas__hint(o->ss, o->b, o->id);
}

void tas__opts_peek(struct tas_obj *o, int fd)
{
	if (touched(o, TAS_BIT_SO_PEEK_OFF))
		tas__peek_set(o, fd);
}

static void inherit_flag(const struct tas_obj *listener, int from, struct tas_obj *o, int to, int bit)
{
	const int one = 1;
	bool on = tas__opts_flag(listener, from, bit);

	if (on && !take_latent(o, bit, true))
		sys_setsockopt(to, opts[bit].level, opts[bit].name, &one, sizeof one);
	flag_set(o, bit, on);
}

/* Does the block say what the flags say?  As a rule: the service gives it what the listener had when it began to listen. */
static bool flags_mirrored(const struct tas_obj *o, int fd)
{
	const uint32_t all = TAS_O_NODELAY | TAS_O_CORK | TAS_O_KEEPALIVE | TAS_O_OOBINLINE;

	return tas__opts_now(o, fd) == (atomic_load_explicit(&o->b->a.opts, memory_order_relaxed) & all);
}

void tas__opts_inherit(struct tas_obj *listener, int from, struct tas_obj *o, int to)
{
	bool acts = false;

	tas__opts_touch(o, listener);
	for (int i = 0; i < TAS_OPTION_BITS; i++) {
		union {
			int n;
			char room[16];
		} v;
		socklen_t len = opts[i].len & ~DOUBLED;

		if (!touched(listener, i) || opts[i].accept != INHERITED)
			continue;
		if (flag_index(i) >= 0 && tas__obj_own(listener)) {
			inherit_flag(listener, from, o, to, i);
			continue;
		}
		if (sys_getsockopt(from, opts[i].level, opts[i].name, &v, &len) < 0)
			continue;
		if (opts[i].len & DOUBLED)
			v.n /= 2;
		sys_setsockopt(to, opts[i].level, opts[i].name, &v, len);
		acts |= opts[i].effect == ACTS;
	}
	tas__opts_peek(o, to);
	if (acts || !flags_mirrored(o, to))
		tas__opts_mirror(o, to);
	else
		tell_unacted(o);
}

/* ---- setsockopt ---- */
static int refused(struct tas_obj *o, int level, int name, socklen_t len)
{
	if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && len >= sizeof(int) && tas__block(o)->s.family == AF_INET6)
		return -EINVAL; /* Linux: only before there is a port */
	if (level != IPPROTO_TCP)
		return 0;
	if (atomic_load(&o->kind) == TAS_OBJ_CONN &&
	    (name == TCP_FASTOPEN || name == TCP_FASTOPEN_CONNECT || name == TCP_FASTOPEN_NO_COOKIE))
		return -EINVAL; /* Linux: only before there is a connection */
	if (name == TCP_ULP && len)
		return -ENOENT; /* Linux: no such upper layer protocol */
	if (name == TCP_REPAIR ||
	    (name == TCP_QUEUE_SEQ && (int)len >= (int)sizeof(int) && atomic_load(&o->kind) == TAS_OBJ_CONN))
		return -EPERM;
	return 0;
}

/* Option i was set, on a TAS socket. */
static void take_up(struct tas_obj *o, int fd, int i, const void *val)
{
	if (i == TAS_BIT_TCP_QUICKACK && *(const int *)val)
		atomic_fetch_or(&o->b->a.opts, TAS_O_QUICKACK);
	else if (i == TAS_BIT_TCP_QUICKACK)
		atomic_fetch_and(&o->b->a.opts, ~(uint32_t)TAS_O_QUICKACK);
	if (i == TAS_BIT_SO_PEEK_OFF && atomic_load(&o->kind) == TAS_OBJ_CONN)
		tas__peek_set(o, fd);
	if (opts[i].effect == ACTS)
		tas__opts_mirror(o, fd);
	else
		tell_unacted(o);
	if (i == TAS_BIT_SO_RCVLOWAT && atomic_load(&o->kind) == TAS_OBJ_CONN)
		tas__obj_lowat(o);
}

int tas_setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	struct tas_obj *o = tas__obj_get(fd);
	int r = 0, i;

	if (!o)
		return sys_setsockopt(tas__raw(fd), level, name, val, len);
	if (atomic_load(&o->kind) != TAS_OBJ_PLAIN)
		r = tas__wild(val) && (val || level != IPPROTO_IPV6) ? 0 : refused(o, level, name, len);
	i = find(level, name);
	if (r == 0 && !(i >= 0 && atomic_load(&o->latent) && len >= sizeof(int) && !tas__wild(val) &&
			take_latent(o, i, *(const int *)val)))
		r = sys_setsockopt(fd, level, name, val, len);
	if (r < 0)
		i = -1;
	if (r == 0 && i < 0)
		atomic_fetch_or(&o->flags, TAS_OF_MARKED);
	if (i >= 0) {
		atomic_fetch_or(&o->touched[i / 64], 1ull << i % 64);
		if (flag_index(i) >= 0 && len >= sizeof(int))
			flag_set(o, i, *(const int *)val);
		if (atomic_load_explicit(&o->kind, memory_order_acquire) != TAS_OBJ_PLAIN && tas__obj_live(o))
			take_up(o, fd, i, val);
	}
	tas__obj_put(o);
	return r;
}

/* ---- getsockopt ---- */
/* Copies at most *len bytes, as Linux does, and says how many. */
int tas__opt_give(void *val, socklen_t *len, const void *from, size_t n)
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

/* Linux: a length that the address does not fill is wrong, a short one is obeyed. */
static int give_peer(struct tas_obj *o, void *val, socklen_t *len)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof a;
	int r;

	if (tas__wild(len))
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	r = tas__peer_name(o, (struct sockaddr *)&a, &n);
	if (r == 0 && *len > n)
		r = -EINVAL;
	return r < 0 ? r : tas__opt_give(val, len, &a, n);
}

int tas_getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	struct tas_obj *o = tas__obj_get(fd);
	uint32_t kind = o ? atomic_load_explicit(&o->kind, memory_order_acquire) : TAS_OBJ_PLAIN;
	int r = 1, n;

	if (o && atomic_load_explicit(&o->latent, memory_order_relaxed))
		settle_one(o, fd, find(level, name));
	if (o && level == SOL_SOCKET && name == SO_ERROR && (kind == TAS_OBJ_CONN || atomic_load(&o->so_error))) {
		if (tas__obj_near(o))
			tas__settle(o->ss);
		n = tas__obj_error(o, true);
		if (!n && kind == TAS_OBJ_CONN)
			n = (int)atomic_exchange(&tas__block(o)->c.soft_error, 0) & 0xfff;
		r = tas__opt_give(val, len, &n, sizeof n);
	} else if (kind == TAS_OBJ_CONN && level == IPPROTO_TCP && name == TCP_INFO) {
		r = tas__info_give(o, fd, val, len);
	} else if (kind == TAS_OBJ_CONN && level == SOL_SOCKET && name == SO_PEEK_OFF && atomic_load(&tas__block(o)->c.peek_off)) {
		n = (int)(atomic_load(&tas__block(o)->c.peek_off) - 1);
		r = tas__opt_give(val, len, &n, sizeof n);
	} else if (kind == TAS_OBJ_CONN && level == SOL_SOCKET && name == SO_PEERNAME) {
		r = give_peer(o, val, len);
	} else if (kind == TAS_OBJ_CONN && level == IPPROTO_TCP && name == TCP_MAXSEG && atomic_load(&o->b->s.mss)) {
		n = (int)atomic_load(&o->b->s.mss);
		r = tas__opt_give(val, len, &n, sizeof n);
	} else if (kind == TAS_OBJ_CONN &&
		   ((level == IPPROTO_IP && name == IP_MTU) || (level == IPPROTO_IPV6 && name == IPV6_MTU))) {
		n = (int)atomic_load(&o->b->s.mss) + (level == IPPROTO_IP ? 40 : 60);
		if (level == IPPROTO_IPV6 && !tas__wild(len) && (int)*len < 0) /* Linux: not looked at there */
			*len = sizeof n;
		r = tas__opt_give(val, len, &n, sizeof n);
	}
	if (r == 1)
		r = sys_getsockopt(tas__raw(fd), level, name, val, len);
	if (o)
		tas__obj_put(o);
	return r;
}
