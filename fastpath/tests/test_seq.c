/* SPDX-License-Identifier: MIT */
/* Sequence arithmetic and sets of ranges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/ranges.h"
#include "tcp/seq.h"

static void order_holds_across_the_wrap(void **state)
{
	(void)state;
	const uint32_t at[] = { 0, 1, 0x7fffffff, 0x80000000u, 0xfffffffeu, 0xffffffffu };

	for (unsigned i = 0; i < 6; i++) {
		assert_true(seq_leq(at[i], at[i]) && seq_geq(at[i], at[i]) && !seq_lt(at[i], at[i]));
		assert_true(seq_lt(at[i], at[i] + 1) && seq_gt(at[i] + 1, at[i]));
		assert_true(seq_lt(at[i], at[i] + 0x7fffffff) && seq_gt(at[i], at[i] - 0x7fffffff));
		assert_int_equal(seq_diff(at[i] + 5, at[i]), 5);
		assert_int_equal(seq_diff(at[i] - 5, at[i]), -5);
	}
}

static void widening_finds_the_nearest_position(void **state)
{
	(void)state;
	for (uint64_t near = 0; near < 5ull << 32; near += 0x12345677) {
		for (int64_t d = -3; d <= 3; d++) {
			assert_int_equal(seq_widen(near, (uint32_t)(near + (uint64_t)d)), (int64_t)near + d);
			assert_int_equal(seq_widen(near, (uint32_t)(near + (uint64_t)(d * 0x2aaaaaaa))),
					 (int64_t)near + d * 0x2aaaaaaa);
		}
	}
	assert_int_equal(seq_widen(0, UINT32_MAX), -1);
}

/* The set against a map of bytes, on a window that wraps. */
static void ranges_behave_like_a_byte_map(void **state)
{
	enum { WINDOW = 200, MAX = 8 };
	struct tcp_range r[MAX];
	uint32_t base = 0xffffff80u;

	(void)state;
	srand(1);
	for (int run = 0; run < 3000; run++) {
		uint8_t map[WINDOW] = { 0 };
		unsigned n = 0;

		for (int k = 0; k < 30; k++) {
			unsigned l = (unsigned)rand() % (WINDOW - 1), e = l + 1 + (unsigned)rand() % 20;
			bool grew, any = false, all = true, fits;

			if (e > WINDOW)
				e = WINDOW;
			for (unsigned i = l; i < e; i++) {
				any |= map[i];
				all &= map[i];
			}
			bool touches = any || (l && map[l - 1]) || (e < WINDOW && map[e]);
			assert_int_equal(tcp__ranges_apart(r, n, base + l, base + e), !touches);
			assert_int_equal(tcp__ranges_cover(r, n, base + l, base + e), all);
			fits = touches || n < MAX;
			n = tcp__ranges_add(r, n, MAX, base + l, base + e, &grew);
			assert_int_equal(grew, fits && !all);
			if (fits)
				memset(map + l, 1, e - l);
			assert_true(n <= MAX);
		}
		unsigned cut = (unsigned)rand() % WINDOW;
		n = tcp__ranges_trim(r, n, base + cut);
		memset(map, 0, cut);
		unsigned at = 0;
		for (unsigned i = 0; i < n; i++) {
			assert_true(r[i].left - base >= at && r[i].right - base > r[i].left - base);
			for (; at < r[i].left - base; at++)
				assert_false(map[at]);
			for (; at < r[i].right - base; at++)
				assert_true(map[at]);
			assert_true(at == WINDOW || !map[at]);
		}
		for (; at < WINDOW; at++)
			assert_false(map[at]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_holds_across_the_wrap),
		cmocka_unit_test(widening_finds_the_nearest_position),
		cmocka_unit_test(ranges_behave_like_a_byte_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
