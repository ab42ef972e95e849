/* SPDX-License-Identifier: MIT */
/* Connections over the link: between flow.c (table), wire.c (engine and memory) and segment.c (packets). */
#ifndef TAS_WIRE_H
#define TAS_WIRE_H

#include "fast/sock.h"

void tas__flow_add(struct tas_sock *s);
struct tas_core *tas__flow_core(const struct tas_addr *local, const struct tas_addr *peer); /* whose it is */
uint32_t tas__flow_hash(const struct tas_addr *local, const struct tas_addr *peer);
/* False: not looked at, it is to be put aside. */
bool tas__flow_segment(struct tas_core *c, const struct tcp_seg *seg, const uint8_t *payload, const struct tas_addr *local,
		       const struct tas_addr *peer);
void tas__wire_passive(struct tas_sock *s, const struct tcp_seg *syn, const uint32_t *isn);
/* payload NULL: it lies in its place already (place.c). */
void tas__wire_input(struct tas_sock *s, const struct tcp_seg *seg, const uint8_t *payload);
/* Embryo s would take the last place of its listener's queue with seg. */
bool tas__wire_takes_last(const struct tas_sock *s, const struct tcp_seg *seg);
/* The RST that answers seg, if one is due. */
void tas__wire_reset(struct tas_core *c, const struct tcp_seg *seg, const struct tas_addr *local, const struct tas_addr *peer);
/* Ends a connection that only the service still knows. */
void tas__wire_forget(struct tas_sock *s);
void tas__wire_result(struct tas_sock *s, const struct tcp_result *res);

/* Sends one segment with payload [off, off + seg->len) of s's transmit stream (s NULL: no payload). */
bool tas__segment_send(struct tas_core *c, struct tas_sock *s, struct tcp_seg *seg, uint64_t off, const struct tas_addr *local,
		       const struct tas_addr *peer);

#endif
