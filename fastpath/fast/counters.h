/* SPDX-License-Identifier: MIT */
/* Counters and gauges of the service: one X-macro list; `tasctl stats` prints it, tests assert on it.
 * One array per fast-path core, written by that core's thread only. */
#ifndef TAS_COUNTERS_H
#define TAS_COUNTERS_H

#include <stdint.h>

/* C(name, "what it counts") */
#define TAS_COUNTERS(C) \
	C(rx_packets, "packets received from the link") \
	C(rx_bytes, "bytes received from the link") \
	C(tx_packets, "packets given to the link") \
	C(tx_bytes, "bytes given to the link") \
	C(tx_dropped, "packets that the link did not take") \
	C(rx_bad_checksum, "packets with a wrong checksum") \
	C(rx_malformed, "packets with a malformed header") \
	C(rx_fragments, "IP fragments (dropped: there is no reassembly)") \
	C(rx_not_ours, "packets for another address or protocol") \
	C(rx_placed, "segments read straight into the stream") \
	C(rx_steered, "packets handed to the thread that owns their connection") \
	C(rx_steer_dropped, "packets dropped because that thread was behind") \
	C(arp_requests_in, "ARP requests answered") \
	C(arp_requests_out, "ARP requests sent") \
	C(arp_failed, "packets dropped because no neighbour answered ARP") \
	C(icmp_echo, "ICMP echo requests answered") \
	C(icmp_unreach_in, "ICMP unreachables received") \
	C(icmp_unreach_out, "ICMP unreachables sent") \
	C(tcp_in, "TCP segments received") \
	C(tcp_out, "TCP segments sent") \
	C(tcp_rst_out, "RSTs sent") \
	C(tcp_retrans, "TCP segments retransmitted") \
	C(tcp_no_listener, "SYNs for a port without listener") \
	C(tcp_listen_overflow, "SYNs or ACKs dropped because an accept queue was full") \
	C(tcp_no_memory, "segments dropped because there was no memory for the payload") \
	C(conn_active, "connections opened by applications over the link") \
	C(conn_passive, "connections accepted over the link") \
	C(conn_local, "connections between two applications of this service") \
	C(conn_direct, "times one of these went on without the service") \
	C(bytes_in, "payload bytes delivered to applications from the link") \
	C(bytes_out, "payload bytes taken from applications for the link") \
	C(bytes_local, "payload bytes moved between applications of this service") \
	C(app_hints, "hints from applications looked at") \
	C(app_bad_hints, "hints for sockets that the application does not hold") \
	C(app_bad_counters, "connections reset because a shared counter made no sense") \
	C(mails, "connects asked for through shared memory") \
	C(app_wakeups, "applications woken by eventfd or futex") \
	C(doorbells, "times an application woke the service") \
	C(sleeps, "times the fast path went to sleep") \
	C(rounds, "rounds of the fast path's loop") \
	C(work_ns, "time of rounds in which something was done, ns") \
	C(poll_ns, "time of rounds in which nothing was there, the processor left to others meanwhile included, ns") \
	C(sleep_ns, "time asleep, ns") \
	C(cycles_receive, "processor cycles (TSC) of rounds with work, --fp-cycles: packets in, up to the streams") \
	C(cycles_hints, "the same: hints and mail of applications; payload of local connections moves here") \
	C(cycles_timers, "the same: timers") \
	C(cycles_output, "the same: segments made, local output") \
	C(cycles_wake, "the same: applications woken, idle connections' rings, bridges") \
	C(cycles_transmit, "the same: packets given to the port") \
	C(cycles_control, "the same: descriptors looked at, requests over control sockets") \
	C(cycles_idle, "processor cycles (TSC) of rounds that found nothing, yields and sleeps included, --fp-cycles") \
	C(procs_attached, "processes ever attached") \
	C(sock_moves, "sockets that another memory set came to hold, and that moved for it") \
	C(procs_died, "processes that ended without closing their session") \
	C(fallbacks, "binds, listens and connects sent back to the kernel")

/* G(name, "what it is now"): derived when asked */
#define TAS_GAUGES(G) \
	G(processes, "attached processes") \
	G(memory_sets, "memory sets") \
	G(sockets, "sockets: listeners and connections, TIME_WAIT not included") \
	G(listeners, "listeners") \
	G(embryos, "half-open passive connections") \
	G(time_waits, "connections in TIME_WAIT") \
	G(chunks, "chunks of shared memory") \
	G(chunk_bytes_used, "bytes allocated in chunks") \
	G(ports, "ports reserved") \
	G(wait_sets, "open wait sets") \
	G(watches, "sockets watched by inotify") \
	G(descriptors, "open descriptors of the service")

enum tas_counter {
#define C(name, text) TAS_CTR_##name,
	TAS_COUNTERS(C)
#undef C
	TAS_CTR_N
};

#endif
