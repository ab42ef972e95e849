/* SPDX-License-Identifier: MIT */
/*
 * Epoll sets that several processes have, as on Linux: holders that are killed at any instruction hurt nobody; a set survives exec
 * and goes to strangers in a message; an event is for one of those who wait; thousands of sets sleep without looking around; who
 * sleeps in a set that knows nothing of TAS hears of its first member that does.
 */
#include "say.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { MEMBERS = 24, KILLED = 60, SETS = 1500, WAITERS = 4 };

static int ls;
static struct sockaddr_in sin_;

static void pair(int *near, int *far)
{
	*near = socket(AF_INET, SOCK_STREAM, 0);
	if (*near < 0 || connect(*near, (struct sockaddr *)&sin_, sizeof sin_) || (*far = accept(ls, NULL, NULL)) < 0) {
		perror("pair");
		exit(1);
	}
}

static long ctl(int ep, int op, int fd, unsigned events, unsigned data)
{
	struct epoll_event ev = {.events = events, .data.u32 = data};

	return epoll_ctl(ep, op, fd, &ev);
}

/* Which of the members are told of, as bits. */
static unsigned long all_of(int ep, unsigned long want)
{
	unsigned long got = 0;
	struct epoll_event ev[MEMBERS];

	for (int i = 0, n; i < 200 && got != want; i++) {
		n = epoll_wait(ep, ev, MEMBERS, 20);
		for (int k = 0; k < n; k++)
			got |= 1ul << ev[k].data.u32;
		usleep(2000); /* one that stays ready makes every wait short */
	}
	return got;
}

/* ---- killed at work ---- */
static void work_for_ever(int ep, const int *far, unsigned seed)
{
	struct epoll_event ev[8];

	for (;;) {
		int i = rand_r(&seed) % MEMBERS;

		switch (rand_r(&seed) % 4) {
		case 0:
			ctl(ep, EPOLL_CTL_DEL, far[i], 0, 0);
			break;
		case 1:
			ctl(ep, EPOLL_CTL_ADD, far[i], EPOLLIN | EPOLLET, (unsigned)i);
			break;
		case 2:
			ctl(ep, EPOLL_CTL_MOD, far[i], EPOLLIN | EPOLLOUT, (unsigned)i);
			break;
		default:
			epoll_wait(ep, ev, 8, 0);
		}
	}
}

static void killed_holders(void)
{
	int near[MEMBERS], far[MEMBERS], ep = epoll_create1(0);
	unsigned seed = 1;

	for (int i = 0; i < MEMBERS; i++) {
		pair(&near[i], &far[i]);
		ctl(ep, EPOLL_CTL_ADD, far[i], EPOLLIN, (unsigned)i);
	}
	for (int k = 0; k < KILLED; k++) {
		pid_t pid[2];

		for (int c = 0; c < 2; c++) {
			pid[c] = fork();
			if (!pid[c])
				work_for_ever(ep, far, (unsigned)(k * 2 + c));
		}
		usleep((useconds_t)(500 + rand_r(&seed) % 4000));
		for (int c = 0; c < 2; c++)
			kill(pid[c], SIGKILL);
		for (int c = 0; c < 2; c++)
			waitpid(pid[c], NULL, 0);
	}
	for (int i = 0; i < MEMBERS; i++) {
		ctl(ep, EPOLL_CTL_DEL, far[i], 0, 0);
		if (ctl(ep, EPOLL_CTL_ADD, far[i], EPOLLIN, (unsigned)i))
			SAY(-1);
		if (write(near[i], "x", 1) != 1)
			SAY(-1);
	}
	printf("after %d were killed: %lx\n", KILLED, all_of(ep, (1ul << MEMBERS) - 1));
	for (int i = 0; i < MEMBERS; i++) {
		close(near[i]);
		close(far[i]);
	}
	printf("and when all are closed: %lx\n", all_of(ep, 1) & 0xffff);
	close(ep);
}

/* ---- to a stranger ---- */
static void send_fd(int to, int fd)
{
	char c = 'f', room[CMSG_SPACE(sizeof fd)] = {0};
	struct iovec v = {&c, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(h), &fd, sizeof fd);
	SAY(sendmsg(to, &m, 0));
}

