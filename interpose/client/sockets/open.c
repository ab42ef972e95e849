/* SPDX-License-Identifier: MIT */
/*
 * socket, bind, listen.  A socket is a kernel TCP socket until it listens or connects; bind asks the service whether
 * anything of TAS stands against the address, then the kernel, which decides.
 */
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "sockets/sock.h"
#include "tas.h"

enum { IS_LISTENING = 1, CHOICES = 32, OPT_IP_FREEBIND = 15, OPT_IPV6_FREEBIND = 78 };

struct tas_session *tas__service(int *err)
{
	struct tas_session *ss;
	int r = tas__session_attach(&ss);

	*err = 0;
	if (r == 0)
		return ss;
	if (tas__env_require()) {
		*err = r == -ENOENT || r == -ECONNREFUSED ? -ENETDOWN : r;
		return NULL;
	}
	tas__warn_once("no service at %s (errno %d); using the kernel's TCP", tas_socket_path(), -r);
	return NULL;
}

/* A socket that the library made and does not follow: the kernel's. */
static int untracked(int fd)
{
	if (fd >= 0)
		tas__forget(fd, TAS_FD_KERNEL);
	return fd;
}

int tas_socket(int domain, int type, int protocol)
{
	bool tcp = (domain == AF_INET || domain == AF_INET6) && (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM &&
		   (protocol == 0 || protocol == IPPROTO_TCP);
	struct tas_dropped old = { NULL, NULL };
	struct tas_obj *o;
	struct tas_kept *kept = NULL;
	uint64_t mask;
	bool noted;
	int fd;

	if (!tcp)
		return untracked(sys_socket(domain, type, protocol));
	mask = tas__table_lock();
	fd = tas__pool_take(domain, type, &kept);
	if (fd == -ENOENT)
		fd = sys_socket(domain, type, protocol);
	o = fd < 0 ? NULL : tas__obj_new(TAS_OBJ_PLAIN);
	if (o) {
		if (kept)
			tas__pool_lend(kept, o, type & SOCK_NONBLOCK);
		o->family = domain;
		atomic_store(&o->blocks, !(type & SOCK_NONBLOCK));
	}
	noted = o && tas__number_set(fd, TAS_FD_PLAIN, o, &old) == 0;
	tas__table_unlock(mask);
	tas__drop_done(old);
	if (noted)
		return fd;
	if (o)
		tas__obj_put(o);
	return untracked(fd);
}

static int int_opt(int fd, int level, int name)
{
	int v = 0;
	socklen_t len = sizeof v;

	return sys_getsockopt(fd, level, name, &v, &len) < 0 ? 0 : v;
}

uint32_t tas__bind_flags(int fd)
{
	uint32_t f = 0;

	if (int_opt(fd, SOL_SOCKET, SO_REUSEADDR))
		f |= TAS_BIND_REUSEADDR;
	if (int_opt(fd, SOL_SOCKET, SO_REUSEPORT))
		f |= TAS_BIND_REUSEPORT;
	if (int_opt(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET6 && int_opt(fd, IPPROTO_IPV6, IPV6_V6ONLY))
		f |= TAS_BIND_V6ONLY;
	return f;
}

static int bind_freely(int fd, const struct sockaddr *addr, socklen_t len)
{
	int v6 = addr->sa_family == AF_INET6, level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
	int name = v6 ? OPT_IPV6_FREEBIND : OPT_IP_FREEBIND, was = int_opt(fd, level, name), on = 1, r;

	sys_setsockopt(fd, level, name, &on, sizeof on);
	r = (int)sys3(SYS_bind, fd, SYS_P(addr), len);
	if (!was)
		sys_setsockopt(fd, level, name, &was, sizeof was);
	return r;
}

static int bind_kernel(int fd, const struct sockaddr *addr, socklen_t len, bool freely)
{
	return freely ? bind_freely(fd, addr, len) : (int)sys3(SYS_bind, fd, SYS_P(addr), len);
}

/*
 * The kernel chooses the port, and knows nothing of TAS's connections.  Linux passes over a port that one has, in TIME_WAIT
 * included, for a connect from it may meet that one.  A socket that was made to listen and shut down lets go of a port that
 * was chosen for it.
 */
static int bind_anywhere(struct tas_session *ss, int fd, const struct sockaddr *addr, socklen_t len, bool freely)
{
	int r = -EADDRINUSE;

	for (int i = 0; i < CHOICES; i++) {
		struct tas_msg m = {.u.bind.flags = tas__bind_flags(fd) & TAS_BIND_V6ONLY};

		r = bind_kernel(fd, addr, len, freely);
		if (r < 0 || tas__addr_local(fd, &m.u.bind.local) < 0 || !m.u.bind.local.port)
			return r;
		r = tas__ask(ss, &m, TAS_MSG_BIND, &fd, 1);
		if (r != -EADDRINUSE)
			return 0;
		sys2(SYS_listen, fd, 0);
		sys2(SYS_shutdown, fd, SHUT_RDWR);
	}
	return r;
}

static int bind_with_service(struct tas_obj *o, int fd, const struct sockaddr *addr, socklen_t len)
{
	/* already bound: EINVAL, but Linux looks at the address first, and TAS's addresses are addresses */
	bool bound = (atomic_load(&o->flags) & TAS_OF_BOUND) || atomic_load(&o->kind) != TAS_OBJ_PLAIN;
	struct tas_msg m = {0};
	struct tas_session *ss = NULL;
	bool freely = false, any_port = false;
	int r = 0;

	tas__opts_settle(o, fd);
	/* what the kernel refuses by itself, it may */
	if (tas__addr_in(addr, len, &m.u.bind.local) == 0 && addr->sa_family == int_opt(fd, SOL_SOCKET, SO_DOMAIN))
		tas__session_attach(&ss);
	if (ss) {
		any_port = !m.u.bind.local.port;
		m.u.bind.flags = tas__bind_flags(fd);
		r = tas__ask(ss, &m, TAS_MSG_BIND, &fd, 1);
		freely = r == 0 && (m.u.bind.flags & TAS_BIND_FREEBIND);
		if (r == -EADDRINUSE && !bound) {
			tas__session_put(ss);
			return r;
		}
	}
	if (ss && !bound && any_port)
		r = bind_anywhere(ss, fd, addr, len, freely);
	else
		r = bind_kernel(fd, addr, len, freely);
	if (ss)
		tas__session_put(ss);
	if (r == 0)
		atomic_fetch_or(&o->flags, TAS_OF_BOUND);
	return r;
}

/*
 * A connection is bound by connecting, which is what bind says if it has nothing to say of the address.  A socket made for
 * the question answers that; TAS's own addresses are none of the kernel's, but addresses.
 */
static int bind_connection(const struct tas_obj *o, const struct sockaddr *addr, socklen_t len)
{
	struct sockaddr_storage a = { 0 };
	struct tas_addr mine;
	int fd, r = tas__addr_check(addr, len);

	if (r < 0)
		return r;
	memcpy(&a, addr, len);
	if (tas__addr_in(addr, len, &mine) == 0 && mine.family == o->b->s.local.family &&
	    !memcmp(mine.ip, o->b->s.local.ip, sizeof mine.ip))
		return -EINVAL;
	((struct sockaddr_in6 *)&a)->sin6_port = 0;
	fd = sys_socket(o->b->s.family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	r = fd < 0 ? -EINVAL : (int)sys3(SYS_bind, fd, SYS_P(&a), len);
	if (fd >= 0)
		sys_close(fd);
	return r < 0 ? r : -EINVAL;
}

int tas_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct tas_obj *o = tas__obj_get(fd);
	int r;

	if (o && atomic_load(&o->kind) == TAS_OBJ_CONN)
		r = bind_connection(o, addr, len);
	else if (o && !tas__wild(addr))
		r = bind_with_service(o, fd, addr, len);
	else
		r = (int)sys3(SYS_bind, tas__raw(fd), SYS_P(addr), len);
	if (o)
		tas__obj_put(o);
	return r;
}

/* ---- listen ---- */
static uint32_t clamp_backlog(int backlog)
{
	uint32_t max = tas__somaxconn();

	return (uint32_t)backlog > max ? max : (uint32_t)backlog;
}

/* Makes the service listen for the backing socket (bound).  0: sock is filled; TAS_FALLBACK; -errno. */
int tas__listener_register(struct tas_obj *o, int fd, struct tas_session *ss, struct tas_msg_sock *sock)
{
	struct tas_msg m = {0};
	int r = tas__addr_local(fd, &m.u.listen.local);

	if (r < 0)
		return r;
	m.u.listen.flags = tas__bind_flags(fd) | (tas__trusted ? 0 : TAS_BIND_WATCH);
	m.u.listen.backlog = clamp_backlog(o->backlog);
	m.u.listen.opts = tas__opts_of(fd);
	r = tas__ask(ss, &m, TAS_MSG_LISTEN, &fd, 1);
	if (r == 0)
		*sock = m.u.sock;
	return r;
}

static void unlisten(struct tas_session *ss, const struct tas_msg_sock *s)
{
	struct tas_msg m = {0};

	m.u.sock = *s;
	tas__ask(ss, &m, TAS_MSG_UNLISTEN, NULL, 0);
}

/* An unbound socket listens on a port that the kernel chooses: choose it now, the service must know it. */
static int bind_ephemeral(int fd)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof a;
	int r = sys_getsockname(fd, &a, &len), on = 1, off = 0;
	bool later;

	if (r < 0 || a.sin6_port)
		return r;
	later = int_opt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT); /* connect would choose it, but this socket listens */
	if (later)
		sys_setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &off, sizeof off);
	r = bind_freely(fd, (struct sockaddr *)&a, len); /* its address was granted before */
	if (later)
		sys_setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
	return r;
}

