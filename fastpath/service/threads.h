/* SPDX-License-Identifier: MIT */
/* The threads of cores other than 0, as core 0's loop sees them (threads.c, steer.c, scale.c). */
#ifndef TAS_THREADS_H
#define TAS_THREADS_H

#include <sched.h>

#include "service/edge.h"

int tas__threads_init(struct tas_core *c); /* the link is open; 0 or -errno, the reason printed */
void tas__threads_exit(void);		   /* they end; core 0 is alone from now on */
/* Core 0: so many threads are at work from now on, itself included.  Fewer if they cannot be started. */
void tas__threads_set(unsigned n);
unsigned tas__threads_running(void);
/* Core 0 is about to sleep.  False: something came for it meanwhile. */
bool tas__threads_sleep(void);
void tas__threads_woke(void);
/* Core 0, each round: what others have for it, and how many should be at work.  Returns how much was done. */
unsigned tas__threads_round(struct tas_core *c);

void tas__threads_take_in(void);       /* alone: what has come for any thread by now */
void tas__kick_packets(unsigned core); /* there are packets in its rings */

/* ---- steer.c: packets to the cores that own their connections ---- */
int tas__steer_init(const struct tas_net *n); /* 0 or -ENOMEM */
void tas__steer_exit(void);
void tas__steer(struct tas_core *c, struct rte_mbuf **m, unsigned n);
unsigned tas__steered(struct tas_core *c); /* what others gave to c */

/* ---- late.c: the last place of an accept queue ---- */
/* Takes ownership of m (as for tas_core_tcp()), for core 0 to go on with.  False: no room. */
bool tas__late_put(struct rte_mbuf *m, const struct tas_rx_meta *meta);
unsigned tas__late_run(void); /* core 0, each round */
void tas__late_exit(void);

/* ---- scale.c ---- */
/* How many should be at work, given how many are; core 0 asks about ten times a second while it is awake. */
unsigned tas__scale(uint64_t now, unsigned running, uint64_t (*idle_ns)(void));
uint64_t tas__scale_idle_ns(void); /* time that the processors we may use have had nothing to do */

/* ---- seat.c: core 0's thread ---- */
void tas__seat_look(const struct tas_core *c, bool hog); /* each round; hog: a yield has met one lately */
uint64_t tas__seat_deadline(void);		      /* when to look again, asleep or not; UINT64_MAX: nothing is kept */
void tas__seat_leave(void);			      /* threads made from now on may go where they like */
void tas__seat_allowed(cpu_set_t *may);		      /* the processors that we may use */

/* ---- net_in.c ---- */
unsigned tas__net_owner(const struct tas_core *c, const struct rte_mbuf *m); /* index of a core */
unsigned tas__net_owner_of(const uint8_t *local_ip, const uint8_t *peer_ip, const uint8_t *local_port, const uint8_t *peer_port);

#endif
