/* SPDX-License-Identifier: MIT */
/*
 * Who may hold a socket.
 *
 * The processes of its memory set may.  A process of another set that shows the descriptor (it came by SCM_RIGHTS, by an exec with
 * other credentials, by pidfd_getfd) holds the socket as well, and both sides have to reach its memory, yet nothing else of
 * each other's: the socket moves into a shared set, whose members are the sets that hold it.  All sockets with the same
 * members lie in one shared set, since they share their fate anyway.
 *
 * Cheaper, and done where it can be: a process that holds nothing yet, and was started by the set's own, joins the set.
 */
#include <errno.h>
#include <stdio.h>

#include "slow/epset.h"
#include "slow/memory.h"
#include "slow/process.h"

enum {
	ANCESTORS_MAX = 8,          /* how far a spawned program may be from the member that let it in */
	NUMBER_MAX = (1 << 20) - 1, /* of shared sets: what positions of memory have room for */
};

/* ---- shared sets ---- */
struct tas_set *tas__set_numbered(uint32_t number)
{
	for (struct tas_set *s = tas__sets(); s; s = s->next)
		if (number && s->number == number)
			return s;
	return NULL;
}

static bool has_members(const struct tas_set *s, struct tas_set *const *member, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (!tas__set_reaches(member[i], s))
			return false;
	return s->number && s->n_members == n && !tas__set_dead(s);
}

struct tas_set *tas__set_shared(struct tas_set *const *member, uint32_t n)
{
	static uint32_t next;
	struct tas_set *s;

	for (s = tas__sets(); s; s = s->next)
		if (has_members(s, member, n))
			return s;
	s = n <= TAS_SET_MEMBERS_MAX ? tas__set_new(member[0]->uid, member[0]->gid) : NULL;
	if (!s)
		return NULL;
	do /* used again after a million */
		next = next % NUMBER_MAX + 1;
	while (tas__set_numbered(next));
	s->number = next;
	for (uint32_t i = 0; i < n; i++) {
		s->member[s->n_members++] = member[i];
		member[i]->n_shared++;
	}
	return s;
}

static void member_del(struct tas_set *s, uint32_t i)
{
	s->member[i]->n_shared--;
	s->member[i] = s->member[--s->n_members];
}

void tas__set_unshare(struct tas_set *s)
{
	tas__epsets_forget(s);
	while (s->n_members)
		member_del(s, 0);
	for (struct tas_set *o = tas__sets(); s->n_shared && o; o = o->next)
		for (uint32_t i = o->n_members; i-- > 0;)
			if (o->member[i] == s)
				member_del(o, i);
}

int tas__sock_share(struct tas_sock_base *s, struct tas_set *with)
{
	struct tas_set *member[TAS_SET_MEMBERS_MAX + 1], *to;
	uint32_t n = 0;
	int err;

	if (tas__set_dead(with) || tas__set_dead(s->set))
		return -EACCES;
	/* those that still can hold it */
	if (!s->set->number && s->set->n_procs)
		member[n++] = s->set;
	for (uint32_t i = 0; i < s->set->n_members; i++)
		if (s->set->member[i]->n_procs)
			member[n++] = s->set->member[i];
	member[n++] = with;
	to = n > 1 ? tas__set_shared(member, n) : with;
	if (!to)
		return -ENOBUFS;
	err = tas__sock_move(s, to);
	tas__set_put(to); /* nothing came */
	return err;
}

/* ---- kin ---- */
static pid_t parent_of(pid_t pid)
{
	char path[40], line[128];
	int parent = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "PPid: %d", &parent) == 1)
			break;
	fclose(f);
	return parent;
}

static bool is_member(pid_t pid, const struct tas_set *set)
{
	for (uint32_t i = 0; i < tas__n_procs; i++)
		if (tas__procs[i] && tas__procs[i]->set == set && tas__procs[i]->pid == pid)
			return true;
	return false;
}

int tas__proc_move(struct tas_proc *p, struct tas_set *set)
{
	struct tas_set *old = p->set;
	pid_t pid = p->pid;
	/* With nobody left in the set, who holds the descriptor is its heir (a starter that has gone). */
	bool kin = !set->n_procs;

	if (set->number || p->uid != set->uid || p->gid != set->gid || old->n_socks || old->n_shared || tas__set_dead(set))
		return -EACCES;
	for (unsigned i = 0; pid > 1 && !kin && i < ANCESTORS_MAX; i++)
		kin = is_member(pid = parent_of(pid), set);
	if (!kin)
		return -EACCES;
	tas__proc_set(p, set);
	tas__epsets_moved(p);
	p->region->h.set_id = set->id;
	set->n_procs++;
	old->n_procs--;
	tas__set_put(old);
	return 0;
}
