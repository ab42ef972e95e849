/* SPDX-License-Identifier: MIT */
/*
 * bulk: one stream over one connection, in either direction or both at once; prints length, SHA-256 and rate of each.
 *
 *   bulk recv --listen 5001                            bulk send --connect 10.0.0.1:5001 --bytes 1g
 *
 * The sender sends the pattern of pattern.h, says end of stream, and waits for the other side's end of stream: so its time
 * includes the arrival of the last byte.  Receivers compare every byte with the pattern as well (--no-verify: they do not).
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "args.h"
#include "pattern.h"
#include "sha256.h"

enum { CHUNK_MAX = 16 << 20 };

static struct {
	bool send, recv, listen, verify, hash, json;
	const char *address, *congestion;
	uint64_t bytes, seed;
	size_t chunk;
} conf = {.verify = true, .hash = true, .bytes = 1 << 30, .seed = 1, .chunk = 64 << 10};

struct flow {
	const char *name;
	uint64_t bytes, start, end; /* ns */
	char hash[SHA256_HEX];
	int err; /* errno; -1: wrong bytes */
};

static int fd;

static void *send_all(void *arg)
{
	struct flow *f = arg;
	struct sha256 sha;

	sha256_init(&sha);
	f->start = now_ns();
	while (f->bytes < conf.bytes) {
		const unsigned char *data = pattern_at(f->bytes);
		size_t n = conf.chunk < PATTERN_SPAN ? conf.chunk : PATTERN_SPAN;
		ssize_t r;

		if (n > conf.bytes - f->bytes)
			n = (size_t)(conf.bytes - f->bytes);
		r = send(fd, data, n, MSG_NOSIGNAL);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			f->err = errno;
			break;
		}
		if (conf.hash)
			sha256_add(&sha, data, (size_t)r);
		f->bytes += (uint64_t)r;
	}
	if (!f->err && shutdown(fd, SHUT_WR) != 0)
		f->err = errno;
	f->end = now_ns();
	sha256_hex(&sha, f->hash);
	return NULL;
}

/* Reads to the end of the stream. */
static void recv_all(struct flow *f)
{
	unsigned char *buf = malloc(conf.chunk);
	struct sha256 sha;

	sha256_init(&sha);
	f->start = now_ns();
	for (;;) {
		ssize_t r = buf ? recv(fd, buf, conf.chunk, 0) : -1;

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			f->err = buf ? errno : ENOMEM;
		if (r <= 0)
			break;
		if (f->bytes == 0)
			f->start = now_ns();
		if (conf.verify && !pattern_matches(buf, (size_t)r, f->bytes)) {
			f->err = -1;
			break;
		}
		if (conf.hash)
			sha256_add(&sha, buf, (size_t)r);
		f->bytes += (uint64_t)r;
	}
	f->end = now_ns();
	sha256_hex(&sha, f->hash);
	free(buf);
}

/* Splits [HOST:]PORT, the host possibly in brackets. */
static void resolve(struct sockaddr_storage *addr, socklen_t *len)
{
	char *text = strdup(conf.address), *colon, *host = NULL, *port = text;

	if (!text)
		exit(1);
	colon = strrchr(text, ':');
	if (colon) {
		*colon = '\0';
		host = text;
		port = colon + 1;
		if (*host == '[' && colon[-1] == ']') {
			colon[-1] = '\0';
			host++;
		}
	}
	arg_number("PORT", port, conf.listen ? 0 : 1, 65535);
	arg_address(host && *host ? host : conf.listen ? NULL : "localhost", port, addr, len);
	free(text);
}

/* A stream socket with what was asked for; accepted ones have it from their listener.  -1: errno. */
static int open_socket(int family)
{
	int s = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (s >= 0 && conf.congestion &&
	    setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, conf.congestion, (socklen_t)strlen(conf.congestion)) != 0) {
		int err = errno;

		close(s);
		errno = err;
		return -1;
	}
	return s;
}

static int open_listening(const struct sockaddr_storage *addr, socklen_t len)
{
	struct sockaddr_storage mine;
	socklen_t mine_len = sizeof(mine);
	int one = 1, l, s;

	l = open_socket(addr->ss_family);
	if (l < 0 || setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(l, (const struct sockaddr *)addr, len) != 0 || listen(l, 1) != 0 ||
	    getsockname(l, (struct sockaddr *)&mine, &mine_len) != 0)
		return -1;
	if (!conf.json)
		printf("listening on %s\n", show_address((struct sockaddr *)&mine, mine_len));
	fflush(stdout);
	do
		s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	while (s < 0 && errno == EINTR);
	close(l);
	return s;
}

static int open_connection(void)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int s;

	resolve(&addr, &len);
	if (conf.listen)
		return open_listening(&addr, len);
	s = open_socket(addr.ss_family);
	if (s >= 0 && connect(s, (struct sockaddr *)&addr, len) != 0) {
		int err = errno;

		close(s);
		errno = err;
		return -1;
	}
	return s;
}

