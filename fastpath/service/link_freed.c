/* SPDX-License-Identifier: MIT */
/*
 * Packets that a tap's readers have freed are fetched before the kernel sends an interrupt for them.
 *
 * What we write into a tap the kernel allocates on our processor.  Who reads it on another one does not free it there: it puts it on a
 * list of our processor's, and when that is half full (sysctl net.core.skb_defer_max / 2: 32 packets) interrupts us so that we free them
 * (Linux 5.19 and newer).  In a virtual machine such an interrupt costs its sender about 10 µs, and us as much work as the packets do.  The
 * list is emptied as well whenever the processor takes packets from a device's queue (NET_RX), which writing into a tap does not do,
 * but any packet over loopback does.  So we send ourselves an empty datagram after every 24th packet, over the loopback interface of the
 * service's namespace: less than 0.1 µs a packet.  It is read again at once: no buffer ever fills, no statistics of errors move.
 *
 * Without that list (an older kernel), or while loopback is down, there is nothing to be had, and nothing is lost.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "service/edge.h"

enum { EVERY_MAX = 64, SKIP = 1000, USUAL = 64 };
static const char limit[] = "/proc/sys/net/core/skb_defer_max";

static int self = -1;              /* a socket that is connected to itself */
static _Atomic bool connected;
static _Atomic unsigned skip; /* fetches left out until loopback is asked for again */

/* Connected, it hears nobody else.  While loopback is down it has no address. */
static bool connect_self(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	if (atomic_load_explicit(&connected, memory_order_acquire))
		return true;
	if (atomic_load_explicit(&skip, memory_order_relaxed) && atomic_fetch_sub(&skip, 1))
		return false;
	tas_shared_in();
	if (!atomic_load(&connected)) {
		(void)!bind(self, (struct sockaddr *)&a, len); /* it may have been before */
		if (!getsockname(self, (struct sockaddr *)&a, &len) && a.sin_port && !connect(self, (struct sockaddr *)&a, len))
			atomic_store_explicit(&connected, true, memory_order_release);
		else
			atomic_store(&skip, SKIP);
	}
	tas_shared_out();
	return atomic_load(&connected);
}

/* Well before the list is half full: readers do not free in step with our writes. */
uint16_t tas__freed_every(unsigned max)
{
	unsigned every = max / 2 - max / 8;

	return (uint16_t)(every < EVERY_MAX ? every : EVERY_MAX);
}

/* Only the first network namespace shows it; then a length that no kernel goes below by itself. */
static unsigned list_max(void)
{
	FILE *f = fopen(limit, "re");
	unsigned max;

	if (!f)
		return USUAL;
	if (fscanf(f, "%u", &max) != 1)
		max = USUAL;
	fclose(f);
	return max;
}

void tas__freed_open(struct tas_net *n)
{
	uint16_t every = tas__freed_every(list_max());

	if (every)
		self = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (self >= 0)
		n->fetch_every = n->until_fetch = every;
}

void tas__freed_close(void)
{
	if (self >= 0)
		close(self);
	self = -1;
	atomic_store(&connected, false);
}

void tas__freed_fetch(void)
{
	char none[1] = "";

	if (connect_self() && send(self, none, 0, MSG_NOSIGNAL) == 0)
		(void)!recv(self, none, sizeof(none), 0);
}
