/* SPDX-License-Identifier: MIT */
/*
 * The number table: one byte of state per descriptor number, and for numbers that may be ours an entry with a pointer.
 *
 * Readers take no lock: they read the state, the pointer, raise the object's count unless it is 0, and look at the
 * pointer again.  Writers hold the table lock.  Entries come in pages that are mapped when first needed and stay.
 */
#include <string.h>

#include "sockets/sock.h"

static uint8_t states[TAS_FD_TABLE_MAX];
uint8_t *tas_fd_states = states;
bool tas__trusted;
__thread bool tas__owned;
_Atomic uint32_t tas__high;

_Atomic(struct tas_entries *) tas__entries[TAS_FD_TABLE_MAX >> TAS_ENTRY_BITS];
static struct tas_mutex table_lock;

uint64_t tas__table_lock(void)
{
	uint64_t mask = tas__signals_block();

	tas__mutex_lock(&table_lock);
	return mask;
}

void tas__table_unlock(uint64_t mask)
{
	tas__mutex_unlock(&table_lock);
	tas__signals_restore(mask);
}

void tas__set_state(int fd, enum tas_fd_state st)
{
	uint32_t high = atomic_load_explicit(&tas__high, memory_order_relaxed);

	if ((unsigned)fd >= TAS_FD_TABLE_MAX)
		return;
	while ((uint32_t)fd >= high && !atomic_compare_exchange_weak(&tas__high, &high, (uint32_t)fd + 1))
		;
	__atomic_store_n(&states[fd], (uint8_t)st, __ATOMIC_RELEASE);
}

static void mark_internal(int fd, bool internal)
{
	tas__set_state(fd, internal ? TAS_FD_INTERNAL : TAS_FD_UNKNOWN);
}

static struct tas_entry *entry_make(int fd)
{
	struct tas_entry *e = tas__entry(fd);
	struct tas_entries *p;

	if (e || (unsigned)fd >= TAS_FD_TABLE_MAX)
		return e;
	p = sys_mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (!p)
		return NULL;
	atomic_store_explicit(&tas__entries[fd >> TAS_ENTRY_BITS], p, memory_order_release);
	return tas__entry(fd);
}

static uint64_t inode_of(int fd)
{
	struct stat st;

	return sys_fstat(fd, &st) == 0 ? st.st_ino : 0;
}

struct tas_dropped tas__number_drop(int fd, enum tas_fd_state st)
{
	struct tas_entry *e = tas__entry(fd);
	struct tas_dropped d = {NULL, NULL};
	uint8_t old = tas__state(fd);

	tas__set_state(fd, st);
	if (!e)
		return d;
	if (old == TAS_FD_EPOLL)
		d.ep = atomic_exchange(&e->p, NULL);
	else
		d.o = atomic_exchange(&e->p, NULL);
	return d;
}

void tas__drop_done(struct tas_dropped d)
{
	if (d.o)
		tas__obj_put(d.o);
	if (d.ep)
		tas__ep_put(d.ep);
}

int tas__number_set(int fd, enum tas_fd_state st, void *p, struct tas_dropped *old)
{
	struct tas_entry *e = entry_make(fd);

	if (!e)
		return -ENOMEM;
	*old = tas__number_drop(fd, TAS_FD_UNKNOWN);
	if (!tas__trusted)
		atomic_store(&e->ino, inode_of(fd));
	atomic_store_explicit(&e->p, p, memory_order_release);
	tas__set_state(fd, st);
	return 0;
}

int tas__adopt(int fd, enum tas_fd_state st, void *p)
{
	struct tas_dropped old = {NULL, NULL};
	uint64_t mask = tas__table_lock();
	int r = tas__number_set(fd, st, p, &old);

	tas__table_unlock(mask);
	tas__drop_done(old);
	return r;
}

void tas__forget(int fd, enum tas_fd_state st)
{
	struct tas_dropped d;
	uint64_t mask;
	uint8_t now = tas__state(fd);

	if (now == TAS_FD_INTERNAL || (unsigned)fd >= TAS_FD_TABLE_MAX)
		return;
	if (now == TAS_FD_KERNEL || now == TAS_FD_UNKNOWN) {
		tas__set_state(fd, st);
		return;
	}
	mask = tas__table_lock();
	d = tas__number_drop(fd, st);
	tas__table_unlock(mask);
	tas__drop_done(d);
}

