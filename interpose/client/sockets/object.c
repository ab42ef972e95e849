/* SPDX-License-Identifier: MIT */
/*
 * Socket objects: birth, death, moves, and what fork does to all of them.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>

#include "sockets/sock.h"

enum { SLAB = 256, HOPS_MAX = 64, MOVE_NS = 2000000000, STRANGE_NS = 100000000 };

static struct tas_block lost; /* generation 0: of no socket */

static struct tas_obj *all, *free_list; /* table lock */

struct tas_obj *tas__obj_all(void)
{
	return all;
}

static bool slab_grow(void)
{
	struct tas_obj *o = sys_mmap(NULL, SLAB * sizeof *o, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	if (!o)
		return false;
	for (int i = 0; i < SLAB; i++, o++) {
		o->next = all;
		all = o;
		o->free = free_list;
		free_list = o;
	}
	return true;
}

struct tas_obj *tas__obj_new(enum tas_obj_kind kind)
{
	struct tas_obj *o;

	if (!free_list && !slab_grow())
		return NULL;
	o = free_list;
	free_list = o->free;
	o->id = o->gen = 0;
	atomic_store(&o->b, NULL);
	atomic_store(&o->number, 0);
	atomic_store(&o->shared, NULL);
	atomic_store(&o->next_in, NULL);
	atomic_store(&o->next_out, NULL);
	atomic_store(&o->peer, NULL);
	o->ss = NULL;
	o->items = NULL;
	atomic_store(&o->ident, 0);
	atomic_store(&o->latent, 0);
	o->kept = NULL;
	o->family = 0;
	atomic_store(&o->blocks, -1);
	o->backlog = 0;
	atomic_store(&o->flags, 0);
	atomic_store(&o->so_error, 0);
	atomic_store(&o->active, 0);
	atomic_store(&o->grow_asked, 0);
	atomic_store(&o->consumed, 0);
	atomic_store(&o->waited, 0);
	tas__opts_touch(o, NULL);
	atomic_store(&o->no_space, false);
	atomic_store(&o->turn, 0);
	atomic_store(&o->retry_at, 0);
	atomic_store(&o->kind, kind);
	atomic_store(&o->refs, 1);
	return o;
}

bool tas__obj_try_ref(struct tas_obj *o)
{
	uint32_t n = atomic_load_explicit(&o->refs, memory_order_relaxed);

	while (n)
		if (atomic_compare_exchange_weak_explicit(&o->refs, &n, n + 1, memory_order_acquire,
							  memory_order_relaxed))
			return true;
	return false;
}

/* The service looks at all claims when it is hinted. */
void tas__claim_drop(struct tas_session *ss, struct tas_block *b, uint32_t id)
{
	/* a dead session's region may be another process's (a forked child that could not join): hands off */
	if (!tas__alive(ss))
		return;
	tas_claim_clear(ss->r->claims, id);
	tas__hint(ss, b, id);
}

bool tas__obj_gone(struct tas_obj *o)
{
	struct tas_msg m = {.u.sock = {.id = o->id, .gen = o->gen}};

	if (!atomic_load(&o->number) || tas__ask(o->ss, &m, TAS_MSG_LOCKS, NULL, 0))
		return true;
	atomic_fetch_or(&o->flags, TAS_OF_SPOILT);
	return false;
}

static void obj_release(struct tas_obj *o)
{
	uint64_t mask = tas__table_lock();
	struct tas_session *ss = o->ss;
	uint32_t number = atomic_load(&o->number);
	bool ask;

	ask = tas__ep_forget(o);
	ask |= atomic_load_explicit(&o->kind, memory_order_relaxed) == TAS_OBJ_LISTEN;
	tas__pool_part(o);
	if (atomic_load_explicit(&o->flags, memory_order_relaxed) & TAS_OF_ASYNC)
		tas__async_forget(o);
	/* closed behind our back, the socket is gone, and its id may be another's */
	if (ss && o->b && (atomic_load_explicit(&tas__block(o)->s.gen, memory_order_acquire) == o->gen || !tas__obj_gone(o)))
		tas__claim_drop(ss, o->b, o->id);
	o->free = free_list;
	free_list = o;
	tas__table_unlock(mask);
	if (number)
		tas__shared_release(ss, number);
	/* if this was the last close, who waits on a set that others have, too, is not told of it any more, and nobody connects to it */
	if (ask && ss)
		tas__settle(ss);
	if (ss)
		tas__session_put(ss);
}

void tas__obj_put(struct tas_obj *o)
{
	if (atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) == 1)
		obj_release(o);
}

