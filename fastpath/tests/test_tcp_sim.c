/* SPDX-License-Identifier: MIT */
/* Two engines over a bad link.  SIM_SEEDS=N runs N random seeds, SIM_FIRST=N starts there,
 * SIM_TRACE=1 prints every packet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "sim.h"

static uint64_t from_env(const char *name, uint64_t dflt)
{
	const char *v = getenv(name);

	return v ? strtoull(v, NULL, 0) : dflt;
}

/* What must hold at the end of a run in which nobody aborted and nothing timed out. */
static const char *complete(const struct sim *s)
{
	for (int e = 0; e < 2; e++) {
		const struct sim_end *me = &s->end[e];

		if (me->error)
			return "an end reports an error";
		if (!me->eof && s->cfg.side[e].how == SIM_SHUTDOWN)
			return "an end saw no FIN";
		if (me->consumed != s->cfg.side[!e].bytes)
			return "bytes are missing";
	}
	return NULL;
}

/* An orphan resets the connection when data comes after its close, an abort does it anyway: then only what arrived counts. */
static bool may_break(const struct sim_cfg *cfg)
{
	return cfg->side[0].how == SIM_ABORT || cfg->side[1].how == SIM_ABORT;
}

static void run_one(const struct sim_cfg *cfg)
{
	struct sim s;
	const char *bad;

	sim_init(&s, cfg);
	if (!sim_run(&s))
		fail_msg("%s", s.failure);
	for (int e = 0; e < 2; e++)
		/* A RST that was lost, or that came before data did (RFC 5961), is not sent again; nor does who gave up
		 * tell the other. */
		if (s.end[e].open && !may_break(cfg) && s.end[!e].error_no != ETIMEDOUT)
			fail_msg("seed %llu: end %d stays in %s", (unsigned long long)cfg->seed, e,
				 tcp_state_name(tcp_state(&s.end[e].c)));
	/* Giving up after many losses is legal. */
	bool gave_up = s.end[0].error_no == ETIMEDOUT || s.end[1].error_no == ETIMEDOUT || s.end[0].reset_sent ||
		       s.end[1].reset_sent;
	if (!may_break(cfg) && !gave_up && (bad = complete(&s)))
		fail_msg("seed %llu: %s", (unsigned long long)cfg->seed, bad);
	sim_free(&s);
}

static void transfers_both_ways_on_a_clean_link(void **state)
{
	struct sim_cfg cfg;

	(void)state;
	sim_cfg_default(&cfg, 1);
	cfg.side[0].bytes = cfg.side[1].bytes = 3000000;
	run_one(&cfg);
}

static void survives_one_percent_loss(void **state)
{
	struct sim_cfg cfg;
	struct sim s;

	(void)state;
	for (int cc = 0; cc < 2; cc++) {
		sim_cfg_default(&cfg, 2);
		cfg.side[0].bytes = 20000000;
		cfg.side[1].bytes = 0;
		cfg.side[0].tcp.cc = (uint8_t)cc;
		cfg.loss_ppm = 10000;
		cfg.side[1].rcvbuf = 1 << 20;
		cfg.side[0].sndbuf = 1 << 20;
		sim_init(&s, &cfg);
		assert_true(sim_run(&s));
		assert_null(complete(&s));
		print_message("  1%% loss, 2 ms round trip, %s: %.1f Mbit/s, %u retransmissions\n", cc ? "cubic" : "reno",
			      8e3 * 20000000 / (double)(s.end[1].eof_at - SIM_SEC), s.end[0].c.total_retrans);
		sim_free(&s);
	}
}

static void crosses_4_gib_with_isn_near_the_wrap(void **state)
{
	struct sim_cfg cfg;
	struct sim s;

	(void)state;
	sim_cfg_default(&cfg, 3);
	cfg.virtual_payload = true;
	cfg.side[0].isn = UINT32_MAX - 5;
	cfg.side[1].isn = UINT32_MAX - 1;
	for (int e = 0; e < 2; e++) {
		cfg.side[e].tcp.mss = 65483;
		cfg.side[e].rcvbuf = cfg.side[e].sndbuf = 8 << 20;
		cfg.side[e].tcp.rcv_wnd_max = 8 << 20;
		cfg.side[e].read_max = cfg.side[e].write_max = 8 << 20;
		cfg.side[e].bytes = e ? 1000 : (4ull << 30) + (1 << 28);
	}
	cfg.ns_per_byte = 1;
	cfg.delay = SIM_MS / 10;
	cfg.loss_ppm = 1000;
	cfg.reorder_ppm = 1000;
	cfg.reorder_delay = SIM_MS;
	sim_init(&s, &cfg);
	if (!sim_run(&s))
		fail_msg("%s", s.failure);
	assert_null(complete(&s));
	sim_free(&s);
}

static void random_seeds(void **state)
{
	uint64_t first = from_env("SIM_FIRST", 1), n = from_env("SIM_SEEDS", 400);
	struct sim_cfg cfg;

	(void)state;
	for (uint64_t seed = first; seed < first + n; seed++) {
		sim_cfg_random(&cfg, seed);
		cfg.trace = from_env("SIM_TRACE", 0);
		run_one(&cfg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(transfers_both_ways_on_a_clean_link),
		cmocka_unit_test(survives_one_percent_loss),
		cmocka_unit_test(crosses_4_gib_with_isn_near_the_wrap),
		cmocka_unit_test(random_seeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
