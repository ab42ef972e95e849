/* SPDX-License-Identifier: MIT */
/* Packets that a full port does not take, and how many a round takes of a port that has many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

static uint16_t fake_tx(uint16_t port, uint16_t queue, struct rte_mbuf **m, uint16_t n);
static uint16_t fake_rx(uint16_t port, uint16_t queue, struct rte_mbuf **m, uint16_t n);
static struct rte_mbuf *fake_copy(const struct rte_mbuf *m, struct rte_mempool *p, uint32_t off, uint32_t len);
static void fake_free(struct rte_mbuf *m);
#define rte_eth_tx_burst fake_tx
#define rte_eth_rx_burst fake_rx
#define rte_pktmbuf_copy fake_copy
#define rte_pktmbuf_free fake_free
#include "service/net.c"

#include "one_thread.h"

struct tas_config tas_config;
struct tas_core tas_cores[TAS_CORES_MAX];
struct tas_routes tas__routes;
const struct tas_arp_ops tas__net_arp_ops;
static struct tas_net net;
static const struct tas_link_driver driver;
static struct tas_stack stack;

enum { MS = 1000000, PACKETS = 512 };
static struct rte_mbuf packet[PACKETS], copies[PACKETS];
static struct rte_mbuf *taken[PACKETS];
static unsigned n_taken, room, freed, n_copies;

/* ---- what waits in the port ---- */
static unsigned waiting, waiting_len, n_inputs, n_peeks, n_placed;
static bool has_place;

static uint16_t arrive(struct rte_mbuf **m, unsigned n)
{
	uint16_t i;

	for (i = 0; i < n && waiting; i++, waiting--) {
		m[i] = &packet[i];
		m[i]->pkt_len = waiting_len;
	}
	return i;
}

static uint16_t fake_tx(uint16_t port, uint16_t queue, struct rte_mbuf **m, uint16_t n)
{
	uint16_t i;

	(void)port, (void)queue;
	for (i = 0; i < n && room; i++, room--)
		taken[n_taken++] = m[i];
	return i;
}

static uint16_t fake_rx(uint16_t port, uint16_t queue, struct rte_mbuf **m, uint16_t n)
{
	(void)port, (void)queue;
	return arrive(m, n);
}

static struct rte_mbuf *fake_copy(const struct rte_mbuf *m, struct rte_mempool *p, uint32_t off, uint32_t len)
{
	(void)p, (void)off, (void)len;
	copies[n_copies] = *m;
	copies[n_copies].next = NULL;
	copies[n_copies].nb_segs = 1;
	return &copies[n_copies++];
}

static void fake_free(struct rte_mbuf *m)
{
	(void)m;
	freed++;
}

/* ---- what net.c calls besides ---- */
unsigned tas_n_cores = 1;
_Thread_local struct tas_core *tas_this;

unsigned tas__threads_running(void)
{
	return 1;
}

void tas__steer(struct tas_core *c, struct rte_mbuf **m, unsigned n)
{
	(void)c, (void)m, (void)n;
}

int tas__routes_init(struct tas_routes *r, const struct tas_config *c, unsigned *bad)
{
	(void)r, (void)c, (void)bad;
	return 0;
}

struct tas_arp *tas__arp_new(uint64_t timeout, uint64_t max, const struct tas_arp_ops *ops, void *ctx)
{
	(void)timeout, (void)max, (void)ops, (void)ctx;
	return NULL;
}

void tas__arp_free(struct tas_arp *a)
{
	(void)a;
}

uint64_t tas__arp_deadline(const struct tas_arp *a)
{
	(void)a;
	return UINT64_MAX;
}

void tas__arp_timer(struct tas_arp *a, uint64_t now)
{
	(void)a, (void)now;
}

void tas__net_announce(struct tas_core *c)
{
	(void)c;
}

void tas__net_input(struct tas_core *c, struct rte_mbuf *m)
{
	(void)c, (void)m;
	n_inputs++;
}

static unsigned own_receive(struct tas_net *n, unsigned queue, struct rte_mbuf **m, unsigned max)
{
	(void)n, (void)queue;
	return arrive(m, max);
}

static int own_peek(const struct tas_net *n, uint8_t *head)
{
	(void)n, (void)head;
	n_peeks++;
	return waiting ? (int)waiting_len : -1;
}

static int own_scatter(const struct tas_net *n, struct iovec *to, unsigned pieces)
{
	(void)n, (void)to, (void)pieces;
	waiting--;
	return (int)waiting_len;
}

/* The first of `room` goes, the second never will. */
static unsigned own_send(struct tas_net *n, struct rte_mbuf **m, unsigned count, unsigned *lost)
{
	unsigned i;

	(void)n;
	for (i = 0; i < count && room; i++, room--)
		taken[n_taken++] = m[i];
	*lost = i > 1;
	return i;
}

static const struct tas_own_queue shows_queue = { .receive = own_receive, .peek = own_peek, .scatter = own_scatter, .send = own_send },
				  blind_queue = { .receive = own_receive, .send = own_send };