struct tas_obj *tas__obj_find(struct tas_session *ss, uint32_t id, uint32_t gen)
{
	for (struct tas_obj *o = all; o; o = o->next)
		if (o->ss == ss && o->id == id && o->gen == gen && !(atomic_load(&o->flags) & TAS_OF_GHOST) && tas__obj_try_ref(o))
			return o;
	return NULL;
}

struct tas_obj *tas__obj_numbered(struct tas_session *ss, uint32_t id, uint32_t gen)
{
	for (struct tas_obj *o = all; o; o = o->next)
		if (o->ss == ss && o->id == id && o->gen == gen && atomic_load(&o->refs) &&
		    !(atomic_load(&o->flags) & TAS_OF_GHOST))
			return o;
	return NULL;
}

static int shared_hold(struct tas_session *ss, uint32_t number)
{
	uint64_t mask = tas__signals_block();
	int r;

	tas__mutex_lock(&ss->ws_lock);
	r = tas__shared_hold(ss, number);
	tas__mutex_unlock(&ss->ws_lock);
	tas__signals_restore(mask);
	return r;
}

int tas__obj_bind_block(struct tas_obj *o, struct tas_session *ss, const struct tas_msg_sock *s)
{
	uint32_t number = TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(s->block));
	struct tas_block *b;

	if (number && shared_hold(ss, number) < 0)
		return -ENOMEM;
	b = tas__mem(ss, s->block, sizeof *b);
	if (!b) {
		if (number)
			tas__shared_release(ss, number);
		return -ENOMEM;
	}
	/* pairs with the release store in tas__sock_publish(): what else is in line A is read without a look at gen */
	(void)atomic_load_explicit(&b->s.gen, memory_order_acquire);
	tas__session_ref(ss);
	o->ss = ss;
	o->id = s->id;
	o->gen = s->gen;
	o->at = s->block;
	atomic_store(&o->number, number);
	atomic_store(&o->shared, tas__shared_held(ss, number));
	atomic_store(&o->b, b);
	return 0;
}

/* ---- moves ---- */
/* Under ws_lock.  The memory that it leaves stays held: other threads may have the old block in hand.  A direct peer may have written where
 * it is said to lie: no other socket's block has this one's id. */
static struct tas_block *follow_once(struct tas_obj *o, tas_off_t to)
{
	uint32_t number = TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(to));
	struct tas_block *b;

	if (number && tas__shared_hold(o->ss, number) < 0)
		return NULL;
	b = tas__mem(o->ss, to, sizeof *b);
	if (!b || TAS_OFF_BYTE(to) % TAS_LINE || atomic_load_explicit(&b->s.gen, memory_order_acquire) != o->gen || b->s.id != o->id)
		return NULL;
	o->at = to;
	atomic_store(&o->number, number);
	atomic_store(&o->shared, tas__shared_held(o->ss, number));
	atomic_store_explicit(&o->b, b, memory_order_release);
	return b;
}

/* A connection that became direct lies where this process cannot map it: back, after which *at is its block. */
static int ask_ordinary(struct tas_obj *o, tas_off_t *at)
{
	struct tas_msg m = {.u.sock = {.id = o->id, .gen = o->gen}};
	struct timespec nap = {0, 50000};
	uint64_t end = tas__now() + MOVE_NS;
	int r;

	while ((r = tas__ask(o->ss, &m, TAS_MSG_ORDINARY, NULL, 0)) == -EAGAIN && tas__now() < end) {
		sys2(SYS_nanosleep, SYS_P(&nap), 0);
		m.u.sock = (struct tas_msg_sock){.id = o->id, .gen = o->gen};
	}
	*at = m.u.sock.block;
	return r;
}

bool tas__ordinary(struct tas_obj *o)
{
	tas_off_t at;

	return ask_ordinary(o, &at) == 0;
}

struct tas_block *tas__follow(struct tas_obj *o)
{
	tas_off_t back;
	uint64_t mask = tas__signals_block();
	struct tas_block *b, *next;
	int hops = 0, asked = 0;

	tas__mutex_lock(&o->ss->ws_lock);
	while (tas__moved(b = atomic_load(&o->b))) {
		next = ++hops > HOPS_MAX ? NULL : follow_once(o, atomic_load(&b->s.moved));
		if (!next && asked++ < TAS_ORDINARY_MAX && ask_ordinary(o, &back) == 0)
			next = follow_once(o, back);
		if (next)
			continue;
		/* no memory, nothing there, or a peer's nonsense: for this process the connection is lost */
		b = &lost;
		atomic_store(&o->b, b);
	}
	tas__mutex_unlock(&o->ss->ws_lock);
	tas__signals_restore(mask);
	return b;
}

void tas__app_or(struct tas_obj *o, uint32_t shut)
{
	struct tas_block *b;

	do {
		b = tas__block(o);
		atomic_fetch_or(&b->a.shut, shut);
	} while (tas__moved(b));
}

