/* SPDX-License-Identifier: MIT */
/*
 * connect, getsockname, getpeername.  States as Linux sees them: unconnected (PLAIN, or a connection that failed),
 * connecting, connected and not yet told, connected (EISCONN).
 */
#include <netinet/in.h>
#include <string.h>

#include "abi/tas_options.h"
#include "sockets/sock.h"

enum { FASTOPEN_CLIENT = 1 };

static int int_opt(int fd, int level, int name)
{
	int v = 0;
	socklen_t len = sizeof v;

	return sys_getsockopt(fd, level, name, &v, &len) < 0 ? 0 : v;
}

static int connect_raw(int fd, const struct sockaddr *addr, socklen_t len)
{
	return (int)tas__sleep3(SYS_connect, fd, SYS_P(addr), len);
}

/* The kernel's connection from now on; after a failure (not one that is still under way) it may be tried again. */
static int connect_kernel(struct tas_obj *o, int fd, const struct sockaddr *addr, socklen_t len)
{
	uint64_t mask;
	unsigned n;
	int r;

	tas__opts_settle(o, fd);
	r = connect_raw(fd, addr, len);
	if (r < 0 && r != -EINPROGRESS && r != -EINTR && r != -EALREADY && r != -EISCONN) {
		atomic_fetch_or(&o->flags, TAS_OF_MARKED); /* it may have an address now */
		return r;
	}
	atomic_store(&o->so_error, 0);
	mask = tas__table_lock();
	tas__ep_became_kernel(o);
	n = tas__renumber(o, TAS_FD_KERNEL, NULL, fd);
	tas__table_unlock(mask);
	while (n--)
		tas__obj_put(o);
	return r;
}

static uint32_t nonblock_of(const struct tas_obj *o, int fd)
{
	int blocks = tas__obj_own(o) ? atomic_load(&o->blocks) : -1;

	return blocks < 0 ? (uint32_t)(sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK) : blocks ? 0 : O_NONBLOCK;
}

static int become_connection(struct tas_obj *o, int fd, struct tas_session *ss, const struct tas_msg_sock *sock)
{
	uint64_t mask = tas__table_lock();
	int r = -EALREADY;

	if (atomic_load(&o->kind) == TAS_OBJ_PLAIN)
		r = tas__obj_bind_block(o, ss, sock);
	if (r == 0) {
		if (atomic_load(&o->flags) & TAS_OF_BOUND) /* by bind() */
			atomic_fetch_or(&o->flags, TAS_OF_MARKED);
		tas__app_store(o, c.nonblock, nonblock_of(o, fd));
		if (tas__opts_touched(o)) {
			tas__opts_mirror(o, fd);
			tas__opts_peek(o, fd);
		}
		atomic_store(&o->so_error, 0);
		atomic_store(&o->active, tas__tsc());
		atomic_store(&o->ident, sock->ident);
		atomic_fetch_or(&o->flags, TAS_OF_BOUND | TAS_OF_ANNOUNCED | (tas__trusted ? 0 : TAS_OF_WATCHED_TOO));
		atomic_store_explicit(&o->kind, TAS_OBJ_CONN, memory_order_release);
		tas__renumber(o, TAS_FD_TAS, NULL, fd);
		tas__ep_became_tas(o, fd);
	} else {
		struct tas_block *b = tas__mem(ss, sock->block, sizeof *b);

		if (b)
			tas__claim_drop(ss, b, sock->id);
	}
	tas__table_unlock(mask);
	return r;
}

/* The connection exists: wait for it unless the call must not, or say how it stands. */
static int finish(struct tas_obj *o, int fd, bool just_begun, bool dontwait)
{
	struct tas_wait w = {.sig = tas__sig_mark()};

	for (;;) {
		struct tas_block *b = tas__block(o);
		uint32_t seen = atomic_load_explicit(&b->s.ev_out, memory_order_acquire);
		uint32_t shut = atomic_load_explicit(&b->a.shut, memory_order_acquire);
		uint32_t state = atomic_load_explicit(&b->s.state, memory_order_acquire);
		bool live = tas__obj_live(o);
		int r;

		if (live && just_begun && (dontwait || tas__nonblock(o)))
			return -EINPROGRESS; /* Linux: even over loopback */
		if (!live || (state != TAS_S_SYN_SENT && state != TAS_S_SYN_RECV)) {
			if (live && state != TAS_S_CLOSE && !(atomic_load(&o->b->s.flags) & TAS_F_RESET))
				return 0;
			r = tas__obj_error(o, true);
			return r ? -r : -ECONNABORTED;
		}
		if (dontwait || tas__nonblock(o))
			return -EALREADY;
		r = tas__obj_wait(o, fd, false, seen, shut, &w);
		if (r == -EAGAIN)
			return just_begun ? -EINPROGRESS : -EALREADY;
		if (r < 0)
			return r;
	}
}

