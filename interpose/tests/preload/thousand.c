/* SPDX-License-Identifier: MIT */
/* A thousand threads asleep at once in recv, poll, epoll_wait and accept: woken by data, by the end of the connection, and, given an
 * argument, by the death of the service, which the test brings about when we say that all of them sleep. */
#include "say.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum { PAIRS = 125, PER_PAIR = 8, THREADS = PAIRS * PER_PAIR };

static int pairs[PAIRS][2], sets[PAIRS];
static atomic_int gone_in, returned, with_data, ended, failed;

static void count(long n)
{
	if (n > 0)
		with_data++;
	else if (n == 0)
		ended++;
	else
		failed++;
	returned++;
}

static void *waiter(void *arg)
{
	int i = (int)(intptr_t)arg, p = i / PER_PAIR, fd = pairs[p][1];
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	struct epoll_event ev;
	char c;

	gone_in++;
	switch (i % PER_PAIR) {
	case 0 ... 3:
		count(recv(fd, &c, 1, 0));
		break;
	case 4:
	case 5:
		count(poll(&pfd, 1, -1) == 1 ? recv(fd, &c, 1, 0) : -1);
		break;
	default:
		count(epoll_wait(sets[p], &ev, 1, -1) == 1 ? recv(fd, &c, 1, 0) : -1);
	}
	return NULL;
}

static void start(pthread_t *t)
{
	pthread_attr_t attr;

	gone_in = returned = with_data = ended = failed = 0;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&t[i], &attr, waiter, (void *)(intptr_t)i)) {
			perror("pthread_create");
			exit(1);
		}
	while (gone_in < THREADS)
		usleep(1000);
	usleep(300000); /* the last ones go to sleep */
}

static void end(pthread_t *t)
{
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

int main(int argc, char **argv)
{
	static pthread_t t[THREADS];
	struct rlimit rl;
	char bytes[PER_PAIR] = "";

	(void)argv;
	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	signal(SIGPIPE, SIG_IGN);
	for (int p = 0; p < PAIRS; p++) {
		struct epoll_event ev = {.events = EPOLLIN};

		tcp_pair(pairs[p]);
		sets[p] = epoll_create1(0);
		epoll_ctl(sets[p], EPOLL_CTL_ADD, pairs[p][1], &ev);
	}
	start(t);
	if (argc > 1) {
		printf("asleep %d\n", THREADS - returned);
		fflush(stdout);
		end(t);
		printf("returned %d, data %d\n", returned, with_data);
		return 0;
	}
	printf("asleep: %d\n", THREADS - returned);
	for (int p = 0; p < PAIRS; p++)
		if (write(pairs[p][0], bytes, PER_PAIR) != PER_PAIR)
			return 1;
	end(t);
	printf("data: %d of %d\n", with_data, returned);
	start(t);
	printf("asleep: %d\n", THREADS - returned);
	for (int p = 0; p < PAIRS; p++)
		close(pairs[p][0]);
	end(t);
	printf("ended: %d of %d, failed %d\n", ended, returned, failed);
	return 0;
}