/* The object that was PLAIN is now a listener, its numbers TAS, its memberships of both halves. */
static int become_listener(struct tas_obj *o, int fd, struct tas_session *ss, const struct tas_msg_sock *sock)
{
	uint64_t mask = tas__table_lock();
	int r = -EAGAIN;

	if (atomic_load(&o->kind) == TAS_OBJ_PLAIN)
		r = tas__obj_bind_block(o, ss, sock);
	if (r == 0) {
		atomic_store(&o->b->c.nonblock, (uint32_t)(sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK));
		atomic_fetch_or(&o->flags, TAS_OF_BOUND | TAS_OF_ANNOUNCED | (tas__trusted ? 0 : TAS_OF_WATCHED_TOO));
		atomic_store_explicit(&o->kind, TAS_OBJ_LISTEN, memory_order_release);
		if (tas__opts_touched(o))
			tas__opts_mirror(o, fd); /* buffers, which the service gives to connections */
		tas__renumber(o, TAS_FD_TAS, NULL, fd);
		tas__ep_became_tas(o, fd);
	}
	tas__table_unlock(mask);
	return r;
}

static void become_kernel(struct tas_obj *o, int fd)
{
	uint64_t mask = tas__table_lock();
	unsigned n;

	tas__ep_became_kernel(o);
	n = tas__renumber(o, TAS_FD_KERNEL, NULL, fd);
	tas__table_unlock(mask);
	while (n--)
		tas__obj_put(o);
}