/* A connection that failed begins anew: the numbers get a fresh PLAIN object. */
static struct tas_obj *start_over(struct tas_obj *o, int fd)
{
	uint64_t mask = tas__table_lock();
	struct tas_obj *by = tas__obj_new(TAS_OBJ_PLAIN);

	tas__table_unlock(mask);
	if (!by)
		return NULL;
	tas__opts_touch(by, o);
	atomic_store(&by->flags, atomic_load(&o->flags) & (TAS_OF_BOUND | TAS_OF_SHARED | TAS_OF_ASYNC | TAS_OF_MARKED));
	atomic_store(&by->ident, atomic_load(&o->ident));
	atomic_store(&by->latent, atomic_load(&o->latent));
	atomic_store(&by->blocks, atomic_load(&o->blocks));
	mask = tas__table_lock();
	by->kept = o->kept;
	if (by->kept)
		by->kept->owner = by;
	o->kept = NULL;
	tas__table_unlock(mask);
	tas__obj_replace(o, by, TAS_FD_PLAIN, fd);
	return by;
}

/* The service forgets a connection or a listener whose socket goes on without it; err: what the socket reports next. */
static int dissolve(struct tas_obj *o, int fd, int err)
{
	struct tas_obj *by;

	tas__app_or(o, TAS_ABORT);
	by = start_over(o, fd);
	if (!by)
		return -ENOMEM;
	if (err)
		tas__plain_error(by, err);
	tas__obj_put(by);
	tas__obj_kick(o); /* who waits looks again, at the new object */
	return 0;
}

/* Linux: tcp_disconnect(), which resets a connection that stands or is being made, and leaves the reset to be read. */
int tas__disconnect(struct tas_obj *o, int fd)
{
	uint32_t state = atomic_load(&o->b->s.state);
	bool gone = !tas__obj_live(o) || state == TAS_S_CLOSE || state == TAS_S_TIME_WAIT || state == TAS_S_CLOSING ||
		    state == TAS_S_LAST_ACK || (atomic_load(&o->b->s.flags) & TAS_F_RESET);

	return dissolve(o, fd, gone ? tas__obj_error(o, true) : ECONNRESET);
}

/* What connect() reports of an attempt: success once, and after a failure the socket is as before. */
static int settle_attempt(struct tas_obj *o, int fd, int r)
{
	struct tas_obj *by = NULL;

	if (r == 0)
		atomic_fetch_or(&o->flags, TAS_OF_CONNECTED);
	else if (r != -EINPROGRESS && r != -EALREADY && (!tas__obj_live(o) || atomic_load(&o->b->s.state) == TAS_S_CLOSE ||
							 (atomic_load(&o->b->s.flags) & TAS_F_RESET)))
		by = start_over(o, fd);
	if (by)
		tas__obj_put(by);
	return r;
}

/*
 * Between the service's yes and our table a number would show its backing socket, which is not connected: another thread,
 * told by the peer that the connection stands, would see a hang-up.  So the object says that an answer is on its way
 * before the question is sent, and who looks it up waits.  Signals are blocked meanwhile: a handler of this thread
 * would wait for itself.
 */
_Atomic uint32_t tas__connecting;
static _Atomic uint32_t awaiting; /* threads that wait for an answer */

static bool asking_begin(struct tas_obj *o, uint64_t *mask)
{
	*mask = tas__signals_block();
	atomic_fetch_add(&tas__connecting, 1);
	if (!(atomic_fetch_or(&o->flags, TAS_OF_CONNECTING) & TAS_OF_CONNECTING))
		return true;
	atomic_fetch_sub(&tas__connecting, 1);
	tas__signals_restore(*mask);
	return false;
}

static void asking_end(struct tas_obj *o, uint64_t mask)
{
	atomic_fetch_and(&o->flags, ~(uint32_t)TAS_OF_CONNECTING);
	atomic_fetch_sub(&tas__connecting, 1);
	if (atomic_load(&awaiting)) /* after the flag was taken back: who counts itself later sees that */
		sys_futex(&o->flags, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL);
	tas__signals_restore(mask);
}

void tas__connect_await(struct tas_obj *o)
{
	uint32_t f;

	atomic_fetch_add(&awaiting, 1);
	while ((f = atomic_load(&o->flags)) & TAS_OF_CONNECTING)
		sys_futex(&o->flags, FUTEX_WAIT_PRIVATE, f, NULL);
	atomic_fetch_sub(&awaiting, 1);
}

