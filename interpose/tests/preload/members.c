/* SPDX-License-Identifier: MIT */
/* A wait costs what is ready, not what is in the set: a round with 30 members beside one with 1,500, level and edge. */
#include "say.h"

#include <sys/resource.h>
#include <time.h>

enum { FEW = 30, MANY = 1500, ROUNDS = 300 };

static int near[MANY], far[MANY];

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static int set_of(int n, unsigned mode)
{
	int ep = epoll_create1(0);

	for (int i = 0; i < n; i++) {
		struct epoll_event ev = {.events = EPOLLIN | mode, .data.u32 = (unsigned)i};

		if (epoll_ctl(ep, EPOLL_CTL_ADD, far[i], &ev))
			exit(1);
	}
	return ep;
}

/* The shortest of many rounds: one member gets a byte, the set says so once, and then nothing. */
static double best_round(int n, unsigned mode)
{
	int ep = set_of(n, mode);
	double best = 1e18;
	struct epoll_event ev[4];
	char c;

	epoll_wait(ep, ev, 4, 0);
	for (int r = 0; r < ROUNDS; r++) {
		int i = r * 7 % n;
		double t;

		if (write(near[i], "x", 1) != 1)
			exit(1);
		usleep(50);
		t = now();
		if (epoll_wait(ep, ev, 4, 1000) != 1 || ev[0].data.u32 != (unsigned)i)
			exit(2);
		t = now() - t;
		if (read(far[i], &c, 1) != 1)
			exit(3);
		epoll_wait(ep, ev, 4, 0);
		if (t < best)
			best = t;
	}
	close(ep);
	return best;
}

static void compare(const char *name, unsigned mode)
{
	double few = best_round(FEW, mode), many = best_round(MANY, mode);

	printf("%s: %s\n", name, many < 4 * few + 2000 ? "the same" : "slower with many");
	if (many >= 4 * few + 2000)
		printf("%.0f ns, %.0f ns\n", few, many);
}

int main(void)
{
	struct sockaddr_in sin;
	struct rlimit rl;
	int ls = listener(&sin);

	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	for (int i = 0; i < MANY; i++) {
		near[i] = socket(AF_INET, SOCK_STREAM, 0);
		if (near[i] < 0 || connect(near[i], (struct sockaddr *)&sin, sizeof sin) || (far[i] = accept(ls, NULL, NULL)) < 0) {
			perror("connect");
			return 1;
		}
	}
	compare("level", 0);
	compare("edge", EPOLLET);
	return 0;
}
