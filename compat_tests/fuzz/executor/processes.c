/* SPDX-License-Identifier: MIT */
/* The conductor's processes, and orders to actors: who runs, sleeps in a call, or is gone. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "abi/tas_msg.h"
#include "conductor.h"

struct config config = { .control = -1 };
pid_t process_a, process_p;
bool waiting[N_SLOTS];
int programs_run;
static int stat_fd[N_SLOTS], stat_tid[N_SLOTS];

long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- processes ---- */
static pid_t start(int n, bool subject)
{
	char number[8];
	pid_t pid;

	snprintf(number, sizeof(number), "%d", n);
	atomic_store(&shared->slot[n].state, SLOT_NONE);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!subject && config.peer_ns) {
		int fd = open(config.peer_ns, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || setns(fd, CLONE_NEWNET))
			_exit(4);
	}
	if (subject && config.preload) {
		setenv("LD_PRELOAD", config.preload, 1);
		setenv("TAS_SOCKET", config.service, 1);
	}
	close(0);
	close(1);
	open("/dev/null", O_RDONLY);
	open("/dev/null", O_WRONLY);
	execl("/proc/self/exe", "fuzz-actor", "--actor", number, config.shm, (char *)NULL);
	_exit(5);
}

bool ready_within(int n, long ms)
{
	long end = now_ms() + ms;

	while (atomic_load(&shared->slot[n].state) == SLOT_NONE && now_ms() < end)
		futex_wait(&shared->done, atomic_load(&shared->done), 200000);
	return atomic_load(&shared->slot[n].state) != SLOT_NONE;
}

void end_process(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Children of A are nobody's to wait for, or ours (subreaper) when their parent has ended. */
bool wait_gone(pid_t pid)
{
	for (int i = 0; i < 20000; i++) {
		waitpid(pid, NULL, WNOHANG);
		if (kill(pid, 0))
			return true;
		usleep(50);
	}
	return false;
}

static void end_child(int n)
{
	int pid = atomic_load(&shared->slot[n].pid);

	if (atomic_load(&shared->slot[n].state) == SLOT_NONE)
		return;
	kill(pid, SIGKILL);
	wait_gone(pid);
	atomic_store(&shared->slot[n].state, SLOT_NONE);
	waiting[n] = false;
}

void end_children(void)
{
	for (int n = SLOT_C1; n <= SLOT_C3; n++)
		end_child(n);
}

void begin_subject(void)
{
	end_children();
	if (process_a)
		end_process(process_a);
	for (int n = SLOT_A; n <= SLOT_T3; n++) {
		atomic_store(&shared->slot[n].state, SLOT_NONE);
		waiting[n] = false;
	}
	process_a = start(SLOT_A, true);
	programs_run = 0;
	if (!ready_within(SLOT_A, 20000)) {
		fprintf(stderr, "the subject does not start\n");
		exit(3);
	}
}

void begin_peer(void)
{
	if (process_p)
		end_process(process_p);
	waiting[SLOT_P] = false;
	process_p = start(SLOT_P, false);
	if (!ready_within(SLOT_P, 20000)) {
		fprintf(stderr, "the peer does not start\n");
		exit(3);
	}
}

int process_of(int n)
{
	return n >= SLOT_C1 ? n : SLOT_A;
}

bool gone(int n)
{
	pid_t *pid = n == SLOT_P ? &process_p : &process_a;

	if (n >= SLOT_C1 && n <= SLOT_C3)
		return waitpid(atomic_load(&shared->slot[n].pid), NULL, WNOHANG) > 0 || kill(atomic_load(&shared->slot[n].pid), 0);
	if (!*pid || waitpid(*pid, NULL, WNOHANG) == *pid)
		*pid = 0;
	return !*pid;
}

/* ---- orders ---- */
void barrier(int rounds)
{
	static char room[sizeof(struct tas_msg) + TAS_MSG_TEXT_MAX];
	struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_ADMIN };

	while (config.control >= 0 && rounds--) {
		if (send(config.control, &m, sizeof(m), MSG_NOSIGNAL) < 0 || recv(config.control, room, sizeof(room), 0) <= 0) {
			fprintf(stderr, "the service does not answer\n");
			exit(3);
		}
	}
}

static bool sleeps(int n)
{
	int tid = atomic_load(&shared->slot[n].tid);
	char text[512], *p;
	ssize_t len;

	if (stat_tid[n] != tid) {
		if (stat_tid[n])
			close(stat_fd[n]);
		snprintf(text, sizeof(text), "/proc/%d/task/%d/stat", atomic_load(&shared->slot[n].pid), tid);
		stat_fd[n] = open(text, O_RDONLY | O_CLOEXEC);
		stat_tid[n] = stat_fd[n] < 0 ? 0 : tid;
	}
	if (stat_fd[n] < 0)
		return false;
	len = pread(stat_fd[n], text, sizeof(text) - 1, 0);
	if (len <= 0)
		return false;
	text[len] = 0;
	p = strrchr(text, ')');
	return p && p[1] && p[2] == 'S';
}

bool is_done(int n)
{
	return atomic_load(&shared->slot[n].state) == SLOT_DONE;
}

/* Asleep in its call (and not before or behind it). */
bool is_asleep(int n)
{
	if (atomic_load(&shared->slot[n].state) != SLOT_RUNNING || !sleeps(n))
		return false;
	usleep(20);
	return sleeps(n) && atomic_load(&shared->slot[n].state) == SLOT_RUNNING;
}

void ask(int n)
{
	atomic_store(&shared->slot[n].state, SLOT_ASKED);
	futex_wake(&shared->slot[n].state);
}

/* patient: the call is expected to return (or must); then being asleep means nothing for a while. */
enum outcome await(int n, long patience)
{
	long end = now_ms() + patience;
	int looks = 0;

	for (;;) {
		uint32_t seen = atomic_load(&shared->done);

		if (is_done(n))
			return DONE;
		if (atomic_load(&shared->slot[n].state) == SLOT_IDLE)
			return AGAIN;
		futex_wait(&shared->done, seen, looks++ < 5 ? 100000 : 2000000);
		if (is_done(n))
			return DONE;
		if (now_ms() >= end && is_asleep(n)) {
			barrier(3);
			if (is_asleep(n))
				return is_done(n) ? DONE : ASLEEP;
		}
		if (looks % 8 == 7 && gone(process_of(n)))
			return LOST;
		if (now_ms() >= end + STUCK_MS)
			return LOST;
	}
}

bool order(int n, const char *name, int n_args, const long *arg)
{
	struct slot *s = &shared->slot[n];

	s->op = op_find(name);
	s->n_args = n_args;
	s->n_look = 0;
	memset(s->var, -1, sizeof(s->var));
	for (int i = 0; i < n_args; i++)
		s->arg[i] = arg[i];
	ask(n);
	if (await(n, RESULT_MS) != DONE)
		return false;
	atomic_store(&s->state, SLOT_IDLE);
	return true;
}
