/* SPDX-License-Identifier: MIT */
/*
 * rpcclient: requests to an echo server; reports throughput and latency, compares every byte that comes back.
 *
 * Each connection keeps DEPTH messages of SIZE bytes outstanding.  A message's latency runs from the first attempt to send
 * it to the arrival of its last byte.  A connection carries one endless stream (pattern.h); message k is its bytes
 * [k * SIZE, (k + 1) * SIZE).
 *
 * Modes: block (a thread per connection, blocking calls), epoll (threads share the connections), spin (non-blocking calls
 * round and round).  With --reconnect each request has a connection of its own, and connect and close count as part of it;
 * with --connect-only there is no request, and its time is that of connect.
 *
 * Threads meet at a barrier when all connections stand; the clock starts there.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "histogram.h"
#include "pattern.h"
#include "report.h"
#include "rpcoptions.h"

enum { EVENTS = 256, STALL_CHECK_MS = 200 };

struct conn {
	int fd;
	bool connecting;
	uint32_t interest;
	uint64_t base;           /* where its stream begins in the pattern */
	uint64_t sent, received; /* bytes */
	uint64_t begun, done;    /* messages: first byte handed over, last byte arrived */
	uint64_t *start;         /* by message number modulo depth, ns */
	_Atomic uint64_t progress_at; /* ns; in mode block the main thread looks at it */
};

struct worker {
	pthread_t thread;
	struct conn *conn;
	unsigned n;
	int ep;
	unsigned char *buf;
	struct histogram hist;
	uint64_t requests, connects; /* after the warm-up */
	double cpu_s;
};

static struct worker workers[THREADS_MAX];
static pthread_barrier_t all_connected, all_done;
static _Atomic uint64_t measure_from, end_at, finished_at, tickets;
static atomic_bool stop, failed;

/* The first error ends the run; the others are its consequence. */
static void fail(const struct conn *c, const char *what, int err)
{
	if (!atomic_exchange(&failed, true))
		fprintf(stderr, "rpcclient: %s: %s (connection %llu: %llu bytes sent, %llu received)\n", what,
			err ? strerror(err) : "wrong answer", (unsigned long long)c->base, (unsigned long long)c->sent,
			(unsigned long long)c->received);
	atomic_store(&stop, true);
}

/* May another request begin? */
static bool next_request(uint64_t now)
{
	if (atomic_load_explicit(&stop, memory_order_relaxed))
		return false;
	if (conf.count)
		return atomic_fetch_add(&tickets, 1) < conf.count;
	return now < atomic_load_explicit(&end_at, memory_order_relaxed);
}

