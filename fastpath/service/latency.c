/* SPDX-License-Identifier: MIT */
/*
 * --low-latency: half of a wake-up on a virtual machine is the processor leaving its idle state.  Who writes 0 to
 * /dev/cpu_dma_latency and keeps it open forbids all idle states that take time to leave (Linux, PM QoS).  That costs power, and
 * the host's other guests their share; so `auto` holds it only while traffic flows: from the fourth wake-up within 10 ms until 100 ms
 * without work.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "service/edge.h"

enum { WAKES = 4 };
static const char path[] = "/dev/cpu_dma_latency";
static const uint64_t window = 10000000, quiet = 100000000;

static int held = -1;
static uint64_t window_end, last_news;
static unsigned wakes;
static bool useless; /* opening it failed: said once, never tried again */

static int hold(void)
{
	const int32_t us = 0;
	int e;

	held = open(path, O_WRONLY | O_CLOEXEC);
	if (held >= 0 && write(held, &us, sizeof(us)) == sizeof(us))
		return 0;
	e = errno;
	tas__latency_exit();
	useless = true;
	tas_warn("--low-latency: %s: %s%s", path, strerror(e), e == EACCES ? " (needs root)" : "");
	return -e;
}

int tas__latency_init(void)
{
	return tas_config.low_latency == TAS_LATENCY_ON ? hold() : 0;
}

void tas__latency_exit(void)
{
	if (held >= 0)
		close(held);
	held = -1;
}

static void count_wake(uint64_t now)
{
	last_news = now;
	if (held >= 0)
		return;
	if (now >= window_end) {
		window_end = now + window;
		wakes = 0;
	}
	if (++wakes >= WAKES && !hold())
		tas_kick(&tas_cores[0]); /* which lets go */
}

/* By any thread. */
void tas__latency_woken(uint64_t now)
{
	if (tas_config.low_latency != TAS_LATENCY_AUTO)
		return;
	tas_shared_in();
	if (!useless)
		count_wake(now);
	tas_shared_out();
}

static uint64_t keep_until(uint64_t last_work, uint64_t now)
{
	if (held < 0)
		return UINT64_MAX;
	if (last_work > last_news)
		last_news = last_work;
	if (now < last_news + quiet)
		return last_news + quiet;
	tas__latency_exit();
	return UINT64_MAX;
}

uint64_t tas__latency_deadline(uint64_t last_work, uint64_t now)
{
	uint64_t t;

	if (tas_config.low_latency != TAS_LATENCY_AUTO)
		return UINT64_MAX;
	tas_shared_in();
	t = keep_until(last_work, now);
	tas_shared_out();
	return t;
}
