/* SPDX-License-Identifier: MIT */
/* Between the files of service/: the port, packets in and out, the loop.  Core 0's thread only, but for packets in and out. */
#ifndef TAS_EDGE_H
#define TAS_EDGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fast/core.h"
#include "slow/arp.h"
#include "slow/route.h"

struct iovec;
struct rte_mempool;
struct tas_eal_device;
struct tas_link_driver;
struct tas_own_queue;

enum { TAS_VNET_HEADER = 10, TAS_HEAD = TAS_VNET_HEADER + 14 + 60 + 60 /* with all headers at their longest */ };
enum { TAS_RX_BURST = 32, TAS_TX_BURST = 64, TAS_NEAR = 64 };

/* What the edge knows per core; those other than 0 begin as a copy.  Without a link only routes exists. */
struct tas_net {
	uint16_t port;
	uint16_t queue, n_queues; /* one queue: core 0 receives, everybody sends with a lock; else each has its own */
	bool up;                /* there is a port */
	bool hw_rx_checksum;    /* the port verifies; flags in the mbuf are worth looking at */
	bool hw_tx_checksum;    /* the port fills in TCP's; the IPv4 header's as well unless vnet */
	bool no_checksums;      /* TCP's is neither filled in nor looked at */
	bool vnet;              /* the kernel's virtio header stands in front of each frame (vnet.c) */
	bool lends;             /* the port copies while it sends: segments may refer to the streams' memory */
	uint32_t tso_max;       /* payload that the port cuts into segments; 0: it does not */
	uint8_t mac[6];
	uint16_t mtu;
	uint16_t ip_id;
	uint16_t rx_burst;      /* packets to ask for at once */
	uint16_t fetch_every, until_fetch; /* after so many packets out: tas__freed_fetch(); 0: never */
	uint16_t n_tx;
	struct rte_mbuf *tx[TAS_TX_BURST]; /* given to the port at the end of the round, or when it takes packets again */
	uint32_t tx_len[TAS_TX_BURST];     /* their lengths */
	bool full;              /* the port did not take what is in tx, and may soon */
	uint64_t stuck_since;   /* it has taken nothing since; 0: it took something last */
	struct rte_mempool *pool;
	struct rte_mempool *rx_pool; /* the same, or buffers for whole segments (vnet) */
	struct tas_arp *arp; /* one for all cores: tas_shared_in() */
	struct tas_near {    /* what it said lately, for a thread that is not alone; by lower bits of the address */
		uint32_t ip;
		uint8_t mac[6];
		uint64_t until; /* 0: nothing */
	} near[TAS_NEAR];
	uint64_t icmp_tokens, icmp_refill; /* errors that may be sent now; when they were counted */
	uint64_t conflict_told;
	bool partial_told;
	const struct tas_link_driver *driver;
	int fd;                 /* readable when packets wait; -1: none was found */
	int queue_fd[TAS_CORES_MAX]; /* of all queues */
	bool switched;          /* queues without a thread are switched off; else they are core 0's */
	bool interrupts;        /* the descriptors are interrupts', which are armed before each sleep */
	_Atomic bool started;   /* the port runs (up, too, while a memif client waits for its server) */
	_Atomic bool carrier;   /* the other end is there: memif's may be away.  Core 0's counts */
	uint64_t next_link_look;
};

/* ---- eal.c ---- */
/* Start EAL with one device; 0 or -errno, the reason printed. */
int tas__eal_init(const struct tas_eal_device *d);
/* It failed with huge pages that seemed to be free: another process was quicker, or we may not have them.  EAL starts once per
 * process, so the caller begins again without them. */
bool tas__eal_lacked_huge(void);
void tas__eal_exit(bool cleanup); /* cleanup: devices as well */

/* ---- link.c ---- */
int tas__link_open(struct tas_net *n);
void tas__link_close(struct tas_net *n);
void tas__link_arm(const struct tas_net *n, unsigned queue, bool on); /* its interrupt */
void tas__link_timer(struct tas_core *c); /* memif: is its other end there? */
const char *tas__link_describe(void); /* for the start-up line */

/* ---- queues.c ---- */
struct rte_eth_dev_info;
struct rte_eth_conf;
uint16_t tas__queues_choose(const struct tas_net *n, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf);
void tas__queues_none(struct rte_eth_conf *conf); /* that did not work: one */
void tas__queues_opened(const struct tas_net *n);
void tas__queues_spread(const struct tas_net *n); /* alone: tas_steer has changed */

/* ---- link_tap.c ---- */
int tas__tap_prepare(void);  /* refuses what cannot work and says why */
void tas__tap_explain(void); /* why creating it failed */
extern const struct tas_own_queue tas__tap_own;
/* The kernel gives packets to this queue, or not any more; what waits there then is lost.  0 or -errno. */
int tas__tap_queue(int fd, bool on);
/* An end's Ethernet address: stable for this machine, network namespace and name; side tells both ends apart. */
void tas__link_mac(uint8_t mac[6], unsigned side);

