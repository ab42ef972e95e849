/* SPDX-License-Identifier: MIT */
/* Packets in and out of a tap; a datagram socket, which keeps messages apart as well, stands for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_mbuf.h>

static struct rte_mbuf *fake_alloc(struct rte_mempool *p);
static void fake_free(struct rte_mbuf *m);
#define rte_pktmbuf_alloc fake_alloc
#define rte_pktmbuf_free fake_free
#include "service/link_tap_io.c"

enum { BUFFERS = 128, ROOM = 2048 };
static struct rte_mbuf buffer[BUFFERS];
static char memory[BUFFERS][ROOM];
static unsigned n_made, n_freed, limit, fetches, freed_at_fetch;
static struct tas_net net;
static int kernel; /* its side */

static struct rte_mbuf *fake_alloc(struct rte_mempool *p)
{
	struct rte_mbuf *m = &buffer[n_made];

	(void)p;
	if (n_made == limit)
		return NULL;
	*m = (struct rte_mbuf){ .buf_addr = memory[n_made], .buf_len = ROOM, .data_off = 128, .nb_segs = 1 };
	n_made++;
	return m;
}

static void fake_free(struct rte_mbuf *m)
{
	n_freed += m != NULL;
}

void tas__freed_fetch(void)
{
	fetches++;
	freed_at_fetch = n_freed;
}

static int setup(void **state)
{
	int fds[2];

	(void)state;
	memset(&net, 0, sizeof(net));
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds), 0);
	net.queue = 1; /* of a second thread */
	net.queue_fd[0] = -1;
	net.queue_fd[1] = fds[0];
	kernel = fds[1];
	n_made = n_freed = fetches = freed_at_fetch = 0;
	limit = BUFFERS;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	tas__tap_forget();
	assert_int_equal(n_freed, n_made);
	close(net.queue_fd[1]);
	if (kernel >= 0)
		close(kernel);
	return 0;
}

/* A frame to send, in so many pieces of len bytes. */
static struct rte_mbuf *frame(unsigned pieces, unsigned len, char c)
{
	struct rte_mbuf *first = NULL, *last = NULL;

	for (unsigned i = 0; i < pieces; i++) {
		struct rte_mbuf *m = fake_alloc(NULL);

		assert_non_null(m);
		m->data_len = (uint16_t)len;
		memset(rte_pktmbuf_mtod(m, char *), c, len);
		if (last)
			last->next = m;
		else
			first = m;
		last = m;
		first->nb_segs = (uint16_t)(i + 1);
		first->pkt_len += len;
	}
	return first;
}

static void packets_come_whole_and_in_order(void **state)
{
	struct rte_mbuf *m[8];
	char sent[ROOM];

	(void)state;
	for (int i = 0; i < 5; i++) {
		memset(sent, 'a' + i, sizeof(sent));
		assert_int_equal(send(kernel, sent, (size_t)(100 + i), 0), 100 + i);
	}
	assert_int_equal(send(kernel, sent, sizeof(sent), 0), ROOM); /* fills a buffer to its end */
	assert_int_equal(tas__tap_receive(&net, 1, m, 4), 4);
	assert_int_equal(tas__tap_receive(&net, 1, m + 4, 4), 2);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(m[i]->pkt_len, 100 + i);
		assert_int_equal(m[i]->data_len, 100 + i);
		assert_int_equal(rte_pktmbuf_mtod(m[i], char *)[99 + i], 'a' + i);
	}
	assert_int_equal(m[5]->data_len, ROOM);
	for (int i = 0; i < 6; i++)
		fake_free(m[i]);
}

static void a_look_in_vain_keeps_its_buffer_for_the_next(void **state)
{
	struct rte_mbuf *m[4];

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(tas__tap_receive(&net, 1, m, 4), 0);
	assert_int_equal(n_made, 1);
	assert_int_equal(send(kernel, "news", 4, 0), 4);
	assert_int_equal(tas__tap_receive(&net, 1, m, 4), 1);
	assert_ptr_equal(m[0], &buffer[0]);
	fake_free(m[0]);
}

