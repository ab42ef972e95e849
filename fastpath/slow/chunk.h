/* SPDX-License-Identifier: MIT */
/* One chunk of a memory set: what of its 16 MiB is in use, and what may go back to the system.  Private to slow/. */
#ifndef TAS_CHUNK_H
#define TAS_CHUNK_H

#include "slow/stack.h"

enum {
	TAS_PAGE_SHIFT = 12,
	TAS_CHUNK_PAGES = TAS_CHUNK_SIZE >> TAS_PAGE_SHIFT,
	TAS_ORDER_MAX = 11,     /* 8 MiB */
	TAS_LEN_MIN_SHIFT = 8,  /* class 0 */
	TAS_PIECE_CLASSES = TAS_PAGE_SHIFT - TAS_LEN_MIN_SHIFT,
	TAS_CLASSES = TAS_PIECE_CLASSES + TAS_ORDER_MAX + 1,
	TAS_HUGE_PAGE = 2 << 20,
};

struct tas_buddy {
	struct tas_chunk pub; /* first */
	uint32_t avail;       /* bit c: list c is not empty */
	bool huge;
	bool punched; /* of huge pages, and gave them back: must get them before use */
	bool dirty;   /* has free pages that are not given back */
	uint16_t head[TAS_CLASSES];
	uint64_t idle[TAS_CHUNK_PAGES / 64]; /* free pages that were in use since they were last given back */
	uint16_t next[TAS_CHUNK_PAGES], prev[TAS_CHUNK_PAGES];
	uint16_t pieces[TAS_CHUNK_PAGES]; /* those in use, of a page that is cut into pieces */
	uint8_t state[TAS_CHUNK_PAGES];
};

int tas__class_of(uint32_t len); /* -1: no such class */
struct tas_buddy *tas__chunk_new(bool huge); /* NULL: no memory */
void tas__chunk_free(struct tas_buddy *c);
bool tas__chunk_ready(struct tas_buddy *c); /* false: its huge pages are gone */
static inline bool tas__chunk_serves(const struct tas_buddy *c, unsigned class)
{
	return class < TAS_PIECE_CLASSES ? (c->avail & (1u << class)) || c->avail >> TAS_PIECE_CLASSES : c->avail >> class;
}
/* A place of that class, in bytes from the chunk's beginning.  The caller knows that there is room. */
uint32_t tas__chunk_take(struct tas_buddy *c, unsigned class);
/* False: nothing of that class is in use there. */
bool tas__chunk_give(struct tas_buddy *c, unsigned class, uint32_t byte);
/* Gives idle pages back with at most `budget` system calls, of which it subtracts those it made; `keep`: a chunk of huge pages
 * stays as it is.  All given back: it is not dirty any more. */
void tas__chunk_trim(struct tas_buddy *c, bool keep, unsigned *budget);

#endif
