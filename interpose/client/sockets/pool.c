/* SPDX-License-Identifier: MIT */
/*
 * Backing sockets are used again.  Making a kernel TCP socket and closing it costs 12 us, more than all else that a short
 * connection needs.  The backing socket of a TAS connection was never bound, connected or listened on; if, besides, this process
 * alone holds it, by one number, then after close() it is as good as new.  A second, high number keeps it: close() closes
 * the program's number, and the next socket() or accept() gets a new one by F_DUPFD.  The lowest free number, EMFILE and
 * FD_CLOEXEC come out right because the kernel does both.
 *
 * The high number stays while the program uses the socket (LENT), which saves two system calls each time.  It belongs to the
 * socket's object: it goes when the object does, unless the socket comes back, and before anything that must see the kernel's
 * last close (fork, exec, spawn, SCM_RIGHTS: tas__pool_part()).
 *
 * Not kept: sockets that are or were shared (fork, SCM_RIGHTS, exec, dup), that have a signal owner, that were in an epoll set
 * before they became TAS's, with an option set that cannot be put back, with an address; anything without the
 * interposer, where numbers are not trusted.  fork gives up what is kept, so that no file is ever in two processes.  A
 * change of network namespace ends it for good (threads may differ), a change of user empties it.  Closing makes no system
 * call that a confined program may lack (docs/interposer.md).  Flags that were set, and O_NONBLOCK, stay in the backing socket until somebody
 * asks (tas_obj.latent): the next connection nearly always wants the same.
 *
 * A socket is put among the others only when its connection has been given up: the service knows both by one cookie, and would refuse
 * another thread's connect with it while the connection is claimed.
 *
 * All of it under the table lock.
 */
#include "sockets/sock.h"

enum { GONE = -1 /* tas_kept.fd: closed while a thread was between taking it and giving it to somebody */ };
enum { KEEP_MAX = 32, NOFILE_MIN = 1024, AS_MADE = S_IFSOCK | 0777 };

static struct tas_kept kept[2][KEEP_MAX];    /* IPv4, IPv6 */
static struct tas_kept *ready[2][KEEP_MAX]; /* those that nobody uses, the newest last */
static unsigned n_ready[2];
static uint32_t emptied; /* how often: what is in use at that moment is not kept when it comes back */
static bool ended;