/* ---- one connection ---- */
static bool conn_open(struct conn *c)
{
	int one = 1, type = SOCK_STREAM | SOCK_CLOEXEC | (conf.mode == MODE_BLOCK ? 0 : SOCK_NONBLOCK);

	c->fd = socket(conf.addr.ss_family, type, 0);
	if (c->fd < 0) {
		fail(c, "socket", errno);
		return false;
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->progress_at = now_ns();
	c->sent = c->received = c->begun = c->done = 0;
	c->connecting = false;
	if (connect(c->fd, (struct sockaddr *)&conf.addr, conf.addr_len) == 0)
		return true;
	if (errno != EINPROGRESS) {
		fail(c, "connect", errno);
		return false;
	}
	c->connecting = true;
	return true;
}

static bool conn_connected(struct conn *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
		err = errno;
	if (err) {
		fail(c, "connect", err);
		return false;
	}
	c->connecting = false;
	return true;
}

/* Sends what the depth allows.  -1: failed; 0: nothing more to send now; 1: the socket is full. */
static int conn_send(struct conn *c)
{
	for (;;) {
		uint64_t now = now_ns();
		size_t n;
		ssize_t r;

		while (c->begun - c->done < conf.depth && (conf.reconnect ? c->begun == 0 : next_request(now))) {
			if (!conf.reconnect)
				c->start[c->begun % conf.depth] = now;
			c->begun++;
		}
		n = (size_t)(c->begun * conf.size - c->sent);
		if (n == 0)
			return 0;
		if (conf.separate && n > conf.size - c->sent % conf.size)
			n = conf.size - (size_t)(c->sent % conf.size);
		if (n > PATTERN_SPAN)
			n = PATTERN_SPAN;
		r = send(c->fd, pattern_at(c->base + c->sent), n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN)
			return 1;
		if (r < 0) {
			fail(c, "send", errno);
			return -1;
		}
		c->sent += (uint64_t)r;
	}
}

/* Takes n bytes that arrived. */
static bool conn_take(struct worker *w, struct conn *c, size_t n)
{
	uint64_t now = now_ns();

	if (c->received + n > c->sent || (conf.verify && !pattern_matches(w->buf, n, c->base + c->received))) {
		fail(c, "recv", 0);
		return false;
	}
	c->received += n;
	c->progress_at = now;
	while (c->done < c->begun && c->received >= (c->done + 1) * conf.size) {
		uint64_t start = c->start[c->done % conf.depth];

		c->done++;
		if (start >= atomic_load_explicit(&measure_from, memory_order_relaxed)) {
			histogram_add(&w->hist, now - start);
			w->requests++;
		}
	}
	return true;
}

/* One recv.  -1: failed; 0: nothing there; 1: something came. */
static int conn_recv(struct worker *w, struct conn *c, int flags)
{
	ssize_t n = recv(c->fd, w->buf, PATTERN_SPAN, flags);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		fail(c, "recv", errno);
	else if (n == 0)
		fail(c, "recv: end of stream", ECONNRESET);
	return n <= 0 ? -1 : conn_take(w, c, (size_t)n) ? 1 : -1;
}

static bool conn_stalled(struct conn *c)
{
	if (conf.stall <= 0 || now_ns() < c->progress_at || (double)(now_ns() - c->progress_at) < conf.stall * 1e9)
		return false;
	fail(c, "no progress", ETIMEDOUT);
	return true;
}

static bool conn_idle(const struct conn *c)
{
	return !c->connecting && c->received == c->begun * conf.size;
}

/* With --reconnect: the next request with a connection of its own.  False: no more requests. */
static bool conn_again(struct worker *w, struct conn *c)
{
	uint64_t now = now_ns();

	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	if (!next_request(now))
		return false;
	c->start[0] = now;
	w->connects++;
	return conn_open(c);
}

/* ---- block mode ---- */
static bool block_wait(struct conn *c, short events)
{
	struct pollfd p = {.fd = c->fd, .events = events};

	return poll(&p, 1, STALL_CHECK_MS) != 0 || !conn_stalled(c);
}

static void run_connects(struct worker *w, struct conn *c)
{
	while (conn_again(w, c)) {
		uint64_t now = now_ns();

		if (c->start[0] >= atomic_load_explicit(&measure_from, memory_order_relaxed)) {
			histogram_add(&w->hist, now - c->start[0]);
			w->requests++;
		}
	}
}

static void run_block(struct worker *w, struct conn *c)
{
	if (conf.connect_only) {
		run_connects(w, c);
		return;
	}
	for (;;) {
		int full;

		if (conf.reconnect && (c->fd < 0 || (c->begun > 0 && conn_idle(c))) && !conn_again(w, c))
			return;
		full = conn_send(c);
		if (full < 0 || (!conf.reconnect && conn_idle(c)))
			return;
		/* With everything handed over, a blocking recv, ended by watch_blocked() when nothing comes. */
		if (full ? !block_wait(c, POLLIN | POLLOUT) || conn_recv(w, c, MSG_DONTWAIT) < 0 : conn_recv(w, c, 0) < 0)
			return;
	}
}

/* ---- epoll and spin ---- */
static bool conn_watch(struct worker *w, struct conn *c, bool add, bool out)
{
	struct epoll_event ev = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};

	if (conf.mode != MODE_EPOLL || (!add && ev.events == c->interest))
		return true;
	c->interest = ev.events;
	if (epoll_ctl(w->ep, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, c->fd, &ev) == 0)
		return true;
	fail(c, "epoll_ctl", errno);
	return false;
}

