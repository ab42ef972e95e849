/* SPDX-License-Identifier: MIT */
/* Kinds of links: what EAL is told, what of the driver's ways differs, and why opening one may have failed. */
#ifndef TAS_LINK_DRIVERS_H
#define TAS_LINK_DRIVERS_H

#include <stdbool.h>
#include <stdint.h>

#include "service/edge.h"

enum { TAS_MTU_USUAL = 1500 };

/* What EAL needs to know of the device. */
struct tas_eal_device {
	char arg[320];     /* --vdev=… or --allow=… */
	bool pci;          /* look at the PCI bus */
	bool needs_huge;   /* the device works on physical or shared pages: ordinary memory will not do */
	bool single_file;  /* one file per memory segment: another process maps our buffers */
};

/* Queues for threads: one for all; those without a thread are switched off; they remain; the card spreads over them as it is told. */
enum tas_link_queues { TAS_QUEUE_ONE, TAS_QUEUE_SWITCHED, TAS_QUEUE_FIXED, TAS_QUEUE_SPREAD };

/*
 * Queues of our own, where other links have a DPDK driver's.  Core 0's thread but for receive and send, which each thread calls for
 * its own queue (one queue: core 0 receives, and one at a time sends).
 */
struct tas_own_queue {
	/* n->n_queues of them: their descriptors (n->fd, n->queue_fd) and n->mac.  0 or -errno. */
	int (*open)(struct tas_net *n);
	void (*close)(struct tas_net *n);
	unsigned (*receive)(struct tas_net *n, unsigned queue, struct rte_mbuf **m, unsigned max);
	/* How many of them are done with, those that will never go (*lost) included.  Fewer: no room now. */
	unsigned (*send)(struct tas_net *n, struct rte_mbuf **m, unsigned count, unsigned *lost);
	/* The next packet's length, its first TAS_HEAD bytes in head; it stays where it is.  < 0: there is none, or errno.  NULL: a
	 * packet is seen only when it was taken. */
	int (*peek)(const struct tas_net *n, uint8_t *head);
	int (*scatter)(const struct tas_net *n, struct iovec *to, unsigned pieces); /* reads it; its length */
};

enum tas_link_fd { TAS_FD_NONE, TAS_FD_OPENED_BY_QUEUE };

struct tas_link_driver {
	const char *name;
	/* What cannot work is refused here and said why.  0 or -errno. */
	int (*prepare)(struct tas_eal_device *d);
	/* Opening failed with error (errno): say why. */
	void (*explain)(int error);
	uint16_t mtu_max;
	bool interface;              /* link_name is a network interface */
	enum tas_link_fd descriptor; /* becomes readable when packets wait: who opened it */
	bool interrupts;             /* may have receive interrupts */
	bool copies;                 /* what it is given to send is copied before it returns */
	const struct tas_own_queue *own; /* NULL: DPDK's */
	enum tas_link_queues queues;
	bool vnet;                   /* frames with the kernel's virtio header in front */
};

/* Indexed by enum tas_link_kind; TAS_LINK_NONE is empty. */
extern const struct tas_link_driver tas__link_drivers[];

/* Bytes of a buffer for frames of this MTU. */
unsigned tas__link_frame_room(uint16_t mtu);

#endif
