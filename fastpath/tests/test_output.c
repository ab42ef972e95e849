/* SPDX-License-Identifier: MIT */
/* Turns of sockets that have something to send, and a port that is full. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fast/output.c"

enum { SOCKS = 40 };
static struct tas_stack stack;
static struct tas_core core = { .stack = &stack };
static struct tas_sock sock[SOCKS];
static unsigned left[SOCKS];  /* segments each wants to send */
static unsigned sent[SOCKS], room, order[256], n_sent;

static unsigned send_some(struct tas_sock *s, unsigned budget)
{
	unsigned i = (unsigned)(s - sock), n = 0;

	for (; n < budget && left[i] && (s->base.kind != TAS_K_LINK || room); n++, left[i]--, sent[i]++) {
		room -= s->base.kind == TAS_K_LINK;
		order[n_sent++ % 256] = i;
	}
	if (left[i])
		tas__output_soon(s);
	return n;
}

unsigned tas__wire_output(struct tas_sock *s, unsigned budget)
{
	assert_true(room > 0); /* not asked while the port is full */
	return send_some(s, budget);
}

unsigned tas__local_output(struct tas_sock *s)
{
	return send_some(s, 1);
}

bool tas_net_full(struct tas_core *c)
{
	assert_ptr_equal(c, &core);
	return !room;
}

static int setup(void **state)
{
	(void)state;
	memset(&stack, 0, sizeof(stack));
	memset(sock, 0, sizeof(sock));
	memset(left, 0, sizeof(left));
	memset(sent, 0, sizeof(sent));
	n_sent = 0;
	stack.out_tail = &stack.out_head;
	stack.held_tail = &stack.held_head;
	for (unsigned i = 0; i < SOCKS; i++) {
		sock[i].core = &core;
		sock[i].base.kind = TAS_K_LINK;
	}
	room = UINT32_MAX;
	return 0;
}

static void want(unsigned i, unsigned n)
{
	left[i] = n;
	tas__output_soon(&sock[i]);
}

static void sockets_take_turns(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		want(i, 100);
	assert_int_equal(tas__output_run(&core), 2 * (PER_SOCKET + 1));
	assert_int_equal(sent[2], 0);
	tas__output_run(&core);
	assert_int_equal(sent[2], PER_SOCKET);
	while (tas__output_run(&core))
		;
	assert_true(sent[0] == 100 && sent[1] == 100 && sent[2] == 100);
	assert_int_equal(stack.n_out, 0);
}

static void a_full_port_stops_those_who_send_there_and_nobody_else(void **state)
{
	(void)state;
	sock[1].base.kind = sock[3].base.kind = TAS_K_LOCAL;
	for (unsigned i = 0; i < 5; i++)
		want(i, 2);
	room = 3; /* 0 and a half of 2 */
	tas__output_run(&core);
	tas__output_run(&core);
	assert_true(sent[0] == 2 && sent[1] == 2 && sent[2] == 1 && sent[3] == 2 && sent[4] == 0);
	assert_int_equal(tas__output_run(&core), 0); /* nothing to do: the loop may rest */
	assert_null(stack.out_head);
	want(1, 1);
	tas__output_run(&core);
	assert_int_equal(sent[1], 3);
	room = 10;
	assert_true(tas__output_run(&core) > 0);
	assert_true(sent[2] == 2 && sent[4] == 2);
	assert_null(stack.held_head);
}

static void who_waited_for_the_port_goes_first(void **state)
{
	unsigned first;

	(void)state;
	for (unsigned i = 0; i < SOCKS; i++)
		want(i, 1);
	room = 10;
	tas__output_run(&core);
	first = n_sent;
	assert_int_equal(first, 10);
	want(3, 1); /* has sent already: behind the others */
	room = 100;
	while (tas__output_run(&core))
		;
	for (unsigned i = 0; i < SOCKS; i++)
		assert_int_equal(order[i], i);
	assert_int_equal(order[SOCKS], 3);
}

static void who_ends_while_it_waits_is_forgotten(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		want(i, 1);
	room = 0;
	tas__output_run(&core);
	tas__output_forget(&sock[0]);
	tas__output_forget(&sock[3]); /* the last: its place is where the next one stands */
	tas__output_forget(&sock[3]);
	want(2, 1); /* waits already */
	room = 1;
	want(5, 1);
	while (tas__output_run(&core))
		room += !room && stack.held_head;
	assert_true(!sent[0] && sent[1] == 1 && sent[2] == 1 && !sent[3] && sent[5] == 1);
	assert_int_equal(stack.n_out, 0);
	room = 1;
	assert_int_equal(tas__output_run(&core), 0);
}

static void a_port_that_fills_and_empties_loses_nobody(void **state)
{
	uint32_t x = 1;
	unsigned total[SOCKS] = { 0 };

	(void)state;
	for (unsigned i = 1; i < SOCKS; i += 3)
		sock[i].base.kind = TAS_K_LOCAL;
	for (unsigned round = 0; round < 20000; round++) {
		unsigned i = (x = x * 1664525 + 1013904223) >> 8, n = (x >> 4) % 5;

		i %= SOCKS;
		left[i] += n;
		total[i] += n;
		if (left[i])
			tas__output_soon(&sock[i]);
		room = x % 7 ? 0 : x % 11;
		tas__output_run(&core);
	}
	do
		room = 1000;
	while (tas__output_run(&core));
	for (unsigned i = 0; i < SOCKS; i++)
		assert_int_equal(sent[i], total[i]);
	assert_true(!stack.n_out && !stack.out_head && !stack.held_head);
}

#define TEST(f) cmocka_unit_test_setup(f, setup)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(sockets_take_turns),
		TEST(a_full_port_stops_those_who_send_there_and_nobody_else),
		TEST(who_waited_for_the_port_goes_first),
		TEST(who_ends_while_it_waits_is_forgotten),
		TEST(a_port_that_fills_and_empties_loses_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
