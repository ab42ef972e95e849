/* SPDX-License-Identifier: MIT */
/* rpcclient's command line. */
#ifndef APPS_RPCOPTIONS_H
#define APPS_RPCOPTIONS_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "args.h"

enum { THREADS_MAX = 4096, CONNS_MAX = 1 << 20, DEPTH_MAX = 65536 };

enum mode { MODE_BLOCK, MODE_EPOLL, MODE_SPIN };
static const char *const mode_names[] = {"block", "epoll", "spin"};

static struct {
	const char *host, *port;
	struct sockaddr_storage addr;
	socklen_t addr_len;
	unsigned conns, threads, depth;
	size_t size;
	double seconds, warmup, stall, hold;
	uint64_t count; /* requests in all, 0: by time */
	enum mode mode;
	bool reconnect, connect_only, separate, json, cdf, verify;
} conf = {.conns = 1, .threads = 1, .depth = 1, .size = 64, .seconds = 5, .stall = 30, .mode = MODE_EPOLL, .verify = true};

static const char usage[] =
	"usage: rpcclient [options] HOST PORT\n"
	"Sends requests to an echo server and measures the answers.\n"
	"  -c, --connections=N    connections (1)\n"
	"  -t, --threads=N        threads (1; mode block: one per connection)\n"
	"  -s, --size=BYTES       length of a message, k and m allowed (64)\n"
	"  -d, --depth=N          messages outstanding per connection (1)\n"
	"  -m, --mode=MODE        block, epoll or spin (epoll)\n"
	"  -T, --time=SECONDS     how long (5)\n"
	"  -n, --count=N          so many requests instead\n"
	"  -w, --warmup=SECONDS   not counted, before (0)\n"
	"  -r, --reconnect        a new connection for every request\n"
	"  -0, --connect-only     connect and close, nothing is sent; a request is a connection (mode block)\n"
	"  -1, --separate         a send for each message (with --depth: not one for all that may go)\n"
	"      --hold=SECONDS     at the end print `holding` and keep the connections open so long (0)\n"
	"  -j, --json             result as one line of JSON\n"
	"      --cdf              in it, the distribution of latency\n"
	"      --no-verify        do not compare the answers\n"
	"      --stall=SECONDS    give up when a connection makes no progress for so long, 0: never (30)\n"
	"  -h, --help             this text\n"
	"Exit status: 0 all answered, 1 an error (said on stderr), 2 wrong usage.\n";

static void parse_option(int opt)
{
	switch (opt) {
	case 'c':
		conf.conns = (unsigned)arg_number("--connections", optarg, 1, CONNS_MAX);
		break;
	case 't':
		conf.threads = (unsigned)arg_number("--threads", optarg, 1, THREADS_MAX);
		break;
	case 's':
		conf.size = (size_t)arg_number("--size", optarg, 1, 1u << 30);
		break;
	case 'd':
		conf.depth = (unsigned)arg_number("--depth", optarg, 1, DEPTH_MAX);
		break;
	case 'm':
		for (conf.mode = MODE_BLOCK; strcmp(optarg, mode_names[conf.mode]) != 0; conf.mode++)
			if (conf.mode == MODE_SPIN) {
				fprintf(stderr, "--mode: '%s' is not block, epoll or spin\n", optarg);
				exit(2);
			}
		break;
	case 'T':
		conf.seconds = arg_seconds("--time", optarg);
		break;
	case 'n':
		conf.count = arg_number("--count", optarg, 1, UINT64_MAX / 2);
		break;
	case 'w':
		conf.warmup = arg_seconds("--warmup", optarg);
		break;
	case 'r':
		conf.reconnect = true;
		break;
	case '0':
		conf.connect_only = conf.reconnect = true;
		conf.mode = MODE_BLOCK;
		break;
	case '1':
		conf.separate = true;
		break;
	case 'H':
		conf.hold = arg_seconds("--hold", optarg);
		break;
	case 'C':
		conf.cdf = true;
		break;
	case 'j':
		conf.json = true;
		break;
	case 'V':
		conf.verify = false;
		break;
	case 'S':
		conf.stall = arg_seconds("--stall", optarg);
		break;
	case 'h':
		fputs(usage, stdout);
		exit(0);
	default:
		fputs("Try: rpcclient --help\n", stderr);
		exit(2);
	}
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"connections", required_argument, NULL, 'c'}, {"threads", required_argument, NULL, 't'},
		{"size", required_argument, NULL, 's'},        {"depth", required_argument, NULL, 'd'},
		{"mode", required_argument, NULL, 'm'},        {"time", required_argument, NULL, 'T'},
		{"count", required_argument, NULL, 'n'},       {"warmup", required_argument, NULL, 'w'},
		{"reconnect", no_argument, NULL, 'r'},         {"json", no_argument, NULL, 'j'},
		{"no-verify", no_argument, NULL, 'V'},         {"stall", required_argument, NULL, 'S'},
		{"separate", no_argument, NULL, '1'},          {"hold", required_argument, NULL, 'H'},
		{"cdf", no_argument, NULL, 'C'},               {"help", no_argument, NULL, 'h'},
		{"connect-only", no_argument, NULL, '0'},
		{0},
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "c:t:s:d:m:T:n:w:r01jh", longs, NULL)) >= 0)
		parse_option(opt);
	if (argc - optind != 2)
		parse_option('?');
	arg_number("PORT", argv[optind + 1], 1, 65535);
	arg_address(argv[optind], argv[optind + 1], &conf.addr, &conf.addr_len);
	if (conf.reconnect && conf.depth > 1) {
		fputs("rpcclient: --reconnect has one request per connection: --depth must be 1\n", stderr);
		exit(2);
	}
	if (conf.connect_only && conf.mode != MODE_BLOCK) {
		fputs("rpcclient: --connect-only is for --mode=block\n", stderr);
		exit(2);
	}
	if (conf.mode == MODE_BLOCK)
		conf.threads = conf.conns;
	if (conf.threads > conf.conns)
		conf.threads = conf.conns;
	if (conf.threads > THREADS_MAX) {
		fprintf(stderr, "rpcclient: at most %d threads\n", THREADS_MAX);
		exit(2);
	}
}

#endif
