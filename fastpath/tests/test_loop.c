/* SPDX-License-Identifier: MIT */
/* The main loop without a port: descriptors, timers, sleep; and the policy of polling. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

static int fake_yield(void);
#define sched_yield fake_yield
#include "service/idle.c"
#include "service/loop.c"
#undef sched_yield
#define path latency_path
#include "service/latency.c"
#undef path

#include "one_thread.h"

/* ---- the rest of the service, faked ---- */
bool tas__threads_sleep(void)
{
	return true;
}

void tas__threads_woke(void)
{
}

unsigned tas__threads_running(void)
{
	return 1;
}

unsigned tas__threads_round(struct tas_core *c)
{
	(void)c;
	return 0;
}

void tas__seat_look(const struct tas_core *c, bool met)
{
	(void)c, (void)met;
}

uint64_t tas__seat_deadline(void)
{
	return UINT64_MAX;
}

struct tas_config tas_config;
struct tas_core tas_cores[TAS_CORES_MAX];
static struct tas_net net;
static uint64_t yield_ns, deadline = UINT64_MAX;
static unsigned yields, sleeps, rounds, refuse_sleep, work_rounds, packets_when_armed;
static int armed;

static int fake_yield(void)
{
	uint64_t until = tas__clock() + yield_ns;

	yields++;
	while (tas__clock() < until)
		;
	return 0;
}

void tas_core_ring(struct tas_core *c)
{
	(void)c;
}

unsigned tas_core_poll(struct tas_core *c)
{
	(void)c;
	rounds++;
	if (deadline != UINT64_MAX && c->now >= deadline)
		tas_loop_stop();
	return work_rounds ? work_rounds-- > 0 : 0;
}

uint64_t tas_core_deadline(const struct tas_core *c)
{
	(void)c;
	return deadline;
}

bool tas_core_sleep_begin(struct tas_core *c)
{
	(void)c;
	sleeps++;
	return refuse_sleep ? refuse_sleep-- == 0 : true;
}

void tas_core_sleep_end(struct tas_core *c)
{
	(void)c;
}

unsigned tas__net_receive(struct tas_core *c)
{
	(void)c;
	return armed && packets_when_armed ? packets_when_armed-- : 0;
}

void tas__link_arm(const struct tas_net *n, unsigned queue, bool on)
{
	(void)queue;
	(void)n;
	armed += on ? 1 : -1;
}

void tas__link_timer(struct tas_core *c)
{
	(void)c;
}

void tas__net_flush(struct tas_core *c)
{
	(void)c;
}

bool tas_net_full(struct tas_core *c)
{
	return c->net->full;
}

void tas__net_timer(struct tas_core *c)
{
	(void)c;
}

uint64_t tas__net_deadline(const struct tas_core *c)
{
	(void)c;
	return UINT64_MAX;
}

void tas_warn(const char *fmt, ...)
{
	(void)fmt;
}

static int setup(void **state)
{
	(void)state;
	memset(&net, 0, sizeof(net));
	tas_cores[0].net = &net;
	tas_config.poll_ns_tas = 20000;
	yield_ns = 0;
	deadline = UINT64_MAX;
	yields = sleeps = rounds = refuse_sleep = work_rounds = packets_when_armed = 0;
	armed = 0;
	stopping = false;
	return tas__loop_init();
}

static int teardown(void **state)
{
	(void)state;
	tas__loop_exit();
	return 0;
}

/* ---- descriptors ---- */
static struct tas_pollable a, b;
static unsigned heard;
static uint64_t heard_at;

static void on_a_frees_b(struct tas_pollable *p, uint32_t ev)
{
	(void)ev;
	heard++;
	tas_loop_del(p == &a ? &b : &a);
	tas_loop_del(p);
	tas_loop_stop();
}

static void on_event_stop(struct tas_pollable *p, uint32_t ev)
{
	(void)p;
	(void)ev;
	heard++;
	heard_at = tas_cores[0].now;
	tas_loop_stop();
}

