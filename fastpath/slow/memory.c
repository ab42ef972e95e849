/* SPDX-License-Identifier: MIT */
/*
 * Memory sets: chunks of 16 MiB, cut by a buddy allocator into blocks of 4 KiB … 8 MiB, and pages of 4 KiB into pieces of
 * 512, 1024 or 2048 bytes.
 *
 * All bookkeeping is private: an application that scribbles over everything it maps cannot mislead the allocator.  A chunk
 * is made when the others are full and kept until its set goes, because applications may have it mapped; what is given back
 * early are its pages.  Freeing only marks; a timer punches holes into free stretches of 64 KiB and more a moment later, so
 * that a connection that grows and shrinks does not pay for it.  Chunks of huge pages are punched only when wholly free:
 * a single huge page taken from the pool could be gone when it is needed again, and touching it then is SIGBUS.
 *
 * A class is a size: 0, 1, 2 are the pieces, 3 … 14 the blocks of the buddy orders 0 … 11.  Per chunk there is a list of
 * entries with room for each class (for pieces: pages that are partly used) and a mask of the lists that are not empty.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "slow/memory.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum {
	PAGE_SHIFT = 12,
	PAGES = TAS_CHUNK_SIZE >> PAGE_SHIFT,
	ORDER_MAX = 11,          /* 8 MiB */
	CLASSES = 3 + ORDER_MAX + 1,
	LEN_MIN_SHIFT = 9,       /* class 0 */
	TRIM_ORDER = 4,          /* 64 KiB: smallest stretch that is given back */
	GRANULES = PAGES >> TRIM_ORDER,
	HUGE_PAGE = 2 << 20,
	CHUNKS_DEFAULT = 256,    /* per set, 4 GiB of address space */
	TRIM_BATCH = 64,         /* holes punched per round of the loop */
};

static const uint16_t nil = 0xffff;
#define NONE UINT32_MAX

/* What a block is, by its first page; other pages of a block: 0. */
enum { ST_FREE = 0x40, ST_USED = 0x80, ST_PIECES = 0xc0, ST_KIND = 0xc0, ST_ARG = 0x3f };

struct chunk {
	struct tas_chunk pub; /* first */
	uint32_t avail;       /* bit c: list c is not empty */
	bool huge;
	bool punched; /* a huge chunk that gave its pages back: must get them before use */
	bool dirty;   /* has free pages that are not given back */
	uint16_t head[CLASSES];
	uint64_t touched[GRANULES / 64]; /* stretches of 64 KiB that may have pages */
	uint16_t next[PAGES], prev[PAGES];
	uint8_t state[PAGES];
	uint8_t pieces[PAGES]; /* used pieces of a ST_PIECES page */
};

