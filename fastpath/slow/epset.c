/* SPDX-License-Identifier: MIT */
/*
 * Epoll sets with members of TAS, as far as the service has to do with them: it makes their memory, marks in it which
 * sockets have news, and rings (fast/wake.c).  Members are the applications' business (tas_epoll.h).
 *
 * A set lives while a process has a descriptor of it, as processes say themselves (a fork copies it, a death ends it); after it was
 * passed or survived an exec, while one of its memory sets lives.  Whoever knows the token may have it: it lies in the kernel's
 * epoll set, where holders of a descriptor read it, and cannot be guessed.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "abi/tas_epoll.h"
#include "slow/epset.h"
#include "slow/memory.h"

struct tas_epset *tas__epsets[TAS_EP_MAX];
static uint32_t n_sets, high; /* loop [0, high) */

static bool holds(const struct tas_epset *e, const struct tas_proc *p)
{
	return e->holder[p->slot / 64] >> (p->slot % 64) & 1;
}

static void tell_holders(const struct tas_epset *e)
{
	atomic_store_explicit(&e->m->head.holders, e->n_holders + e->kept, memory_order_seq_cst);
}

static void set_free(struct tas_epset *e)
{
	tas__bells_forget(e);
	tas__epsets[e->index] = NULL;
	while (high && !tas__epsets[high - 1])
		high--;
	n_sets--;
	munmap(e->m, sizeof *e->m);
	close(e->memfd);
	close(e->efd);
	free(e);
}

static bool reach_add(struct tas_epset *e, struct tas_set *s)
{
	for (uint32_t i = 0; i < e->n_sets; i++)
		if (e->set[i] == s)
			return true;
	if (e->n_sets == TAS_SET_MEMBERS_MAX)
		return false;
	e->set[e->n_sets++] = s;
	if (e->n_sets == 2)
		tas__bells_revoke(e);
	return true;
}

static void hold(struct tas_epset *e, const struct tas_proc *p)
{
	if (holds(e, p))
		return;
	e->holder[p->slot / 64] |= 1ull << (p->slot % 64);
	e->n_holders++;
	tell_holders(e);
}

struct tas_epset *tas__epset_held(const struct tas_proc *p, uint32_t index)
{
	struct tas_epset *e = index < TAS_EP_MAX ? tas__epsets[index] : NULL;

	return e && holds(e, p) ? e : NULL;
}

/* Takes efd.  0 or -errno. */
int tas__epset_new(struct tas_proc *p, int efd, uint32_t flags, struct tas_epset **out)
{
	struct tas_epset *e;
	uint32_t index = 0;

	for (uint32_t i = 0; (flags & TAS_EP_ALONE) && i < high; i++)
		if (tas__epsets[i] && tas__epsets[i]->making && tas__epsets[i]->set[0] == p->set)
			return -EAGAIN;
	if (n_sets == TAS_EP_MAX || (p->uid && p->uid != geteuid() && n_sets >= TAS_EP_MAX / 2))
		return -ENOBUFS;
	while (tas__epsets[index])
		index++;
	e = calloc(1, sizeof *e);
	if (!e)
		return -ENOMEM;
	e->index = index;
	e->memfd = tas__memfd("tas-epoll", sizeof *e->m, false);
	if (e->memfd < 0) {
		int err = e->memfd;

		free(e);
		return err;
	}
	e->m = mmap(NULL, sizeof *e->m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, e->memfd, 0);
	if (e->m == MAP_FAILED || getrandom(&e->token, sizeof e->token, 0) != sizeof e->token) {
		if (e->m != MAP_FAILED)
			munmap(e->m, sizeof *e->m);
		close(e->memfd);
		free(e);
		return -ENOMEM;
	}
	e->token = (e->token & TAS_EP_TOKEN_BITS) | TAS_EP_TOKEN;
	e->efd = efd;
	e->uid = p->uid;
	e->making = flags & TAS_EP_ALONE;
	e->set[e->n_sets++] = p->set;
	hold(e, p);
	tas__epsets[index] = e;
	n_sets++;
	if (high <= index)
		high = index + 1;
	*out = e;
	return 0;
}

int tas__epset_find(struct tas_proc *p, uint64_t token, struct tas_epset **out)
{
	for (uint32_t i = 0; i < high; i++) {
		struct tas_epset *e = tas__epsets[i];

		if (!e || e->token != token)
			continue;
		if (!reach_add(e, p->set))
			return -ENOBUFS;
		hold(e, p);
		if (p->uid != geteuid()) /* the kernel rings, as for the most foreign of them */
			e->uid = p->uid;
		*out = e;
		return 0;
	}
	return -ENOENT;
}

