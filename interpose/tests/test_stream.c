/* SPDX-License-Identifier: MIT */
/* The client's side of the counters, on a block in this process's memory: the test plays the service. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "abi/tas_epoll.h"
#include "sockets/sock.h"

enum { RX_AT = 1 << 16, TX_AT = 2 << 16 };

static struct tas_session *ss;
static struct tas_block *b;
static uint8_t *mem;
static struct tas_obj *o;

static void *anonymous(size_t n)
{
	void *p = sys_mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1);

	assert_non_null(p);
	return p;
}

static int setup(void **state)
{
	(void)state;
	ss = anonymous(sizeof *ss);
	ss->r = anonymous(sizeof *ss->r);
	ss->size = sizeof *ss->r;
	ss->r->h.poll_us = 20;
	atomic_store(&ss->r->alive, 1);
	atomic_store(&ss->refs, 2);
	atomic_store(&ss->ctl, -1);
	atomic_store(&ss->door, -1);
	mem = anonymous(TAS_CHUNK_SIZE);
	atomic_store(&ss->chunk[0], mem);
	b = (struct tas_block *)(mem + 4096);
	o = tas__obj_new(TAS_OBJ_CONN);
	o->ss = ss;
	o->b = b;
	o->id = 77;
	o->gen = 5;
	atomic_store(&b->s.gen, 5);
	atomic_store(&b->s.state, TAS_S_ESTABLISHED);
	atomic_store(&b->c.nonblock, O_NONBLOCK);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sys_munmap(mem, TAS_CHUNK_SIZE);
	sys_munmap(ss->r, ss->size);
	sys_munmap(ss, sizeof *ss);
	return 0;
}

static void offer(struct tas_extent *e, uint64_t base, uint32_t at, uint32_t len, uint32_t gen)
{
	atomic_store(&e->base, base);
	atomic_store(&e->off, TAS_OFF(0, at));
	atomic_store(&e->len, len);
	atomic_store(&e->gen, gen);
}

static ssize_t send_n(size_t n)
{
	static uint8_t buf[1 << 16];
	struct iovec v = {buf, n};
	struct tas_source src = {.iov = &v, .n_iov = 1, .in_fd = -1};

	for (size_t i = 0; i < n; i++)
		buf[i] = (uint8_t)(i * 7);
	return tas__send(o, -1, &src, n, MSG_NOSIGNAL);
}

static void a_writer_answers_an_offer_and_hints(void **state)
{
	uint32_t id;

	(void)state;
	assert_int_equal(send_n(10), -EAGAIN); /* no extent yet */
	assert_true(atomic_load(&b->a.tx_want) > 0);
	offer(&b->x.tx[0], 0, TX_AT, 4096, 3);
	assert_int_equal(send_n(10), 10);
	assert_int_equal(atomic_load(&b->a.tx_base[0].gen), 3);
	assert_int_equal(atomic_load(&b->a.tx_base[0].base), 0);
	assert_int_equal(atomic_load(&b->a.tx_written), 10);
	assert_int_equal(atomic_load(&b->a.tx_want), 0);
	assert_int_equal(mem[TX_AT + 3], 21);
	assert_int_equal(tas_bitmap_drain(&ss->r->core[0].dirty, &id, 1), 1);
	assert_int_equal(id, 77);
}

static void a_full_ring_takes_what_fits_and_asks_for_more(void **state)
{
	uint32_t len;

	(void)state;
	offer(&b->x.tx[0], 0, TX_AT, 4096, 3);
	assert_int_equal(send_n(5000), 4096);
	assert_int_equal(send_n(1), -EAGAIN);
	assert_int_equal(atomic_load(&b->a.tx_want), 32768);
	assert_int_equal(tas__tx_room(o, &len), 0);
	atomic_store(&b->s.tx_acked, 100);
	assert_int_equal(tas__tx_room(o, &len), 100);
	assert_int_equal(send_n(500), 100); /* wraps: the ring's first bytes are free */
	assert_int_equal(mem[TX_AT + 3], 21);
}

