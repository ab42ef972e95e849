/* SPDX-License-Identifier: MIT */
#include "tcp/ranges.h"

#include <string.h>

/* Index of the first range that touches or lies after [left, ...): data usually arrives behind the last range, so the search
 * goes from the top. */
static unsigned first_touching(const struct tcp_range *r, unsigned n, uint32_t left)
{
	while (n && seq_geq(r[n - 1].right, left))
		n--;
	return n;
}

bool tcp__ranges_apart(const struct tcp_range *r, unsigned n, uint32_t left, uint32_t right)
{
	unsigned i = first_touching(r, n, left);

	return i == n || seq_gt(r[i].left, right);
}

bool tcp__ranges_cover(const struct tcp_range *r, unsigned n, uint32_t left, uint32_t right)
{
	unsigned i = first_touching(r, n, left);

	return i < n && seq_leq(r[i].left, left) && seq_geq(r[i].right, right);
}

unsigned tcp__ranges_add(struct tcp_range *r, unsigned n, unsigned max, uint32_t left, uint32_t right, bool *grew)
{
	unsigned i = first_touching(r, n, left), j = i;

	*grew = false;
	while (j < n && seq_leq(r[j].left, right))
		j++;
	if (i == j) {
		if (n == max)
			return n;
		memmove(r + i + 1, r + i, (n - i) * sizeof(*r));
		r[i] = (struct tcp_range){ left, right };
		*grew = true;
		return n + 1;
	}
	if (j == i + 1 && seq_leq(r[i].left, left) && seq_geq(r[i].right, right))
		return n;
	*grew = true;
	if (seq_lt(r[i].left, left))
		left = r[i].left;
	if (seq_gt(r[j - 1].right, right))
		right = r[j - 1].right;
	r[i] = (struct tcp_range){ left, right };
	memmove(r + i + 1, r + j, (n - j) * sizeof(*r));
	return n - (j - i - 1);
}

unsigned tcp__ranges_trim(struct tcp_range *r, unsigned n, uint32_t pos)
{
	unsigned gone = 0;

	while (gone < n && seq_leq(r[gone].right, pos))
		gone++;
	if (gone) {
		n -= gone;
		memmove(r, r + gone, n * sizeof(*r));
	}
	if (n && seq_lt(r[0].left, pos))
		r[0].left = pos;
	return n;
}
