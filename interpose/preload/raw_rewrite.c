// SPDX-License-Identifier: MIT
/*
 * Call sites that are caught often are rewritten, so that they come to us without a signal (1 µs each).
 *
 * A `syscall` is two bytes long.  It becomes a short jump to a gap of five bytes between functions within its reach; there
 * a jump leads to a stub in a page of ours near by, and that to tas__raw_entry.  The bytes behind the site stay what they
 * are: threads that are in the kernel by way of it return there.  A gap is what lies between two functions of the object's
 * unwind table and consists of no-operations, or, where there is no such table (Go), five and more int3.
 *
 * A site without a gap, or whose two bytes lie in two cache lines, stays as it is, and so do calls that change what a
 * signal frame holds, make processes, or wait with a mask: the stub makes them, and they are caught.
 *
 * All sites are restored before a thread is made that may not have a thread pointer of libc's: the entry needs one.
 */
#include <cpuid.h>
#include <link.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "lowlevel/sys.h"
#include "preload.h"
#include "raw.h"

enum { SITES = 64, OFTEN = 32, PAGE = 4096, REACH = 120, GAP = 5, STACK = 128 << 10, NEAR = 1 << 30, STEP = 1 << 20, PADDING = 256 };
enum { CODE_CALL = 0x050f, CODE_JUMP_SHORT = 0xeb, CODE_JUMP = 0xe9, CODE_TRAP = 0xcc };

/* Lies in a page of its own, the stub behind it. */
struct target {
	uintptr_t after; /* tas__raw_entry knows these two */
	uintptr_t again;
	uint8_t code[];
};

static struct site {
	_Atomic uintptr_t after;
	_Atomic uint32_t count;
	_Atomic bool settled; /* rewritten, or it cannot be */
	uint16_t code; /* what stands there then */
	struct target *_Atomic to;
} sites[SITES];
static _Atomic int writer; /* process whose thread writes: one that is forked meanwhile is not held up */
static _Atomic bool stopped;

static bool write_begin(void)
{
	int self = (int)sys0(SYS_getpid), was = atomic_load(&writer);

	return was != self && atomic_compare_exchange_strong(&writer, &was, self);
}

static void write_end(void)
{
	atomic_store(&writer, 0);
}

/* ---- gaps ---- */
/* Length of the no-operation at p, 0: there is none. */
static size_t nop(const uint8_t *p, const uint8_t *end)
{
	static const uint8_t sizes[] = {[0x00] = 3, [0x40] = 4, [0x44] = 5, [0x80] = 7, [0x84] = 8};
	const uint8_t *from = p;
	size_t n;

	while (p < end && (*p == 0x66 || *p == 0x2e))
		p++;
	if (p < end && *p == 0x90)
		return (size_t)(p + 1 - from);
	if (end - p < 3 || p[0] != 0x0f || p[1] != 0x1f || p[2] >= sizeof sizes)
		return 0;
	n = sizes[p[2]];
	if (!n || (size_t)(end - p) < n)
		return 0;
	for (size_t i = 3; i < n; i++)
		if (p[i])
			return 0;
	return (size_t)(p - from) + n;
}

/* Room for a jump between p and end.  Of the jumps that are there already, the rest is traps. */
static struct gap {
	uint8_t *at, *end;
} room(uint8_t *p, uint8_t *end)
{
	uint8_t *from;

	while (end - p >= 2 * GAP && *p == CODE_JUMP)
		p += GAP;
	from = p;
	while (p < end) {
		size_t n = *p == CODE_TRAP ? 1 : nop(p, end);

		if (!n)
			return (struct gap){NULL, NULL};
		p += n;
	}
	return end - from >= GAP ? (struct gap){from, end} : (struct gap){NULL, NULL};
}

static bool reaches(uintptr_t after, const uint8_t *gap)
{
	intptr_t d = (intptr_t)((uintptr_t)gap - after);

	return d >= -REACH && d <= REACH;
}

/* .eh_frame_hdr as every linker makes it: a sorted table of {function, its entry in .eh_frame}, relative to itself. */
struct header {
	uint8_t version, pointer, count, table;
	int32_t frames;
	uint32_t n;
	struct {
		int32_t from, entry;
	} row[];
};

/* End of the function of a row; 0: the entry is of another kind. */
static uintptr_t end_of(const struct header *h, uint32_t row)
{
	uintptr_t base = (uintptr_t)h, entry = base + (uintptr_t)(intptr_t)h->row[row].entry, at = entry + 8;
	uint32_t length;
	int32_t from;

	memcpy(&length, (void *)(entry + 8 + 4), sizeof length);
	memcpy(&from, (void *)at, sizeof from);
	if (at + (uintptr_t)(intptr_t)from != base + (uintptr_t)(intptr_t)h->row[row].from)
		return 0;
	return at + (uintptr_t)(intptr_t)from + length;
}

