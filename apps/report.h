/* SPDX-License-Identifier: MIT */
/* What a load generator says at its end: for people, or as one line of JSON. */
#ifndef APPS_REPORT_H
#define APPS_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "histogram.h"

struct report {
	const char *mode;
	unsigned connections, threads, depth;
	size_t size;
	bool reconnect, separate, ok, cdf;
	double seconds, cpu_seconds;
	uint64_t requests, connects;
	const struct histogram *latency; /* ns */
};

static const struct {
	const char *name;
	double share;
} report_rows[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};

enum { REPORT_ROWS = sizeof(report_rows) / sizeof(report_rows[0]) };

static inline double report_rate(const struct report *r)
{
	return r->seconds > 0 ? (double)r->requests / r->seconds : 0;
}

/* Latency in us by share of requests, in steps of 1 % and finer towards the end. */
static inline void report_cdf(const struct histogram *h)
{
	const char *comma = "";

	printf(", \"cdf\": [");
	for (unsigned i = 0; i <= 117; i++) {
		double share = i < 99 ? i / 100.0 : i < 108 ? 0.99 + (i - 99) / 1000.0 : 0.999 + (i - 108) / 10000.0;

		printf("%s[%.4f, %.3f]", comma, share, histogram_percentile(h, share) / 1e3);
		comma = ", ";
	}
	printf("]");
}

static inline void report_json(const struct report *r)
{
	const struct histogram *h = r->latency;

	printf("{\"mode\": \"%s\", \"connections\": %u, \"threads\": %u, \"depth\": %u, \"size\": %zu, "
	       "\"reconnect\": %s, \"separate\": %s, \"ok\": %s, \"seconds\": %.6f, \"requests\": %llu, \"connects\": %llu, "
	       "\"rate\": %.1f, \"cpu_seconds\": %.6f, \"latency_us\": {\"min\": %.3f, \"mean\": %.3f, ",
	       r->mode, r->connections, r->threads, r->depth, r->size, r->reconnect ? "true" : "false",
	       r->separate ? "true" : "false", r->ok ? "true" : "false", r->seconds, (unsigned long long)r->requests,
	       (unsigned long long)r->connects, report_rate(r), r->cpu_seconds, (double)h->min / 1e3,
	       h->count ? (double)h->sum / (double)h->count / 1e3 : 0);
	for (unsigned i = 0; i < REPORT_ROWS; i++)
		printf("\"%s\": %.3f, ", report_rows[i].name, histogram_percentile(h, report_rows[i].share) / 1e3);
	printf("\"max\": %.3f}", (double)h->max / 1e3);
	if (r->cdf)
		report_cdf(h);
	printf("}\n");
}

static inline void report_text(const struct report *r)
{
	const struct histogram *h = r->latency;

	printf("%llu requests in %.2f s: %.0f per second, %.1f Mbit/s each way\n", (unsigned long long)r->requests, r->seconds,
	       report_rate(r), report_rate(r) * (double)r->size * 8 / 1e6);
	printf("latency in us: min %.1f", (double)h->min / 1e3);
	for (unsigned i = 0; i < REPORT_ROWS; i++)
		printf("  %s %.1f", report_rows[i].name, histogram_percentile(h, report_rows[i].share) / 1e3);
	printf("  max %.1f\n", (double)h->max / 1e3);
}

#endif