int tas__obj_sub_add(struct tas_obj *o, uint32_t sub, bool exclusive)
{
	struct tas_block *b;
	int r;

	do {
		b = tas__block(o);
		r = tas__subscribe(o->ss, sub, b, o->id, o->gen, exclusive);
	} while (!r && tas__moved(b));
	return r;
}

void tas__obj_sub_del(struct tas_obj *o, uint32_t sub)
{
	tas__unsubscribe(o->ss, sub, tas__block(o), o->id, o->gen);
}

int tas__obj_subscribe(struct tas_waiter *w, struct tas_obj *o, bool exclusive)
{
	return tas__obj_sub_add(o, tas__waiter_sub(w), exclusive);
}

void tas__obj_unsubscribe(struct tas_waiter *w, struct tas_obj *o)
{
	tas__obj_sub_del(o, tas__waiter_sub(w));
}

int tas__obj_lock(struct tas_obj *o, bool tx, struct tas_block **b)
{
	for (;;) {
		_Atomic uint32_t *w;
		int r;

		*b = tas__block(o);
		w = tx ? &(*b)->c.lock_tx : &(*b)->c.lock_rx;
		/* what lies in shared memory another program may have scribbled over: the service knows who can hold it */
		r = tas__lock(o->ss, w, atomic_load_explicit(&o->number, memory_order_relaxed) ? STRANGE_NS : -1);
		if (r == -ETIMEDOUT) {
			struct tas_msg m = {.u.sock = {.id = o->id, .gen = o->gen}};

			if (!tas__alive(o->ss))
				return -EPIPE;
			tas__ask(o->ss, &m, TAS_MSG_LOCKS, NULL, 0);
			continue;
		}
		if (r < 0 || !tas__moved(*b))
			return r;
		tas__unlock(w);
	}
}

struct tas_obj *tas__obj_from(struct tas_session *ss, const struct tas_msg_sock *s, enum tas_obj_kind kind)
{
	uint64_t mask = tas__table_lock();
	struct tas_obj *o = tas__obj_new(kind);

	tas__table_unlock(mask);
	if (!o)
		return NULL;
	if (tas__obj_bind_block(o, ss, s) < 0) {
		tas__obj_put(o);
		return NULL;
	}
	return o;
}

/* ---- ghosts: under the table lock ---- */
int tas__ask_until_moved(struct tas_session *ss, struct tas_msg *m, uint16_t op, int fd)
{
	struct timespec nap = {0, 100000};
	uint64_t end = tas__now() + MOVE_NS;
	int r;

	while ((r = tas__ask(ss, m, op, &fd, fd >= 0)) == -EAGAIN && tas__now() < end) {
		sys2(SYS_nanosleep, SYS_P(&nap), 0);
		if (nap.tv_nsec < 5000000)
			nap.tv_nsec *= 2;
	}
	return r;
}

void tas__ghost_put(struct tas_obj *o)
{
	struct tas_session *ss = o->ss;
	uint32_t number = atomic_load(&o->number);

	if (atomic_fetch_sub(&o->refs, 1) != 1)
		return;
	o->free = free_list;
	free_list = o;
	if (number)
		tas__shared_release(ss, number);
	if (ss)
		tas__session_put(ss);
}

static bool ghost_bind(struct tas_obj *o, struct tas_session *ss, const struct tas_msg_sock *s)
{
	uint32_t number;

	if (!s->block || tas__obj_bind_block(o, ss, s) < 0)
		return false;
	/* a position counts in the memory set of who wrote it; for us something else may lie there */
	if (atomic_load(&o->b->s.gen) == s->gen && o->b->s.id == s->id)
		return true;
	number = atomic_load(&o->number);
	o->ss = NULL;
	atomic_store(&o->number, 0);
	atomic_store(&o->shared, NULL);
	if (number)
		tas__shared_release(ss, number);
	tas__session_put(ss);
	return false;
}

struct tas_obj *tas__ghost_new(struct tas_session *ss, const struct tas_msg_sock *s, uint32_t index)
{
	struct tas_msg m = {.u.subscribe = {.id = s->id, .gen = s->gen, .ws = index}};
	struct tas_obj *o = tas__obj_new(TAS_OBJ_CONN);

	if (!o)
		return NULL;
	atomic_store(&o->flags, TAS_OF_GHOST | TAS_OF_BOUND | TAS_OF_SHARED | TAS_OF_CONNECTED | TAS_OF_ANNOUNCED);
	if (!ghost_bind(o, ss, s) && (tas__ask_until_moved(ss, &m, TAS_MSG_EP_MEMBER, -1) || !ghost_bind(o, ss, &m.u.sock))) {
		tas__ghost_put(o);
		return NULL;
	}
	if (atomic_load(&o->b->s.state) == TAS_S_LISTEN)
		atomic_store(&o->kind, TAS_OBJ_LISTEN);
	return o;
}