static void a_larger_extent_begins_at_what_is_written(void **state)
{
	(void)state;
	offer(&b->x.tx[0], 0, TX_AT, 4096, 3);
	send_n(4096);
	offer(&b->x.tx[1], 0, TX_AT + 8192, 8192, 4);
	assert_int_equal(send_n(8000), 8000);
	assert_int_equal(atomic_load(&b->a.tx_base[1].base), 4096);
	assert_int_equal(atomic_load(&b->a.tx_base[1].gen), 4);
	assert_int_equal(mem[TX_AT + 8192 + 3], 21);
	assert_int_equal(atomic_load(&b->a.tx_written), 12096);
}

/* The service gave a ring in the place of both (all that was written has gone), and offers a larger one before anything is in it. */
static void of_two_extents_that_begin_at_one_place_the_newer_is_in_use(void **state)
{
	uint32_t len;

	(void)state;
	atomic_store(&b->a.tx_written, 1000);
	atomic_store(&b->s.tx_acked, 1000);
	offer(&b->x.tx[0], 0, TX_AT, 4096, 7);
	atomic_store(&b->a.tx_base[0].base, 1000);
	atomic_store(&b->a.tx_base[0].gen, 7);
	offer(&b->x.tx[1], 0, TX_AT + 8192, 8192, 8);
	memset(mem + TX_AT, 0, 4096);
	assert_int_equal(send_n(10), 10);
	assert_int_equal(send_n(10), 10);
	assert_int_equal(mem[TX_AT + 8192 + 3], 21);
	assert_int_equal(mem[TX_AT + 8192 + 13], 21);
	assert_int_equal(mem[TX_AT + 13], 0);
	assert_int_equal(tas__tx_room(o, &len), 8192 - 20);
}

static void an_idle_writer_begins_again_at_the_ring_start(void **state)
{
	(void)state;
	offer(&b->x.tx[0], 0, TX_AT, 4096, 3);
	send_n(1000);
	atomic_store(&b->s.tx_acked, 1000);
	memset(mem + TX_AT, 0, 4096);
	send_n(10);
	assert_int_equal(atomic_load(&b->a.tx_base[0].base), 1000);
	assert_int_equal(atomic_load(&b->a.tx_base[0].epoch), 1);
	assert_int_equal(mem[TX_AT + 3], 21);
	send_n(10); /* not idle: goes on */
	assert_int_equal(atomic_load(&b->a.tx_base[0].epoch), 1);
	assert_int_equal(mem[TX_AT + 13], 21);
}

static void a_reader_crosses_from_one_extent_to_the_next(void **state)
{
	char buf[64] = "";
	struct msghdr m = {.msg_iov = &(struct iovec){buf, sizeof buf}, .msg_iovlen = 1};
	int fd = 900;

	(void)state;
	assert_int_equal(tas__adopt(fd, TAS_FD_TAS, o), 0);
	tas__trusted = true;
	memcpy(mem + RX_AT + 4090, "abcdef", 6);
	memcpy(mem + RX_AT + 8192, "ghij", 4);
	offer(&b->x.rx[0], 0, RX_AT, 4096, 1);
	offer(&b->x.rx[1], 4096, RX_AT + 8192, 8192, 2);
	atomic_store(&b->a.rx_consumed, 4090);
	atomic_store(&b->s.rx_delivered, 4100);
	assert_int_equal(tas_recvmsg(fd, &m, MSG_PEEK), 10);
	assert_int_equal(atomic_load(&b->a.rx_consumed), 4090);
	assert_int_equal(tas_recvmsg(fd, &m, 0), 10);
	assert_string_equal(buf, "abcdefghij");
	assert_int_equal(atomic_load(&b->a.rx_consumed), 4100);
	assert_int_equal(tas_recvmsg(fd, &m, 0), -EAGAIN);
	atomic_fetch_or(&b->s.flags, TAS_F_RX_EOF);
	assert_int_equal(tas_recvmsg(fd, &m, 0), 0);
	tas__set_state(fd, TAS_FD_UNKNOWN);
	atomic_store(&tas__entry(fd)->p, NULL);
}

