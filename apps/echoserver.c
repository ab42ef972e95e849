/* SPDX-License-Identifier: MIT */
/*
 * echoserver: sends back what arrives.  Plain POSIX sockets and epoll, knows nothing of TAS.
 *
 * One listener, accepted from by the first thread; a new connection goes to the thread that has the fewest.  A connection
 * belongs to one thread from then on.  Bytes are read into a scratch buffer of the thread and sent at once; only what the
 * peer does not take (or an incomplete message, with BYTES > 1) is kept in a buffer of the connection, and while that is
 * full nothing more is read: a client that does not read its answers slows down itself, not the server.
 *
 * Out of descriptors, or MAX_FLOWS reached: the listener leaves its epoll set until a connection ends (or, for descriptors
 * somebody else uses up, until a tenth of a second has passed), so that a full server waits instead of spinning.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "args.h"

enum { SCRATCH = 64 * 1024, EVENTS = 256, THREADS_MAX = 256, ACCEPTS_AT_ONCE = 64, RETRY_MS = 100 };

struct conn {
	struct conn *next, **link; /* in its thread's list, for the end of the program */
	struct worker *worker;
	int fd;
	uint32_t interest; /* as told to epoll */
	bool eof;          /* the peer has sent its FIN */
	unsigned char *buf; /* kept bytes [0, used), NULL while there are none */
	size_t used;
	size_t ready; /* of used: those that may be sent (complete messages) */
};

struct worker {
	pthread_t thread;
	int ep;
	atomic_uint conns;
	pthread_mutex_t lock; /* conn_list: the accepting thread adds */
	struct conn *conn_list;
	_Atomic uint64_t bytes, accepted;
	unsigned char *scratch;
};

static struct {
	const char *host, *port;
	unsigned threads;
	unsigned max_flows;
	size_t message;
	bool quiet;
} conf = {.port = "1234", .threads = 1, .message = 1};

static struct worker workers[THREADS_MAX];
static int listener, stop_event;
static size_t buf_size; /* of a connection's buffer */
static atomic_uint total_conns;
static atomic_bool stopping;

/* The accepting thread sets paused after it took the listener out; whoever closes a connection puts it back. */
static pthread_mutex_t pause_lock = PTHREAD_MUTEX_INITIALIZER;
static bool paused;

static void listener_watch(int op)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &listener};

	if (epoll_ctl(workers[0].ep, op, listener, &ev) != 0)
		perror("echoserver: epoll_ctl on the listener");
}

static void listener_pause(void)
{
	pthread_mutex_lock(&pause_lock);
	if (!paused) {
		paused = true;
		listener_watch(EPOLL_CTL_DEL);
	}
	pthread_mutex_unlock(&pause_lock);
}

static void listener_resume(void)
{
	pthread_mutex_lock(&pause_lock);
	if (paused && !atomic_load(&stopping)) {
		paused = false;
		listener_watch(EPOLL_CTL_ADD);
	}
	pthread_mutex_unlock(&pause_lock);
}

/* ---- connections ---- */
static void conn_free(struct conn *c)
{
	struct worker *w = c->worker;

	/* The thread that accepted it may still be inside its EPOLL_CTL_ADD and hold the file, so close() alone might leave the
	 * member in the set for a moment. */
	epoll_ctl(w->ep, EPOLL_CTL_DEL, c->fd, NULL);
	close(c->fd);
	pthread_mutex_lock(&w->lock);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	pthread_mutex_unlock(&w->lock);
	free(c->buf);
	free(c);
	atomic_fetch_sub(&w->conns, 1);
	atomic_fetch_sub(&total_conns, 1);
	listener_resume();
}

/* What may be sent of n bytes: all at the end of the stream, else whole messages. */
static size_t complete(const struct conn *c, size_t n)
{
	return c->eof ? n : n - n % conf.message;
}

static ssize_t send_some(struct conn *c, const unsigned char *data, size_t n)
{
	size_t sent = 0;

	while (sent < n) {
		ssize_t r = send(c->fd, data + sent, n - sent, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno != EAGAIN)
			return -1;
		if (r < 0)
			break;
		sent += (size_t)r;
	}
	return (ssize_t)sent;
}

/* Sends kept bytes.  False: the connection is broken. */
static bool flush(struct conn *c)
{
	ssize_t sent;

	c->ready = complete(c, c->used);
	if (c->ready == 0)
		return true;
	sent = send_some(c, c->buf, c->ready);
	if (sent < 0)
		return false;
	atomic_fetch_add_explicit(&c->worker->bytes, (uint64_t)sent, memory_order_relaxed);
	c->used -= (size_t)sent;
	c->ready -= (size_t)sent;
	if (c->used > 0) {
		memmove(c->buf, c->buf + sent, c->used);
	} else {
		free(c->buf);
		c->buf = NULL;
	}
	return true;
}