static const struct tas_link_driver packet_socket = { .own = &shows_queue }, tap = { .own = &blind_queue };

unsigned tas__net_foresee(struct tas_core *c, const uint8_t head[TAS_HEAD], unsigned len, struct iovec *to)
{
	(void)c, (void)head, (void)to;
	assert_int_equal(len, waiting_len);
	return has_place ? 2 : 0;
}

void tas_core_placed(struct tas_core *c)
{
	(void)c;
	n_placed++;
}

void tas_warn(const char *fmt, ...)
{
	(void)fmt;
}

static int setup(void **state)
{
	(void)state;
	memset(&net, 0, sizeof(net));
	memset(tas_cores, 0, sizeof(tas_cores));
	net.up = net.lends = true;
	net.carrier = true;
	net.driver = &driver;
	tas_cores[0].net = &net;
	tas_cores[0].now = 1000ull * MS;
	for (unsigned i = 0; i < PACKETS; i++)
		packet[i] = (struct rte_mbuf){ .pkt_len = 100 + i, .nb_segs = 1 };
	n_taken = freed = n_copies = room = 0;
	n_inputs = n_peeks = n_placed = 0;
	waiting = 200;
	waiting_len = 60000;
	net.rx_burst = TAS_RX_BURST;
	memset(&stack, 0, sizeof(stack));
	tas_cores[0].stack = &stack;
	return 0;
}

static struct tas_core *const core = &tas_cores[0];

static uint64_t counted(enum tas_counter n)
{
	return core->counters[n];
}

static void what_a_full_port_does_not_take_goes_later_in_order(void **state)
{
	(void)state;
	room = 3;
	for (unsigned i = 0; i < 10; i++)
		tas__net_queue(core, &packet[i]);
	tas__net_flush(core);
	assert_true(tas_net_full(core));
	assert_int_equal(n_taken, 3);
	room = 2;
	tas__net_flush(core);
	assert_true(tas_net_full(core));
	tas__net_queue(core, &packet[10]); /* an answer to somebody: behind the others */
	room = 100;
	tas__net_flush(core);
	assert_false(tas_net_full(core));
	assert_int_equal(n_taken, 11);
	for (unsigned i = 0; i < 11; i++)
		assert_ptr_equal(taken[i], &packet[i]);
	assert_int_equal(freed, 0);
	assert_int_equal(counted(TAS_CTR_tx_packets), 11);
	assert_int_equal(counted(TAS_CTR_tx_bytes), 11 * 100 + 55);
	assert_int_equal(counted(TAS_CTR_tx_dropped), 0);
}

static void what_lies_in_an_applications_memory_is_copied_when_it_has_to_wait(void **state)
{
	struct rte_mbuf *lent = &packet[1];

	(void)state;
	lent->next = &packet[2];
	lent->nb_segs = 2;
	tas__net_queue(core, &packet[0]);
	tas__net_queue(core, lent); /* at once, and does not fit */
	assert_int_equal(n_copies, 1);
	assert_int_equal(freed, 1);
	tas__net_flush(core);
	assert_int_equal(n_copies, 1); /* once */
	room = 5;
	tas__net_flush(core);
	assert_ptr_equal(taken[0], &packet[0]);
	assert_ptr_equal(taken[1], &copies[0]);
	assert_int_equal(counted(TAS_CTR_tx_bytes), 100 + 101);
}

static void a_port_that_takes_nothing_for_long_is_stuck_and_loses_packets(void **state)
{
	(void)state;
	tas__net_queue(core, &packet[0]);
	tas__net_flush(core);
	core->now += STUCK_NS - 1;
	tas__net_flush(core);
	assert_true(tas_net_full(core));
	core->now++;
	tas__net_flush(core);
	assert_false(tas_net_full(core)); /* nobody waits for it */
	assert_int_equal(freed, 1);
	assert_int_equal(counted(TAS_CTR_tx_dropped), 1);
	tas__net_queue(core, &packet[1]);
	tas__net_flush(core); /* still stuck: no waiting again */
	assert_false(tas_net_full(core));
	assert_int_equal(counted(TAS_CTR_tx_dropped), 2);
	room = 1;
	for (unsigned i = 2; i < 4; i++)
		tas__net_queue(core, &packet[i]);
	tas__net_flush(core); /* it moves: another chance */
	assert_true(tas_net_full(core));
	assert_int_equal(counted(TAS_CTR_tx_dropped), 2);
}

static void without_its_other_end_a_port_keeps_nothing(void **state)
{
	(void)state;
	tas__net_queue(core, &packet[0]);
	tas__net_flush(core);
	assert_true(tas_net_full(core));
	net.carrier = false;
	tas__net_flush(core);
	assert_false(tas_net_full(core));
	assert_int_equal(freed, 1);
}