/* The peer's block, in the same memory; the test plays the peer. */
static struct tas_block *direct_peer(uint32_t at, uint32_t len)
{
	struct tas_block *p = (struct tas_block *)(mem + 8192);

	atomic_store(&b->s.direct, TAS_OFF(0, 8192));
	atomic_store(&p->s.direct, TAS_OFF(0, 4096));
	offer(&p->x.rx[0], 0, at, len, 1);
	return p;
}

static void a_direct_writer_puts_bytes_into_the_peers_ring(void **state)
{
	struct tas_block *p = direct_peer(RX_AT, 4096);
	uint32_t id, len;

	(void)state;
	assert_int_equal(send_n(10), 10);
	assert_int_equal(mem[RX_AT + 3], 21);
	assert_int_equal(atomic_load(&p->s.rx_delivered), 10);
	assert_int_equal(atomic_load(&b->a.tx_written), 10);
	assert_int_equal(atomic_load(&p->s.ev_in), 1);
	assert_int_equal(tas_bitmap_drain(&ss->r->core[0].dirty, &id, 1), 0); /* the service need not know */
	assert_int_equal(send_n(5000), 4086);
	assert_int_equal(send_n(1), -EAGAIN);
	assert_int_equal(atomic_load(&b->c.want_room), 1);
	assert_int_equal(tas_bitmap_drain(&ss->r->core[0].dirty, &id, 1), 1); /* for a larger ring */
	atomic_store(&p->a.rx_consumed, 100);
	assert_int_equal(tas__tx_room(o, &len), 100);
	assert_int_equal(send_n(500), 100);
	assert_int_equal(mem[RX_AT + 3], 21);
	atomic_store(&p->a.rx_consumed, 4196); /* all of it: the ring begins anew */
	memset(mem + RX_AT, 0, 4096);
	assert_int_equal(send_n(10), 10);
	assert_int_equal(atomic_load(&p->x.rx[0].base), 4196);
	assert_int_equal(mem[RX_AT + 3], 21);
}

static void a_direct_reader_wakes_a_writer_that_waits_for_room(void **state)
{
	char buf[4096];
	struct msghdr m = {.msg_iov = &(struct iovec){buf, 1000}, .msg_iovlen = 1};
	struct tas_block *p = direct_peer(RX_AT, 4096);
	int fd = 901;

	(void)state;
	assert_int_equal(tas__adopt(fd, TAS_FD_TAS, o), 0);
	tas__trusted = true;
	offer(&b->x.rx[0], 0, TX_AT, 4096, 1);
	atomic_store(&b->s.rx_delivered, 4096);
	atomic_store(&p->c.want_room, 1);
	assert_int_equal(tas_recvmsg(fd, &m, 0), 1000);
	assert_int_equal(atomic_load(&p->s.ev_out), 0); /* a third is not free yet */
	assert_int_equal(tas_recvmsg(fd, &m, 0), 1000);
	assert_int_equal(atomic_load(&p->s.ev_out), 1);
	assert_int_equal(atomic_load(&p->c.want_room), 0);
	assert_int_equal(tas_recvmsg(fd, &m, 0), 1000); /* nobody waits */
	assert_int_equal(atomic_load(&p->s.ev_out), 1);
	tas__set_state(fd, TAS_FD_UNKNOWN);
	atomic_store(&tas__entry(fd)->p, NULL);
}

