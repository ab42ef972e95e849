/* SPDX-License-Identifier: MIT */
/* Memory sets: what is handed out never overlaps, limits hold, and everything comes back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "one_thread.h"
#include "slow/memory.h"

struct tas_core tas_cores[TAS_CORES_MAX];
struct tas_config tas_config = { .fp_no_hugepages = true };
static unsigned warnings;

int tas_loop_add(struct tas_pollable *p, uint32_t events)
{
	(void)p;
	(void)events;
	return 0;
}

void tas_loop_del(struct tas_pollable *p)
{
	(void)p;
}

void tas_warn(const char *fmt, ...)
{
	(void)fmt;
	warnings++;
}

void tas__set_unshare(struct tas_set *s)
{
	(void)s;
}

void tas__bells_forget_set(const struct tas_set *s)
{
	(void)s;
}

enum { PIECES = 4000 };

static struct piece {
	tas_off_t off;
	uint32_t len, tag;
} pieces[PIECES];

static void fill(struct tas_set *s, const struct piece *p)
{
	uint8_t *m = tas__mem_ptr(s, p->off);

	for (uint32_t at = 0; at < p->len; at += 256)
		memcpy(m + at, &p->tag, sizeof p->tag);
}

static void check(struct tas_set *s, const struct piece *p)
{
	uint8_t *m = tas__mem_ptr(s, p->off);

	for (uint32_t at = 0; at < p->len; at += 256)
		assert_memory_equal(m + at, &p->tag, sizeof p->tag);
}

static uint32_t some_length(void)
{
	/* mostly small, now and then up to 8 MiB */
	unsigned shift = 8 + (unsigned)(random() % 7);

	if (random() % 16 == 0)
		shift = 8 + (unsigned)(random() % 16);
	return 1u << shift;
}

static void pieces_never_overlap(void **state)
{
	struct tas_set *s = tas__set_new(1, 2);
	uint64_t used = 0;

	(void)state;
	tas_config.max_chunks_per_set = 12;
	srandom(7);
	for (unsigned round = 0; round < 60000; round++) {
		struct piece *p = &pieces[random() % PIECES];

		if (p->off) {
			check(s, p);
			tas__mem_free(s, p->off, p->len);
			used -= p->len;
			p->off = 0;
		} else {
			p->len = some_length();
			p->tag = round + 1;
			p->off = tas__mem_alloc(s, p->len);
			if (!p->off)
				continue;
			assert_int_equal(TAS_OFF_BYTE(p->off) & (p->len - 1), 0);
			assert_in_range(TAS_OFF_BYTE(p->off) + p->len, 256, TAS_CHUNK_SIZE);
			fill(s, p);
			used += p->len;
		}
		assert_int_equal(tas__mem_used(), used);
		if (round % 5000 == 0)
			tas__mem_trim(8);
	}
	for (unsigned i = 0; i < PIECES; i++) {
		if (!pieces[i].off)
			continue;
		check(s, &pieces[i]);
		tas__mem_free(s, pieces[i].off, pieces[i].len);
		pieces[i].off = 0;
	}
	assert_int_equal(tas__mem_used(), 0);
	for (uint32_t i = 0; i < s->n_chunks; i++)
		assert_int_equal(s->chunk[i]->used, 0);
	assert_int_equal(warnings, 0);
	/* all blocks have grown together again: each chunk gives two of the largest, the first gives one */
	for (uint32_t i = 0; i < 2 * s->n_chunks - 1; i++)
		assert_int_not_equal(tas__mem_alloc(s, 8 << 20), 0);
	tas__set_put(s);
	assert_int_equal(tas__mem_chunks(), 0);
	assert_int_equal(tas__mem_used(), 0);
}

static uint64_t pages_held(const struct tas_set *s)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < s->n_chunks; i++) {
		struct stat st;

		assert_int_equal(fstat(s->chunk[i]->fd, &st), 0);
		n += (uint64_t)st.st_blocks * 512;
	}
	return n;
}

