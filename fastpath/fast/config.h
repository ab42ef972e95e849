/* SPDX-License-Identifier: MIT */
/* Settings of one service run: filled by the option table (service/options.c), read by everybody, constant afterwards. */
#ifndef TAS_CONFIG_H
#define TAS_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "abi/tas_abi.h"

#define TAS_VERSION "0.1.0"

enum tas_link_kind { TAS_LINK_NONE, TAS_LINK_TAP, TAS_LINK_AF_PACKET, TAS_LINK_AF_XDP, TAS_LINK_MEMIF, TAS_LINK_PCI };
enum tas_low_latency { TAS_LATENCY_OFF, TAS_LATENCY_AUTO, TAS_LATENCY_ON };

struct tas_prefix {
	struct tas_addr addr; /* port unused */
	uint8_t bits;
};

enum { TAS_ADDRS_MAX = 16, TAS_ROUTES_MAX = 64, TAS_EAL_ARGS_MAX = 64 };

struct tas_config {
	struct tas_prefix addr[TAS_ADDRS_MAX]; /* --ip-addr */
	unsigned n_addr;
	struct {
		struct tas_prefix dst;
		struct tas_addr nexthop;
	} route[TAS_ROUTES_MAX]; /* --ip-route */
	unsigned n_route;

	enum tas_link_kind link;
	char link_name[108];  /* interface, name of the tap, socket of memif, address of the PCI device */
	uint16_t link_mtu;    /* memif: its MTU; 0: the interface's or port's own */
	bool memif_server, memif_zero_copy;
	bool link_no_checksums; /* both ends are TAS, and between them is nothing but memory */
	unsigned memif_id;
	enum tas_low_latency low_latency; /* --low-latency */
	char socket_path[108];
	unsigned socket_mode;
	int ready_fd; /* -1: none */
	bool quiet;
	bool exit_idle; /* --exit-when-unused: end when the last session and the last process are gone */

	unsigned fp_cores_max;
	bool fp_no_ints, fp_no_xsumoffload, fp_no_autoscale, fp_no_hugepages, fp_cycles;
	uint64_t poll_ns_tas; /* --fp-poll-interval-tas */
	uint64_t poll_ns_app; /* --fp-poll-interval-app */
	const char *dpdk_extra[TAS_EAL_ARGS_MAX];
	unsigned n_dpdk_extra;

	uint32_t tcp_rxbuf_len, tcp_txbuf_len; /* largest ring per direction, bytes, power of two */
	uint64_t tcp_handshake_timeout;        /* ns */
	unsigned tcp_handshake_retries;
	unsigned direct_after; /* messages of a local connection; 0: never direct */
	int cc; /* enum tcp_cc */
	uint64_t arp_timeout, arp_timeout_max; /* ns */
	unsigned nic_rx_len, nic_tx_len;       /* descriptors */

	/* limits per process (ENOBUFS at the offender) */
	unsigned max_socks_per_set;
	unsigned max_chunks_per_set;
};

extern struct tas_config tas_config;

#endif
