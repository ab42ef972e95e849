/* SPDX-License-Identifier: MIT */
/* Signals interrupt and restart blocked calls as on the kernel, also when they come while a call has not gone to sleep. */
#include "say.h"

#include <sys/time.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* sigset, siginterrupt: programs use them */

static int s[2], ls;
static volatile sig_atomic_t fired, backups;

/* The signal meant for the call; if the call missed it, it comes again 30 ms later, and that is counted. */
static void on_alarm(int sig)
{
	struct itimerval again = {.it_value = {0, 30000}};

	(void)sig;
	if (fired++)
		backups++;
	setitimer(ITIMER_REAL, &again, NULL);
}

static void on_usr1(int sig)
{
	(void)sig;
}

static long blocked_read(void)
{
	char c;

	return read(s[1], &c, 1);
}

static long blocked_poll(void)
{
	struct pollfd p = {.fd = s[1], .events = POLLIN};

	return poll(&p, 1, -1);
}

static long blocked_accept(void)
{
	return accept(ls, NULL, NULL);
}

/* A signal at any moment of the first 150 µs of a call on a busy socket: every one interrupts. */
static void storm(const char *name, long (*call)(void))
{
	struct itimerval none = {0};
	int interrupted = 0, rounds = 400;
	char c;

	backups = 0;
	for (int i = 0; i < rounds; i++) {
		struct itimerval soon = {.it_value = {0, 20 + i % 130}};

		if (write(s[0], "x", 1) != 1 || read(s[1], &c, 1) != 1)
			exit(1);
		fired = 0;
		setitimer(ITIMER_REAL, &soon, NULL);
		interrupted += call() < 0 && errno == EINTR;
		setitimer(ITIMER_REAL, &none, NULL);
	}
	/* one that came before the call is lost on the kernel, too; on a loaded machine some are */
	printf("%s: %d interrupted, missed %s\n", name, interrupted, backups <= rounds / 10 ? "few" : "many");
	if (backups > rounds / 10)
		printf("%d\n", backups);
	fflush(stdout);
}

static pid_t disturb(int byte)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid)
		return pid;
	usleep(40000);
	kill(getppid(), SIGUSR1);
	usleep(40000);
	if (byte && write(s[0], "r", 1) != 1)
		_exit(1);
	_exit(0);
}

static void restarts(void)
{
	struct sockaddr_in sin;
	struct epoll_event ev;
	struct timeval tv = {2, 0};
	socklen_t len = sizeof sin;
	pid_t pid;
	int c, ep = epoll_create1(0);

	signal(SIGUSR1, on_usr1);
	pid = disturb(1);
	SAY(blocked_read());
	wait_status(pid);
	siginterrupt(SIGUSR1, 1);
	pid = disturb(0);
	SAY(blocked_read());
	wait_status(pid);
	pid = disturb(0);
	SAY(blocked_accept());
	wait_status(pid);
	siginterrupt(SIGUSR1, 0);
	pid = disturb(0);
	SAY(blocked_poll());
	wait_status(pid);
	ev.events = EPOLLIN;
	epoll_ctl(ep, EPOLL_CTL_ADD, s[1], &ev);
	pid = disturb(0);
	SAY(epoll_wait(ep, &ev, 1, -1));
	wait_status(pid);
	setsockopt(s[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	pid = disturb(0);
	SAY(blocked_read());
	wait_status(pid);
	/* accept restarts although another handler of the process does not */
	pid = disturb(0);
	getsockname(ls, (struct sockaddr *)&sin, &len);
	if (fork() == 0) {
		usleep(100000);
		c = socket(AF_INET, SOCK_STREAM, 0);
		_exit(connect(c, (struct sockaddr *)&sin, sizeof sin) < 0);
	}
	c = accept(ls, NULL, NULL);
	SAY(c >= 0);
	wait_status(pid);
	wait(NULL);
}

static void actions(void)
{
	struct sigaction sa = {.sa_handler = on_usr1, .sa_flags = SA_NODEFER}, old;

	SAY(sigaction(SIGUSR2, &sa, NULL));
	SAY(sigaction(SIGUSR2, NULL, &old));
	SAY(old.sa_handler == on_usr1);
	SAY(old.sa_flags & (SA_NODEFER | SA_RESTART | SA_SIGINFO));
	SAY(signal(SIGUSR2, on_alarm) == on_usr1);
	SAY(signal(SIGUSR2, SIG_IGN) == on_alarm);
	SAY(signal(SIGUSR2, SIG_DFL) == SIG_IGN);
	SAY(signal(SIGUSR2, on_usr1) == SIG_DFL);
	SAY(signal(SIGKILL, on_usr1) == SIG_ERR);
	SAY(signal(99, on_usr1) == SIG_ERR);
	SAY(sigaction(0, &sa, NULL));
	SAY(sigset(SIGUSR2, SIG_HOLD) == on_usr1);
	SAY(sigset(SIGUSR2, on_alarm) == SIG_HOLD);
	SAY(sigset(SIGUSR2, SIG_DFL) == on_alarm);
	sa.sa_flags = (int)SA_RESETHAND;
	sigaction(SIGUSR2, &sa, NULL);
	raise(SIGUSR2);
	sigaction(SIGUSR2, NULL, &old);
	SAY(old.sa_handler == SIG_DFL);
}

int main(void)
{
	struct sigaction sa = {.sa_handler = on_alarm};
	struct sockaddr_in sin;

	tcp_pair(s);
	ls = listener(&sin);
	actions();
	sigaction(SIGALRM, &sa, NULL);
	storm("read", blocked_read);
	storm("poll", blocked_poll);
	storm("accept", blocked_accept);
	restarts();
	return 0;
}
