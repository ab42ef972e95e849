/* SPDX-License-Identifier: MIT */
/* pthread_cancel at any moment of a call, of threads that refuse it, of threads that take it at any instruction, of many. */
#include "say.h"

#include <pthread.h>
#include <sys/epoll.h>

static int s[2], ls, ep, cleaned;

static void clean(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&cleaned, 1, __ATOMIC_SEQ_CST);
}

static void wait_in(int way)
{
	struct pollfd p = {.fd = s[1], .events = POLLIN};
	struct epoll_event ev;
	char c;

	switch (way) {
	case 0:
		recv(s[1], &c, 1, 0);
		break;
	case 1:
		poll(&p, 1, -1);
		break;
	case 2:
		epoll_wait(ep, &ev, 1, -1);
		break;
	case 3:
		accept(ls, NULL, NULL);
		break;
	case 4:
		poll(&p, 1, 60000);
		break;
	}
}

static void *waiter(void *arg)
{
	pthread_cleanup_push(clean, NULL);
	wait_in((int)(intptr_t)arg);
	pthread_cleanup_pop(0);
	return NULL;
}

static void *waiter_any_time(void *arg)
{
	int old;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
	return waiter(arg);
}

static void *refuses(void *arg)
{
	struct pollfd p = {.fd = s[1], .events = POLLIN};
	char c = 0;
	int old, r;

	(void)arg;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	r = poll(&p, 1, -1);
	if (r == 1)
		r = (int)recv(s[1], &c, 1, 0);
	printf("refuses: %d %c\n", r, c);
	r = (int)recv(s[1], &c, 1, 0);
	printf("refuses still: %d %c\n", r, c);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
	recv(s[1], &c, 1, 0);
	printf("not reached\n");
	return NULL;
}

static int ends(pthread_t t)
{
	void *r;

	return !pthread_join(t, &r) && r == PTHREAD_CANCELED;
}

/* Cancels after 0 to 200 µs: in every phase of the call. */
static void storm(const char *name, void *(*fn)(void *), int way)
{
	int n = 0, i;

	cleaned = 0;
	/* one that was cancelled before its cleanup handler was there has nothing to clean: on a busy machine that may be most */
	for (i = 0; i < 150 || (cleaned <= 20 && i < 5000); i++) {
		struct timespec ts = {0, i % 150 * 1300};
		pthread_t t;

		if (pthread_create(&t, NULL, fn, (void *)(intptr_t)way))
			exit(1);
		nanosleep(&ts, NULL);
		pthread_cancel(t);
		n += ends(t);
	}
	printf("%s: %s cancelled, %s\n", name, n == i ? "all" : "not all", cleaned > 20 && cleaned <= n ? "cleaned up" : "not cleaned up");
	fflush(stdout);
}

static void many(void)
{
	pthread_t t[200];
	int n = 0;

	for (int i = 0; i < 200; i++)
		if (pthread_create(&t[i], NULL, waiter, (void *)(intptr_t)(i % 5)))
			exit(1);
	usleep(30000);
	for (int i = 0; i < 200; i++)
		pthread_cancel(t[i]);
	for (int i = 0; i < 200; i++)
		n += ends(t[i]);
	printf("many: %d\n", n);
}

int main(void)
{
	static const char *const names[] = {"recv", "poll", "epoll_wait", "accept", "poll with a timeout"};
	struct epoll_event ev = {.events = EPOLLIN};
	pthread_t t;
	char c;

	struct sockaddr_in sin;

	tcp_pair(s);
	ls = listener(&sin);
	ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, s[1], &ev);
	for (int way = 0; way < 5; way++) {
		storm(names[way], waiter, way);
		storm("at any time", waiter_any_time, way);
	}
	many();
	if (pthread_create(&t, NULL, refuses, NULL))
		return 1;
	usleep(20000);
	pthread_cancel(t);
	usleep(20000);
	pthread_cancel(t);
	send(s[0], "a", 1, 0);
	usleep(20000);
	send(s[0], "b", 1, 0);
	printf("cancelled in the end: %d\n", ends(t));
	/* nothing was lost, nothing is held */
	SAY(send(s[0], "z", 1, 0));
	SAY(recv(s[1], &c, 1, 0));
	SAY(close(s[1]));
	SAY(recv(s[0], &c, 1, 0));
	return 0;
}