static void freed_memory_goes_back_to_the_system(void **state)
{
	struct tas_set *s = tas__set_new(1, 2);
	tas_off_t keep, off[40];

	(void)state;
	tas_config.max_chunks_per_set = 0;
	keep = tas__mem_alloc(s, 512);
	for (unsigned i = 0; i < 40; i++) {
		off[i] = tas__mem_alloc(s, 1 << 20);
		assert_int_not_equal(off[i], 0);
		memset(tas__mem_ptr(s, off[i]), 'x', 1 << 20);
	}
	assert_in_range(s->n_chunks, 3, 3);
	assert_in_range(pages_held(s), 40 << 20, 41 << 20);
	for (unsigned i = 0; i < 40; i++)
		if (i != 5)
			tas__mem_free(s, off[i], 1 << 20);
	assert_true(tas__mem_trim(1)); /* within its budget */
	while (tas__mem_trim(4))
		;
	assert_in_range(pages_held(s), 1 << 20, (1 << 20) + 4096); /* `keep` was never written to */
	assert_int_equal(*(char *)tas__mem_ptr(s, off[5]), 'x');
	/* the lowest chunk is used first again */
	assert_int_equal(TAS_OFF_CHUNK(tas__mem_alloc(s, 8 << 20)), 0);
	tas__mem_free(s, keep, 512);
	tas__set_put(s);
}

static void small_blocks_add_up_to_what_is_given_back(void **state)
{
	struct tas_set *s = tas__set_new(1, 2);
	tas_off_t off[512];

	(void)state;
	for (unsigned i = 0; i < 512; i++) {
		off[i] = tas__mem_alloc(s, 4096);
		memset(tas__mem_ptr(s, off[i]), 'x', 4096);
	}
	assert_in_range(pages_held(s), 2 << 20, 3 << 20);
	for (unsigned i = 0; i < 512; i++)
		tas__mem_free(s, off[i], 4096);
	while (tas__mem_trim(4))
		;
	assert_int_equal(pages_held(s), 0);
	tas__set_put(s);
}

/* As connections that become idle leave them: a page here, one there, and what is between stays. */
static void single_pages_go_back(void **state)
{
	struct tas_set *s = tas__set_new(1, 2);
	tas_off_t off[512];
	unsigned calls = 0;

	(void)state;
	for (unsigned i = 0; i < 512; i++) {
		off[i] = tas__mem_alloc(s, 4096);
		memset(tas__mem_ptr(s, off[i]), (int)i, 4096);
	}
	for (unsigned i = 0; i < 512; i += 2)
		tas__mem_free(s, off[i], 4096);
	for (; tas__mem_trim(1); calls++)
		;
	assert_in_range(calls, 256, 257);
	assert_int_equal(pages_held(s), 256 * 4096);
	for (unsigned i = 1; i < 512; i += 2)
		for (unsigned at = 0; at < 4096; at += 100)
			assert_int_equal(*((uint8_t *)tas__mem_ptr(s, off[i]) + at), i & 255);
	/* what is taken again meanwhile is not given back */
	tas__mem_free(s, off[1], 4096);
	tas__mem_free(s, off[3], 4096);
	off[1] = tas__mem_alloc(s, 4096);
	memset(tas__mem_ptr(s, off[1]), 'x', 4096);
	while (tas__mem_trim(4))
		;
	for (unsigned at = 0; at < 4096; at++)
		assert_int_equal(*((char *)tas__mem_ptr(s, off[1]) + at), 'x');
	assert_int_equal(pages_held(s), 255 * 4096);
	tas__set_put(s);
}

static void limits_hold(void **state)
{
	struct tas_set *s = tas__set_new(1, 2), *other = tas__set_new(1, 2);
	unsigned n = 0;

	(void)state;
	tas_config.max_chunks_per_set = 2;
	while (tas__mem_alloc(s, 8 << 20))
		n++;
	assert_int_equal(n, 3); /* position 0 is nobody's */
	n = 0;
	while (tas__mem_alloc(s, 1024))
		n++;
	assert_in_range(n, 8000, 8192);
	assert_int_not_equal(tas__mem_alloc(other, 8 << 20), 0); /* another set has its own limit */
	assert_int_equal(tas__mem_alloc(other, 128), 0);
	assert_int_equal(tas__mem_alloc(other, 3000), 0);
	assert_int_equal(tas__mem_alloc(other, 16 << 20), 0);
	tas__set_kill(other);
	assert_int_equal(tas__mem_alloc(other, 4096), 0);
	tas_config.max_chunks_per_set = 0;
	tas__set_put(s);
	tas__set_put(other);
	assert_int_equal(tas__mem_sets(), 0);
}

