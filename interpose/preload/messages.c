// SPDX-License-Identifier: MIT
/*
 * sendmsg and recvmsg, one and many.  Descriptors travel in them: a number that arrives over a kernel socket may be a
 * TAS socket of another process, so the table forgets what it knew of it; a TAS socket that leaves over a kernel socket
 * must be announced, which the client library does in tas_sendmsg().
 */
#include <string.h>

#include "preload.h"

static bool has_control(const struct msghdr *msg)
{
	return !tas__wild(msg) && !tas__wild(msg->msg_control) && msg->msg_controllen >= sizeof(struct cmsghdr);
}

static unsigned rights(struct cmsghdr *c, int **fds)
{
	if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
		return 0;
	*fds = (int *)CMSG_DATA(c);
	return (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
}

void tas__note_rights(struct msghdr *msg)
{
	int *fds = NULL;

	if (!has_control(msg))
		return;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
		for (unsigned n = rights(c, &fds), i = 0; i < n; i++)
			tas_note_unknown(fds[i]);
}

/* Does the message carry a descriptor that is not certainly the kernel's? */
static bool carries_ours(const struct msghdr *msg)
{
	struct msghdr *m = (struct msghdr *)msg;
	int *fds = NULL;

	if (!has_control(msg))
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		for (unsigned n = rights(c, &fds), i = 0; i < n; i++)
			if (!tas__kernel(fds[i]))
				return true;
	return false;
}

static __attribute__((noinline)) ssize_t slow_recvmsg(int fd, struct msghdr *msg, int flags)
{
	bool control = has_control(msg);
	ssize_t r;

	if (tas__passive())
		return tas__real.recvmsg(fd, msg, flags);
	if (tas__kernel(fd))
		r = tas__real.recvmsg(fd, msg, flags);
	else
		r = tas__result(CP(tas_recvmsg(fd, msg, flags)));
	if (r >= 0 && control && tas__kernel(fd))
		tas__note_rights(msg);
	return r;
}

ssize_t tas__w_recvmsg(int fd, struct msghdr *msg, int flags)
{
	if (likely(tas__kernel(fd)) && likely(!has_control(msg)))
		return tas__real.recvmsg(fd, msg, flags);
	return slow_recvmsg(fd, msg, flags);
}

/* Can a message of the array carry descriptors? */
static inline bool any_control(const struct mmsghdr *vec, unsigned n)
{
	if (unlikely(tas__wild(vec)))
		return false;
	for (unsigned i = 0; i < n; i++)
		if (unlikely(vec[i].msg_hdr.msg_controllen != 0))
			return true;
	return false;
}

static __attribute__((noinline)) int slow_recvmmsg(int fd, struct mmsghdr *vec, unsigned n, int flags,
						   struct timespec *timeout)
{
	int r;

	if (tas__passive())
		return tas__real.recvmmsg(fd, vec, n, flags, timeout);
	if (!tas__kernel(fd))
		return (int)tas__result(CP(tas_recvmmsg(fd, vec, n, flags, timeout)));
	r = tas__real.recvmmsg(fd, vec, n, flags, timeout);
	for (int i = 0; i < r; i++)
		tas__note_rights(&vec[i].msg_hdr);
	return r;
}

int tas__w_recvmmsg(int fd, struct mmsghdr *vec, unsigned n, int flags, struct timespec *timeout)
{
	if (likely(tas__kernel(fd)) && likely(!any_control(vec, n)))
		return tas__real.recvmmsg(fd, vec, n, flags, timeout);
	return slow_recvmmsg(fd, vec, n, flags, timeout);
}

static __attribute__((noinline)) ssize_t slow_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	if (tas__passive() || (tas__kernel(fd) && !carries_ours(msg)))
		return tas__real.sendmsg(fd, msg, flags);
	return tas__result(CP(tas_sendmsg(fd, msg, flags)));
}

ssize_t tas__w_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	if (likely(tas__kernel(fd)) && likely(!has_control(msg)))
		return tas__real.sendmsg(fd, msg, flags);
	return slow_sendmsg(fd, msg, flags);
}

static __attribute__((noinline)) int slow_sendmmsg(int fd, struct mmsghdr *vec, unsigned n, int flags)
{
	bool ours = !tas__kernel(fd);

	if (tas__passive())
		return tas__real.sendmmsg(fd, vec, n, flags);
	for (unsigned i = 0; i < n && !ours; i++)
		ours = carries_ours(&vec[i].msg_hdr);
	if (!ours)
		return tas__real.sendmmsg(fd, vec, n, flags);
	return (int)tas__result(CP(tas_sendmmsg(fd, vec, n, flags)));
}

int tas__w_sendmmsg(int fd, struct mmsghdr *vec, unsigned n, int flags)
{
	if (likely(tas__kernel(fd)) && likely(!any_control(vec, n)))
		return tas__real.sendmmsg(fd, vec, n, flags);
	return slow_sendmmsg(fd, vec, n, flags);
}
