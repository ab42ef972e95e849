/* SPDX-License-Identifier: MIT */
/*
 * Memory sets: chunks (slow/chunk.c) that the processes of one user map, and that are handed out in powers of two.
 *
 * A chunk is made when the others are full and kept until its set goes, because applications may have it mapped; what is given
 * back early are its pages, a moment after they were freed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "slow/chunk.h"
#include "slow/memory.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum {
	CHUNKS_DEFAULT = 256, /* per set, 4 GiB of address space */
	TRIM_BATCH = 16,      /* holes punched per round of the loop */
};

#define NONE UINT32_MAX

struct set {
	struct tas_set pub;      /* first */
	uint16_t first[TAS_CLASSES]; /* chunks below have no room for that class */
	uint16_t first_max;      /* the largest of them */
	bool dirty;
	_Atomic bool dead;
};

static struct {
	struct tas_set *sets;
	struct tas_pollable timer; /* trims, one second after memory was freed */
	bool armed;
	uint64_t used;
	uint32_t n_chunks, n_sets, next_id;
	bool huge;
	_Atomic bool put_due;
} mem = { .timer.fd = -1 };

static struct tas_buddy *chunk_of(const struct tas_set *s, uint32_t index)
{
	return s->chunk[index]->buddy;
}

/* ---- chunks ---- */
int tas__memfd(const char *name, uint64_t size, bool huge)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB : 0);
	int err, fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, flags);
	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, (off_t)size) && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return fd;
	err = errno;
	close(fd);
	return -err;
}

/* Are there enough free huge pages for one more chunk? */
static bool huge_free(void)
{
	FILE *f;
	unsigned long n = 0;

	if (tas_config.fp_no_hugepages)
		return false;
	f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
	if (!f)
		return false;
	if (fscanf(f, "%lu", &n) != 1)
		n = 0;
	fclose(f);
	return n >= TAS_CHUNK_SIZE / TAS_HUGE_PAGE;
}

static struct tas_buddy *chunk_new(struct tas_set *s)
{
	uint32_t max = tas_config.max_chunks_per_set ? tas_config.max_chunks_per_set : CHUNKS_DEFAULT;
	struct tas_buddy *c;

	if (s->n_chunks >= max || s->n_chunks >= TAS_CHUNKS_MAX)
		return NULL;
	/* a huge page that one member of a shared set gives back can be gone when it is needed: others must not suffer */
	c = tas__chunk_new(!s->number && huge_free());
	if (!c)
		return NULL;
	if (s->n_chunks == 0) /* position 0 means none: its page is never given out */
		tas__chunk_take(c, TAS_PIECE_CLASSES);
	s->chunk[s->n_chunks++] = &c->pub;
	mem.n_chunks++;
	mem.huge = c->huge;
	return c;
}

static void chunk_drop(struct tas_buddy *c)
{
	mem.used -= c->pub.used;
	mem.n_chunks--;
	tas__chunk_free(c);
}

/* ---- giving pages back ---- */
static void trim_soon(struct tas_set *s)
{
	const struct itimerspec in = { .it_value.tv_sec = 1 };

	((struct set *)s)->dirty = true;
	if (!mem.armed && mem.timer.fd >= 0 && !timerfd_settime(mem.timer.fd, 0, &in, NULL))
		mem.armed = true;
}

bool tas__mem_trim(unsigned budget)
{
	for (struct tas_set *s = mem.sets; s; s = s->next) {
		struct set *set = (struct set *)s;

		for (uint32_t i = 0; set->dirty && i < s->n_chunks; i++) {
			if (!chunk_of(s, i)->dirty)
				continue;
			if (!budget)
				return true;
			tas__chunk_trim(chunk_of(s, i), i == 0, &budget);
			if (!budget)
				return true;
		}
		set->dirty = false;
	}
	return false;
}

static void trim_due(struct tas_pollable *p, uint32_t events)
{
	const struct itimerspec in = { .it_value.tv_nsec = 1000000 };
	uint64_t n;

	(void)events;
	if (read(p->fd, &n, sizeof n) != sizeof n)
		return;
	mem.armed = tas__mem_trim(TRIM_BATCH) && !timerfd_settime(p->fd, 0, &in, NULL);
}

/* ---- allocation ---- */
/* Index of a chunk with room for this class, a new one if need be.  NONE: limits or no memory. */
static uint32_t chunk_for(struct set *set, unsigned class)
{
	struct tas_set *s = &set->pub;
	bool full = true; /* so far: chunks that cannot get their pages back are looked at again */

	for (uint32_t i = set->first[class]; i < s->n_chunks; i++) {
		struct tas_buddy *c = chunk_of(s, i);

		if (tas__chunk_serves(c, class)) {
			if (tas__chunk_ready(c))
				return i;
			full = false;
		}
		if (full) {
			set->first[class] = (uint16_t)(i + 1);
			if (set->first_max < i + 1)
				set->first_max = (uint16_t)(i + 1);
		}
	}
	return chunk_new(s) ? s->n_chunks - 1 : NONE;
}

static tas_off_t alloc(struct tas_set *s, uint32_t len)
{
	struct set *set = (struct set *)s;
	int class = tas__class_of(len);
	uint32_t i, byte;
	struct tas_buddy *c;

	if (class < 0 || set->dead)
		return 0;
	i = chunk_for(set, (unsigned)class);
	if (i == NONE)
		return 0;
	c = chunk_of(s, i);
	byte = tas__chunk_take(c, (unsigned)class);
	c->pub.used += len;
	mem.used += len;
	return TAS_OFF(TAS_CHUNK_OF(s->number, i), byte);
}