static bool keep(struct conn *c, const unsigned char *data, size_t n)
{
	if (n == 0)
		return true;
	if (!c->buf)
		c->buf = malloc(buf_size);
	if (!c->buf)
		return false;
	memcpy(c->buf + c->used, data, n);
	c->used += n;
	c->ready = complete(c, c->used);
	return true;
}

/* One read and the answer to it.  False: the connection is broken. */
static bool echo(struct conn *c)
{
	unsigned char *scratch = c->worker->scratch;
	size_t room = buf_size - c->used;
	ssize_t n, sent = 0;

	n = recv(c->fd, scratch, room < SCRATCH ? room : SCRATCH, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		c->eof = true;
	else if (c->used == 0)
		sent = send_some(c, scratch, complete(c, (size_t)n));
	if (sent < 0)
		return false;
	atomic_fetch_add_explicit(&c->worker->bytes, (uint64_t)sent, memory_order_relaxed);
	return keep(c, scratch + sent, (size_t)(n - sent)) && flush(c);
}

static bool set_interest(struct conn *c)
{
	struct epoll_event ev = {.data.ptr = c};

	if (!c->eof && c->used < buf_size)
		ev.events |= EPOLLIN | EPOLLRDHUP;
	if (c->ready > 0)
		ev.events |= EPOLLOUT;
	if (ev.events == c->interest)
		return true;
	c->interest = ev.events;
	return epoll_ctl(c->worker->ep, EPOLL_CTL_MOD, c->fd, &ev) == 0;
}

static void conn_event(struct conn *c, uint32_t events)
{
	bool ok = true;

	if (events & EPOLLOUT)
		ok = flush(c);
	if (ok && (events & (EPOLLIN | EPOLLRDHUP)) && !c->eof && c->used < buf_size)
		ok = echo(c);
	else if (events & (EPOLLERR | EPOLLHUP)) /* both directions are over: nobody takes the rest */
		ok = false;
	if (!ok || (c->eof && c->used == 0) || !set_interest(c))
		conn_free(c);
}

/* ---- accepting ---- */
static bool conn_new(int fd)
{
	struct worker *w = &workers[0];
	struct conn *c = calloc(1, sizeof(*c));
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
	int one = 1;

	if (!c)
		return false;
	for (unsigned i = 1; i < conf.threads; i++)
		if (atomic_load(&workers[i].conns) < atomic_load(&w->conns))
			w = &workers[i];
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->fd = fd;
	c->worker = w;
	c->interest = ev.events;
	atomic_fetch_add(&total_conns, 1);
	atomic_fetch_add(&w->conns, 1);
	atomic_fetch_add_explicit(&w->accepted, 1, memory_order_relaxed);
	pthread_mutex_lock(&w->lock);
	c->next = w->conn_list;
	c->link = &w->conn_list;
	if (c->next)
		c->next->link = &c->next;
	w->conn_list = c;
	pthread_mutex_unlock(&w->lock);
	/* From here on c belongs to w's thread, which may free it before this call returns. */
	if (epoll_ctl(w->ep, EPOLL_CTL_ADD, fd, &ev) != 0) {
		perror("echoserver: epoll_ctl");
		conn_free(c);
	}
	return true;
}

static void accept_some(void)
{
	for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
		int fd;

		if (atomic_load(&total_conns) >= conf.max_flows) {
			listener_pause();
			if (atomic_load(&total_conns) < conf.max_flows)
				listener_resume(); /* one ended between the two lines above */
			return;
		}
		fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			if (conn_new(fd))
				continue;
			close(fd);
			errno = ENOMEM;
		}
		switch (errno) {
		case EAGAIN:
			return;
		case EMFILE:
		case ENFILE:
		case ENOBUFS:
		case ENOMEM:
			listener_pause();
			return;
		default: /* this connection ended before we took it, EINTR and the like */
			continue;
		}
	}
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct epoll_event ev[EVENTS];

	while (!atomic_load(&stopping)) {
		bool waiting = false;
		int n;

		if (w == &workers[0]) {
			pthread_mutex_lock(&pause_lock);
			waiting = paused;
			pthread_mutex_unlock(&pause_lock);
		}
		n = epoll_wait(w->ep, ev, EVENTS, waiting ? RETRY_MS : -1);
		if (n < 0 && errno != EINTR) {
			perror("echoserver: epoll_wait");
			exit(1);
		}
		if (n == 0 && waiting && atomic_load(&total_conns) < conf.max_flows)
			listener_resume();
		for (int i = 0; i < n; i++) {
			if (ev[i].data.ptr == &listener)
				accept_some();
			else if (ev[i].data.ptr != &stop_event)
				conn_event(ev[i].data.ptr, ev[i].events);
		}
	}
	return NULL;
}