/* The last function that begins before. */
static uint32_t row_of(const struct header *h, uintptr_t after)
{
	uintptr_t base = (uintptr_t)h;
	uint32_t low = 0, high = h->n;

	while (low + 1 < high) {
		uint32_t mid = low + (high - low) / 2;

		if (base + (uintptr_t)(intptr_t)h->row[mid].from < after)
			low = mid;
		else
			high = mid;
	}
	return low;
}

static struct gap gap_by_table(const struct header *h, uintptr_t after)
{
	uintptr_t base = (uintptr_t)h;
	uint32_t low = row_of(h, after);

	for (uint32_t row = low > 4 ? low - 4 : 0; row < low + 4 && row + 1 < h->n; row++) {
		uint8_t *end = (uint8_t *)end_of(h, row), *next = (uint8_t *)(base + (uintptr_t)(intptr_t)h->row[row + 1].from);
		struct gap g = {NULL, NULL};

		if (end && end < next && next - end < PADDING)
			g = room(end, next);
		if (g.at && reaches(after, g.at))
			return g;
	}
	return (struct gap){NULL, NULL};
}

static struct gap gap_of_traps(uintptr_t after, uintptr_t to)
{
	static const uint8_t traps[] = {CODE_TRAP, CODE_TRAP, CODE_TRAP, CODE_TRAP, CODE_TRAP};
	uintptr_t page = (after - 2) & ~(uintptr_t)(PAGE - 1); /* the next one may be no code */
	uintptr_t low = after - page > REACH ? after - REACH : page, end = page + PAGE < to ? page + PAGE : to;
	uintptr_t high = end - after > REACH ? after + REACH : end;
	uint8_t *gap = high > after ? memmem((void *)after, high - after, traps, sizeof traps) : NULL;

	if (!gap && low < after - 2)
		gap = memmem((void *)low, after - 2 - low, traps, sizeof traps);
	return (struct gap){gap, gap ? gap + GAP : NULL};
}

static struct gap gap_near(uintptr_t after, const struct tas_raw_object *o)
{
	const struct header *h = o->unwind;

	if (h && h->version == 1 && h->pointer == 0x1b && h->count == 0x03 && h->table == 0x3b && h->n) {
		struct gap g = gap_by_table(h, after);

		if (g.at)
			return g;
		/* inside of a function that the table knows int3 may be an immediate */
		if (after <= end_of(h, row_of(h, after)))
			return g;
	}
	return gap_of_traps(after, o->to);
}

/* ---- writing ---- */
/* A page within reach of a jump from `at`. */
static struct target *page_near(uintptr_t at)
{
	for (uintptr_t d = STEP; d < NEAR; d += STEP) {
		for (int up = 1; up >= 0; up--) {
			uintptr_t hint = ((up ? at + d : at - d) & ~(uintptr_t)(PAGE - 1));
			void *p = sys_mmap((void *)hint, PAGE, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1);

			if (p == (void *)hint)
				return p;
			if (p)
				sys_munmap(p, PAGE);
		}
	}
	return NULL;
}

/* movabs $target, %r11; jmp *entry; again: syscall; jmp *after */
static void make_stub(struct target *t, uintptr_t after)
{
	static const uint8_t load[] = {0x49, 0xbb}, jump[] = {0xff, 0x25, 0, 0, 0, 0}, call[] = {0x0f, 0x05};
	uintptr_t self = (uintptr_t)t, entry = (uintptr_t)tas__raw_entry;
	uint8_t *p = t->code;

	t->after = after;
	p = (uint8_t *)mempcpy(p, load, sizeof load);
	p = (uint8_t *)mempcpy(p, &self, sizeof self);
	p = (uint8_t *)mempcpy(p, jump, sizeof jump);
	p = (uint8_t *)mempcpy(p, &entry, sizeof entry);
	t->again = (uintptr_t)p;
	p = (uint8_t *)mempcpy(p, call, sizeof call);
	p = (uint8_t *)mempcpy(p, jump, sizeof jump);
	memcpy(p, &after, sizeof after);
}

static long protect(uintptr_t from, uintptr_t to, int prot)
{
	from &= ~(uintptr_t)(PAGE - 1);
	return sys3(SYS_mprotect, (long)from, (long)(to - from), prot);
}