/* Everything that can be done on a connection now.  False: it is over (or failed). */
static bool conn_step(struct worker *w, struct conn *c, bool may_recv)
{
	int full;

	if (may_recv && conn_recv(w, c, 0) < 0)
		return false;
	if (conf.reconnect && c->begun > 0 && conn_idle(c))
		return conn_again(w, c) && conn_watch(w, c, true, true);
	full = conn_send(c);
	return full >= 0 && conn_watch(w, c, false, full > 0) && !conn_idle(c);
}

static void run_epoll(struct worker *w)
{
	struct epoll_event ev[EVENTS];
	unsigned live = 0;

	for (unsigned i = 0; i < w->n; i++)
		live += conf.reconnect ? conn_again(w, &w->conn[i]) && conn_watch(w, &w->conn[i], true, true)
				       : conn_step(w, &w->conn[i], false);
	while (live > 0 && !atomic_load(&failed)) {
		int n = epoll_wait(w->ep, ev, EVENTS, STALL_CHECK_MS);

		if (n < 0 && errno != EINTR)
			fail(w->conn, "epoll_wait", errno);
		for (unsigned i = 0; n == 0 && i < w->n; i++)
			if (w->conn[i].fd >= 0 && !conn_idle(&w->conn[i]) && conn_stalled(&w->conn[i]))
				return;
		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;

			if (c->connecting && !conn_connected(c))
				return;
			if (!conn_step(w, c, (ev[i].events & ~(uint32_t)EPOLLOUT) != 0))
				live--;
		}
	}
}

static void run_spin(struct worker *w)
{
	unsigned live = w->n;

	while (live > 0 && !atomic_load(&failed)) {
		live = 0;
		for (unsigned i = 0; i < w->n; i++) {
			struct conn *c = &w->conn[i];
			struct pollfd p = {.events = POLLOUT};

			if (c->fd < 0 && !(conf.reconnect && c->begun == 0 && conn_again(w, c)))
				continue;
			p.fd = c->fd;
			if (c->connecting) {
				live++;
				if (poll(&p, 1, 0) > 0 && !conn_connected(c))
					return;
			} else if (conn_step(w, c, c->begun > 0)) {
				live++;
				if (conn_stalled(c))
					return;
			} else if (c->fd >= 0) {
				close(c->fd);
				c->fd = -1;
			}
		}
	}
}

/* ---- threads ---- */
static bool connect_all(struct worker *w)
{
	for (unsigned i = 0; i < w->n; i++)
		if (!conn_open(&w->conn[i]))
			return false;
	for (unsigned i = 0; i < w->n; i++) {
		struct conn *c = &w->conn[i];
		struct pollfd p = {.fd = c->fd, .events = POLLOUT};

		while (c->connecting && poll(&p, 1, STALL_CHECK_MS) <= 0)
			if (conn_stalled(c) || atomic_load(&failed))
				return false;
		if (c->connecting && !conn_connected(c))
			return false;
		if (!conn_watch(w, c, true, false))
			return false;
		c->progress_at = now_ns();
	}
	w->connects += w->n;
	return true;
}

