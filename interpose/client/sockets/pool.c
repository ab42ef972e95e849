/* SPDX-License-Identifier: MIT */
/*
 * Backing sockets are used again.  Making a kernel TCP socket and closing it costs 12 us, more than all else that a short
 * connection needs.  The backing socket of a TAS connection was never bound, connected or listened on; if, besides, this process
 * alone holds it, by one number, then after close() it is as good as new: it moves to a high number, and down
 * again for the next socket() or accept() [0.9 us].  The lowest free number, EMFILE and FD_CLOEXEC come out right because the
 * kernel does both moves.
 *
 * Not kept: sockets that are or were shared (fork, SCM_RIGHTS, exec, dup), that have a signal owner, that were in an epoll set
 * before they became TAS's, with an option set that cannot be put back, with an address; anything without the
 * interposer, where numbers are not trusted.  fork gives up what is kept, so that no file is ever in two processes.  A
 * change of network namespace ends it for good (threads may differ), a change of user empties it.  Closing makes no system
 * call that a confined program may lack (docs/interposer.md): options are put back when the socket is taken.
 *
 * A socket is put among the others only when its connection has been given up: the service knows both by one cookie, and would refuse
 * another thread's connect with it while the connection is claimed.
 *
 * All of it under the table lock.
 */
#include "sockets/sock.h"

enum { KEEP_MAX = 32, NOFILE_MIN = 1024, AS_MADE = S_IFSOCK | 0777 };

static struct tas_kept kept[2][KEEP_MAX]; /* IPv4, IPv6 */
static unsigned n_kept[2];
static uint32_t emptied; /* how often: what was on its way meanwhile (tas__pool_move) is given up as well */
static bool ended;

static uint64_t inode_of(int fd)
{
	struct stat st;

	return sys_fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static void drop(const struct tas_kept *k)
{
	if (inode_of(k->fd) == k->ino)
		tas__internal_close(k->fd);
	else
		tas__set_state(k->fd, TAS_FD_UNKNOWN);
}

void tas__pool_empty(void)
{
	emptied++;
	for (unsigned v6 = 0; v6 < 2; v6++)
		while (n_kept[v6])
			drop(&kept[v6][--n_kept[v6]]);
}

void tas_identity_changed(bool netns)
{
	uint64_t mask = tas__table_lock();

	ended |= netns;
	tas__pool_empty();
	tas__table_unlock(mask);
	if (netns)
		tas_confining();
}

int tas__pool_take(int domain, int flags, uint32_t *ident)
{
	unsigned *n = &n_kept[domain == AF_INET6];
	struct tas_kept *k = &kept[domain == AF_INET6][*n - 1];
	int fd;

	*ident = 0;
	if (*n && inode_of(k->fd) != k->ino)
		tas__pool_empty();
	if (!*n)
		return -ENOENT;
	fd = sys_fcntl(k->fd, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (fd < 0)
		return fd; /* EMFILE, as socket() would say */
	--*n;
	*ident = k->ident;
	tas__internal_close(k->fd);
	tas__opts_undo(k->touched, fd);
	if (k->nonblock != !!(flags & SOCK_NONBLOCK))
		sys_fcntl(fd, F_SETFL, flags & SOCK_NONBLOCK ? O_RDWR | O_NONBLOCK : O_RDWR);
	return fd;
}

/* Nobody but the caller knows o any more, and what it did to its backing socket can be undone. */
static bool is_spent(const struct tas_obj *o)
{
	const uint32_t harmless = TAS_OF_BOUND | TAS_OF_CONNECTED | TAS_OF_ANNOUNCED;

	return atomic_load(&o->kind) == TAS_OBJ_CONN && atomic_load(&o->refs) == 1 &&
	       !(atomic_load(&o->flags) & ~harmless) && tas__opts_can_undo(o);
}

static bool room(bool v6)
{
	struct rlimit rl = { 0, 0 };

	if (n_kept[v6])
		return n_kept[v6] < KEEP_MAX;
	sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, SYS_P(&rl));
	return rl.rlim_cur >= NOFILE_MIN;
}

bool tas__pool_move(struct tas_obj *o, int fd, struct tas_kept *k)
{
	struct stat st;
	int flags;
	bool v6;

	if (ended || !tas__trusted || !o || !is_spent(o) || !tas__may(TAS_MAY_OPEN) || !tas__may(TAS_MAY_PRLIMIT))
		return false;
	v6 = tas__block(o)->s.family == AF_INET6;
	flags = sys_fcntl(fd, F_GETFL, 0);
	if (!room(v6) || (flags & ~(O_NONBLOCK | O_LARGEFILE)) != O_RDWR)
		return false;
	if (sys_fstat(fd, &st) < 0 || st.st_mode != AS_MADE)
		return false; /* fchmod() */
	*k = (struct tas_kept){ .fd = tas__internal_fd(fd), .v6 = v6, .nonblock = flags & O_NONBLOCK, .emptied = emptied,
				.ident = atomic_load(&o->ident), .ino = st.st_ino };
	if (k->fd == fd) { /* there was no number above it */
		tas__set_state(fd, TAS_FD_UNKNOWN);
		return false;
	}
	for (int w = 0; w < 2; w++)
		k->touched[w] = atomic_load(&o->touched[w]);
	return true;
}

void tas__pool_add(const struct tas_kept *k)
{
	uint64_t mask = tas__table_lock();

	if (!ended && k->emptied == emptied && n_kept[k->v6] < KEEP_MAX)
		kept[k->v6][n_kept[k->v6]++] = *k;
	else
		drop(k);
	tas__table_unlock(mask);
}
