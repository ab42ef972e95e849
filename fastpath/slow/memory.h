/* SPDX-License-Identifier: MIT */
/* Memory sets beyond what stack.h tells fast/: life, trimming, repair.  Private to slow/. */
#ifndef TAS_MEMORY_H
#define TAS_MEMORY_H

#include "slow/stack.h"

int tas__mem_init(void);
void tas__mem_exit(void); /* frees every set, whoever still counts on it */
/* Gives pages of freed memory back to the system, with at most `budget` system calls.  True: there is more to give. */
bool tas__mem_trim(unsigned budget);
bool tas__mem_hugepages(void); /* the newest chunk uses huge pages */

/* A sealed memfd of this size.  Returns the descriptor or -errno. */
int tas__memfd(const char *name, uint64_t size, bool huge);

struct tas_set *tas__sets(void); /* all, linked by next */
/* It goes: no shared set has it as a member, and it has none (slow/shared.c). */
void tas__set_unshare(struct tas_set *s);

/* A set whose memory failed is dead: it gets no more memory, and control ends its sessions. */
bool tas__set_dead(const struct tas_set *s);
void tas__set_kill(struct tas_set *s);
/* Async-signal-safe.  The set in one of whose chunks addr lies, and the page size of that chunk; NULL: none. */
struct tas_set *tas__mem_find(const void *addr, size_t *page);

#endif