static bool report(const struct flow *f)
{
	double s = (double)(f->end - f->start) / 1e9, gbit = s > 0 ? (double)f->bytes * 8 / s / 1e9 : 0;
	const char *hash = conf.hash ? f->hash : "-";

	if (conf.json)
		printf("{\"flow\": \"%s\", \"bytes\": %llu, \"sha256\": \"%s\", \"seconds\": %.6f, \"gbit_s\": %.4f, \"ok\": %s}\n",
		       f->name, (unsigned long long)f->bytes, hash, s, gbit, f->err ? "false" : "true");
	else
		printf("%s %llu bytes sha256 %s in %.3f s, %.3f Gbit/s\n", f->name, (unsigned long long)f->bytes, hash, s, gbit);
	if (f->err)
		fprintf(stderr, "bulk: %s: %s after %llu bytes\n", f->name, f->err < 0 ? "wrong bytes" : strerror(f->err),
			(unsigned long long)f->bytes);
	return f->err == 0;
}

static bool run(void)
{
	struct flow out = {.name = "sent"}, in = {.name = "received"};
	pthread_t sender;
	bool ok = true;

	if (conf.send && pthread_create(&sender, NULL, send_all, &out) != 0) {
		fputs("bulk: cannot start a thread\n", stderr);
		return false;
	}
	recv_all(&in);
	if (conf.send) {
		pthread_join(sender, NULL);
		if (!out.err && !conf.recv && in.err)
			out.err = in.err; /* it waited for the receiver's end of stream in vain */
		if (!conf.recv)
			out.end = in.end;
		ok = report(&out);
	} else {
		shutdown(fd, SHUT_WR);
	}
	return (conf.recv ? report(&in) : true) && ok;
}

static const char usage[] =
	"usage: bulk send|recv|both --listen=[ADDR:]PORT | --connect=HOST:PORT [options]\n"
	"Moves one stream of bytes over one connection and prints its length, SHA-256 and rate.\n"
	"  -n, --bytes=N     how much to send, k, m, g allowed (1g)\n"
	"      --chunk=N     bytes per call (64k)\n"
	"      --seed=N      another pattern; both sides alike (1)\n"
	"      --no-verify   receiver: do not compare with the pattern\n"
	"      --no-hash     no SHA-256\n"
	"      --congestion=NAME  congestion control, reno or cubic (TCP_CONGESTION; the system's)\n"
	"  -j, --json        one line of JSON per direction\n"
	"  -h, --help        this text\n"
	"Exit status: 0 all arrived, 1 an error (said on stderr), 2 wrong usage.\n";

static void set_option(int opt)
{
	switch (opt) {
	case 'l':
	case 'c':
		conf.listen = opt == 'l';
		conf.address = optarg;
		break;
	case 'n':
		conf.bytes = arg_number("--bytes", optarg, 0, 1ull << 60);
		break;
	case 'C':
		conf.chunk = (size_t)arg_number("--chunk", optarg, 1, CHUNK_MAX);
		break;
	case 's':
		conf.seed = arg_number("--seed", optarg, 0, UINT64_MAX);
		break;
	case 'V':
		conf.verify = false;
		break;
	case 'H':
		conf.hash = false;
		break;
	case 'G':
		conf.congestion = optarg;
		break;
	case 'j':
		conf.json = true;
		break;
	case 'h':
		fputs(usage, stdout);
		exit(0);
	default:
		fputs("Try: bulk --help\n", stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"listen", required_argument, NULL, 'l'}, {"connect", required_argument, NULL, 'c'},
		{"bytes", required_argument, NULL, 'n'},  {"chunk", required_argument, NULL, 'C'},
		{"seed", required_argument, NULL, 's'},   {"no-verify", no_argument, NULL, 'V'},
		{"no-hash", no_argument, NULL, 'H'},      {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},         {"congestion", required_argument, NULL, 'G'},
		{0},
	};
	const char *what;
	bool ok;
	int opt;

	while ((opt = getopt_long(argc, argv, "l:c:n:jh", longs, NULL)) >= 0)
		set_option(opt);
	what = argc - optind == 1 ? argv[optind] : "";
	conf.send = !strcmp(what, "send") || !strcmp(what, "both");
	conf.recv = !strcmp(what, "recv") || !strcmp(what, "both");
	if ((!conf.send && !conf.recv) || !conf.address)
		set_option('?');
	pattern_init(conf.seed);
	fd = open_connection();
	if (fd < 0) {
		fprintf(stderr, "bulk: %s %s: %s\n", conf.listen ? "listen on" : "connect to", conf.address, strerror(errno));
		return 1;
	}
	ok = run();
	close(fd);
	return ok ? 0 : 1;
}