/* ---- start and end ---- */
static void listen_or_exit(void)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int one = 1;

	arg_address(conf.host, conf.port, &addr, &len);
	listener = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(listener, (struct sockaddr *)&addr, len) != 0 || listen(listener, SOMAXCONN) != 0 ||
	    getsockname(listener, (struct sockaddr *)&addr, &len) != 0) {
		fprintf(stderr, "echoserver: cannot listen on port %s: %s\n", conf.port, strerror(errno));
		exit(1);
	}
	if (!conf.quiet) {
		printf("echoserver: listening on %s, %u thread%s\n", show_address((struct sockaddr *)&addr, len), conf.threads,
		       conf.threads == 1 ? "" : "s");
		fflush(stdout);
	}
}

static void start_or_exit(void)
{
	struct epoll_event stop = {.events = EPOLLIN, .data.ptr = &stop_event};

	stop_event = eventfd(0, EFD_CLOEXEC);
	for (unsigned i = 0; i < conf.threads; i++) {
		struct worker *w = &workers[i];

		w->ep = epoll_create1(EPOLL_CLOEXEC);
		w->scratch = malloc(SCRATCH);
		pthread_mutex_init(&w->lock, NULL);
		if (w->ep < 0 || !w->scratch || stop_event < 0 || epoll_ctl(w->ep, EPOLL_CTL_ADD, stop_event, &stop) != 0) {
			perror("echoserver: cannot start");
			exit(1);
		}
	}
	listener_watch(EPOLL_CTL_ADD);
	for (unsigned i = 0; i < conf.threads; i++) {
		int err = pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]);

		if (err) {
			fprintf(stderr, "echoserver: cannot start thread %u: %s\n", i, strerror(err));
			exit(1);
		}
	}
}

static void stop_and_report(void)
{
	uint64_t bytes = 0, accepted = 0, one = 1;

	atomic_store(&stopping, true);
	if (write(stop_event, &one, sizeof(one)) != sizeof(one))
		exit(1);
	for (unsigned i = 0; i < conf.threads; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned i = 0; i < conf.threads; i++) {
		bytes += workers[i].bytes;
		accepted += workers[i].accepted;
		while (workers[i].conn_list)
			conn_free(workers[i].conn_list);
		close(workers[i].ep);
		free(workers[i].scratch);
	}
	close(listener);
	close(stop_event);
	if (!conf.quiet)
		printf("echoserver: %llu connections, %llu bytes echoed\n", (unsigned long long)accepted,
		       (unsigned long long)bytes);
}

static const char usage[] =
	"usage: echoserver [options] [PORT [THREADS [CONFIG [MAX_FLOWS [BYTES]]]]]\n"
	"Sends back what arrives, until SIGINT or SIGTERM.\n"
	"  -p, --port=PORT        TCP port, 0: any free one (1234)\n"
	"  -t, --threads=N        threads (1)\n"
	"  -f, --max-flows=N      most connections at once (as many as descriptors allow)\n"
	"  -b, --bytes=N          message length: answer when so many bytes have arrived (1: at once)\n"
	"  -a, --address=ADDR     address to listen on (0.0.0.0)\n"
	"  -q, --quiet            print nothing\n"
	"  -h, --help             this text\n"
	"CONFIG is accepted for the sake of old command lines and not used.\n";

static void set_option(int opt, const char *val)
{
	switch (opt) {
	case 'p':
		arg_number("PORT", val, 0, 65535);
		conf.port = val;
		break;
	case 't':
		conf.threads = (unsigned)arg_number("THREADS", val, 1, THREADS_MAX);
		break;
	case 'c':
		break;
	case 'f':
		conf.max_flows = (unsigned)arg_number("MAX_FLOWS", val, 1, 1u << 30);
		break;
	case 'b':
		conf.message = (size_t)arg_number("BYTES", val, 1, 1u << 30);
		break;
	case 'a':
		conf.host = val;
		break;
	case 'q':
		conf.quiet = true;
		break;
	case 'h':
		fputs(usage, stdout);
		exit(0);
	default:
		fputs("Try: echoserver --help\n", stderr);
		exit(2);
	}
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"port", required_argument, NULL, 'p'},      {"threads", required_argument, NULL, 't'},
		{"max-flows", required_argument, NULL, 'f'}, {"bytes", required_argument, NULL, 'b'},
		{"address", required_argument, NULL, 'a'},   {"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},            {0},
	};
	static const char positions[] = {'p', 't', 'c', 'f', 'b'};
	int opt;

	while ((opt = getopt_long(argc, argv, "p:t:f:b:a:qh", longs, NULL)) >= 0)
		set_option(opt, optarg);
	if (argc - optind > (int)sizeof(positions))
		set_option('?', NULL);
	for (int i = 0; optind < argc; i++)
		set_option(positions[i], argv[optind++]);
}

int main(int argc, char **argv)
{
	struct rlimit files;
	sigset_t set;
	int sig;

	parse(argc, argv);
	buf_size = conf.message > SCRATCH ? conf.message : SCRATCH;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (conf.max_flows == 0)
		conf.max_flows = UINT32_MAX; /* EMFILE is the limit */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	listen_or_exit();
	start_or_exit();
	sigwait(&set, &sig);
	stop_and_report();
	return 0;
}
