/* SPDX-License-Identifier: MIT */
/* build/tas: start, serve, end.  What was begun is ended in the opposite order, also when starting fails half-way. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "service/edge.h"
#include "service/options.h"
#include "service/threads.h"

struct tas_core tas_cores[TAS_CORES_MAX];
unsigned tas_n_cores = 1;

static struct tas_net nets[TAS_CORES_MAX];
static struct tas_pollable signals = { .fd = -1 };

/* ---- signals ---- */
static void dump(void)
{
	static const char *const names[] = {
#define C(name, text) #name,
		TAS_COUNTERS(C)
#undef C
	};
	for (unsigned i = 0; i < TAS_CTR_N; i++) {
		uint64_t sum = 0;

		for (unsigned c = 0; c < tas_n_cores; c++)
			sum += tas_cores[c].counters[i];
		if (sum)
			fprintf(stderr, "tas: %s %llu\n", names[i], (unsigned long long)sum);
	}
}

static void on_signal(struct tas_pollable *p, uint32_t ev)
{
	struct signalfd_siginfo s;

	(void)ev;
	while (read(p->fd, &s, sizeof(s)) == sizeof(s)) {
		if (s.ssi_signo == SIGUSR1)
			dump();
		else
			tas_loop_stop();
	}
}

/* Blocked from the first line on and in every thread that DPDK starts: signals arrive at the loop only. */
static int catch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	signals.fn = on_signal;
	signal(SIGPIPE, SIG_IGN);
	return signals.fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL) ? -errno : 0;
}

/* ---- start and end ---- */
static void say_ready(void)
{
	char addrs[TAS_ADDRS_MAX * 24] = "";
	unsigned i;
	size_t n = 0;

	for (i = 0; i < tas_config.n_addr; i++) {
		const struct tas_prefix *a = &tas_config.addr[i];

		n += (size_t)snprintf(addrs + n, sizeof(addrs) - n, "%u.%u.%u.%u/%u, ", a->addr.ip[0], a->addr.ip[1],
				      a->addr.ip[2], a->addr.ip[3], a->bits);
	}
	tas_info("serving %s%s, socket %s", addrs, tas__link_describe(), tas_config.socket_path);
	if (tas_config.ready_fd < 0)
		return;
	if (write(tas_config.ready_fd, "ready\n", 6) != 6)
		tas_warn("--ready-fd=%d: %s", tas_config.ready_fd, strerror(errno));
	close(tas_config.ready_fd);
}

static int check_ready_fd(void)
{
	if (tas_config.ready_fd < 0 || fcntl(tas_config.ready_fd, F_GETFD) >= 0)
		return 0;
	fprintf(stderr, "tas: --ready-fd: '%d' is not accepted, but the number of an open descriptor\n", tas_config.ready_fd);
	return -EBADF;
}

static void use_what_the_kernel_gives(void)
{
	struct rlimit r;

	if (!getrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
}

static int serve(struct tas_core *c)
{
	int r = tas__link_open(c->net);

	if (r)
		return r;
	c->now = tas__clock();
	r = tas__net_init(c);
	if (r)
		goto close_link;
	r = tas__loop_init();
	if (!r)
		r = tas_loop_add(&signals, EPOLLIN);
	if (r) {
		tas_warn("epoll: %s", strerror(-r));
		goto end_loop;
	}
	r = tas__latency_init();
	if (!r)
		r = tas_stack_init();
	if (r)
		goto end_loop;
	r = tas__threads_init(c);
	if (!r) {
		tas__queue_watch();
		say_ready();
		tas__loop_run(c);
	}
	tas__threads_exit();
	tas_stack_exit();
end_loop:
	tas__queue_forget();
	tas__latency_exit();
	tas__net_exit(c);
	tas__loop_exit();
close_link:
	tas__link_close(c->net);
	return r;
}

/* Returns if that fails. */
static void begin_again_without_huge_pages(int argc, char **argv)
{
	char **args = calloc((size_t)argc + 2, sizeof(*args));

	if (!args)
		return;
	memcpy(args, argv, (size_t)argc * sizeof(*args));
	args[argc] = (char *)"--fp-no-hugepages";
	tas_warn("DPDK could not start with huge pages: beginning again without");
	execv("/proc/self/exe", args);
	free(args);
}

int main(int argc, char **argv)
{
	unsigned i;
	int r = tas__options(argc, argv, &tas_config, stdout, stderr);

	if (r != TAS_OPTIONS_RUN)
		return r == TAS_OPTIONS_DONE ? 0 : 2;
	if (check_ready_fd())
		return 2;
	r = catch_signals();
	if (r) {
		tas_warn("signals: %s", strerror(-r));
		return 1;
	}
	use_what_the_kernel_gives();
	/* local connections are core 0's */
	tas_n_cores = tas_config.link == TAS_LINK_NONE ? 1 : tas_config.fp_cores_max;
	for (i = 0; i < TAS_CORES_MAX; i++) {
		tas_cores[i].index = i;
		tas_cores[i].net = &nets[i];
	}
	r = tas__net_routes();
	if (!r)
		r = serve(&tas_cores[0]);
	if (r && tas__eal_lacked_huge())
		begin_again_without_huge_pages(argc, argv);
	return r ? 1 : 0;
}
