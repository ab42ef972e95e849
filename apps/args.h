/* SPDX-License-Identifier: MIT */
/* Numbers and addresses from the command line, and time: shared by the programs in this folder. */
#ifndef APPS_ARGS_H
#define APPS_ARGS_H

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A whole number within [lo, hi], with an optional suffix k, m or g (powers of 1024); exits with status 2 otherwise. */
static inline uint64_t arg_number(const char *what, const char *text, uint64_t lo, uint64_t hi)
{
	char *end;
	unsigned long long n;
	unsigned shift = 0;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (end != text && *end != '\0' && end[1] == '\0') {
		const char *units = "kmg", *unit = strchr(units, *end | 0x20);

		if (unit) {
			shift = 10 * (unsigned)(unit - units + 1);
			end++;
		}
	}
	if (errno || end == text || *end != '\0' || strchr(text, '-') || n > hi >> shift || n << shift < lo) {
		fprintf(stderr, "%s: '%s' is not a whole number from %llu to %llu\n", what, text,
			(unsigned long long)lo, (unsigned long long)hi);
		exit(2);
	}
	return n << shift;
}

/* Seconds, fractions allowed; exits with status 2 on anything else. */
static inline double arg_seconds(const char *what, const char *text)
{
	char *end;
	double s = strtod(text, &end);

	if (end == text || *end != '\0' || !(s >= 0 && s < 1e9)) {
		fprintf(stderr, "%s: '%s' is not a number of seconds\n", what, text);
		exit(2);
	}
	return s;
}

/* Resolves host (NULL: any address) and port; exits with status 2 on failure. */
static inline void arg_address(const char *host, const char *port, struct sockaddr_storage *addr, socklen_t *len)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = host ? 0 : AI_PASSIVE}, *list;
	int err;

	if (!host)
		hints.ai_family = AF_INET;
	err = getaddrinfo(host, port, &hints, &list);
	if (err) {
		fprintf(stderr, "%s:%s: %s\n", host ? host : "*", port, gai_strerror(err));
		exit(2);
	}
	memcpy(addr, list->ai_addr, list->ai_addrlen);
	*len = list->ai_addrlen;
	freeaddrinfo(list);
}

/* "address:port" for messages; returns a static buffer of the calling thread. */
static inline const char *show_address(const struct sockaddr *addr, socklen_t len)
{
	static _Thread_local char text[NI_MAXHOST + 16];
	char host[NI_MAXHOST], port[16];

	if (getnameinfo(addr, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return "?";
	snprintf(text, sizeof(text), addr->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	return text;
}

#endif
