/* SPDX-License-Identifier: MIT */
/*
 * Chunks: 16 MiB in a memfd, cut by a buddy allocator into blocks of 4 KiB … 8 MiB, and pages of 4 KiB into pieces of
 * 256 … 2048 bytes.
 *
 * All bookkeeping is private: an application that scribbles over everything it maps cannot mislead the allocator.
 *
 * A class is a size: first the pieces, then the blocks of the buddy orders 0 … 11.  There is a list of entries with room for
 * each class (for pieces: pages that are partly used) and a mask of the lists that are not empty.
 *
 * Freeing only marks pages as idle; whoever calls trim a moment later punches holes, so that a connection that grows and
 * shrinks does not pay for it.  Single pages are given back as well: many connections that become idle leave one here and one
 * there.  Chunks of huge pages are punched only when wholly free: a single huge page taken from the pool could be gone when
 * it is needed again, and touching it then is SIGBUS.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "slow/chunk.h"
#include "slow/memory.h"

static const uint16_t nil = 0xffff;

/* What a block is, by its first page; other pages of a block: 0. */
enum { ST_FREE = 0x40, ST_USED = 0x80, ST_PIECES = 0xc0 };

int tas__class_of(uint32_t len)
{
	if (len & (len - 1) || len < 1u << TAS_LEN_MIN_SHIFT || len > 1u << (TAS_PAGE_SHIFT + TAS_ORDER_MAX))
		return -1;
	return __builtin_ctz(len) - TAS_LEN_MIN_SHIFT;
}

/* ---- lists ---- */
static void list_push(struct tas_buddy *c, unsigned class, uint16_t page)
{
	c->next[page] = c->head[class];
	c->prev[page] = nil;
	if (c->head[class] != nil)
		c->prev[c->head[class]] = page;
	c->head[class] = page;
	c->avail |= 1u << class;
}

static void list_del(struct tas_buddy *c, unsigned class, uint16_t page)
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

/* ---- pages ---- */
/* The pages of a block become idle, or stop being so. */
static void idle_set(struct tas_buddy *c, uint32_t page, unsigned order, bool idle)
{
	uint32_t n = 1u << order;

	if (n < 64) {
		uint64_t mask = ((1ull << n) - 1) << (page % 64);

		c->idle[page / 64] = idle ? c->idle[page / 64] | mask : c->idle[page / 64] & ~mask;
		return;
	}
	memset(&c->idle[page / 64], idle ? 0xff : 0, n / 8);
}

/* The caller knows that there is room. */
static uint32_t pages_take(struct tas_buddy *c, unsigned order)
{
	unsigned have = (unsigned)__builtin_ctz(c->avail >> (order + TAS_PIECE_CLASSES)) + order;
	uint16_t page = c->head[have + TAS_PIECE_CLASSES];

	list_del(c, have + TAS_PIECE_CLASSES, page);
	while (have > order) { /* the upper half stays free */
		have--;
		c->state[page + (1u << have)] = (uint8_t)(ST_FREE | have);
		list_push(c, have + TAS_PIECE_CLASSES, (uint16_t)(page + (1u << have)));
	}
	c->state[page] = (uint8_t)(ST_USED | order);
	idle_set(c, page, order, false);
	return page;
}

static void pages_give(struct tas_buddy *c, uint32_t page, unsigned order)
{
	idle_set(c, page, order, true);
	c->dirty = true;
	c->state[page] = 0;
	while (order < TAS_ORDER_MAX) {
		uint32_t other = page ^ (1u << order);

		if (c->state[other] != (ST_FREE | order))
			break;
		list_del(c, order + TAS_PIECE_CLASSES, (uint16_t)other);
		c->state[other] = 0;
		page &= ~(1u << order);
		order++;
	}
	c->state[page] = (uint8_t)(ST_FREE | order);
	list_push(c, order + TAS_PIECE_CLASSES, (uint16_t)page);
}

/* ---- pieces ---- */
static uint16_t pieces_full(unsigned class)
{
	return (uint16_t)((1u << ((1u << TAS_PIECE_CLASSES) >> class)) - 1);
}

