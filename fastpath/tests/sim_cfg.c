/* SPDX-License-Identifier: MIT */
/* Settings of a simulation: a plain one, and a random one that reaches for the corners. */
#include "sim.h"

#include <string.h>

static void side_default(struct sim_side *side, uint32_t isn)
{
	*side = (struct sim_side){
		.tcp = { .mss = 1460, .rcv_wnd_max = 1 << 20, .timestamps = true, .sack = true, .ts_offset = isn * 3,
			 .cc = TCP_CC_CUBIC },
		.isn = isn,
		.bytes = 100000,
		.sndbuf = 1 << 18,
		.rcvbuf = 1 << 18,
		.write_max = 1 << 18,
		.read_max = 1 << 18,
		.turn_max = SIM_MS / 10,
	};
}

void sim_cfg_default(struct sim_cfg *cfg, uint64_t seed)
{
	memset(cfg, 0, sizeof(*cfg));
	cfg->seed = seed;
	side_default(&cfg->side[0], 1000);
	side_default(&cfg->side[1], 0xfffff000u);
	cfg->delay = SIM_MS;
	cfg->ns_per_byte = 8; /* 1 Gbit/s */
	cfg->time_limit = 3600ull * SIM_SEC;
}

static uint64_t pick(struct sim *r, const uint64_t *of, unsigned n)
{
	return of[sim_random(r, n)];
}
#define PICK(r, ...) pick(r, (const uint64_t[]){ __VA_ARGS__ }, sizeof((uint64_t[]){ __VA_ARGS__ }) / 8)

static void side_random(struct sim *r, struct sim_side *side)
{
	side->tcp.mss = (uint16_t)PICK(r, 48, 88, 536, 1000, 1460, 1460, 1460, 8960, 65495);
	side->tcp.timestamps = sim_random(r, 4);
	side->tcp.sack = sim_random(r, 4);
	side->tcp.no_tail_probe = !sim_random(r, 4);
	side->tcp.cc = (uint8_t)sim_random(r, 2);
	side->tcp.time_wait = PICK(r, 0, SIM_SEC, 5ull * SIM_SEC);
	side->isn = (uint32_t)PICK(r, sim_random(r, 1ull << 32), UINT32_MAX, UINT32_MAX - sim_random(r, 100000), 0x7fffff00u);
	side->tcp.ts_offset = (uint32_t)PICK(r, sim_random(r, 1ull << 32), UINT32_MAX - sim_random(r, 5000), 0);
	side->bytes = PICK(r, 0, 1, sim_random(r, 5000), sim_random(r, 60000), sim_random(r, 60000), sim_random(r, 400000));
	if (side->tcp.mss < 500)
		side->bytes /= 4;
	side->rcvbuf = (uint32_t)PICK(r, 1000, 4096, 20000, 65535, 1 << 16, 1 << 18, 1 << 20);
	side->tcp.rcv_wnd_max = (uint32_t)PICK(r, side->rcvbuf, 1 << 20, 65535);
	side->sndbuf = (uint32_t)PICK(r, 1000, 4096, 65536, 1 << 18, 1 << 20);
	side->write_max = (uint32_t)PICK(r, 1, 100, 1460, 20000, 1 << 20);
	side->read_max = (uint32_t)PICK(r, 1, 100, 1460, 20000, 1 << 20);
	if (side->bytes > 10000 && side->write_max < 500)
		side->write_max = 500;
	if (side->read_max < 500)
		side->read_max += 100;
	side->turn_max = PICK(r, 1000, 100000, SIM_MS, 10 * SIM_MS);
	side->max_len = (uint32_t)PICK(r, 0, 0, 16384, 65536);
	side->how = (enum sim_close)PICK(r, SIM_SHUTDOWN, SIM_SHUTDOWN, SIM_CLOSE, SIM_CLOSE, SIM_CLOSE, SIM_ABORT);
	side->abort_after = sim_random(r, 100000);
	side->opts.nodelay = sim_random(r, 2);
	side->opts.cork = !sim_random(r, 8);
	side->opts.quickack = !sim_random(r, 8);
	side->opts.keepalive = !sim_random(r, 4);
	side->opts.keep_idle = 1 + (uint32_t)sim_random(r, 100);
	side->opts.keep_intvl = 1 + (uint32_t)sim_random(r, 10);
}

void sim_cfg_random(struct sim_cfg *cfg, uint64_t seed)
{
	struct sim r = { .rng = seed ^ 0x5eed };

	sim_cfg_default(cfg, seed);
	side_random(&r, &cfg->side[0]);
	side_random(&r, &cfg->side[1]);
	cfg->simultaneous = !sim_random(&r, 10);
	cfg->strip_options = !sim_random(&r, 8);
	cfg->loss_ppm = (uint32_t)PICK(&r, 0, 0, 1000, 10000, 30000, 100000, 200000);
	cfg->dup_ppm = (uint32_t)PICK(&r, 0, 0, 1000, 50000, 300000);
	cfg->reorder_ppm = (uint32_t)PICK(&r, 0, 0, 10000, 100000, 500000);
	cfg->nomem_ppm = (uint32_t)PICK(&r, 0, 0, 0, 10000, 100000);
	cfg->delay = PICK(&r, 1000, 20000, SIM_MS, 20 * SIM_MS, 200 * SIM_MS);
	cfg->jitter = PICK(&r, 0, cfg->delay, cfg->delay / 10);
	cfg->reorder_delay = PICK(&r, cfg->delay, 5 * cfg->delay, SIM_SEC);
	cfg->ns_per_byte = PICK(&r, 0, 1, 8, 80, 800);
	cfg->queue_ns = PICK(&r, 0, 10 * SIM_MS, SIM_MS);
	if (cfg->queue_ns && cfg->queue_ns < 70000 * cfg->ns_per_byte)
		cfg->queue_ns = 70000 * cfg->ns_per_byte;
	cfg->shrink_at = SIM_SEC + PICK(&r, 3 * cfg->delay, 10 * cfg->delay, 100ull * SIM_SEC);
	/* Generous: without timestamps a timeout that doubled stays so while every round trip loses something (Karn). */
	cfg->time_limit = 30ull * 86400 * SIM_SEC;
}