tas_off_t tas__mem_alloc(struct tas_set *s, uint32_t len)
{
	tas_off_t off;

	tas_shared_in();
	off = alloc(s, len);
	tas_shared_out();
	return off;
}

bool tas__mem_scarce(const struct tas_set *s)
{
	uint32_t max = tas_config.max_chunks_per_set ? tas_config.max_chunks_per_set : CHUNKS_DEFAULT, n;

	tas_shared_in();
	n = s->n_chunks;
	tas_shared_out();
	return n > max / 2;
}

static void give(struct tas_set *s, tas_off_t off, uint32_t len)
{
	struct set *set = (struct set *)s;
	uint32_t i = TAS_CHUNK_INDEX(TAS_OFF_CHUNK(off)), byte = TAS_OFF_BYTE(off);
	int class = tas__class_of(len);
	struct tas_buddy *c = i < s->n_chunks ? chunk_of(s, i) : NULL;
	bool ok = c && class >= 0 && byte < TAS_CHUNK_SIZE && !(byte & (len - 1)) && off;

	ok = ok && tas__chunk_give(c, (unsigned)class, byte);
	if (!ok) { /* a bug of ours: losing the piece is the harmless answer */
		tas_warn("memory set %u: free of %#llx+%u, which is not in use", s->id, (unsigned long long)off, len);
		return;
	}
	c->pub.used -= len;
	mem.used -= len;
	if (i < set->first_max)
		for (unsigned k = set->first_max = 0; k < TAS_CLASSES; k++) {
			if (i < set->first[k])
				set->first[k] = (uint16_t)i;
			if (set->first_max < set->first[k])
				set->first_max = set->first[k];
		}
	if (c->dirty)
		trim_soon(s);
}

void tas__mem_free(struct tas_set *s, tas_off_t off, uint32_t len)
{
	tas_shared_in();
	give(s, off, len);
	tas_shared_out();
}

/* ---- sets ---- */
struct tas_set *tas__set_new(uid_t uid, gid_t gid)
{
	struct set *set = mmap(NULL, sizeof *set, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (set == MAP_FAILED)
		return NULL;
	set->pub.id = ++mem.next_id;
	set->pub.uid = uid;
	set->pub.gid = gid;
	set->pub.next = mem.sets;
	mem.sets = &set->pub;
	mem.n_sets++;
	return &set->pub;
}

static void set_free(struct tas_set *s)
{
	struct tas_set **p = &mem.sets;

	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	tas__set_unshare(s);
	tas__bells_forget_set(s);
	for (uint32_t i = 0; i < s->n_chunks; i++)
		chunk_drop(chunk_of(s, i));
	mem.n_sets--;
	munmap(s, sizeof(struct set));
}

void tas__set_put(struct tas_set *s)
{
	if (s->n_procs || s->n_socks)
		return;
	if (!tas_alone) { /* others may be looking at epoll sets and shared sets that know it */
		atomic_store(&mem.put_due, true);
		tas_kick(&tas_cores[0]);
		return;
	}
	/* members may have it mapped for long after */
	for (uint32_t i = 0; s->number && i < s->n_chunks; i++)
		(void)!fallocate(s->chunk[i]->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, TAS_CHUNK_SIZE);
	set_free(s);
}

bool tas__sets_due(void)
{
	return atomic_load_explicit(&mem.put_due, memory_order_relaxed);
}

void tas__sets_put(void)
{
	struct tas_set *next;

	atomic_store(&mem.put_due, false);
	for (struct tas_set *s = mem.sets; s; s = next) {
		next = s->next;
		tas__set_put(s);
	}
}

struct tas_set *tas__sets(void)
{
	return mem.sets;
}

bool tas__set_dead(const struct tas_set *s)
{
	return ((const struct set *)s)->dead;
}

void tas__set_kill(struct tas_set *s)
{
	((struct set *)s)->dead = true;
}

struct tas_set *tas__mem_find(const void *addr, size_t *page)
{
	const uint8_t *a = addr;

	for (struct tas_set *s = mem.sets; s; s = s->next) {
		for (uint32_t i = 0; i < s->n_chunks; i++) {
			if (a < s->chunk[i]->map || a >= s->chunk[i]->map + TAS_CHUNK_SIZE)
				continue;
			*page = chunk_of(s, i)->huge ? TAS_HUGE_PAGE : 1u << TAS_PAGE_SHIFT;
			return s;
		}
	}
	return NULL;
}

uint64_t tas__mem_used(void)
{
	return mem.used;
}

uint32_t tas__mem_chunks(void)
{
	return mem.n_chunks;
}

uint32_t tas__mem_sets(void)
{
	return mem.n_sets;
}

bool tas__mem_hugepages(void)
{
	return mem.huge;
}

int tas__mem_init(void)
{
	int err;

	mem.timer.fn = trim_due;
	mem.timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (mem.timer.fd < 0)
		return -errno;
	mem.huge = huge_free();
	err = tas_loop_add(&mem.timer, EPOLLIN);
	if (err) {
		close(mem.timer.fd);
		mem.timer.fd = -1;
	}
	return err;
}

void tas__mem_exit(void)
{
	while (mem.sets)
		set_free(mem.sets);
	if (mem.timer.fd >= 0) {
		tas_loop_del(&mem.timer);
		close(mem.timer.fd);
	}
	mem.timer.fd = -1;
	mem.armed = false;
}
