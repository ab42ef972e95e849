/* SPDX-License-Identifier: MIT */
/*
 * Packets in and out of a tap: one system call each, with nothing around it.
 *
 * A tap takes and gives a packet per call.  What a call costs besides the packet counts, therefore: one piece of memory (read, write) is
 * 90 ns less than a vector of two, each way, and DPDK's net_tap has the kernel's four bytes of packet information as a piece of their own, looks
 * for a packet's type, and clears and chains a buffer for each.
 */
#include <errno.h>
#include <rte_mbuf.h>
#include <sys/uio.h>
#include <unistd.h>

#include "service/edge.h"

enum { PIECES = 64 }; /* of a segment of 62 KB in buffers of 2: 33 */

/* A buffer for the next packet of each queue: most rounds end with a read that finds none. */
static struct rte_mbuf *next[TAS_CORES_MAX];

unsigned tas__tap_receive(struct tas_net *n, unsigned queue, struct rte_mbuf **m, unsigned max)
{
	unsigned got;
	ssize_t len;

	for (got = 0; got < max; got++) {
		struct rte_mbuf *b = next[queue] ? next[queue] : rte_pktmbuf_alloc(n->rx_pool);

		next[queue] = b;
		if (!b)
			break;
		len = read(n->queue_fd[queue], b->buf_addr, b->buf_len);
		if (len <= 0)
			break;
		next[queue] = NULL;
		b->data_off = 0; /* a frame at its longest fills the buffer */
		b->data_len = (uint16_t)len;
		b->pkt_len = (uint32_t)len;
		m[got] = b;
	}
	return got;
}

void tas__tap_forget(void)
{
	for (unsigned q = 0; q < TAS_CORES_MAX; q++) {
		rte_pktmbuf_free(next[q]);
		next[q] = NULL;
	}
}

static ssize_t put(int fd, const struct rte_mbuf *m)
{
	struct iovec piece[PIECES];
	unsigned n = 0;

	if (m->nb_segs == 1)
		return write(fd, rte_pktmbuf_mtod(m, const void *), m->data_len);
	if (m->nb_segs > PIECES) {
		errno = EMSGSIZE;
		return -1;
	}
	for (; m; m = m->next)
		piece[n++] = (struct iovec){ rte_pktmbuf_mtod(m, void *), m->data_len };
	return writev(fd, piece, (int)n);
}

unsigned tas__tap_send(struct tas_net *n, struct rte_mbuf **m, unsigned count, unsigned *lost)
{
	int fd = n->queue_fd[n->queue];
	unsigned i;

	*lost = 0;
	for (i = 0; i < count; i++) {
		if (put(fd, m[i]) < 0) {
			if (errno == EAGAIN || errno == EINTR || errno == ENOMEM || errno == ENOBUFS)
				break;
			++*lost; /* it never goes: the interface is down */
		}
		rte_pktmbuf_free(m[i]);
		if (n->fetch_every && !--n->until_fetch) {
			n->until_fetch = n->fetch_every;
			tas__freed_fetch();
		}
	}
	return i;
}