static uint64_t inode_of(int fd)
{
	struct stat st;

	return sys_fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* Another file is there (a close by a raw system call), or fchmod() has changed it while it was in use. */
static bool is_spoilt(const struct tas_kept *k)
{
	struct stat st;

	return sys_fstat(k->fd, &st) < 0 || st.st_ino != k->ino || st.st_mode != AS_MADE;
}

static void drop(struct tas_kept *k)
{
	if (k->fd == GONE)
		;
	else if (inode_of(k->fd) == k->ino)
		tas__internal_close(k->fd);
	else
		tas__set_state(k->fd, TAS_FD_UNKNOWN); /* a program that closes numbers by raw system calls has put another file there */
	k->fd = 0;
}

void tas__pool_empty(void)
{
	emptied++;
	for (unsigned v6 = 0; v6 < 2; v6++)
		while (n_ready[v6])
			drop(ready[v6][--n_ready[v6]]);
}

void tas__pool_part(struct tas_obj *o)
{
	if (o->kept)
		drop(o->kept);
	o->kept = NULL;
}

void tas__pool_fork(void)
{
	tas__pool_empty();
	for (unsigned v6 = 0; v6 < 2; v6++)
		for (unsigned i = 0; i < KEEP_MAX; i++) {
			struct tas_kept *k = &kept[v6][i];

			if (!k->fd)
				continue;
			if (k->owner) {
				tas__pool_part(k->owner);
			} else {
				drop(k);
				k->fd = GONE;
			}
		}
}

/* Threads that were on their way with one are not here. */
void tas__pool_fork_child(void)
{
	for (unsigned v6 = 0; v6 < 2; v6++)
		for (unsigned i = 0; i < KEEP_MAX; i++)
			if (kept[v6][i].fd == GONE)
				kept[v6][i].fd = 0;
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

int tas__pool_take(int domain, int flags, struct tas_kept **out)
{
	unsigned *n = &n_ready[domain == AF_INET6];
	struct tas_kept *k;
	int fd;

	if (*n && is_spoilt(ready[domain == AF_INET6][*n - 1]))
		tas__pool_empty();
	if (!*n)
		return -ENOENT;
	k = ready[domain == AF_INET6][*n - 1];
	fd = sys_fcntl(k->fd, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (fd < 0) { /* EMFILE: the numbers that are kept may be what is missing */
		tas__pool_empty();
		return -ENOENT;
	}
	--*n;
	*out = k;
	return fd;
}

void tas__pool_lend(struct tas_kept *k, struct tas_obj *o, bool nonblock)
{
	atomic_store(&o->ident, k->ident);
	atomic_store(&o->latent, k->on | (k->nonblock != nonblock ? TAS_LATENT_BLOCKS : 0));
	atomic_store(&o->blocks, !nonblock);
	if (k->fd == GONE) {
		k->fd = 0;
	} else {
		k->owner = o;
		o->kept = k;
	}
}

/* Nobody but the caller knows o any more, and what it did to its backing socket can be undone. */
static bool is_spent(const struct tas_obj *o)
{
	const uint32_t harmless = TAS_OF_BOUND | TAS_OF_CONNECTED | TAS_OF_ANNOUNCED | TAS_OF_LOOKED;

	return atomic_load(&o->kind) == TAS_OBJ_CONN && atomic_load(&o->refs) == 1 &&
	       !(atomic_load(&o->flags) & ~harmless) && tas__opts_can_undo(o) && atomic_load(&o->blocks) >= 0;
}

static struct tas_kept *place(bool v6)
{
	struct rlimit rl = { 0, 0 };

	for (unsigned i = 0; i < KEEP_MAX; i++) {
		if (kept[v6][i].fd)
			continue;
		sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, SYS_P(&rl));
		return rl.rlim_cur >= NOFILE_MIN ? &kept[v6][i] : NULL;
	}
	return NULL;
}

/* The first time: fd moves up. */
static struct tas_kept *keep_new(int fd, bool v6)
{
	struct tas_kept *k;
	struct stat st;

	if (!tas__may(TAS_MAY_OPEN) || !tas__may(TAS_MAY_PRLIMIT))
		return NULL;
	if ((sys_fcntl(fd, F_GETFL, 0) & ~(O_NONBLOCK | O_LARGEFILE)) != O_RDWR)
		return NULL;
	if (sys_fstat(fd, &st) < 0 || st.st_mode != AS_MADE) /* fchmod() */
		return NULL;
	k = place(v6);
	if (!k)
		return NULL;
	k->fd = tas__internal_fd(fd);
	if (k->fd == fd) { /* there was no number above it */
		tas__set_state(fd, TAS_FD_UNKNOWN);
		k->fd = 0;
		return NULL;
	}
	k->ino = st.st_ino;
	k->emptied = emptied;
	k->v6 = v6;
	return k;
}

struct tas_kept *tas__pool_return(struct tas_obj *o, int fd)
{
	struct tas_kept *k;

	if (ended || !tas__trusted || !o || !is_spent(o))
		return NULL;
	k = o->kept;
	if (k && k->emptied != emptied)
		return NULL;
	if (k)
		sys_close(fd);
	else
		k = keep_new(fd, tas__block(o)->s.family == AF_INET6);
	if (!k)
		return NULL;
	o->kept = NULL;
	k->owner = NULL;
	k->nonblock = !atomic_load(&o->blocks) != !!(atomic_load(&o->latent) & TAS_LATENT_BLOCKS);
	k->ident = atomic_load(&o->ident);
	k->on = atomic_load(&o->flags_on) | (atomic_load(&o->latent) & ~(uint32_t)TAS_LATENT_BLOCKS);
	return k;
}

void tas__pool_add(struct tas_kept *k)
{
	uint64_t mask = tas__table_lock();

	if (!ended && k->emptied == emptied && k->fd != GONE)
		ready[k->v6][n_ready[k->v6]++] = k;
	else
		drop(k);
	tas__table_unlock(mask);
}
