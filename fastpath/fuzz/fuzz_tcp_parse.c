/* Invariant: tcp_parse() reads nothing behind the header, and what it accepts comes back the same through tcp_build().
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "tcp/tcp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tcp_seg seg, back, rst;
	uint8_t wire[TCP_HDR_MAX];
	/* An exact copy: a byte beyond it is an error that ASan sees. */
	size_t room = size >= 20 && (size_t)(data[12] >> 4) * 4 <= size && data[12] >> 4 >= 5 ? (data[12] >> 4) * 4u : size;
	uint8_t *copy = malloc(room ? room : 1);

	memcpy(copy, data, room);
	if (!tcp_parse(copy, size, &seg)) {
		uint32_t len = seg.len;

		expect(seg.hdr_len + seg.len == size && seg.n_sack <= TCP_SACK_MAX && seg.wscale <= 14);
		if (tcp_reset_for(&seg, &rst))
			expect(rst.flags & TCP_F_RST && rst.sport == seg.dport && !tcp_reset_for(&rst, &back));
		else
			expect(seg.flags & TCP_F_RST);
		if (!(seg.flags & TCP_F_SYN && seg.n_sack)) {
			unsigned n = tcp_build(wire, &seg);

			expect(n <= TCP_HDR_MAX && n % 4 == 0);
			expect(!tcp_parse(wire, n + len, &back));
			expect(back.seq == seg.seq && back.ack == seg.ack && back.len == len && back.wnd == seg.wnd &&
			       back.flags == seg.flags && back.urg == seg.urg && back.mss == seg.mss &&
			       back.has_ts == seg.has_ts && back.tsval == seg.tsval && back.tsecr == seg.tsecr &&
			       back.sack_ok == seg.sack_ok && back.has_wscale == seg.has_wscale &&
			       back.wscale == seg.wscale && back.n_sack == seg.n_sack &&
			       !memcmp(back.sack, seg.sack, sizeof(seg.sack[0]) * seg.n_sack));
		}
	}
	free(copy);
	return 0;
}
