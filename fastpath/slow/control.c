/* SPDX-License-Identifier: MIT */
/*
 * The control socket: one SOCK_SEQPACKET listener, one session per connection (and per forked child).
 *
 * The path belongs to whoever holds a lock on "PATH.lock": a second instance is refused, the leftovers of a killed one are
 * replaced.  Nothing here waits for an application: every call is non-blocking by flag (an application shares the open
 * file of a forked child's session and could change its mode), a session that does not take its replies is ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "slow/control.h"
#include "slow/process.h"
#include "slow/request.h"

enum {
	ACCEPT_BATCH = 32,
	MESSAGE_BATCH = 16,         /* of one session per round */
	SESSIONS_PER_USER = 2048,   /* of a user that is neither root nor the service's own */
};

static struct {
	struct tas_pollable io; /* the listener */
	int lock;
	int spare; /* given up to turn a client away when descriptors run out */
	bool made_dir, used;
	struct tas_session *sessions;
	uint32_t n_sessions;
	char path[sizeof ((struct sockaddr_un *)0)->sun_path];
	char text[TAS_MSG_TEXT_MAX];
} ctl = { .io.fd = -1, .lock = -1, .spare = -1 };

/* ---- what comes with messages ---- */
/* Closing the last reference of a connected TCP socket with SO_LINGER waits for its peer.  Backing sockets of TAS are not
 * connected; whoever sends another one does not keep its linger time. */
static void close_foreign(int fd)
{
	const struct linger off = { 0 };
	struct linger l = { 0 };
	struct tcp_info info;
	socklen_t len = sizeof l, ilen = sizeof info;

	if (!getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len) && l.l_onoff && l.l_linger &&
	    !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &ilen) && info.tcpi_state != TAS_S_CLOSE &&
	    info.tcpi_state != TAS_S_LISTEN)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
	close(fd);
}

static void close_received(struct tas_request *q)
{
	for (unsigned i = 0; i < q->n_fds; i++)
		if (q->fd[i] >= 0)
			close_foreign(q->fd[i]);
	q->n_fds = 0;
}

/* Collects descriptors and credentials; every descriptor that the kernel installed is ours to close. */
static void take_ancillary(struct tas_request *q, struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t len = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS && len >= sizeof q->cred) {
			memcpy(&q->cred, CMSG_DATA(c), sizeof q->cred);
			q->has_cred = true;
		}
		for (size_t i = 0; c->cmsg_type == SCM_RIGHTS && i < len / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (q->n_fds < TAS_REQUEST_FDS_ROOM) {
				q->fd[q->n_fds++] = fd;
			} else {
				close(fd);
				q->truncated = true;
			}
		}
	}
	q->truncated |= (m->msg_flags & MSG_TRUNC) != 0;
	q->fds_lost = (m->msg_flags & MSG_CTRUNC) != 0;
}

