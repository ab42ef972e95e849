/* SPDX-License-Identifier: MIT */
/*
 * The error queue: notifications of MSG_ZEROCOPY.
 *
 * A socket with SO_ZEROCOPY numbers the sends that ask for it; the kernel says of ranges of numbers that their memory is the
 * program's again, and whether it had to copy after all.  We copy before send() returns, so the notification is due at once,
 * and it always says SO_EE_CODE_ZEROCOPY_COPIED, which is how a program learns that the option is of no use to it.
 *
 * The queue is two numbers in the block: sends numbered so far, and those told of.  What lies between is one notification.
 */
#include <time.h> /* which the next one needs */

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>

#include "sockets/sock.h"

#define SENT(v) ((uint32_t)(v))
#define TOLD(v) ((uint32_t)((v) >> 32))

bool tas__errqueue_any(struct tas_obj *o)
{
	uint64_t v = atomic_load_explicit(&tas__block(o)->c.zerocopy, memory_order_acquire);

	return SENT(v) != TOLD(v);
}

void tas__zerocopy_sent(struct tas_obj *o, int fd)
{
	_Atomic uint64_t *word = &tas__block(o)->c.zerocopy;
	uint64_t v = atomic_load(word);
	int on = 0;
	socklen_t len = sizeof on;

	if (sys_getsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, &len) < 0 || !on)
		return; /* Linux: the flag means nothing then */
	while (!atomic_compare_exchange_weak(word, &v, (v & ~(uint64_t)UINT32_MAX) | (uint32_t)(SENT(v) + 1)))
		;
	atomic_fetch_or(&o->flags, TAS_OF_ERRQUEUE);
	tas__obj_kick(o);
}

/* Room for one control message: what fits is written, and too little is said. */
static void put_control(struct msghdr *msg, size_t room, int level, int type, const void *data, size_t n)
{
	struct cmsghdr c = {.cmsg_len = CMSG_LEN(n), .cmsg_level = level, .cmsg_type = type};

	if (room < sizeof c) {
		msg->msg_flags |= MSG_CTRUNC;
		return;
	}
	if (room < c.cmsg_len) {
		msg->msg_flags |= MSG_CTRUNC;
		c.cmsg_len = room;
	}
	memcpy(msg->msg_control, &c, sizeof c);
	memcpy((uint8_t *)msg->msg_control + sizeof c, data, c.cmsg_len - sizeof c);
	msg->msg_controllen = c.cmsg_len < CMSG_SPACE(n) && room >= CMSG_SPACE(n) ? CMSG_SPACE(n) : c.cmsg_len;
}

/* Takes the notification; msg NULL: nobody wants to read it. */
ssize_t tas__errqueue_recv(struct tas_obj *o, struct msghdr *msg)
{
	_Atomic uint64_t *word = &tas__block(o)->c.zerocopy;
	bool v6 = o->b->s.family == AF_INET6;
	struct {
		struct sock_extended_err ee;
		uint8_t offender[sizeof(struct sockaddr_in6)];
	} err;
	uint64_t v = atomic_load(word);
	size_t room;

	do {
		if (SENT(v) == TOLD(v))
			return -EAGAIN;
	} while (!atomic_compare_exchange_weak(word, &v, (uint64_t)SENT(v) << 32 | SENT(v)));
	if (!msg)
		return 0;
	memset(&err, 0, sizeof err);
	err.ee.ee_origin = SO_EE_ORIGIN_ZEROCOPY;
	err.ee.ee_code = SO_EE_CODE_ZEROCOPY_COPIED;
	err.ee.ee_info = TOLD(v);
	err.ee.ee_data = SENT(v) - 1;
	room = tas__wild(msg->msg_control) ? 0 : msg->msg_controllen;
	msg->msg_controllen = 0;
	msg->msg_flags = MSG_ERRQUEUE;
	if (v6)
		put_control(msg, room, IPPROTO_IPV6, IPV6_RECVERR, &err, sizeof err.ee + sizeof(struct sockaddr_in6));
	else
		put_control(msg, room, IPPROTO_IP, IP_RECVERR, &err, sizeof err.ee + sizeof(struct sockaddr_in));
	return 0;
}