static void wrong_frees_are_told_and_harmless(void **state)
{
	struct tas_set *s = tas__set_new(1, 2);
	tas_off_t a = tas__mem_alloc(s, 512), b = tas__mem_alloc(s, 8192);

	(void)state;
	warnings = 0;
	tas__mem_free(s, a + 512, 512);
	tas__mem_free(s, b + 4096, 4096);
	tas__mem_free(s, b, 4096);
	tas__mem_free(s, 0, 4096);
	tas__mem_free(s, TAS_OFF(7, 0), 4096);
	tas__mem_free(s, TAS_OFF(0, 0xffffe000), 8192);
	assert_int_equal(warnings, 6);
	tas__mem_free(s, a, 512);
	tas__mem_free(s, b, 8192);
	assert_int_equal(warnings, 6);
	tas__mem_free(s, a, 512);
	tas__mem_free(s, b, 8192);
	assert_int_equal(warnings, 8);
	assert_int_equal(tas__mem_used(), 0);
	warnings = 0;
	tas__set_put(s);
}

static void chunks_are_sealed(void **state)
{
	struct tas_set *s = tas__set_new(1, 2);

	(void)state;
	tas__mem_alloc(s, 512);
	assert_int_equal(ftruncate(s->chunk[0]->fd, 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(s->chunk[0]->fd, 1 << 30), -1);
	tas__set_put(s);
}

static void a_set_lives_for_its_sockets(void **state)
{
	struct tas_set *s = tas__set_new(1, 2);
	size_t page;

	(void)state;
	s->n_socks = 1;
	tas__mem_alloc(s, 512);
	tas__set_put(s);
	assert_int_equal(tas__mem_sets(), 1);
	assert_ptr_equal(tas__mem_find(s->chunk[0]->map + 5000, &page), s);
	assert_int_equal(page, 4096);
	assert_null(tas__mem_find(&page, &page));
	s->n_socks = 0;
	tas__set_put(s);
	assert_int_equal(tas__mem_sets(), 0);
}

static unsigned long free_huge_pages(void)
{
	FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "r");
	unsigned long n = 0;

	if (f && fscanf(f, "%lu", &n) != 1)
		n = 0;
	if (f)
		fclose(f);
	return n;
}

static void huge_pages_are_used_and_given_back(void **state)
{
	struct tas_set *s;
	unsigned long before = 0, now = 0;
	tas_off_t off[4];

	(void)state;
	before = free_huge_pages();
	if (before < 2 * (TAS_CHUNK_SIZE >> 21))
		skip();
	tas_config.fp_no_hugepages = false;
	s = tas__set_new(1, 2);
	for (unsigned i = 0; i < 3; i++) /* the second chunk is reserved whole */
		off[i] = tas__mem_alloc(s, 8 << 20);
	assert_true(tas__mem_hugepages());
	for (unsigned i = 0; i < 3; i++)
		memset(tas__mem_ptr(s, off[i]), 'x', 8 << 20);
	now = free_huge_pages();
	assert_in_range(before - now, 12, 16);
	tas__mem_free(s, off[1], 8 << 20);
	tas__mem_free(s, off[2], 8 << 20);
	while (tas__mem_trim(4))
		;
	assert_int_equal(free_huge_pages(), now + 8);
	off[1] = tas__mem_alloc(s, 8 << 20);
	assert_int_equal(TAS_OFF_CHUNK(off[1]), 1);
	memset(tas__mem_ptr(s, off[1]), 'x', 8 << 20);
	tas__set_put(s);
	assert_int_equal(free_huge_pages(), before);
	tas_config.fp_no_hugepages = true;
}

static int up(void **state)
{
	(void)state;
	return tas__mem_init();
}

static int down(void **state)
{
	(void)state;
	tas__mem_exit();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_never_overlap),
		cmocka_unit_test(freed_memory_goes_back_to_the_system),
		cmocka_unit_test(small_blocks_add_up_to_what_is_given_back),
		cmocka_unit_test(single_pages_go_back),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(wrong_frees_are_told_and_harmless),
		cmocka_unit_test(chunks_are_sealed),
		cmocka_unit_test(huge_pages_are_used_and_given_back),
		cmocka_unit_test(a_set_lives_for_its_sockets),
	};

	return cmocka_run_group_tests(tests, up, down);
}