static int receive_fd(int from)
{
	char c, room[CMSG_SPACE(sizeof(int))];
	struct iovec v = {&c, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	int fd = -1;

	if (recvmsg(from, &m, 0) == 1 && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

static void say_wait(int ep, int ms)
{
	struct epoll_event ev = {0};
	int n = epoll_wait(ep, &ev, 1, ms);

	printf("%s: wait = %d, %u: %x\n", program_invocation_short_name, n, n == 1 ? ev.data.u32 : 0, n == 1 ? ev.events : 0);
	fflush(stdout);
}

/* Another program with nothing of ours but the set: its memory set is another. */
static int stranger(int talk)
{
	int ep, near, far, own = receive_fd(talk);
	struct pollfd p;
	char c;

	p = (struct pollfd){.fd = own, .events = POLLIN};
	SAY(poll(&p, 1, 3000));
	say_wait(own, 1000);
	say_wait(own, 0); /* one-shot: taken for all */
	SAY(write(talk, "1", 1)); /* now the other waits, too */
	SAY(read(talk, &c, 1));
	say_wait(own, 3000);
	/* what is added here is a member there */
	ls = listener(&sin_);
	pair(&near, &far);
	SAY(ctl(own, EPOLL_CTL_ADD, far, EPOLLIN, 33));
	SAY(write(near, "y", 1));
	SAY(write(talk, "2", 1));
	SAY(read(talk, &c, 1));
	ep = epoll_create1(0);
	close(ep);
	return 0;
}

static void to_a_stranger(const char *self)
{
	int near, far, talk[2], ep = epoll_create1(EPOLL_CLOEXEC);
	int said = memfd_create("said", 0); /* by the stranger */
	char number[12], c, text[2048];
	struct epoll_event ev = {0};

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk))
		exit(1);
	pair(&near, &far);
	fcntl(near, F_SETFD, FD_CLOEXEC);
	fcntl(far, F_SETFD, FD_CLOEXEC);
	fcntl(ls, F_SETFD, FD_CLOEXEC);
	ctl(ep, EPOLL_CTL_ADD, far, EPOLLIN | EPOLLONESHOT, 11);
	if (!fork()) {
		int mine = dup(talk[1]); /* not close-on-exec */

		dup2(said, 1);

		setsid();
		if (fork()) /* an orphan: no descendant of ours any more */
			_exit(0);
		snprintf(number, sizeof number, "%d", mine);
		execl(self, "stranger", number, NULL);
		_exit(127);
	}
	close(talk[1]);
	wait(NULL);
	SAY(write(near, "x", 1));
	send_fd(talk[0], ep);
	SAY(read(talk[0], &c, 1));
	say_wait(ep, 0);
	SAY(ctl(ep, EPOLL_CTL_MOD, far, EPOLLIN | EPOLLET, 22));
	SAY(write(talk[0], "1", 1));
	SAY(read(talk[0], &c, 1));
	SAY(read(far, &c, 1));
	SAY(epoll_wait(ep, &ev, 1, 3000));
	printf("%u\n", ev.data.u32);
	fflush(stdout);
	SAY(write(talk[0], "2", 1));
	SAY(read(talk[0], &c, 1)); /* it has gone */
	usleep(20000);
	say_wait(ep, 0); /* and with it what it added */
	SAY_TEXT(text, pread(said, text, sizeof text, 0));
	close(said);
	close(talk[0]);
	close(ep);
	close(near);
	close(far);
}

/* ---- who is woken ---- */
struct herd {
	_Atomic int asleep, woken;
};

static void wait_once(int ep, struct herd *h)
{
	struct epoll_event ev;

	h->asleep++;
	if (epoll_wait(ep, &ev, 1, -1) == 1)
		h->woken++;
}

static void *herd_thread(void *arg)
{
	void **a = arg;

	wait_once((int)(intptr_t)a[0], a[1]);
	return NULL;
}

/* Threads and processes that wait for one set; an edge is for one of them. */
static void herd(unsigned mode)
{
	struct herd *h = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int near, far, ep = epoll_create1(0);
	void *arg[2] = {(void *)(intptr_t)ep, h};
	pthread_t t[WAITERS];
	pid_t pid[WAITERS];

	pair(&near, &far);
	ctl(ep, EPOLL_CTL_ADD, far, EPOLLIN | mode, 1);
	for (int i = 0; i < WAITERS; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			wait_once(ep, h);
			_exit(0);
		}
	}
	for (int i = 0; i < WAITERS; i++)
		pthread_create(&t[i], NULL, herd_thread, arg);
	while (h->asleep < 2 * WAITERS)
		usleep(1000);
	usleep(30000);
	for (int i = 1; i <= 2 * WAITERS && h->woken < 2 * WAITERS; i++) {
		if (mode == EPOLLET || i == 1) /* a one-shot member is armed again, and there still is the first byte */
			(void)!write(near, "x", 1);
		for (int k = 0; k < 500 && h->woken < i; k++)
			usleep(2000);
		usleep(10000);
		if (mode == EPOLLONESHOT)
			ctl(ep, EPOLL_CTL_MOD, far, EPOLLIN | mode, 1);
		if (mode == EPOLLET)
			printf("%x: %d events, %d woken\n", mode, i, h->woken);
	}
	while (h->woken < 2 * WAITERS)
		usleep(1000);
	printf("%x: all woken, by %s\n", mode, mode ? "an event each" : "one event");
	for (int i = 0; i < WAITERS; i++) {
		pthread_join(t[i], NULL);
		waitpid(pid[i], NULL, 0);
	}
	munmap(h, 4096);
	close(near);
	close(far);
	close(ep);
}