/* In one store: others execute it. */
static void write_site(uintptr_t after, uint16_t code)
{
	*(volatile uint16_t *)(after - 2) = code;
}

static void redirect(struct site *s, uintptr_t after, struct gap g)
{
	uint8_t *gap = g.at;
	uintptr_t low = (uintptr_t)gap < after ? (uintptr_t)gap : after - 2;
	uintptr_t high = (uintptr_t)gap < after ? after : (uintptr_t)g.end;
	struct target *t = page_near(after);
	int32_t far;

	if (!t)
		return;
	make_stub(t, after);
	if (protect((uintptr_t)t, (uintptr_t)t + PAGE, PROT_READ | PROT_EXEC) < 0 ||
	    protect(low, high, PROT_READ | PROT_WRITE | PROT_EXEC) < 0) {
		sys_munmap(t, PAGE);
		return;
	}
	far = (int32_t)(intptr_t)(t->code - (gap + GAP));
	memset(gap + GAP, CODE_TRAP, (size_t)(g.end - gap) - GAP);
	gap[0] = CODE_JUMP;
	memcpy(gap + 1, &far, sizeof far);
	s->code = (uint16_t)(CODE_JUMP_SHORT | (uint16_t)(uint8_t)(int8_t)(gap - (uint8_t *)after) << 8);
	atomic_store(&s->to, t);
	write_site(after, s->code);
	protect(low, high, PROT_READ | PROT_EXEC);
}

void tas__raw_often(uintptr_t after)
{
	struct tas_raw_object o;
	struct site *s = NULL;
	struct gap gap;

	if (!tas__raw_xsave || atomic_load(&stopped))
		return;
	for (unsigned i = 0, h = (unsigned)(after * 0x9e3779b97f4a7c15u >> 58); i < SITES && !s; i++) {
		struct site *at = &sites[(h + i) % SITES];
		uintptr_t none = 0;

		if (atomic_load(&at->after) == after || atomic_compare_exchange_strong(&at->after, &none, after) ||
		    none == after)
			s = at;
	}
	if (!s || atomic_load(&s->settled) || (atomic_fetch_add(&s->count, 1) + 1) % OFTEN || !write_begin())
		return;
	if (!atomic_exchange(&s->settled, true) && !atomic_load(&stopped) && ((after - 2) & 63) != 63 &&
	    *(volatile uint16_t *)(after - 2) == CODE_CALL && tas__raw_object_of(after, &o)) {
		gap = gap_near(after, &o);
		if (gap.at)
			redirect(s, after, gap);
	}
	write_end();
}

/* Stubs stay: somebody may be in one. */
void tas__raw_restore(void)
{
	struct tas_raw_object o;

	if (tas__raw_mode == TAS_RAW_OFF || atomic_exchange(&stopped, true))
		return;
	while (!write_begin())
		sys0(SYS_sched_yield);
	for (struct site *s = sites; s < sites + SITES; s++) {
		uintptr_t after = atomic_load(&s->after);

		/* its library may have been unloaded, and another be there */
		if (!atomic_load(&s->to) || !tas__raw_object_of(after, &o) ||
		    *(volatile uint16_t *)(after - 2) != s->code ||
		    protect(after - 2, after, PROT_READ | PROT_WRITE | PROT_EXEC) < 0)
			continue;
		write_site(after, CODE_CALL);
		protect(after - 2, after, PROT_READ | PROT_EXEC);
	}
	write_end();
}

uintptr_t tas__raw_origin(uintptr_t after)
{
	for (struct site *s = sites; s < sites + SITES; s++) {
		struct target *t = atomic_load(&s->to);

		if (t && after == t->again + 2)
			return t->after;
	}
	return after;
}

/* ---- the thread's stack ---- */
static pthread_key_t key;

static void give_back(void *stack)
{
	tas__raw_stack.free = 0;
	sys_munmap(stack, STACK);
}

/* In the handler: the thread has met a site, rewritten or not. */
void tas__raw_stack_make(void)
{
	uint8_t *p;

	if (tas__raw_stack.top || !tas__raw_xsave)
		return;
	p = sys_mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (!p)
		return;
	tas__raw_stack.top = (uintptr_t)p + STACK;
	pthread_setspecific(key, p); /* made early: one of those that need no memory */
	tas__raw_stack.free = 1;
}

void tas__raw_rewrite_start(void)
{
	unsigned a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !__get_cpuid_count(0xd, 0, &a, &b, &c, &d) ||
	    pthread_key_create(&key, give_back))
		return;
	tas__raw_xsave = b;
}