static void a_deleted_descriptor_is_not_heard_of_again(void **state)
{
	(void)state;
	heard = 0;
	a = (struct tas_pollable){ .fd = eventfd(1, EFD_CLOEXEC), .fn = on_a_frees_b };
	b = (struct tas_pollable){ .fd = eventfd(1, EFD_CLOEXEC), .fn = on_a_frees_b };
	assert_int_equal(tas_loop_add(&a, EPOLLIN), 0);
	assert_int_equal(tas_loop_add(&b, EPOLLIN), 0);
	tas__loop_run(&tas_cores[0]);
	assert_int_equal(heard, 1); /* both were ready in the same look */
	close(a.fd);
	close(b.fd);
}

static void an_event_ends_a_sleep_and_its_handler_sees_the_time_after_it(void **state)
{
	uint64_t before = tas__clock();
	int pipefd[2];

	(void)state;
	heard = 0;
	assert_int_equal(pipe(pipefd), 0);
	a = (struct tas_pollable){ .fd = pipefd[0], .fn = on_event_stop };
	assert_int_equal(tas_loop_add(&a, EPOLLIN), 0);
	if (!fork()) {
		usleep(30000);
		_exit(write(pipefd[1], "x", 1) != 1);
	}
	tas__loop_run(&tas_cores[0]);
	assert_int_equal(heard, 1);
	assert_true(heard_at - before >= 30000000);
	assert_int_equal(sleeps, 1); /* no tick in between */
	close(pipefd[0]);
	close(pipefd[1]);
}

static void a_timer_ends_a_sleep(void **state)
{
	uint64_t t;

	(void)state;
	deadline = tas__clock() + 20000000;
	tas__loop_run(&tas_cores[0]);
	t = tas__clock();
	assert_true(t >= deadline && t - deadline < 50000000);
	assert_in_range(sleeps, 1, 3);
}

static void it_does_not_sleep_when_news_came_meanwhile(void **state)
{
	(void)state;
	refuse_sleep = 5;
	deadline = tas__clock() + 5000000;
	tas__loop_run(&tas_cores[0]);
	assert_true(sleeps >= 6);
}

/* ---- ports ---- */
static void a_port_that_cannot_wake_us_is_looked_at_less_the_longer_it_is_silent(void **state)
{
	struct loop l = { .last_packet = 10000000000 };
	uint64_t now = l.last_packet;

	(void)state;
	assert_true(nap(&l, &tas_cores[0], now) == UINT64_MAX); /* no port */
	net.up = true;
	net.fd = 0;
	assert_true(nap(&l, &tas_cores[0], now) == UINT64_MAX); /* a port with a descriptor */
	net.fd = -1;
	assert_int_equal(nap(&l, &tas_cores[0], now) - now, 20000);
	assert_int_equal(nap(&l, &tas_cores[0], now + 50000000) - now, 50100000);
	assert_int_equal(nap(&l, &tas_cores[0], now + 1000000000) - now, 1000500000);
	assert_int_equal(nap(&l, &tas_cores[0], now + 9000000000) - now, 9005000000);
}

static void looks_at_such_a_port_are_not_news(void **state)
{
	(void)state;
	net.up = true;
	net.fd = -1;
	deadline = tas__clock() + 60000000;
	tas__loop_run(&tas_cores[0]);
	assert_true(sleeps >= 2);
	assert_true(rounds <= 3 * sleeps + 2000); /* polling at the start only */
}

static void a_packet_between_the_last_look_and_the_armed_interrupt_ends_the_sleep(void **state)
{
	uint64_t begun = tas__clock();

	(void)state;
	net.up = net.interrupts = true;
	net.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	packets_when_armed = 1;
	deadline = begun + 30000000;
	tas__loop_run(&tas_cores[0]);
	assert_int_equal(packets_when_armed, 0);
	assert_true(sleeps >= 2);   /* one that the packet prevented, one until the timer */
	assert_int_equal(armed, 0); /* never left armed while polling */
	close(net.fd);
}