/* ---- link_tap_io.c ---- */
unsigned tas__tap_receive(struct tas_net *n, unsigned queue, struct rte_mbuf **m, unsigned max);
unsigned tas__tap_send(struct tas_net *n, struct rte_mbuf **m, unsigned count, unsigned *lost);
void tas__tap_forget(void); /* buffers that wait for a packet */

/* ---- link_packet.c ---- */
extern const struct tas_own_queue tas__packet_own;

/* ---- link_freed.c ---- */
void tas__freed_open(struct tas_net *n); /* a tap, before its first packet */
void tas__freed_close(void);
void tas__freed_fetch(void); /* what readers of our packets have freed; any thread */
uint16_t tas__freed_every(unsigned max); /* packets between two fetches, of a list of max */

/* ---- link_queue.c ---- */
void tas__queue_none(int fd); /* a tap that is ours alone, before it is up: the kernel keeps no queue in front of it */
void tas__queue_watch(void);  /* nor where it moves; in the loop */
void tas__queue_forget(void);

/* ---- vnet.c ---- */
bool tas__vnet_vouched(const uint8_t *frame);
/* What the kernel says of a packet moves from the header before it into m's flags.  False: there is no such header. */
bool tas__vnet_take(struct rte_mbuf *m);
/* The other way; a frame with its Ethernet header.  False: no room. */
bool tas__vnet_give(struct rte_mbuf *m);

/* ---- link_fds.c ---- */
struct tas_fdset {
	uint64_t bit[1 << 10];
};
void tas__fds_snapshot(struct tas_fdset *s);
/* The first descriptor beyond those seen on which a port's packets arrive: an AF_XDP socket.  It is seen
 * from now on.  -1: none. */
int tas__fds_find_port(struct tas_fdset *seen);

/* ---- net.c ---- */
int tas__net_routes(void); /* from the settings; 0 or -errno, the reason printed */
int tas__net_init(struct tas_core *c);
void tas__net_exit(struct tas_core *c);
unsigned tas__net_receive(struct tas_core *c); /* one burst; packets received */
void tas__net_flush(struct tas_core *c);
void tas__net_flush_last(struct tas_core *c); /* nothing stays */
void tas__net_queue(struct tas_core *c, struct rte_mbuf *m); /* a frame; takes it */
void tas__net_timer(struct tas_core *c);
uint64_t tas__net_deadline(const struct tas_core *c);
/* ---- net_in.c, net_out.c ---- */
extern struct tas_routes tas__routes;
void tas__net_input(struct tas_core *c, struct rte_mbuf *m);
/* A packet of len bytes that waits in the port, of which the first are known: the pieces of memory that it is to be read into, its headers
 * into head; then tas_core_placed().  0: it has no place (place.c). */
unsigned tas__net_foresee(struct tas_core *c, const uint8_t head[TAS_HEAD], unsigned len, struct iovec *to);
void tas__net_announce(struct tas_core *c); /* gratuitous ARP for every address of ours */
void tas__net_send_arp(struct tas_core *c, const struct tas_arp_pkt *p, const uint8_t dst[6]);
void tas__net_send_ip(struct tas_core *c, struct rte_mbuf *m, uint32_t dst); /* m begins at the IP header; takes it */
extern const struct tas_arp_ops tas__net_arp_ops;

/* ---- loop.c ---- */
int tas__loop_init(void);
void tas__loop_exit(void);
void tas__loop_run(struct tas_core *c);
int tas__loop_hear(const struct tas_net *n, unsigned queue); /* its packets wake core 0 from now on, if they can; 0 or -errno */
void tas__loop_deaf(unsigned queue);
void tas__account_cycles(struct tas_core *c, unsigned work); /* --fp-cycles: a round is over */
uint64_t tas__nap(uint64_t silent); /* ns to sleep beside a port that wakes nobody, and was silent for so long */
uint64_t tas__clock(void); /* ns, CLOCK_MONOTONIC */

/* ---- latency.c ---- */
int tas__latency_init(void); /* 0 or -errno, the reason printed */
void tas__latency_exit(void);
void tas__latency_woken(uint64_t now); /* news ended a sleep */
/* When to look again whether traffic still flows; lets go when it does not.  UINT64_MAX: nothing is held. */
uint64_t tas__latency_deadline(uint64_t last_work, uint64_t now);

/* ---- idle.c ---- */
struct tas_idle {
	uint64_t last_work;
	uint64_t next_yield; /* alone on this CPU: spin until then */
	uint64_t held_until; /* a thread that does not cooperate was met: no polling until then */
	uint64_t hold;
};
/* Nothing was done in this round.  True: look again (it has yielded or will spin); false: sleep. */
bool tas__idle(struct tas_idle *i, uint64_t now, uint64_t poll);

#endif