void tas__epset_made(const struct tas_proc *p, uint32_t index)
{
	struct tas_epset *e = tas__epset_held(p, index);

	if (!e)
		return;
	e->making = false;
	for (uint32_t i = 0; i < TAS_PROC_MAX; i++) /* a fork may have given them a descriptor before there was anything to hold */
		if (tas__procs[i] && tas__procs[i]->set == p->set)
			hold(e, tas__procs[i]);
}

static void let_go(struct tas_epset *e, const struct tas_proc *p)
{
	e->holder[p->slot / 64] &= ~(1ull << (p->slot % 64));
	e->n_holders--;
	e->making = false;
	tell_holders(e);
	if (!e->n_holders && !e->kept)
		set_free(e);
}

void tas__epset_close(const struct tas_proc *p, uint32_t index)
{
	struct tas_epset *e = tas__epset_held(p, index);

	if (e)
		let_go(e, p);
}

static void mute(struct tas_epset *e)
{
	e->mute = true;
	tas__bells_revoke(e);
}

void tas__epset_mute(const struct tas_proc *p, uint32_t index)
{
	struct tas_epset *e = tas__epset_held(p, index);

	if (e)
		mute(e);
}

void tas__epsets_mute(const struct tas_proc *p)
{
	for (uint32_t i = 0; i < high; i++)
		if (tas__epset_held(p, i))
			mute(tas__epsets[i]);
}

void tas__epset_keep(const struct tas_proc *p, uint32_t index)
{
	struct tas_epset *e = tas__epset_held(p, index);

	if (!e)
		return;
	e->kept = true;
	tell_holders(e);
}

void tas__epsets_fork(const struct tas_proc *child, const struct tas_proc *parent)
{
	for (uint32_t i = 0; i < high; i++)
		if (tas__epset_held(parent, i))
			hold(tas__epsets[i], child);
}

void tas__epsets_moved(const struct tas_proc *p)
{
	for (uint32_t i = 0; i < high; i++)
		if (tas__epset_held(p, i))
			reach_add(tas__epsets[i], p->set);
}

/* Frees the lock of one that died with it. */
static void unlock_for(struct tas_epset *e, const struct tas_proc *p)
{
	_Atomic uint32_t *w = &e->m->head.lock;
	uint32_t v = atomic_load_explicit(w, memory_order_relaxed);

	if (((v >> 20) & 0x7ff) == p->slot + 1 && atomic_compare_exchange_strong(w, &v, 0))
		syscall(SYS_futex, w, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void tas__epsets_proc_end(const struct tas_proc *p)
{
	for (uint32_t i = 0; i < high; i++) {
		struct tas_epset *e = tas__epset_held(p, i);

		if (!e)
			continue;
		unlock_for(e, p);
		let_go(e, p);
	}
}

void tas__epsets_forget(const struct tas_set *s)
{
	for (uint32_t i = high; i-- > 0;) {
		struct tas_epset *e = i < high ? tas__epsets[i] : NULL;

		for (uint32_t k = e ? e->n_sets : 0; k-- > 0;)
			if (e->set[k] == s)
				e->set[k] = e->set[--e->n_sets];
		if (e && !e->n_sets)
			set_free(e);
	}
}

static bool names(const struct tas_sock_base *s, uint32_t index)
{
	uint32_t sub = TAS_EP_SLOT << 16 | (index + 1);

	for (int i = 0; i < TAS_SUBS; i++)
		if ((atomic_load_explicit(&s->b->c.subs[i], memory_order_relaxed) & ~(uint32_t)TAS_SUB_EXCLUSIVE) == sub)
			return true;
	for (uint32_t i = 0; i < s->n_more_subs; i++)
		if ((s->more_subs[i] & ~(uint32_t)TAS_SUB_EXCLUSIVE) == sub)
			return true;
	return false;
}

struct tas_sock_base *tas__epset_member(const struct tas_proc *p, uint32_t index, uint32_t id, uint32_t gen)
{
	const struct tas_epset *e = tas__epset_held(p, index);
	struct tas_sock_base *s = e && gen ? tas__sock(id, gen) : NULL;

	return s && !s->closed && tas__epset_reaches(e, s->set) && names(s, index) ? s : NULL;
}

uint32_t tas__epsets_count(void)
{
	return n_sets;
}

struct tas_set *tas__epsets_at(const void *addr)
{
	for (uint32_t i = 0; i < high; i++) {
		const struct tas_epset *e = tas__epsets[i];

		if (e && (const uint8_t *)addr >= (const uint8_t *)e->m && (const uint8_t *)addr < (const uint8_t *)(e->m + 1))
			return e->set[0];
	}
	return NULL;
}

void tas__epsets_exit(void)
{
	while (high)
		set_free(tas__epsets[high - 1]);
}