/*
 * A backing socket that is used again (pool.c) may still be that of the connection before, which another thread is about to
 * give up (it looked at an epoll member, say): EISCONN, which no unconnected socket hears for another reason.
 */
static int ask_to_connect(struct tas_session *ss, const struct tas_obj *o, struct tas_msg *m, int fd)
{
	const struct tas_msg question = *m;
	const bool fits = !(m->u.connect.flags & TAS_BIND_BOUND) && m->u.connect.n_ports <= TAS_MAIL_RANGES;
	struct tas_mail mail = {
		.ident = tas__obj_own(o) && fits ? atomic_load(&o->ident) : 0,
		.flags = m->u.connect.flags, .peer = m->u.connect.peer, .opts = m->u.connect.opts,
		.rcvbuf = m->u.connect.rcvbuf, .sndbuf = m->u.connect.sndbuf, .ip = m->u.connect.ip,
		.maxseg = m->u.connect.maxseg, .syncnt = m->u.connect.syncnt, .n_ports = m->u.connect.n_ports,
	};
	bool by_mail = mail.ident;
	int r = -EISCONN;

	memcpy(mail.port, m->u.connect.port, sizeof mail.port);
	for (int i = 0; i < 1000; i++) {
		*m = question;
		r = by_mail ? tas__mail_connect(ss, &mail, &m->u.sock) : tas__ask(ss, m, TAS_MSG_CONNECT, &fd, 1);
		if (r == -ESTALE)
			by_mail = false;
		else if (r != -EISCONN)
			break;
		else
			sys0(SYS_sched_yield);
	}
	return r;
}

/* As tas__bind_flags(), for a connect: what was never set is not asked for. */
static uint32_t connect_flags(const struct tas_obj *o, int fd)
{
	if (!tas__obj_own(o))
		return tas__bind_flags(fd);
	return (tas__opts_flag(o, fd, TAS_BIT_SO_REUSEADDR) ? TAS_BIND_REUSEADDR : 0) |
	       (tas__opts_flag(o, fd, TAS_BIT_SO_REUSEPORT) ? TAS_BIND_REUSEPORT : 0);
}

static int family_of(const struct tas_obj *o, int fd)
{
	return o->family ? o->family : int_opt(fd, SOL_SOCKET, SO_DOMAIN);
}

static int connect_plain(struct tas_obj *o, int fd, const struct sockaddr *addr, socklen_t len, bool dontwait)
{
	struct tas_msg m = {0};
	struct tas_session *ss;
	uint64_t mask;
	int r, err = ECONNREFUSED;

	/* of the connect before, which did not wait for it; other errors end with the next connection */
	if (atomic_compare_exchange_strong(&o->so_error, &err, 0))
		return -ECONNREFUSED;
	if (tas__addr_in(addr, len, &m.u.connect.peer) < 0 || addr->sa_family != family_of(o, fd))
		return connect_raw(fd, addr, len); /* AF_UNSPEC, and what the kernel refuses */
	if (addr->sa_family == AF_INET6 && m.u.connect.peer.family == AF_INET && int_opt(fd, IPPROTO_IPV6, IPV6_V6ONLY))
		return connect_raw(fd, addr, len); /* a mapped address: ENETUNREACH */
	if (tas__opt_device(o, fd))
		return connect_kernel(o, fd, addr, len);
	ss = tas__service(&err);
	if (err)
		return err;
	if (!ss)
		return connect_kernel(o, fd, addr, len);
	if (!tas__obj_own(o) || (atomic_load(&o->flags) & (TAS_OF_BOUND | TAS_OF_MARKED)))
		tas__addr_local(fd, &m.u.connect.local);
	else
		m.u.connect.local.family = (uint16_t)addr->sa_family;
	m.u.connect.flags = connect_flags(o, fd) | (tas__trusted ? 0 : TAS_BIND_WATCH);
	if (m.u.connect.local.port)
		m.u.connect.flags |= TAS_BIND_BOUND;
	m.u.connect.opts = tas__opts_now(o, fd);
	tas__opts_buffers(o, fd, &m.u.connect.rcvbuf, &m.u.connect.sndbuf);
	tas__opts_opening(o, fd, &m.u.connect.ip, &m.u.connect.maxseg, &m.u.connect.syncnt);
	if (!m.u.connect.local.port)
		m.u.connect.n_ports = tas__ports(m.u.connect.port, tas__opt_ports(o, fd));
	if (!asking_begin(o, &mask)) { /* another thread is faster: what its attempt came to is ours, too */
		tas__session_put(ss);
		tas__connect_await(o);
		return tas__connect(fd, addr, len, dontwait);
	}
	r = ask_to_connect(ss, o, &m, fd);
	if (r == 0)
		r = become_connection(o, fd, ss, &m.u.sock);
	else if (r == TAS_FALLBACK || !tas__alive(ss))
		r = TAS_FALLBACK;
	asking_end(o, mask);
	tas__session_put(ss);
	if (r == 0)
		tas__async_began(o, fd);
	if (r == TAS_FALLBACK)
		return connect_kernel(o, fd, addr, len);
	if (r < 0)
		return r;
	return settle_attempt(o, fd, finish(o, fd, true, dontwait));
}