static void a_wild_peer_leaves_no_room_and_no_way_out_of_the_memory(void **state)
{
	static const struct {
		uint64_t base, consumed;
		tas_off_t off;
		uint32_t len;
	} wild[] = {
		{0, 301, TAS_OFF(0, RX_AT), 4096}, /* more than was written */
		{0, UINT64_MAX, TAS_OFF(0, RX_AT), 4096},
		{301, 0, TAS_OFF(0, RX_AT), 4096}, /* begins in the future */
		{0, 0, TAS_OFF(0, RX_AT), 4095},
		{0, 0, TAS_OFF(0, RX_AT), 0},
		{0, 0, TAS_OFF(0, TAS_CHUNK_SIZE - 8), 4096},
		{0, 0, TAS_OFF(3, RX_AT), 4096}, /* no such chunk */
		{0, 0, UINT64_MAX, 4096},
		{0, 0, TAS_OFF(0, TAS_CHUNK_SIZE), 4096},
		{0, 0, TAS_OFF(TAS_CHUNK_OF(5, 1), RX_AT), 4096}, /* of another memory */
		{0, 0, TAS_OFF(0, RX_AT), 1u << 31},
	};
	struct tas_block *p;

	(void)state;
	for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
		p = direct_peer(RX_AT, 4096);
		atomic_store(&b->a.tx_written, 300);
		atomic_store(&p->a.rx_consumed, wild[i].consumed);
		offer(&p->x.rx[0], wild[i].base, 0, wild[i].len, 1);
		atomic_store(&p->x.rx[0].off, wild[i].off);
		atomic_store(&o->consumed, 0);
		if (send_n(100) >= 0) { /* a length that is one: it goes no further than the chunk */
			assert_int_equal(wild[i].len, 1u << 31);
			continue;
		}
		assert_int_equal(atomic_load(&b->a.tx_written), 300);
		assert_int_equal(atomic_load(&b->c.lock_tx), 0);
	}
}

static struct tas_bell *hung_bell(uint64_t key, uint32_t sub)
{
	struct tas_bell *bell = (struct tas_bell *)(mem + 65536);

	atomic_store(&b->c.subs[0], sub);
	atomic_store(&b->c.bell_sub, sub);
	atomic_store(&b->c.bell, TAS_OFF(0, 65536));
	atomic_store(&bell->key, key);
	atomic_store(&bell->sub, sub);
	return bell;
}

static bool rang(int efd)
{
	uint64_t n;

	return sys_read(efd, &n, sizeof n) == sizeof n;
}