/* Connections stay as they are until everybody's requests are done and the time asked for is over. */
static void hold(void)
{
	struct timespec t = {.tv_sec = (time_t)conf.hold, .tv_nsec = (long)((conf.hold - (double)(time_t)conf.hold) * 1e9)};

	if (conf.hold <= 0)
		return;
	if (pthread_barrier_wait(&all_done) == PTHREAD_BARRIER_SERIAL_THREAD) {
		atomic_store(&finished_at, now_ns());
		fputs("holding\n", stderr);
		nanosleep(&t, NULL);
	}
	pthread_barrier_wait(&all_done);
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	bool ok = conf.reconnect || connect_all(w);
	struct rusage use;

	if (pthread_barrier_wait(&all_connected) == PTHREAD_BARRIER_SERIAL_THREAD) {
		uint64_t from = now_ns() + (uint64_t)(conf.warmup * 1e9);

		atomic_store(&measure_from, from);
		atomic_store(&end_at, from + (uint64_t)(conf.seconds * 1e9));
	}
	pthread_barrier_wait(&all_connected);
	if (ok && !atomic_load(&failed)) {
		if (conf.mode == MODE_BLOCK)
			run_block(w, w->conn);
		else if (conf.mode == MODE_EPOLL)
			run_epoll(w);
		else
			run_spin(w);
	}
	getrusage(RUSAGE_THREAD, &use);
	w->cpu_s = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
		   (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
	hold();
	for (unsigned i = 0; i < w->n; i++)
		if (w->conn[i].fd >= 0)
			close(w->conn[i].fd);
	return NULL;
}

static void worker_init(struct worker *w, unsigned first, unsigned n)
{
	w->n = n;
	w->conn = calloc(n, sizeof(*w->conn));
	w->buf = malloc(PATTERN_SPAN);
	w->ep = conf.mode == MODE_EPOLL ? epoll_create1(EPOLL_CLOEXEC) : -1;
	if (!w->conn || !w->buf || (conf.mode == MODE_EPOLL && w->ep < 0))
		goto fail;
	for (unsigned i = 0; i < n; i++) {
		w->conn[i].fd = -1;
		w->conn[i].base = first + i;
		w->conn[i].start = calloc(conf.depth, sizeof(uint64_t));
		if (!w->conn[i].start)
			goto fail;
	}
	return;
fail:
	perror("rpcclient: cannot start");
	exit(1);
}

/* Joins all threads.  Threads in a blocking recv cannot look after themselves: a stalled connection, or all of them after a
 * failure, are shut down from here. */
static void join_all(void)
{
	for (unsigned i = 0; i < conf.threads; i++) {
		struct worker *w = &workers[i];
		struct timespec at;

		for (;;) {
			clock_gettime(CLOCK_REALTIME, &at);
			at.tv_sec++;
			if (conf.mode != MODE_BLOCK ? pthread_join(w->thread, NULL) == 0
						    : pthread_timedjoin_np(w->thread, NULL, &at) == 0)
				break;
			if (atomic_load(&measure_from) && (atomic_load(&failed) || conn_stalled(w->conn)))
				for (unsigned k = i; k < conf.threads; k++)
					shutdown(workers[k].conn->fd, SHUT_RDWR);
		}
	}
}

/* ---- report ---- */
static void report(double seconds)
{
	static struct histogram all;
	struct report r = {
		.mode = mode_names[conf.mode], .connections = conf.conns, .threads = conf.threads, .depth = conf.depth,
		.size = conf.size, .reconnect = conf.reconnect, .separate = conf.separate, .ok = !atomic_load(&failed),
		.cdf = conf.cdf, .seconds = seconds, .latency = &all,
	};

	for (unsigned i = 0; i < conf.threads; i++) {
		histogram_merge(&all, &workers[i].hist);
		r.requests += workers[i].requests;
		r.connects += workers[i].connects;
		r.cpu_seconds += workers[i].cpu_s;
	}
	if (conf.json)
		report_json(&r);
	else
		report_text(&r);
}

int main(int argc, char **argv)
{
	struct rlimit files;
	uint64_t end;

	parse(argc, argv);
	pattern_init(1);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	pthread_barrier_init(&all_connected, NULL, conf.threads);
	pthread_barrier_init(&all_done, NULL, conf.threads);
	for (unsigned i = 0, first = 0; i < conf.threads; i++) {
		unsigned n = conf.conns / conf.threads + (i < conf.conns % conf.threads);

		worker_init(&workers[i], first, n);
		first += n;
	}
	for (unsigned i = 0; i < conf.threads; i++) {
		int err = pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]);

		if (err) {
			fprintf(stderr, "rpcclient: cannot start thread %u: %s\n", i, strerror(err));
			return 1;
		}
	}
	join_all();
	end = finished_at ? finished_at : now_ns();
	report((double)(end - measure_from) / 1e9);
	return atomic_load(&failed) ? 1 : 0;
}