static int connect_again(struct tas_obj *o, int fd, const struct sockaddr *addr, socklen_t len, bool dontwait)
{
	if (len < sizeof addr->sa_family)
		return -EINVAL;
	if (addr->sa_family == AF_UNSPEC)
		return tas__disconnect(o, fd);
	if (atomic_load(&o->flags) & TAS_OF_CONNECTED)
		return -EISCONN; /* Linux: even after a reset, until connect(AF_UNSPEC) */
	return settle_attempt(o, fd, finish(o, fd, false, dontwait));
}

/* A listening socket: EISCONN or what else the kernel says; connect(AF_UNSPEC) ends its listening. */
static int connect_listener(struct tas_obj *o, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct tas_msg m = { 0 };
	int r = connect_raw(fd, addr, len);

	if (r < 0 || addr->sa_family != AF_UNSPEC)
		return r;
	m.u.sock.id = o->id;
	m.u.sock.gen = o->gen;
	if (tas__alive(o->ss))
		tas__ask(o->ss, &m, TAS_MSG_UNLISTEN, NULL, 0);
	return dissolve(o, fd, 0);
}

int tas__connect(int fd, const struct sockaddr *addr, socklen_t len, bool dontwait)
{
	struct tas_obj *o = tas__obj_get(fd);
	int r;

	if (!o)
		return connect_raw(tas__raw(fd), addr, len);
	r = len < sizeof addr->sa_family ? -EINVAL : tas__addr_check(addr, len);
	if (r == 0) {
		switch (atomic_load_explicit(&o->kind, memory_order_acquire)) {
		case TAS_OBJ_PLAIN:
			r = connect_plain(o, fd, addr, len, dontwait);
			break;
		case TAS_OBJ_CONN:
			r = connect_again(o, fd, addr, len, dontwait);
			break;
		default:
			r = connect_listener(o, fd, addr, len);
		}
	}
	tas__obj_put(o);
	return r;
}

int tas_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	return tas__connect(fd, addr, len, false);
}

/*
 * MSG_FASTOPEN without a cookie, which is how Linux begins with every peer: a connect, and the data when it stands.  Ours never has
 * one.  0: connected, send.
 */
int tas__fastopen(int fd, const struct sockaddr *addr, socklen_t len, int flags)
{
	if (!(tas__fastopen_setting() & FASTOPEN_CLIENT))
		return -EOPNOTSUPP;
	if (!addr)
		return -EINVAL;
	if (len >= sizeof addr->sa_family && !tas__wild(addr) && addr->sa_family == AF_UNSPEC)
		return -EOPNOTSUPP;
	return tas__connect(fd, addr, len, flags & MSG_DONTWAIT);
}

/* ---- names ---- */
int tas_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct tas_obj *o = tas__conn_get(fd);
	int r;

	if (!o)
		return sys_getsockname(tas__raw(fd), addr, len);
	r = tas__addr_out(&o->b->s.local, o->b->s.family, addr, len);
	tas__obj_put(o);
	return r;
}

int tas__peer_name(struct tas_obj *o, struct sockaddr *addr, socklen_t *len)
{
	uint32_t state = atomic_load(&o->b->s.state);

	/* Linux: a socket in TIME_WAIT is closed */
	if (!tas__obj_live(o) || state == TAS_S_CLOSE || state == TAS_S_TIME_WAIT || state == TAS_S_SYN_SENT)
		return -ENOTCONN;
	return tas__addr_out(&o->b->s.peer, o->b->s.family, addr, len);
}

int tas_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct tas_obj *o = tas__conn_get(fd);
	int r;

	if (!o)
		return (int)sys3(SYS_getpeername, tas__raw(fd), SYS_P(addr), SYS_P(len));
	r = tas__peer_name(o, addr, len);
	tas__obj_put(o);
	return r;
}