static void who_sleeps_behind_a_bell_is_rung_or_the_service_hears_of_it(void **state)
{
	uint32_t sub = (uint32_t)TAS_EP_SLOT << 16 | 3;
	struct tas_bell *bell = hung_bell(7, sub);
	struct tas_bell_known *known = &ss->bell[7 % TAS_BELLS_KNOWN];
	int efd = (int)sys2(SYS_eventfd2, 0, O_NONBLOCK | O_CLOEXEC);
	tas_off_t learn = 0;

	(void)state;
	assert_true(efd >= 0);
	/* nobody sleeps: a mark is enough */
	assert_false(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	assert_int_equal(atomic_load(&bell->word[(70000 & (TAS_EP_BUCKETS - 1)) / 64]), 1ull << 70000 % 64);
	assert_true(atomic_load(&bell->top));
	assert_int_equal(learn, 0);
	/* somebody sleeps whom only the service can wake */
	atomic_store(&bell->sleeping, TAS_BELL_SERVICE);
	assert_true(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	assert_int_equal(atomic_load(&bell->sleeping), TAS_BELL_SERVICE);
	assert_int_equal(learn, 0);
	/* its eventfd is not known: the sleeper stays for whoever else marks */
	atomic_store(&bell->sleeping, TAS_BELL_OPEN);
	assert_true(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	assert_int_equal(atomic_load(&bell->sleeping), TAS_BELL_OPEN);
	assert_int_equal(learn, TAS_OFF(0, 65536));
	/* refused: not asked for again */
	learn = 0;
	atomic_store(&known->refused, true);
	atomic_store(&known->key, 7);
	assert_true(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	assert_int_equal(learn, 0);
	/* known */
	atomic_store(&known->refused, false);
	atomic_store(&known->fd, efd + 1);
	assert_false(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	assert_true(rang(efd));
	assert_int_equal(atomic_load(&bell->sleeping), TAS_BELL_AWAKE);
	assert_false(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	assert_false(rang(efd));
	atomic_store(&bell->sleeping, TAS_BELL_SERVICE);
	assert_true(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	assert_false(rang(efd));
	/* another's now, or nobody's */
	atomic_store(&bell->sleeping, TAS_BELL_OPEN);
	atomic_store(&bell->key, 7 + TAS_BELLS_KNOWN);
	assert_true(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	atomic_store(&bell->key, 0);
	assert_true(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	atomic_store(&bell->key, 7);
	atomic_store(&bell->sub, sub + 1);
	assert_true(tas__tell_subscribers(ss, b, 70000, bell, &learn));
	assert_false(rang(efd));
	sys_close(efd);
}

static void errors_are_pending_until_they_are_taken(void **state)
{
	(void)state;
	atomic_store(&b->s.error, 1u << 16 | ECONNRESET);
	assert_int_equal(tas__obj_error(o, false), ECONNRESET);
	assert_int_equal(tas__obj_error(o, true), ECONNRESET);
	assert_int_equal(tas__obj_error(o, true), 0);
	atomic_store(&b->s.error, 2u << 16 | ETIMEDOUT);
	assert_int_equal(tas__obj_error(o, true), ETIMEDOUT);
	atomic_store(&b->s.flags, TAS_F_RESET);
	assert_int_equal(tas__obj_ready(o) & (EPOLLHUP | EPOLLIN | EPOLLOUT | EPOLLERR), EPOLLHUP | EPOLLIN | EPOLLOUT);
	assert_int_equal(send_n(1), -EPIPE);
}

static void a_lock_is_refused_to_the_handler_of_its_owner(void **state)
{
	(void)state;
	assert_int_equal(tas__lock(ss, &b->c.lock_rx, -1), 0);
	assert_int_equal(tas__lock(ss, &b->c.lock_rx, -1), -EDEADLK);
	assert_int_equal(tas__lock(ss, &b->c.lock_tx, -1), 0);
	tas__unlock(&b->c.lock_rx);
	assert_int_equal(tas__lock(ss, &b->c.lock_tx, -1), -EDEADLK);
	tas__unlock(&b->c.lock_tx);
	assert_int_equal(atomic_load(&b->c.lock_rx) | atomic_load(&b->c.lock_tx), 0);
	atomic_store(&b->c.lock_rx, 9u << 20 | 1); /* another process's */
	assert_int_equal(tas__lock(ss, &b->c.lock_rx, 1000000), -ETIMEDOUT);
}

static void v4_mapped_addresses_are_ipv4_to_the_service(void **state)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = 7}, back;
	struct tas_addr t;
	socklen_t len = sizeof back;

	(void)state;
	a.sin6_addr.s6_addr[10] = a.sin6_addr.s6_addr[11] = 0xff;
	a.sin6_addr.s6_addr[15] = 9;
	assert_int_equal(tas__addr_in((void *)&a, sizeof a, &t), 0);
	assert_int_equal(t.family, AF_INET);
	assert_int_equal(t.ip[3], 9);
	assert_int_equal(tas__addr_out(&t, AF_INET6, (void *)&back, &len), 0);
	assert_memory_equal(&a, &back, sizeof a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_writer_answers_an_offer_and_hints, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_ring_takes_what_fits_and_asks_for_more, setup, teardown),
		cmocka_unit_test_setup_teardown(a_larger_extent_begins_at_what_is_written, setup, teardown),
		cmocka_unit_test_setup_teardown(of_two_extents_that_begin_at_one_place_the_newer_is_in_use, setup, teardown),
		cmocka_unit_test_setup_teardown(an_idle_writer_begins_again_at_the_ring_start, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reader_crosses_from_one_extent_to_the_next, setup, teardown),
		cmocka_unit_test_setup_teardown(a_direct_writer_puts_bytes_into_the_peers_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(a_direct_reader_wakes_a_writer_that_waits_for_room, setup, teardown),
		cmocka_unit_test_setup_teardown(a_wild_peer_leaves_no_room_and_no_way_out_of_the_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(who_sleeps_behind_a_bell_is_rung_or_the_service_hears_of_it, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_are_pending_until_they_are_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lock_is_refused_to_the_handler_of_its_owner, setup, teardown),
		cmocka_unit_test_setup_teardown(v4_mapped_addresses_are_ipv4_to_the_service, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
