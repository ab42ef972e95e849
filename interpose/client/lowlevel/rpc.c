/* SPDX-License-Identifier: MIT */
/*
 * Requests over the control socket.  One at a time per session, with signals blocked: a handler that maps a chunk must
 * not find the lock held by the thread it interrupted.  A service that does not answer within RPC_MS is taken for dead.
 */
#include <string.h>

#include "lowlevel/low.h"

enum { RPC_MS = 15000 };

static int send_packet(int ctl, const struct tas_msg *m, const int *fds, unsigned n)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int) * TAS_MSG_FDS_MAX)];
	} u;
	struct iovec v = {.iov_base = (void *)(uintptr_t)m, .iov_len = sizeof *m};
	struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
	long r;

	if (n) {
		memset(&u, 0, sizeof u.h);
		h.msg_control = &u;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		u.h.cmsg_level = SOL_SOCKET;
		u.h.cmsg_type = SCM_RIGHTS;
		u.h.cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(&u.h), fds, sizeof(int) * n);
	}
	do
		r = sys3(SYS_sendmsg, ctl, SYS_P(&h), MSG_NOSIGNAL);
	while (r == -EINTR);
	return r < 0 ? (int)r : 0;
}

static void take_fds(struct msghdr *h, int *in, unsigned *n_in)
{
	unsigned max = n_in ? *n_in : 0, got = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		unsigned n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		for (unsigned i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (got < max)
				in[got++] = fd;
			else
				sys_close(fd);
		}
	}
	if (n_in)
		*n_in = got;
}

static int receive_packet(struct tas_session *ss, int ctl, struct tas_msg *m, int *in, unsigned *n_in)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int) * TAS_MSG_FDS_MAX)];
	} u;
	struct iovec v = {.iov_base = m, .iov_len = sizeof *m};
	struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof u};
	struct pollfd p = {.fd = ctl, .events = POLLIN};
	uint64_t end = tas__now() + RPC_MS * 1000000ull;
	struct tas_spin spin = {0};
	long r;

	for (;;) {
		r = sys3(SYS_recvmsg, ctl, SYS_P(&h), MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (r != -EAGAIN && r != -EINTR)
			break;
		if (ss->r && tas__spin(ss, &spin, tas__tsc())) /* the answer comes soon: let the service work */
			continue;
		uint64_t now = tas__now();

		if (now >= end)
			return -ETIMEDOUT;
		struct timespec ts = {.tv_sec = (time_t)((end - now) / 1000000000),
				      .tv_nsec = (long)((end - now) % 1000000000)};

		sys_ppoll(&p, 1, &ts, NULL);
	}
	if (r < 0)
		return (int)r;
	take_fds(&h, in, n_in);
	return r >= (long)sizeof *m && m->magic == TAS_ABI_MAGIC ? 0 : -ECONNRESET;
}

static int tell(int ctl, struct tas_msg *m, uint16_t op, const int *fds, unsigned n)
{
	m->magic = TAS_ABI_MAGIC;
	m->op = op;
	m->n_fds = (uint16_t)n;
	m->err = 0;
	return send_packet(ctl, m, fds, n);
}

int tas__tell(int ctl, struct tas_msg *m, uint16_t op)
{
	return tell(ctl, m, op, NULL, 0);
}

int tas__tell_fd(int ctl, struct tas_msg *m, uint16_t op, int fd)
{
	return tell(ctl, m, op, &fd, 1);
}

int tas__rpc(struct tas_session *ss, struct tas_msg *m, const int *fds, unsigned n_fds, int *in, unsigned *n_in)
{
	unsigned max = n_in ? *n_in : 0;
	uint64_t mask;
	uint32_t seq;
	int r = -ECONNRESET, ctl;

	if (!tas__may(TAS_MAY_ASK))
		return -EPERM;
	mask = tas__signals_block_hard();
	tas__mutex_lock(&ss->rpc);
	ctl = atomic_load(&ss->ctl);
	if (atomic_load(&ss->dead) || ctl < 0)
		goto out;
	m->magic = TAS_ABI_MAGIC;
	m->n_fds = (uint16_t)n_fds;
	m->err = 0;
	m->seq = seq = ++ss->seq;
	r = send_packet(ctl, m, fds, n_fds);
	if (r == -EBADF || r == -EMFILE || r == -ETOOMANYREFS) {
		/* one of the descriptors to send was closed meanwhile, or too many are in flight: the session is well
		 */
		m->err = r;
		r = 0;
		if (n_in)
			*n_in = 0;
		goto out;
	}
	while (!r) {
		if (n_in)
			*n_in = max;
		r = receive_packet(ss, ctl, m, in, n_in);
		if (!r && m->seq == seq)
			break;
	}
out:
	tas__mutex_unlock(&ss->rpc);
	if (r < 0)
		tas__session_died(ss);
	tas__signals_restore(mask);
	return r;
}

int tas__ask(struct tas_session *ss, struct tas_msg *m, uint16_t op, const int *fds, unsigned n_fds)
{
	int r;

	m->op = op;
	r = tas__rpc(ss, m, fds, n_fds, NULL, NULL);
	return r < 0 ? r : m->err;
}