/* 1: a message is in q; 0: none now; -1: end of the session. */
static int receive(struct tas_session *s, struct tas_request *q)
{
	union {
		char buf[CMSG_SPACE(TAS_REQUEST_FDS_ROOM * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} c;
	struct iovec v = { &q->msg, sizeof q->msg };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c.buf, .msg_controllen = sizeof c.buf };
	ssize_t n = recvmsg(s->io.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
	take_ancillary(q, &m);
	q->len = (size_t)n;
	return n > 0 ? 1 : -1;
}

/* ---- sessions ---- */
/* Messages that nobody will answer: their descriptors are closed with care, which the kernel would not take. */
static void drain(struct tas_session *s)
{
	struct tas_request q = { .s = s };

	shutdown(s->io.fd, SHUT_RDWR); /* no more of them */
	while (receive(s, &q) > 0 || q.has_cred) { /* an empty message has credentials too, the end has none */
		close_received(&q);
		q.has_cred = false;
	}
}

void tas__session_close(struct tas_session *s)
{
	while (s->n_bridges)
		tas__bridge_start(s->bridge[--s->n_bridges]);
	tas_loop_del(&s->io);
	drain(s);
	close(s->io.fd);
	*s->pprev = s->next;
	if (s->next)
		s->next->pprev = s->pprev;
	ctl.n_sessions--;
	if (s->proc)
		s->proc->session = NULL;
	free(s);
}

void tas__exit_if_unused(void)
{
	if (tas_config.exit_idle && ctl.used && !ctl.n_sessions && !tas__proc_count() && !tas__bridges_count())
		tas_loop_stop();
}

static void session_gone(struct tas_session *s)
{
	struct tas_proc *p = s->proc;

	tas__session_close(s);
	if (p)
		tas__proc_hangup(p);
	tas__exit_if_unused();
}

static bool send_reply(struct tas_session *s, struct tas_request *q)
{
	union {
		char buf[CMSG_SPACE(TAS_REPLY_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} c;
	struct iovec v[2] = { { &q->rep, sizeof q->rep }, { q->text, q->text_len } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = q->text_len ? 2 : 1 };

	if (q->n_rep_fds) {
		memset(&c, 0, sizeof c);
		m.msg_control = c.buf;
		m.msg_controllen = CMSG_SPACE(q->n_rep_fds * sizeof(int));
		CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(q->n_rep_fds * sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), q->rep_fd, q->n_rep_fds * sizeof(int));
	}
	return sendmsg(s->io.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

/* One message.  1: go on, 0: nothing there, -1: end of the session. */
static int serve(struct tas_session *s)
{
	struct tas_request q;
	int r;

	q.s = s;
	q.has_cred = q.truncated = q.fds_lost = q.silent = false;
	q.n_fds = q.n_rep_fds = 0;
	q.text = ctl.text;
	q.text_len = 0;
	memset(&q.msg, 0, sizeof q.msg);
	r = receive(s, &q);
	if (r > 0 && !(tas__request(&q) && (q.silent || send_reply(s, &q))))
		r = -1;
	close_received(&q);
	for (unsigned i = 0; i < q.n_rep_fds; i++)
		if (q.rep_fd_close[i])
			close(q.rep_fd[i]);
	return r;
}

static void session_ready(struct tas_pollable *io, uint32_t events)
{
	struct tas_session *s = (struct tas_session *)io;
	int r = 1;

	(void)events; /* a hang-up is read after the last message */
	for (unsigned i = 0; r > 0 && i < MESSAGE_BATCH; i++)
		r = serve(s);
	if (r < 0)
		session_gone(s);
}

static bool user_full(uid_t uid)
{
	uint32_t n = 0;

	if (!uid || uid == geteuid() || ctl.n_sessions < SESSIONS_PER_USER)
		return false;
	for (const struct tas_session *s = ctl.sessions; s; s = s->next)
		n += s->uid == uid;
	return n >= SESSIONS_PER_USER;
}

struct tas_session *tas__session_new(int fd, struct tas_proc *p)
{
	struct tas_session *s = calloc(1, sizeof *s);
	struct ucred maker;
	socklen_t len = sizeof maker;
	int on = 1;

	if (s)
		s->io = (struct tas_pollable){ .fd = fd, .fn = session_ready };
	if (!s || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &maker, &len) || user_full(maker.uid) ||
	    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) || tas_loop_add(&s->io, EPOLLIN)) {
		close(fd);
		free(s);
		return NULL;
	}
	s->uid = maker.uid;
	s->maker = maker.pid;
	s->proc = p;
	s->next = ctl.sessions;
	s->pprev = &ctl.sessions;
	if (s->next)
		s->next->pprev = &s->next;
	ctl.sessions = s;
	ctl.n_sessions++;
	ctl.used = true;
	return s;
}

/* ---- accepting ---- */
/* Out of descriptors: a client that stays in the queue would keep the listener readable and the loop spinning. */
static void turn_away(void)
{
	int fd;

	if (ctl.spare >= 0)
		close(ctl.spare);
	fd = accept4(ctl.io.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		close(fd);
	ctl.spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_ready(struct tas_pollable *io, uint32_t events)
{
	(void)events;
	for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
		int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE)
				turn_away();
			return;
		}
		tas__session_new(fd, NULL);
	}
}

/* ---- the path ---- */
/* Makes the folders above path.  *made: the last one is new. */
static int make_folders(const char *path, bool *made)
{
	char dir[sizeof ctl.path];

	*made = false;
	snprintf(dir, sizeof dir, "%s", path);
	for (char *p = strchr(dir + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		*made = !mkdir(dir, 0755);
		if (!*made && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

/* Holds PATH.lock or tells who does.  The file that is locked must be the one that has the name: the previous holder
 * removes it when it ends. */
static int take_lock(const char *path)
{
	char name[sizeof ctl.path + 8], pid[16] = "";
	struct stat held, named;
	ssize_t n;
	int fd;

	snprintf(name, sizeof name, "%s.lock", path);
	for (;;) {
		fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
		if (fd < 0) {
			tas_warn("%s: %s", name, strerror(errno));
			return -errno;
		}
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			n = read(fd, pid, sizeof pid - 1);
			close(fd);
			tas_warn("%s: another instance%s%.*s is using this path", path, n > 0 ? ", pid " : "",
				 n > 0 ? (int)strcspn(pid, "\n") : 0, pid);
			return -EADDRINUSE;
		}
		if (!fstat(fd, &held) && !stat(name, &named) && held.st_ino == named.st_ino && held.st_dev == named.st_dev)
			break;
		close(fd);
	}
	n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
	if (ftruncate(fd, 0) || write(fd, pid, (size_t)n) != n)
		tas_warn("%s: %s", name, strerror(errno));
	ctl.lock = fd;
	return 0;
}

/* With the lock in hand, what lies at the path is nobody's, unless it answers or is no socket. */
static int clear_path(const struct sockaddr_un *a)
{
	struct stat st;
	int fd, busy;

	if (lstat(a->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode)) {
		tas_warn("%s: exists and is not a socket", a->sun_path);
		return -EEXIST;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	busy = !connect(fd, (const struct sockaddr *)a, sizeof *a) || errno == EAGAIN || errno == EPROTOTYPE;
	close(fd);
	if (busy) {
		tas_warn("%s: something else is listening here", a->sun_path);
		return -EADDRINUSE;
	}
	return unlink(a->sun_path) ? -errno : 0;
}

static int open_listener(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int err, on = 1;

	snprintf(a.sun_path, sizeof a.sun_path, "%s", ctl.path);
	err = clear_path(&a);
	if (err)
		return err;
	ctl.io.fn = accept_ready;
	ctl.io.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ctl.io.fd < 0)
		return -errno;
	if (setsockopt(ctl.io.fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) ||
	    bind(ctl.io.fd, (const struct sockaddr *)&a, sizeof a) || chmod(ctl.path, tas_config.socket_mode) ||
	    listen(ctl.io.fd, 4096)) {
		err = -errno;
		tas_warn("%s: %s", ctl.path, strerror(errno));
	}
	err = err ? err : tas_loop_add(&ctl.io, EPOLLIN);
	if (err) {
		close(ctl.io.fd);
		ctl.io.fd = -1;
	}
	return err;
}

/* Every process costs three descriptors, every thread that waits one. */
static void raise_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur == r.rlim_max)
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

int tas__control_init(void)
{
	const char *path = tas_config.socket_path[0] ? tas_config.socket_path : TAS_SOCKET_DEFAULT;
	int err;

	if ((size_t)snprintf(ctl.path, sizeof ctl.path, "%s", path) >= sizeof ctl.path) {
		tas_warn("%s: path is too long for a socket", path);
		return -ENAMETOOLONG;
	}
	raise_limit();
	err = make_folders(ctl.path, &ctl.made_dir);
	if (err) {
		tas_warn("%s: cannot make its folder: %s", ctl.path, strerror(-err));
		return err;
	}
	err = take_lock(ctl.path);
	if (err)
		return err;
	ctl.used = false;
	ctl.spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	err = open_listener();
	if (err)
		tas__control_exit();
	return err;
}

void tas__control_exit(void)
{
	char name[sizeof ctl.path + 8], *slash;

	if (ctl.io.fd >= 0) {
		tas_loop_del(&ctl.io);
		close(ctl.io.fd);
		unlink(ctl.path);
	}
	while (ctl.sessions)
		tas__session_close(ctl.sessions);
	if (ctl.spare >= 0)
		close(ctl.spare);
	if (ctl.lock >= 0) {
		snprintf(name, sizeof name, "%s.lock", ctl.path);
		unlink(name);
		close(ctl.lock);
	}
	slash = strrchr(ctl.path, '/');
	if (ctl.made_dir && slash && slash != ctl.path) {
		*slash = '\0';
		(void)!rmdir(ctl.path);
	}
	ctl.io.fd = ctl.spare = ctl.lock = -1;
	ctl.made_dir = false;
}