struct set {
	struct tas_set pub;      /* first */
	uint16_t first[CLASSES]; /* chunks below have no room for that class */
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

static struct chunk *chunk_of(const struct tas_set *s, uint32_t index)
{
	return s->chunk[index]->buddy;
}

/* ---- lists of a chunk ---- */
static void list_push(struct chunk *c, unsigned class, uint16_t page)
{
	c->next[page] = c->head[class];
	c->prev[page] = nil;
	if (c->head[class] != nil)
		c->prev[c->head[class]] = page;
	c->head[class] = page;
	c->avail |= 1u << class;
}

static void list_del(struct chunk *c, unsigned class, uint16_t page)
{
	uint16_t next = c->next[page], prev = c->prev[page];

	if (next != nil)
		c->prev[next] = prev;
	if (prev != nil)
		c->next[prev] = next;
	else
		c->head[class] = next;
	if (c->head[class] == nil)
		c->avail &= ~(1u << class);
}

/* ---- buddies ---- */
static bool serves(const struct chunk *c, unsigned class)
{
	return class < 3 ? (c->avail & (1u << class)) || c->avail >> 3 : c->avail >> class;
}

static void touch(struct chunk *c, uint32_t page, unsigned order)
{
	uint32_t last = (page + (1u << order) - 1) >> TRIM_ORDER;

	for (uint32_t g = page >> TRIM_ORDER; g <= last; g++)
		c->touched[g / 64] |= 1ull << (g % 64);
}

/* The caller knows that there is room. */
static uint32_t pages_take(struct chunk *c, unsigned order)
{
	unsigned have = (unsigned)__builtin_ctz(c->avail >> (order + 3)) + order;
	uint16_t page = c->head[have + 3];

	list_del(c, have + 3, page);
	while (have > order) { /* the upper half stays free */
		have--;
		c->state[page + (1u << have)] = (uint8_t)(ST_FREE | have);
		list_push(c, have + 3, (uint16_t)(page + (1u << have)));
	}
	c->state[page] = (uint8_t)(ST_USED | order);
	touch(c, page, order);
	return page;
}

/* Returns the order of the free block that this became part of. */
static unsigned pages_give(struct chunk *c, uint32_t page, unsigned order)
{
	c->state[page] = 0;
	while (order < ORDER_MAX) {
		uint32_t other = page ^ (1u << order);

		if (c->state[other] != (ST_FREE | order))
			break;
		list_del(c, order + 3, (uint16_t)other);
		c->state[other] = 0;
		page &= ~(1u << order);
		order++;
	}
	c->state[page] = (uint8_t)(ST_FREE | order);
	list_push(c, order + 3, (uint16_t)page);
	return order;
}

/* ---- pieces ---- */
static uint8_t pieces_full(unsigned class)
{
	return (uint8_t)((1u << (8 >> class)) - 1);
}

static uint32_t piece_take(struct chunk *c, unsigned class)
{
	uint16_t page = c->head[class];
	unsigned piece;

	if (page == nil) {
		page = (uint16_t)pages_take(c, 0);
		c->state[page] = (uint8_t)(ST_PIECES | class);
		c->pieces[page] = 0;
		list_push(c, class, page);
	}
	piece = (unsigned)__builtin_ctz(~(unsigned)c->pieces[page]);
	c->pieces[page] |= (uint8_t)(1u << piece);
	if (c->pieces[page] == pieces_full(class))
		list_del(c, class, page);
	return ((uint32_t)page << PAGE_SHIFT) + (piece << (LEN_MIN_SHIFT + class));
}

/* False: this piece is not in use. */
static bool piece_give(struct chunk *c, unsigned class, uint32_t byte, unsigned *order)
{
	uint16_t page = (uint16_t)(byte >> PAGE_SHIFT);
	uint8_t bit = (uint8_t)(1u << ((byte & ((1u << PAGE_SHIFT) - 1)) >> (LEN_MIN_SHIFT + class)));

	if (c->state[page] != (ST_PIECES | class) || !(c->pieces[page] & bit))
		return false;
	if (c->pieces[page] == pieces_full(class))
		list_push(c, class, page);
	c->pieces[page] &= (uint8_t)~bit;
	if (!c->pieces[page]) {
		list_del(c, class, page);
		*order = pages_give(c, page, 0);
	}
	return true;
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
	return n >= TAS_CHUNK_SIZE / HUGE_PAGE;
}

static int chunk_map(struct chunk *c, bool huge)
{
	void *m;
	int fd = tas__memfd("tas-chunk", TAS_CHUNK_SIZE, huge);

	if (fd < 0)
		return fd;
	m = mmap(NULL, TAS_CHUNK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED) {
		int err = errno;

		close(fd);
		return -err;
	}
	c->pub.fd = fd;
	c->pub.map = m;
	c->huge = huge;
	return 0;
}

static struct chunk *chunk_new(struct tas_set *s)
{
	uint32_t max = tas_config.max_chunks_per_set ? tas_config.max_chunks_per_set : CHUNKS_DEFAULT;
	struct chunk *c;

	if (s->n_chunks >= max || s->n_chunks >= TAS_CHUNKS_MAX)
		return NULL;
	c = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c == MAP_FAILED)
		return NULL;
	/* a huge page that one member gives back can be gone when it is needed: others must not suffer */
	if (!(!s->number && huge_free() && !chunk_map(c, true)) && chunk_map(c, false)) {
		munmap(c, sizeof *c);
		return NULL;
	}
	c->pub.buddy = c;
	memset(c->head, 0xff, sizeof c->head);
	for (uint32_t page = PAGES; page; page -= 1u << ORDER_MAX) {
		c->state[page - (1u << ORDER_MAX)] = ST_FREE | ORDER_MAX;
		list_push(c, ORDER_MAX + 3, (uint16_t)(page - (1u << ORDER_MAX)));
	}
	if (s->n_chunks == 0) /* position 0 means none: its page is never given out */
		pages_take(c, 0);
	s->chunk[s->n_chunks++] = &c->pub;
	mem.n_chunks++;
	mem.huge = c->huge;
	return c;
}

static void chunk_free(struct chunk *c)
{
	munmap(c->pub.map, TAS_CHUNK_SIZE);
	close(c->pub.fd);
	mem.used -= c->pub.used;
	mem.n_chunks--;
	munmap(c, sizeof *c);
}

/* A huge chunk that was punched gets its pages back, or stays out of use. */
static bool chunk_ready(struct chunk *c)
{
	if (c->punched && fallocate(c->pub.fd, 0, 0, TAS_CHUNK_SIZE))
		return false;
	c->punched = false;
	return true;
}