/* Linux: a socket bound to an IPv6 address takes no others; what it accepts says so, too. */
static void note_family(struct tas_obj *o, int fd)
{
	if (tas__block(o)->s.family == AF_INET6 && int_opt(fd, IPPROTO_IPV6, IPV6_V6ONLY))
		tas__opt_touch_v6only(o);
}

/* IS_LISTENING: a process of another memory set that has this socket, too, was quicker; now it is known here as well. */
static int listen_plain(struct tas_obj *o, int fd, int backlog)
{
	struct tas_msg_sock sock;
	int r, err = 0;
	struct tas_session *ss = tas__opt_device(o, fd) ? NULL : tas__service(&err);

	if (err)
		return err;
	tas__opts_settle(o, fd);
	o->backlog = backlog;
	r = TAS_FALLBACK;
	if (ss) {
		r = bind_ephemeral(fd);
		atomic_fetch_or(&o->flags, TAS_OF_MARKED); /* it may have an address now */
		if (r == 0)
			r = tas__listener_register(o, fd, ss, &sock);
	}
	if (r == -EACCES && tas__plain_recheck(fd)) {
		tas__session_put(ss);
		return IS_LISTENING;
	}
	if (ss && r < 0 && r != -EADDRINUSE) {
		tas__log("listen on %d: the service says %d; listening in the kernel only", fd, r);
		r = TAS_FALLBACK;
	}
	if (r < 0)
		goto out;
	err = (int)sys2(SYS_listen, fd, backlog);
	if (r == 0 && (err < 0 || become_listener(o, fd, ss, &sock) < 0)) {
		unlisten(ss, &sock);
	} else if (r == 0) {
		note_family(o, fd);
		tas__async_began(o, fd);
	} else if (r == TAS_FALLBACK && err == 0) {
		become_kernel(o, fd);
	}
	r = err;
out:
	if (ss)
		tas__session_put(ss);
	return r;
}