static void without_buffers_packets_wait_where_they_are(void **state)
{
	struct rte_mbuf *m[4];

	(void)state;
	limit = 1;
	for (int i = 0; i < 3; i++)
		assert_int_equal(send(kernel, "news", 4, 0), 4);
	assert_int_equal(tas__tap_receive(&net, 1, m, 4), 1);
	assert_int_equal(tas__tap_receive(&net, 1, m + 1, 3), 0);
	limit = BUFFERS;
	assert_int_equal(tas__tap_receive(&net, 1, m + 1, 3), 2);
	for (int i = 0; i < 3; i++)
		fake_free(m[i]);
}

static void a_frame_goes_whole_however_many_pieces_it_is_in(void **state)
{
	struct rte_mbuf *m[3] = { frame(1, 80, 'x'), frame(33, 1900, 'y'), frame(2, 10, 'z') };
	static char got[65536];
	unsigned lost = 7;

	(void)state;
	assert_int_equal(tas__tap_send(&net, m, 3, &lost), 3);
	assert_int_equal(lost, 0);
	assert_int_equal(recv(kernel, got, sizeof(got), 0), 80);
	assert_int_equal(recv(kernel, got, sizeof(got), 0), 33 * 1900);
	assert_int_equal(got[33 * 1900 - 1], 'y');
	assert_int_equal(recv(kernel, got, sizeof(got), 0), 20);
	assert_int_equal(n_freed, 3); /* the whole of each: DPDK frees a chain by its first */
	n_freed = n_made;
}

static void one_in_more_pieces_than_a_call_takes_is_lost_alone(void **state)
{
	struct rte_mbuf *m[2] = { frame(PIECES + 1, 10, 'x'), frame(1, 10, 'y') };
	unsigned lost;
	char got[64];

	(void)state;
	assert_int_equal(tas__tap_send(&net, m, 2, &lost), 2);
	assert_int_equal(lost, 1);
	assert_int_equal(recv(kernel, got, sizeof(got), 0), 10);
	assert_int_equal(got[0], 'y');
	n_freed = n_made;
}

static void what_the_kernel_has_no_room_for_stays_with_us(void **state)
{
	struct rte_mbuf *m[BUFFERS];
	unsigned lost, sent;
	int small = 4096;

	(void)state;
	setsockopt(net.queue_fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (unsigned i = 0; i < 32; i++)
		m[i] = frame(1, 1000, 'x');
	sent = tas__tap_send(&net, m, 32, &lost);
	assert_in_range(sent, 1, 31);
	assert_int_equal(lost, 0);
	assert_int_equal(n_freed, sent);
	n_freed = n_made;
}

static void what_is_written_while_the_interface_is_down_is_lost(void **state)
{
	struct rte_mbuf *m[2] = { frame(1, 10, 'x'), frame(1, 10, 'y') };
	unsigned lost;

	(void)state;
	close(kernel);
	kernel = -1;
	assert_int_equal(tas__tap_send(&net, m, 2, &lost), 2);
	assert_int_equal(lost, 2);
	assert_int_equal(n_freed, 2);
}

static void what_readers_have_freed_is_fetched_after_every_so_many_packets(void **state)
{
	struct rte_mbuf *m[8];
	unsigned lost;

	(void)state;
	net.fetch_every = net.until_fetch = 3;
	for (unsigned i = 0; i < 8; i++)
		m[i] = frame(1, 10, 'x');
	assert_int_equal(tas__tap_send(&net, m, 4, &lost), 4);
	assert_int_equal(fetches, 1);
	assert_int_equal(freed_at_fetch, 3); /* in between, not behind all of them */
	assert_int_equal(tas__tap_send(&net, m + 4, 4, &lost), 4);
	assert_int_equal(fetches, 2);
	assert_int_equal(freed_at_fetch, 6);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(packets_come_whole_and_in_order),
		TEST(a_look_in_vain_keeps_its_buffer_for_the_next),
		TEST(without_buffers_packets_wait_where_they_are),
		TEST(a_frame_goes_whole_however_many_pieces_it_is_in),
		TEST(one_in_more_pieces_than_a_call_takes_is_lost_alone),
		TEST(what_the_kernel_has_no_room_for_stays_with_us),
		TEST(what_is_written_while_the_interface_is_down_is_lost),
		TEST(what_readers_have_freed_is_fetched_after_every_so_many_packets),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