static uint32_t piece_take(struct tas_buddy *c, unsigned class)
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
	c->pieces[page] |= (uint16_t)(1u << piece);
	if (c->pieces[page] == pieces_full(class))
		list_del(c, class, page);
	return ((uint32_t)page << TAS_PAGE_SHIFT) + (piece << (TAS_LEN_MIN_SHIFT + class));
}

static bool piece_give(struct tas_buddy *c, unsigned class, uint32_t byte)
{
	uint16_t page = (uint16_t)(byte >> TAS_PAGE_SHIFT);
	uint16_t bit = (uint16_t)(1u << ((byte & ((1u << TAS_PAGE_SHIFT) - 1)) >> (TAS_LEN_MIN_SHIFT + class)));

	if (c->state[page] != (ST_PIECES | class) || !(c->pieces[page] & bit))
		return false;
	if (c->pieces[page] == pieces_full(class))
		list_push(c, class, page);
	c->pieces[page] &= (uint16_t)~bit;
	if (!c->pieces[page]) {
		list_del(c, class, page);
		pages_give(c, page, 0);
	}
	return true;
}

uint32_t tas__chunk_take(struct tas_buddy *c, unsigned class)
{
	if (class < TAS_PIECE_CLASSES)
		return piece_take(c, class);
	return pages_take(c, class - TAS_PIECE_CLASSES) << TAS_PAGE_SHIFT;
}

bool tas__chunk_give(struct tas_buddy *c, unsigned class, uint32_t byte)
{
	unsigned order = class - TAS_PIECE_CLASSES;

	if (class < TAS_PIECE_CLASSES)
		return piece_give(c, class, byte);
	if (c->state[byte >> TAS_PAGE_SHIFT] != (ST_USED | order))
		return false;
	pages_give(c, byte >> TAS_PAGE_SHIFT, order);
	return true;
}

/* ---- life ---- */
static int map(struct tas_buddy *c, bool huge)
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

struct tas_buddy *tas__chunk_new(bool huge)
{
	struct tas_buddy *c = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (c == MAP_FAILED)
		return NULL;
	if (!(huge && !map(c, true)) && map(c, false)) {
		munmap(c, sizeof *c);
		return NULL;
	}
	c->pub.buddy = c;
	memset(c->head, 0xff, sizeof c->head);
	for (uint32_t page = TAS_CHUNK_PAGES; page; page -= 1u << TAS_ORDER_MAX) {
		c->state[page - (1u << TAS_ORDER_MAX)] = ST_FREE | TAS_ORDER_MAX;
		list_push(c, TAS_CLASSES - 1, (uint16_t)(page - (1u << TAS_ORDER_MAX)));
	}
	return c;
}

void tas__chunk_free(struct tas_buddy *c)
{
	munmap(c->pub.map, TAS_CHUNK_SIZE);
	close(c->pub.fd);
	munmap(c, sizeof *c);
}

bool tas__chunk_ready(struct tas_buddy *c)
{
	if (c->punched && fallocate(c->pub.fd, 0, 0, TAS_CHUNK_SIZE))
		return false;
	c->punched = false;
	return true;
}

/* ---- giving pages back ---- */
static bool punch(const struct tas_buddy *c, uint32_t page, uint32_t n)
{
	return !fallocate(c->pub.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)page << TAS_PAGE_SHIFT,
			  (off_t)n << TAS_PAGE_SHIFT);
}

static bool idle_at(const struct tas_buddy *c, uint32_t page)
{
	return c->idle[page / 64] >> (page % 64) & 1;
}

void tas__chunk_trim(struct tas_buddy *c, bool keep, unsigned *budget)
{
	if (c->huge) {
		if (!c->pub.used && !keep && !c->punched && punch(c, 0, TAS_CHUNK_PAGES))
			c->punched = true;
		c->dirty = false;
		*budget -= 1;
		return;
	}
	for (uint32_t page = 0; page < TAS_CHUNK_PAGES;) {
		uint32_t from = page;

		if (!(c->idle[page / 64] >> (page % 64))) {
			page = (page / 64 + 1) * 64;
			continue;
		}
		while (page < TAS_CHUNK_PAGES && idle_at(c, page)) {
			c->idle[page / 64] &= ~(1ull << (page % 64));
			page++;
		}
		if (page == from) {
			page++;
			continue;
		}
		(void)!punch(c, from, page - from);
		if (!--*budget)
			return;
	}
	c->dirty = false;
}
