/* SPDX-License-Identifier: MIT */
/*
 * Signals from another thread and a timer hit a thread that makes, changes and closes sockets; the handlers use sockets
 * themselves.  Nothing hangs; every queued signal arrives once, with its value, and finds the mask that was set; handlers
 * for one run (SA_RESETHAND) run once.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/time.h>

#include "say.h"

enum { SENT = 3000, ROUNDS = 4000 };

static int pair[2], set;
static pthread_t victim;
static _Atomic unsigned arrived, sum, wrong_mask, alarms, failures, once;
static atomic_bool done;

static void use_sockets(void)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.fd = pair[0]};
	char c = 'x';
	int fd = dup(pair[0]);

	if (send(pair[0], &c, 1, MSG_DONTWAIT) < 0 && errno != EAGAIN)
		atomic_fetch_add(&failures, 1);
	if (recv(pair[1], &c, 1, MSG_DONTWAIT) < 0 && errno != EAGAIN)
		atomic_fetch_add(&failures, 1);
	if (fd < 0 || epoll_ctl(set, EPOLL_CTL_MOD, pair[0], &e) || close(fd))
		atomic_fetch_add(&failures, 1);
}

static void on_queued(int sig, siginfo_t *info, void *context)
{
	int err = errno;
	sigset_t now;

	(void)context;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	if (sigismember(&now, SIGUSR2) != 1 || sigismember(&now, sig) != 1 || sigismember(&now, SIGTERM) != 0)
		atomic_fetch_add(&wrong_mask, 1);
	atomic_fetch_add(&arrived, 1);
	atomic_fetch_add(&sum, (unsigned)info->si_value.sival_int);
	use_sockets();
	errno = err;
}

static void on_alarm(int sig)
{
	int err = errno;

	(void)sig;
	atomic_fetch_add(&alarms, 1);
	use_sockets();
	errno = err;
}

static void on_once(int sig)
{
	(void)sig;
	atomic_fetch_add(&once, 1);
}

static void *sender(void *arg)
{
	(void)arg;
	for (int i = 1; i <= SENT; i++) {
		while (pthread_sigqueue(victim, SIGRTMIN, (union sigval){.sival_int = i}) == EAGAIN)
			sched_yield();
		if (i % 8 == 0)
			usleep(50);
	}
	atomic_store(&done, true);
	return NULL;
}

static void work(void)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = pair[0]};
	int fd = socket(AF_INET, SOCK_STREAM, 0), other = dup(pair[1]);

	if (fd < 0 || other < 0 || epoll_ctl(set, EPOLL_CTL_MOD, pair[0], &e) || close(fd) || close(other))
		atomic_fetch_add(&failures, 1);
}

static void resethand(void)
{
	struct sigaction sa = {.sa_handler = on_once, .sa_flags = (int)SA_RESETHAND}, now;
	sigset_t none;

	for (int i = 0; i < 200; i++) {
		sigaction(SIGUSR1, &sa, NULL);
		pthread_kill(victim, SIGUSR1);
		work();
	}
	SAY(once);
	SAY(sigaction(SIGUSR1, NULL, &now));
	SAY(now.sa_handler == SIG_DFL);
	pthread_sigmask(SIG_BLOCK, NULL, &none);
	SAY(sigismember(&none, SIGTERM));
}

int main(void)
{
	struct sigaction queued = {.sa_sigaction = on_queued, .sa_flags = SA_SIGINFO | SA_RESTART};
	struct sigaction alarm_action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	struct itimerval every = {{0, 300}, {0, 300}}, off = {{0, 0}, {0, 0}};
	struct epoll_event e = {.events = EPOLLIN};
	pthread_t other;
	sigset_t now;

	tcp_pair(pair);
	set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &e);
	sigaddset(&queued.sa_mask, SIGUSR2);
	victim = pthread_self();
	sigaction(SIGRTMIN, &queued, NULL);
	sigaction(SIGALRM, &alarm_action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	pthread_create(&other, NULL, sender, NULL);
	for (int i = 0; i < ROUNDS || !atomic_load(&done); i++)
		work();
	pthread_join(other, NULL);
	setitimer(ITIMER_REAL, &off, NULL);
	while (arrived < SENT)
		sched_yield();
	SAY(arrived);
	SAY(sum == SENT * (SENT + 1) / 2);
	SAY(wrong_mask);
	SAY(failures);
	SAY(alarms > 0);
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	for (int sig = 1; sig < NSIG; sig++)
		if (sigismember(&now, sig) == 1)
			SAY(sig);
	resethand();
	return 0;
}