/* Same listener, perhaps another block (new service, or listen() after shutdown()). */
static void relisten(struct tas_obj *o, int fd, struct tas_session *ss, const struct tas_msg_sock *sock)
{
	struct tas_obj *by;

	if (o->ss == ss && o->id == sock->id && o->gen == sock->gen)
		return;
	by = tas__obj_from(ss, sock, TAS_OBJ_LISTEN);
	if (!by) {
		unlisten(ss, sock);
		return;
	}
	by->backlog = o->backlog;
	atomic_store(&by->flags, atomic_load(&o->flags) & ~(uint32_t)TAS_OF_WATCHED);
	tas__opts_touch(by, o);
	atomic_store(&by->b->c.nonblock, (uint32_t)(sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK));
	tas__obj_replace(o, by, TAS_FD_TAS, fd);
	tas__async_began(by, fd);
	tas__obj_put(by);
}

int tas_listen(int fd, int backlog)
{
	struct tas_obj *o = tas__obj_get(fd);
	struct tas_msg_sock sock;
	struct tas_session *ss;
	int r;

	if (!o)
		return (int)sys2(SYS_listen, tas__raw(fd), backlog);
	switch (atomic_load(&o->kind)) {
	case TAS_OBJ_PLAIN:
		r = listen_plain(o, fd, backlog);
		if (r == IS_LISTENING) {
			tas__obj_put(o);
			return tas_listen(fd, backlog);
		}
		break;
	case TAS_OBJ_CONN:
		r = -EINVAL;
		break;
	default: /* another backlog, or after shutdown() */
		o->backlog = backlog;
		r = (int)sys2(SYS_listen, fd, backlog);
		if (r == 0 && tas__session_attach(&ss) == 0) {
			if (tas__listener_register(o, fd, ss, &sock) == 0)
				relisten(o, fd, ss, &sock);
			tas__session_put(ss);
		}
	}
	tas__obj_put(o);
	return r;
}

bool tas__listener_revive(struct tas_obj *o, int fd)
{
	uint64_t now, at = atomic_load(&o->retry_at);
	struct tas_msg_sock sock;
	struct tas_session *ss;
	bool done = false;

	if (tas__alive(o->ss) || (atomic_load(&o->b->a.shut) & TAS_SHUT_RD))
		return false;
	now = tas__now();
	if (now < at || !atomic_compare_exchange_strong(&o->retry_at, &at, now + TAS_REVIVE_MS * 1000000ull))
		return false;
	if (tas__session_attach(&ss) < 0)
		return false;
	if (tas__listener_register(o, fd, ss, &sock) == 0) {
		relisten(o, fd, ss, &sock);
		done = true;
	}
	tas__session_put(ss);
	return done;
}