/* True if number fd referred to o and a reference of o is left over. */
static bool renumber_one(int fd, struct tas_obj *o, enum tas_fd_state st, struct tas_obj *to)
{
	struct tas_entry *e = tas__entry(fd);
	bool left = st == TAS_FD_KERNEL || to;

	if (!e || (states[fd] != TAS_FD_PLAIN && states[fd] != TAS_FD_TAS) || atomic_load(&e->p) != o)
		return false;
	if (st == TAS_FD_KERNEL)
		to = NULL;
	if (to)
		atomic_fetch_add(&to->refs, 1);
	if (left)
		atomic_store(&e->p, to);
	tas__set_state(fd, st);
	return left;
}

unsigned tas__renumber(struct tas_obj *o, enum tas_fd_state st, struct tas_obj *to, int fd)
{
	uint32_t high = atomic_load(&tas__high);
	unsigned n = 0;

	if (atomic_load(&o->refs) <= 2) /* the caller's and one number's */
		return renumber_one(fd, o, st, to);
	for (uint32_t i = 0; i < high; i++)
		n += renumber_one((int)i, o, st, to);
	return n;
}

unsigned tas__numbers(const struct tas_obj *o)
{
	uint32_t high = atomic_load(&tas__high);
	unsigned n = 0;

	for (uint32_t i = 0; i < high; i++) {
		struct tas_entry *e = tas__entry((int)i);

		n += e && atomic_load_explicit(&e->p, memory_order_relaxed) == o;
	}
	return n;
}

/* Without the interposer the program may have closed or replaced the number behind our back. */
static bool still_that(int fd, const struct tas_entry *e)
{
	return tas__trusted || tas__owned || inode_of(fd) == atomic_load_explicit(&e->ino, memory_order_relaxed);
}

struct tas_obj *tas__obj_get(int fd)
{
	for (;;) {
		uint8_t st = tas__state(fd);
		struct tas_entry *e;
		struct tas_obj *o;

		if (st == TAS_FD_UNKNOWN && tas__recognise(fd) != TAS_FD_UNKNOWN)
			continue;
		if (st != TAS_FD_TAS && st != TAS_FD_PLAIN)
			return NULL;
		e = tas__entry(fd);
		o = atomic_load_explicit(&e->p, memory_order_acquire);
		if (!o || !tas__obj_try_ref(o))
			continue;
		/* the object may have been freed and made anew between the two lines above, and the number another's */
		if (atomic_load_explicit(&e->p, memory_order_acquire) == o && still_that(fd, e)) {
			if (st == TAS_FD_TAS) {
				tas__block(o); /* for all that follows: it has not moved up to now */
				return o;
			}
			if (!(atomic_load(&o->flags) & TAS_OF_CONNECTING))
				return o;
			tas__connect_await(o);
			tas__obj_put(o);
			continue;
		}
		bool stale = atomic_load_explicit(&e->p, memory_order_acquire) == o;

		tas__obj_put(o);
		if (stale)
			tas__forget(fd, TAS_FD_UNKNOWN);
	}
}

struct tas_ep *tas__ep_get(int fd)
{
	if (tas__state(fd) == TAS_FD_UNKNOWN)
		tas__recognise(fd);
	while (tas__state(fd) == TAS_FD_EPOLL) {
		struct tas_entry *e = tas__entry(fd);
		struct tas_ep *ep = e ? atomic_load_explicit(&e->p, memory_order_acquire) : NULL;

		if (!ep || !tas__ep_try_ref(ep))
			continue;
		if (atomic_load_explicit(&e->p, memory_order_acquire) == ep)
			return ep;
		tas__ep_put(ep);
	}
	return NULL;
}

void tas_init(bool trust)
{
	static bool done;

	if (trust)
		tas__trusted = true;
	if (done)
		return;
	done = true;
	tas__internal_mark = mark_internal;
	tas__fork_setup();
}

__attribute__((constructor)) static void init_early(void)
{
	tas_init(false);
}

bool tas_attached(void)
{
	return tas__ever_attached();
}

void tas_note_close(int fd)
{
	struct tas_obj *o;
	uint8_t st = tas__state(fd);

	if (st == TAS_FD_TAS) {
		o = tas__obj_get(fd);
		if (o) {
			tas__before_close(o, fd);
			tas__obj_put(o);
		}
	}
	tas__forget(fd, TAS_FD_UNKNOWN);
}

void tas_note_unknown(int fd)
{
	tas__forget(fd, TAS_FD_UNKNOWN);
}