/* ---- giving pages back ---- */
static void trim_soon(struct tas_set *s, struct chunk *c)
{
	const struct itimerspec in = { .it_value.tv_sec = 1 };

	c->dirty = true;
	((struct set *)s)->dirty = true;
	if (!mem.armed && mem.timer.fd >= 0 && !timerfd_settime(mem.timer.fd, 0, &in, NULL))
		mem.armed = true;
}

/* Punches the touched stretches of one free block.  Returns system calls made. */
static unsigned block_trim(struct chunk *c, uint32_t page, unsigned order)
{
	uint32_t g = page >> TRIM_ORDER, end = (page + (1u << order)) >> TRIM_ORDER;
	unsigned calls = 0;

	while (g < end) {
		uint32_t from = g;

		while (g < end && (c->touched[g / 64] >> (g % 64) & 1)) {
			c->touched[g / 64] &= ~(1ull << (g % 64));
			g++;
		}
		if (g == from) {
			g++;
			continue;
		}
		(void)!fallocate(c->pub.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)from << (TRIM_ORDER + PAGE_SHIFT),
				 (off_t)(g - from) << (TRIM_ORDER + PAGE_SHIFT));
		calls++;
	}
	return calls;
}

static void chunk_trim(struct chunk *c, bool first, unsigned *budget)
{
	if (c->huge) {
		if (!c->pub.used && !first && !c->punched &&
		    !fallocate(c->pub.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, TAS_CHUNK_SIZE))
			c->punched = true;
		c->dirty = false;
		*budget -= 1;
		return;
	}
	for (unsigned order = TRIM_ORDER; order <= ORDER_MAX; order++) {
		for (uint16_t page = c->head[order + 3]; page != nil; page = c->next[page]) {
			unsigned calls = block_trim(c, page, order);

			if (calls >= *budget) {
				*budget = 0;
				return;
			}
			*budget -= calls;
		}
	}
	c->dirty = false;
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
			chunk_trim(chunk_of(s, i), i == 0, &budget);
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
/* Class of a length, -1: no such class. */
static int class_of(uint32_t len)
{
	unsigned shift;

	if (len & (len - 1) || len < 1u << LEN_MIN_SHIFT || len > 1u << (PAGE_SHIFT + ORDER_MAX))
		return -1;
	shift = (unsigned)__builtin_ctz(len);
	return (int)(shift - LEN_MIN_SHIFT);
}

/* Index of a chunk with room for this class, a new one if need be.  NONE: limits or no memory. */
static uint32_t chunk_for(struct set *set, unsigned class)
{
	struct tas_set *s = &set->pub;
	bool full = true; /* so far: chunks that cannot get their pages back are looked at again */

	for (uint32_t i = set->first[class]; i < s->n_chunks; i++) {
		struct chunk *c = chunk_of(s, i);

		if (serves(c, class)) {
			if (chunk_ready(c))
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
	int class = class_of(len);
	uint32_t i, byte;
	struct chunk *c;

	if (class < 0 || set->dead)
		return 0;
	i = chunk_for(set, (unsigned)class);
	if (i == NONE)
		return 0;
	c = chunk_of(s, i);
	byte = class < 3 ? piece_take(c, (unsigned)class) : pages_take(c, (unsigned)class - 3) << PAGE_SHIFT;
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
	int class = class_of(len);
	unsigned order = 0;
	struct chunk *c = i < s->n_chunks ? chunk_of(s, i) : NULL;
	bool ok = c && class >= 0 && byte < TAS_CHUNK_SIZE && !(byte & (len - 1)) && off;

	if (ok && class < 3)
		ok = piece_give(c, (unsigned)class, byte, &order);
	else if (ok && (ok = c->state[byte >> PAGE_SHIFT] == (ST_USED | (class - 3))))
		order = pages_give(c, byte >> PAGE_SHIFT, (unsigned)class - 3);
	if (!ok) { /* a bug of ours: losing the piece is the harmless answer */
		tas_warn("memory set %u: free of %#llx+%u, which is not in use", s->id, (unsigned long long)off, len);
		return;
	}
	c->pub.used -= len;
	mem.used -= len;
	if (i < set->first_max)
		for (unsigned k = set->first_max = 0; k < CLASSES; k++) {
			if (i < set->first[k])
				set->first[k] = (uint16_t)i;
			if (set->first_max < set->first[k])
				set->first_max = set->first[k];
		}
	if (order >= TRIM_ORDER)
		trim_soon(s, c);
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
		chunk_free(chunk_of(s, i));
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
			*page = chunk_of(s, i)->huge ? HUGE_PAGE : 1u << PAGE_SHIFT;
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