static void there_is_an_end_to_what_waits(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TAS_TX_BURST + 5; i++)
		tas__net_queue(core, &packet[i]);
	assert_int_equal(net.n_tx, TAS_TX_BURST);
	assert_int_equal(freed, 5);
	assert_int_equal(counted(TAS_CTR_tx_dropped), 5);
	room = PACKETS;
	tas__net_flush(core);
	assert_int_equal(n_taken, TAS_TX_BURST);
	assert_ptr_equal(taken[TAS_TX_BURST - 1], &packet[TAS_TX_BURST - 1]); /* the newest were dropped */
}

static void a_round_of_whole_segments_ends_soon_unless_many_are_owed_an_answer(void **state)
{
	unsigned one, many;

	(void)state;
	net.vnet = true;
	stack.n_out = 1;
	tas__net_receive(core); /* what comes is seen: the burst was for small ones */
	one = tas__net_receive(core);
	assert_int_equal(one, 8); /* 4 at a time, until it is 256 KiB */
	stack.n_out = 3;
	many = tas__net_receive(core);
	assert_in_range(many, 13, 28); /* 768 KiB and a burst */
	waiting = 200;
	stack.n_out = 1000;
	many = tas__net_receive(core);
	assert_in_range(many, 18, 33); /* a mebibyte and a burst */
	net.vnet = false; /* frames of 9,000 bytes are not whole segments */
	stack.n_out = 8;
	tas__net_receive(core);
	assert_int_equal(tas__net_receive(core), one);
}

static void a_round_of_small_packets_is_six_bursts(void **state)
{
	(void)state;
	net.vnet = true;
	stack.n_out = 64;
	waiting = 1000;
	waiting_len = 100;
	assert_int_equal(tas__net_receive(core), RX_BURSTS * TAS_RX_BURST);
	assert_int_equal(n_peeks, 0);
}

static void a_packet_socket_is_asked_first_where_whole_segments_come(void **state)
{
	(void)state;
	net.vnet = true;
	net.driver = &packet_socket;
	has_place = true;
	waiting = 32 + 10;
	tas__net_receive(core); /* all at once, for nobody knew */
	assert_int_equal(n_inputs, 32);
	assert_int_equal(n_placed, 0);
	tas__net_receive(core);
	assert_int_equal(n_inputs, 32);
	assert_int_equal(n_placed, 8);
	has_place = false; /* out of order, for one */
	tas__net_receive(core);
	assert_int_equal(n_inputs, 34);
	assert_int_equal(counted(TAS_CTR_rx_packets), 42);
	assert_int_equal(counted(TAS_CTR_rx_bytes), 42 * 60000);
	waiting = 3; /* silence does not end it, small packets do */
	has_place = true;
	tas__net_receive(core);
	assert_int_equal(n_placed, 11);
	waiting = 40;
	waiting_len = 100;
	tas__net_receive(core);
	assert_int_equal(n_inputs, 34 + 40);
	assert_int_equal(n_peeks, 8 + 3 + 4 + 4);
}

static void what_an_own_queue_loses_is_counted_and_what_it_has_no_room_for_waits(void **state)
{
	(void)state;
	net.driver = &tap;
	room = 3;
	for (unsigned i = 0; i < 5; i++)
		tas__net_queue(core, &packet[i]);
	tas__net_flush(core);
	assert_int_equal(counted(TAS_CTR_tx_packets), 2);
	assert_int_equal(counted(TAS_CTR_tx_dropped), 1);
	assert_int_equal(counted(TAS_CTR_tx_bytes), 100 + 101 + 102);
	assert_true(tas_net_full(core));
	room = 1;
	tas__net_flush(core);
	room = 1;
	tas__net_flush(core);
	assert_false(tas_net_full(core));
	for (unsigned i = 0; i < 5; i++)
		assert_ptr_equal(taken[i], &packet[i]);
}

static void a_tap_cannot_be_asked_first(void **state)
{
	(void)state;
	net.vnet = true;
	net.driver = &tap;
	has_place = true;
	tas__net_receive(core);
	tas__net_receive(core);
	assert_int_equal(n_inputs, 32 + 8);
	assert_int_equal(n_peeks + n_placed, 0);
}

#define TEST(f) cmocka_unit_test_setup(f, setup)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_a_full_port_does_not_take_goes_later_in_order),
		TEST(what_lies_in_an_applications_memory_is_copied_when_it_has_to_wait),
		TEST(a_port_that_takes_nothing_for_long_is_stuck_and_loses_packets),
		TEST(without_its_other_end_a_port_keeps_nothing),
		TEST(there_is_an_end_to_what_waits),
		TEST(a_round_of_whole_segments_ends_soon_unless_many_are_owed_an_answer),
		TEST(a_round_of_small_packets_is_six_bursts),
		TEST(a_packet_socket_is_asked_first_where_whole_segments_come),
		TEST(what_an_own_queue_loses_is_counted_and_what_it_has_no_room_for_waits),
		TEST(a_tap_cannot_be_asked_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
