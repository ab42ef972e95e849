/* SPDX-License-Identifier: MIT */
/*
 * An actor: a process or thread that carries out orders of its slot.
 *
 * It owns no descriptor.  The futex calls that it waits with are raw, so the interposer sees nothing of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ops.h"

struct shared *shared;
static const char *shm_path;
static __thread volatile sig_atomic_t signals, pipes;

void futex_wait(_Atomic uint32_t *word, uint32_t value, long ns)
{
	struct timespec t = { ns / 1000000000, ns % 1000000000 };

	syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void on_signal(int sig)
{
	if (sig == SIGPIPE)
		pipes++;
	else
		signals++;
}

/* A lie: what a broken subject might say. */
static void falsify(struct slot *s)
{
	char *p;

	if (!strcmp(shared->lie, "errno") && s->error == EAGAIN)
		s->error = EINTR;
	else if (!strcmp(shared->lie, "event") && (p = strstr(s->looked, "|OUT")))
		memcpy(p, "|PRI", 4);
	else if (!strcmp(shared->lie, "byte") && (p = strstr(s->text, " #")))
		p[2] = p[2] == '0' ? '1' : '0';
	else if (!strcmp(shared->lie, "number") && !strcmp(ops[s->op].name, "accept") && s->ret > 0)
		s->ret++;
}

static void finish(struct slot *s)
{
	if (signals || pipes)
		snprintf(s->text + strlen(s->text), sizeof(s->text) - strlen(s->text), " signals %d pipes %d", (int)signals, (int)pipes);
	signals = pipes = 0;
	if (shared->lie[0] && s != &shared->slot[SLOT_P])
		falsify(s);
	atomic_store(&s->state, SLOT_DONE);
	atomic_fetch_add(&shared->done, 1);
	futex_wake(&shared->done);
}

void actor_loop(int n)
{
	struct slot *s = &shared->slot[n];
	uint32_t state;

	for (;;) {
		while ((state = atomic_load(&s->state)) != SLOT_ASKED) {
			futex_wait(&s->state, state, 3000000000);
			if (kill(shared->conductor, 0))
				_exit(0);
		}
		atomic_store(&s->state, SLOT_RUNNING);
		s->text[0] = 0;
		s->port = 0;
		s->second = -1;
		ops[s->op].run(s);
		if (s->n_look && ops[s->op].run != op_look)
			op_look(s);
		finish(s);
	}
}

static void begin(int n)
{
	atomic_store(&shared->slot[n].pid, getpid());
	atomic_store(&shared->slot[n].tid, (int)syscall(SYS_gettid));
	atomic_store(&shared->slot[n].state, SLOT_IDLE);
	atomic_fetch_add(&shared->done, 1);
	futex_wake(&shared->done);
}

static void *thread_main(void *arg)
{
	begin((int)(intptr_t)arg);
	actor_loop((int)(intptr_t)arg);
}

void op_thread(struct slot *s)
{
	pthread_t t;
	int r = pthread_create(&t, NULL, thread_main, (void *)(intptr_t)s->arg[0]);

	s->ret = -r;
	s->error = r;
}

void op_fork(struct slot *s)
{
	int child = (int)s->arg[0];
	pid_t pid = fork();

	if (pid == 0) {
		begin(child);
		actor_loop(child);
	}
	s->ret = pid < 0 ? -1 : 0;
	s->error = pid < 0 ? errno : 0;
}

void op_exec(struct slot *s)
{
	char n[8];

	snprintf(n, sizeof(n), "%d", (int)(s - shared->slot));
	execl("/proc/self/exe", "fuzz-actor", "--actor", n, shm_path, (char *)NULL);
	s->ret = -1;
	s->error = errno;
}

void op_exit(struct slot *s)
{
	s->ret = 0;
	_exit(0);
}

static void set_handler(int sig, long flags)
{
	struct sigaction a = { .sa_handler = flags == -1 ? SIG_DFL : flags == -2 ? SIG_IGN : on_signal, .sa_flags = flags < 0 ? 0 : (int)flags };

	sigaction(sig, &a, NULL);
}

void op_handler(struct slot *s)
{
	set_handler((int)s->arg[0], s->arg[1]);
	s->ret = s->error = 0;
}

/* Everything as at the beginning; connections end by RST, so that the next program finds their ports free. */
void op_reset(struct slot *s)
{
	struct linger now = { 1, 0 };

	for (int fd = 3; fd < 64; fd++) {
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close(fd);
	}
	set_handler(SIGUSR1, SA_RESTART);
	set_handler(SIGUSR2, SA_RESTART);
	set_handler(SIGPIPE, SA_RESTART);
	signals = pipes = 0;
	s->ret = s->error = 0;
}

int actor_main(int n, const char *shm)
{
	int fd = open(shm, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return 2;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		return 2;
	close(fd);
	shm_path = shm;
	signal(SIGCHLD, SIG_IGN);
	set_handler(SIGUSR1, SA_RESTART);
	set_handler(SIGUSR2, SA_RESTART);
	set_handler(SIGPIPE, SA_RESTART);
	begin(n);
	actor_loop(n);
}
