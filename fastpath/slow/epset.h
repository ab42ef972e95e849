/* SPDX-License-Identifier: MIT */
/* Epoll sets as the service knows them (slow/epset.c).  Private to fast/ and slow/. */
#ifndef TAS_EPSET_H
#define TAS_EPSET_H

#include "abi/tas_epoll.h"
#include "slow/stack.h"

struct tas_epset {
	uint32_t index;
	uint64_t token;
	int memfd, efd;
	uid_t uid; /* of who made it, until somebody else has it */
	struct tas_ep_memory *m;
	bool mute;   /* no bells: somebody could not map one, or may not */
	bool kept;   /* was passed, or survived an exec */
	bool making; /* not in the kernel's set yet: nobody else of the memory set makes one */
	uint32_t n_holders;
	uint64_t holder[TAS_PROC_MAX / 64]; /* by process slot */
	uint32_t n_sets;
	struct tas_set *set[TAS_SET_MEMBERS_MAX]; /* memory sets of processes that have or had it */
};

extern struct tas_epset *tas__epsets[TAS_EP_MAX];

/* May it have sockets of s as members? */
static inline bool tas__epset_reaches(const struct tas_epset *e, const struct tas_set *s)
{
	for (uint32_t i = 0; i < e->n_sets; i++)
		if (tas__set_reaches(e->set[i], s))
			return true;
	return false;
}

/* NULL: p does not have it. */
struct tas_epset *tas__epset_held(const struct tas_proc *p, uint32_t index);
int tas__epset_new(struct tas_proc *p, int efd, uint32_t flags, struct tas_epset **out);
int tas__epset_find(struct tas_proc *p, uint64_t token, struct tas_epset **out);
void tas__epset_made(const struct tas_proc *p, uint32_t index);
void tas__epset_close(const struct tas_proc *p, uint32_t index);
void tas__epset_mute(const struct tas_proc *p, uint32_t index);
void tas__epsets_mute(const struct tas_proc *p); /* all of p */
void tas__epset_keep(const struct tas_proc *p, uint32_t index);
/* The socket, if p's set has it as a member. */
struct tas_sock_base *tas__epset_member(const struct tas_proc *p, uint32_t index, uint32_t id, uint32_t gen);
void tas__epsets_fork(const struct tas_proc *child, const struct tas_proc *parent);
void tas__epsets_moved(const struct tas_proc *p); /* into another memory set */
void tas__epsets_proc_end(const struct tas_proc *p);
void tas__epsets_forget(const struct tas_set *s); /* s goes */
uint32_t tas__epsets_count(void);
void tas__epset_ring(const struct tas_epset *e); /* wake.c */
/* Async-signal-safe.  The memory set of the one in whose memory addr lies. */
struct tas_set *tas__epsets_at(const void *addr);
void tas__epsets_exit(void);

#endif
