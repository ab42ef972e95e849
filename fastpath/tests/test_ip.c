/* SPDX-License-Identifier: MIT */
/* IPv4 headers and the Internet checksum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fast/checksum.c"
#include "fast/ip.c"

/* RFC 1071 as it stands there: 16 bits at a time. */
static uint16_t slow_checksum(const uint8_t *p, size_t n)
{
	uint32_t sum = 0;
	size_t i;

	for (i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	if (n & 1)
		sum += (uint32_t)p[n - 1] << 8;
	while (sum >> 16)
		sum = (sum >> 16) + (sum & 0xffff);
	return htons((uint16_t)~sum);
}

static void checksum_equals_the_slow_one_for_every_length_and_alignment(void **state)
{
	uint8_t buf[3000];
	size_t n, at;
	unsigned seed = 1;

	(void)state;
	for (n = 0; n < sizeof(buf); n++)
		buf[n] = (uint8_t)(rand_r(&seed) >> 7);
	for (n = 0; n < 300; n++)
		for (at = 0; at < 8; at++)
			assert_int_equal(tas__checksum(buf + at, n, 0), slow_checksum(buf + at, n));
	memset(buf, 0xff, sizeof(buf));
	for (n = 2000; n < 2990; n++)
		assert_int_equal(tas__checksum(buf, n, 0), slow_checksum(buf, n));
}

static void checksum_of_pieces_is_that_of_the_whole(void **state)
{
	uint8_t buf[512];
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 37);
	for (i = 0; i < sizeof(buf); i += 2)
		assert_int_equal(tas__checksum(buf + i, sizeof(buf) - i, tas__sum(buf, i, 0)),
				 slow_checksum(buf, sizeof(buf)));
}

static void pseudo_header_is_that_of_rfc_9293(void **state)
{
	uint8_t seg[32], whole[12 + 32] = { 10, 0, 0, 1, 10, 0, 0, 2, 0, TAS_IP_TCP, 0, 32 };
	uint32_t src, dst;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(seg); i++)
		seg[i] = (uint8_t)(i * 11);
	memcpy(whole + 12, seg, sizeof(seg));
	memcpy(&src, whole, 4);
	memcpy(&dst, whole + 4, 4);
	assert_int_equal(tas__checksum(seg, sizeof(seg), tas__sum_pseudo4(src, dst, TAS_IP_TCP, sizeof(seg))),
			 slow_checksum(whole, sizeof(whole)));
}

static _Alignas(4) uint8_t pkt[64];
static struct tas_ip_info info;

static struct tas_ip_hdr *packet(unsigned payload)
{
	static const uint8_t a[4] = { 10, 0, 0, 1 }, b[4] = { 10, 0, 0, 2 };
	uint32_t src, dst;

	memcpy(&src, a, 4);
	memcpy(&dst, b, 4);
	tas__ip_build((struct tas_ip_hdr *)pkt, src, dst, TAS_IP_TCP, payload, 5, true, true);
	return (struct tas_ip_hdr *)pkt;
}

static enum tas_ip_verdict again(struct tas_ip_hdr *h, unsigned n)
{
	unsigned hlen = (h->version_ihl & 15) * 4u;

	h->checksum = 0;
	h->checksum = slow_checksum(pkt, hlen);
	return tas__ip_parse(pkt, n, false, &info);
}

static void what_we_build_is_accepted(void **state)
{
	(void)state;
	packet(30);
	assert_int_equal(tas__ip_parse(pkt, 60, false, &info), TAS_IP_OK); /* with padding behind it */
	assert_int_equal(info.hlen, 20);
	assert_int_equal(info.len, 50);
}

static void broken_headers_are_told_apart(void **state)
{
	struct tas_ip_hdr *h = packet(30);

	(void)state;
	assert_int_equal(tas__ip_parse(pkt, 49, false, &info), TAS_IP_MALFORMED);
	assert_int_equal(tas__ip_parse(pkt, 19, false, &info), TAS_IP_MALFORMED);
	h->ttl--;
	assert_int_equal(tas__ip_parse(pkt, 50, false, &info), TAS_IP_BAD_CHECKSUM);
	assert_int_equal(tas__ip_parse(pkt, 50, true, &info), TAS_IP_OK); /* the port knows better */
	h->version_ihl = 0x65;
	assert_int_equal(again(h, 50), TAS_IP_MALFORMED);
	h->version_ihl = 0x44;
	assert_int_equal(again(h, 50), TAS_IP_MALFORMED);
	h->version_ihl = 0x4f; /* options longer than the packet */
	assert_int_equal(again(h, 50), TAS_IP_MALFORMED);
	h->version_ihl = 0x46; /* with options */
	assert_int_equal(again(h, 50), TAS_IP_OK);
	assert_int_equal(info.hlen, 24);
	h = packet(30);
	h->total_len = htons(19);
	assert_int_equal(again(h, 50), TAS_IP_MALFORMED);
}

static void fragments_and_impossible_sources_are_refused(void **state)
{
	struct tas_ip_hdr *h = packet(30);

	(void)state;
	h->frag = htons(TAS_IP_MF);
	assert_int_equal(again(h, 50), TAS_IP_FRAGMENT);
	h->frag = htons(3);
	assert_int_equal(again(h, 50), TAS_IP_FRAGMENT);
	h->frag = 0;
	memcpy(&h->src, (uint8_t[4]){ 224, 0, 0, 1 }, 4);
	assert_int_equal(again(h, 50), TAS_IP_MARTIAN);
	memcpy(&h->src, (uint8_t[4]){ 127, 0, 0, 1 }, 4);
	assert_int_equal(again(h, 50), TAS_IP_MARTIAN);
	memcpy(&h->src, (uint8_t[4]){ 255, 255, 255, 255 }, 4);
	assert_int_equal(again(h, 50), TAS_IP_MARTIAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checksum_equals_the_slow_one_for_every_length_and_alignment),
		cmocka_unit_test(checksum_of_pieces_is_that_of_the_whole),
		cmocka_unit_test(pseudo_header_is_that_of_rfc_9293),
		cmocka_unit_test(what_we_build_is_accepted),
		cmocka_unit_test(broken_headers_are_told_apart),
		cmocka_unit_test(fragments_and_impossible_sources_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