/* ---- many sets ---- */
static _Atomic long switches;

static void *sleeper(void *arg)
{
	struct rusage before, after;
	struct epoll_event ev;
	int n;

	getrusage(RUSAGE_THREAD, &before);
	n = epoll_wait((int)(intptr_t)arg, &ev, 1, 5000);
	getrusage(RUSAGE_THREAD, &after);
	switches = n == 1 ? after.ru_nvcsw - before.ru_nvcsw : -1;
	return NULL;
}

static void many_sets(void)
{
	static int near[SETS], far[SETS], ep[SETS];
	struct epoll_event ev;
	struct rlimit rl;
	pthread_t t;
	int right = 0;

	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	for (int i = 0; i < SETS; i++) {
		pair(&near[i], &far[i]);
		ep[i] = epoll_create1(0);
		ctl(ep[i], EPOLL_CTL_ADD, far[i], EPOLLIN, (unsigned)i);
	}
	for (int i = 0; i < SETS; i++) {
		if (write(near[i], "x", 1) != 1)
			SAY(-1);
		right += epoll_wait(ep[i], &ev, 1, 3000) == 1 && ev.data.u32 == (unsigned)i;
	}
	printf("%d of %d sets\n", right, SETS);
	right = read(far[SETS - 1], &(char){0}, 1);
	pthread_create(&t, NULL, sleeper, (void *)(intptr_t)ep[SETS - 1]);
	usleep(300000);
	right = (int)write(near[SETS - 1], "x", 1);
	pthread_join(t, NULL);
	/* a look every 2 ms would be 150 */
	printf("the last one slept: %s\n", switches >= 0 && switches < 40 ? "yes" : "no");
	for (int i = 0; i < SETS; i++) {
		close(near[i]);
		close(far[i]);
		close(ep[i]);
	}
}

/* ---- the first socket joins a set in which a thread sleeps ---- */
struct sleep {
	int ep, way, ms, n;
	unsigned data;
	long took;
};

static void *sleeps(void *arg)
{
	struct sleep *s = arg;
	struct timespec begin, end, limit = {s->ms / 1000, s->ms % 1000 * 1000000l};
	struct epoll_event ev = {0};

	clock_gettime(CLOCK_MONOTONIC, &begin);
	if (s->way == 0)
		s->n = epoll_wait(s->ep, &ev, 1, s->ms);
	else if (s->way == 1)
		s->n = epoll_pwait(s->ep, &ev, 1, s->ms, NULL);
	else
		s->n = epoll_pwait2(s->ep, &ev, 1, s->ms < 0 ? NULL : &limit, NULL);
	clock_gettime(CLOCK_MONOTONIC, &end);
	s->data = ev.data.u32;
	s->took = (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000;
	return NULL;
}

/* A member that is ready, that is not, that is not beside one of the kernel's that becomes ready; and a thread cancelled before. */
static void joined_asleep(int way, int ms, unsigned events, bool kernel, bool cancelled)
{
	struct sleep s = {.ep = epoll_create1(0), .way = way, .ms = ms};
	int near, far, pp[2];
	void *result;
	pthread_t t;

	pair(&near, &far);
	if (s.ep < 0 || pipe(pp) < 0)
		exit(1);
	ctl(s.ep, EPOLL_CTL_ADD, pp[0], EPOLLIN, 1);
	pthread_create(&t, NULL, sleeps, &s);
	usleep(300000);
	if (cancelled) {
		pthread_cancel(t);
		pthread_join(t, &result);
		printf("cancelled: %d\n", result == PTHREAD_CANCELED);
		pthread_create(&t, NULL, sleeps, &s);
		usleep(100000);
	}
	SAY(ctl(s.ep, EPOLL_CTL_ADD, far, events, 2));
	if (kernel)
		SAY(write(pp[1], "x", 1));
	pthread_join(t, NULL);
	printf("way %d: %d of %u, %s\n", way, s.n, s.n ? s.data : 0,
	       s.n ? s.took < 2000 ? "soon" : "late" : s.took < ms - 2 ? "early" : s.took < ms + 280 ? "in time" : "late");
	close(s.ep);
	close(near);
	close(far);
	close(pp[0]);
	close(pp[1]);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return stranger(atoi(argv[1]));
	ls = listener(&sin_);
	killed_holders();
	to_a_stranger("/proc/self/exe");
	herd(EPOLLET);
	herd(EPOLLONESHOT);
	herd(0);
	many_sets();
	for (int way = 0; way < 3; way++) {
		joined_asleep(way, -1, EPOLLOUT, false, false);
		joined_asleep(way, 5000, EPOLLOUT, false, false);
		joined_asleep(way, 500, EPOLLIN, false, false);
		joined_asleep(way, -1, EPOLLIN, true, false);
		joined_asleep(way, -1, EPOLLOUT, false, true);
	}
	return 0;
}