/* ---- errors ---- */
int tas__obj_error(struct tas_obj *o, bool take)
{
	uint32_t e, seen;
	int err = atomic_load(&o->so_error);

	if (err) {
		if (take)
			atomic_store(&o->so_error, 0);
		return err;
	}
	if (atomic_load(&o->kind) != TAS_OBJ_CONN)
		return 0;
	e = atomic_load_explicit(&o->b->s.error, memory_order_acquire);
	seen = atomic_load_explicit(&o->b->a.err_seen, memory_order_relaxed);
	if ((e ^ seen) >> 16) {
		if (take)
			atomic_store_explicit(&o->b->a.err_seen, e & 0xffff0000u, memory_order_relaxed);
		return (int)(e & 0xffff);
	}
	if (!tas__obj_live(o) && !(atomic_load(&o->flags) & TAS_OF_DEAD_TOLD) &&
	    !(atomic_load(&o->b->s.flags) & TAS_F_RESET)) {
		if (take)
			atomic_fetch_or(&o->flags, TAS_OF_DEAD_TOLD);
		return ECONNRESET;
	}
	return 0;
}

/* ---- errors of PLAIN sockets ---- */
_Atomic bool tas__plain_errors;

void tas__plain_error(struct tas_obj *o, int err)
{
	atomic_store(&o->so_error, err);
	atomic_store(&tas__plain_errors, true);
}

ssize_t tas__plain_result(int fd, ssize_t r)
{
	struct tas_obj *o;
	int err = 0;

	if ((r != -ENOTCONN && r != -EPIPE) || !atomic_load(&tas__plain_errors))
		return r;
	o = tas__obj_get(fd);
	if (o) {
		if (atomic_load(&o->kind) == TAS_OBJ_PLAIN)
			err = atomic_exchange(&o->so_error, 0);
		tas__obj_put(o);
	}
	return err ? -err : r;
}

void tas__obj_replace(struct tas_obj *o, struct tas_obj *by, enum tas_fd_state st, int fd)
{
	uint64_t mask = tas__table_lock();
	unsigned n = tas__renumber(o, st, by, fd);

	tas__ep_moved(o, by);
	tas__table_unlock(mask);
	while (n--)
		tas__obj_put(o);
}

/* ---- fork ---- */
static uint64_t fork_mask;

void tas_fork_prepare(void)
{
	fork_mask = tas__table_lock();
	tas__opts_settle_all();
	tas__pool_fork();
	tas__ep_fork_prepare();
	tas__fork_prepare();
}

void tas_fork_parent(void)
{
	tas__fork_parent();
	for (struct tas_obj *o = all; o; o = o->next)
		if (atomic_load(&o->refs))
			atomic_fetch_or(&o->flags, TAS_OF_SHARED);
	tas__ep_fork_parent();
	tas__table_unlock(fork_mask);
}

/* Only this thread lives on: calls of others that were under way hold no references here. */
static void recount(void)
{
	uint32_t high = atomic_load(&tas__high);

	atomic_store(&tas__connecting, 0);
	for (struct tas_obj *o = all; o; o = o->next) {
		if (!atomic_load(&o->refs))
			continue;
		atomic_fetch_or(&o->flags, TAS_OF_SHARED);
		atomic_fetch_and(&o->flags, ~(uint32_t)TAS_OF_CONNECTING); /* by a thread that is not here */
		atomic_store(&o->refs, 1); /* ours, until the numbers are counted */
	}
	for (uint32_t fd = 0; fd < high; fd++) {
		struct tas_entry *e = tas__entry((int)fd);
		struct tas_obj *o;

		if (tas_fd_states[fd] != TAS_FD_TAS && tas_fd_states[fd] != TAS_FD_PLAIN)
			continue;
		o = e ? atomic_load(&e->p) : NULL;
		if (o)
			atomic_fetch_add(&o->refs, 1);
	}
}

void tas_fork_child(void)
{
	tas__fork_child();
	tas__ep_fork_child();
	tas__async_fork_child();
	tas__pool_fork_child();
	recount();
	tas__table_unlock(fork_mask);
	for (struct tas_obj *o = all; o; o = o->next)
		if (atomic_load(&o->refs))
			tas__obj_put(o); /* the reference that recount() took: those without a number end here */
}

void tas__fork_setup(void)
{
	pthread_atfork(tas_fork_prepare, tas_fork_parent, tas_fork_child);
}