/* ---- idle states of the processor ---- */
static void awake_is_held_from_the_fourth_wake_until_a_pause(void **state)
{
	uint64_t t = 1000000000;

	(void)state;
	if (access(latency_path, W_OK)) {
		print_message("%s cannot be written here: not tested\n", latency_path);
		skip();
	}
	tas_config.low_latency = TAS_LATENCY_AUTO;
	tas__latency_woken(t);
	tas__latency_woken(t + 20000000); /* another window */
	tas__latency_woken(t + 20000001);
	tas__latency_woken(t + 20000002);
	assert_int_equal(held, -1);
	tas__latency_woken(t + 20000003);
	assert_true(held >= 0);
	t += 20000003;
	assert_true(tas__latency_deadline(0, t + 1) == t + 100000000);
	assert_true(tas__latency_deadline(t + 50000000, t + 100000000) == t + 150000000); /* work since */
	assert_true(tas__latency_deadline(0, t + 150000000) == UINT64_MAX);
	assert_int_equal(held, -1);
	tas_config.low_latency = TAS_LATENCY_ON;
	assert_int_equal(tas__latency_init(), 0);
	assert_true(held >= 0 && tas__latency_deadline(0, UINT64_MAX - 1) == UINT64_MAX); /* nothing ends it */
	tas__latency_exit();
	tas_config.low_latency = TAS_LATENCY_OFF;
	assert_int_equal(tas__latency_init(), 0);
	assert_int_equal(held, -1);
}

/* ---- polling ---- */
static void polling_ends_after_its_interval(void **state)
{
	struct tas_idle i = { .last_work = tas__clock() };
	uint64_t poll = 1000000000;

	(void)state;
	assert_true(tas__idle(&i, i.last_work, poll));
	assert_false(tas__idle(&i, i.last_work + poll, poll));
	assert_int_equal(yields, 1);
}

static void alone_it_spins_between_yields(void **state)
{
	struct tas_idle i = { .last_work = tas__clock() };
	uint64_t now = i.last_work;

	(void)state;
	assert_true(tas__idle(&i, now, 1000000));
	assert_int_equal(yields, 1);
	if (i.next_yield) { /* else the machine was busy and the yield took over 1 µs */
		assert_true(tas__idle(&i, now + 100, 1000000));
		assert_int_equal(yields, 1);
	}
}

static void in_company_it_yields_every_time(void **state)
{
	struct tas_idle i = { .last_work = tas__clock() };
	unsigned k;

	(void)state;
	yield_ns = 5000;
	for (k = 0; k < 5; k++)
		tas__idle(&i, tas__clock(), 1000000000);
	assert_int_equal(yields, 5);
}

static void a_thread_that_does_not_cooperate_is_not_polled_beside(void **state)
{
	struct tas_idle i = { .last_work = tas__clock() };
	uint64_t first;

	(void)state;
	yield_ns = 400000;
	assert_false(tas__idle(&i, tas__clock(), 1000000000));
	first = i.hold;
	assert_true(first == 2000000);
	assert_false(tas__idle(&i, tas__clock(), 1000000000)); /* held: not even a yield */
	assert_int_equal(yields, 1);
	while (tas__clock() < i.held_until)
		;
	assert_false(tas__idle(&i, tas__clock(), 1000000000)); /* again, at once: twice as long */
	assert_true(i.hold == 2 * first);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_deleted_descriptor_is_not_heard_of_again),
		TEST(an_event_ends_a_sleep_and_its_handler_sees_the_time_after_it),
		TEST(a_timer_ends_a_sleep),
		TEST(it_does_not_sleep_when_news_came_meanwhile),
		TEST(a_port_that_cannot_wake_us_is_looked_at_less_the_longer_it_is_silent),
		TEST(looks_at_such_a_port_are_not_news),
		TEST(a_packet_between_the_last_look_and_the_armed_interrupt_ends_the_sleep),
		TEST(awake_is_held_from_the_fourth_wake_until_a_pause),
		TEST(polling_ends_after_its_interval),
		TEST(alone_it_spins_between_yields),
		TEST(in_company_it_yields_every_time),
		TEST(a_thread_that_does_not_cooperate_is_not_polled_beside),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
