// SPDX-License-Identifier: MIT
/*
 * Where raw system calls on TAS numbers come from: a fixed table of call instructions with counts, written in a signal
 * handler without locks.  The service hears of a site at its first call and whenever its count has doubled, so that a
 * busy site costs a message now and then; `tasctl raw` shows them.
 */
#include <link.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "lowlevel/low.h"
#include "preload.h"
#include "raw.h"

enum { SITES = 256, PROBES = 16 };

static struct site {
	_Atomic uintptr_t after;
	_Atomic uint64_t count;
} sites[SITES];

/* glibc's, lock-free; an older one has none, and the report names the address alone */
struct found {
	unsigned long long flags;
	void *from, *to;
	struct link_map *map;
	void *eh_frame;
	unsigned long long room[8];
};
static int (*find_object)(void *pc, struct found *result);
static char program[256];

void tas__raw_sites_start(void)
{
	ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);

	program[n > 0 ? n : 0] = 0;
	find_object = (__typeof__(find_object))dlsym(RTLD_DEFAULT, "_dl_find_object");
}

static struct site *site_of(uintptr_t after)
{
	uintptr_t h = after * 0x9e3779b97f4a7c15u >> 56;

	for (unsigned i = 0; i < PROBES; i++) {
		struct site *s = &sites[(h + i) % SITES];
		uintptr_t none = 0;

		if (atomic_load(&s->after) == after || atomic_compare_exchange_strong(&s->after, &none, after) ||
		    none == after)
			return s;
	}
	return NULL;
}

bool tas__raw_object_of(uintptr_t at, struct tas_raw_object *o)
{
	struct found f;

	memset(&f, 0, sizeof f);
	if (!find_object || find_object((void *)at, &f) < 0)
		return false;
	*o = (struct tas_raw_object){(uintptr_t)f.from, (uintptr_t)f.to, f.eh_frame};
	return true;
}

static void name_object(struct tas_msg *m, uintptr_t at)
{
	struct found f;
	const char *name = "?", *slash;

	m->u.raw.offset = at;
	memset(&f, 0, sizeof f);
	if (find_object && find_object((void *)at, &f) == 0 && f.map) {
		name = f.map->l_name && f.map->l_name[0] ? f.map->l_name : program;
		m->u.raw.offset = at - f.map->l_addr;
	}
	slash = strrchr(name, '/');
	name = slash ? slash + 1 : name;
	memcpy(m->u.raw.object, name, strnlen(name, sizeof m->u.raw.object - 1));
}

void tas__raw_seen(uintptr_t after, long nr)
{
	struct site *s = site_of(after);
	struct tas_msg m = {0};
	struct tas_session *ss;
	uint64_t n;

	if (!s)
		return;
	n = atomic_fetch_add(&s->count, 1) + 1;
	if (n & (n - 1))
		return;
	ss = tas__session_get();
	if (!ss)
		return;
	m.u.raw.nr = (uint32_t)nr;
	m.u.raw.count = n;
	m.u.raw.caught = tas__raw_mode == TAS_RAW_CATCH;
	name_object(&m, after - 2);
	tas__tell(atomic_load(&ss->ctl), &m, TAS_MSG_RAW);
	tas__session_put(ss);
}
