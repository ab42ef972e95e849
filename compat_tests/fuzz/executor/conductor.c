/* SPDX-License-Identifier: MIT */
/* The conductor: reads programs, gives their steps to actors one after the other, and writes the traces. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "conductor.h"

static bool slow;

static void begin_program(const struct program *p)
{
	if (!process_a || gone(SLOT_A) || programs_run++ >= PROGRAMS_PER_PROCESS)
		begin_subject();
	if (!process_p || gone(SLOT_P))
		begin_peer();
	for (long n = SLOT_T1; n <= SLOT_T3; n++)
		if (p->uses[n] && atomic_load(&shared->slot[n].state) == SLOT_NONE && (!order(SLOT_A, "thread", 1, &n) || !ready_within((int)n, 5000)))
			fprintf(stderr, "no thread\n");
}

static void end_program(void)
{
	bool stuck = false;

	end_children();
	for (int n = SLOT_A; n <= SLOT_T3; n++)
		stuck |= atomic_load(&shared->slot[n].state) != SLOT_IDLE && atomic_load(&shared->slot[n].state) != SLOT_NONE;
	if (stuck || atomic_load(&shared->slot[SLOT_A].state) != SLOT_IDLE || !order(SLOT_A, "reset", 0, NULL))
		begin_subject();
	if (atomic_load(&shared->slot[SLOT_P].state) != SLOT_IDLE || !order(SLOT_P, "reset", 0, NULL))
		begin_peer();
	barrier(2);
}

static void run(const struct program *p, bool looks)
{
	static char line[LINE * 2];
	bool met = true;

	begin_program(p);
	steps_begin(strchr(p->name, '!') ? 50 : strchr(p->name, '+') ? MUCH_MS : 120, slow);
	printf("trace %s\n", p->name);
	for (int i = 0; i < p->n_steps && met; i++) {
		met = run_step(&p->step[i], i, i < p->n_expect ? p->expect[i] : NULL, looks, line);
		printf("%s\n", line);
	}
	printf("end\n");
	fflush(stdout);
	end_program();
}

static int connect_control(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (void *)&a, sizeof(a)))
		return -1;
	return fd;
}

static int prepare(void)
{
	int fd = (int)syscall(SYS_memfd_create, "fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, sizeof(*shared)))
		return -1;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		return -1;
	snprintf(config.shm, sizeof(config.shm), "/proc/%d/fd/%d", getpid(), fd);
	shared->conductor = getpid();
	if (config.preload && (config.control = connect_control(config.service)) < 0)
		return -1;
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return 0;
}

int main(int argc, char **argv)
{
	static struct program program;
	bool looks = true;
	int r;

#define SAY(name, text) "  " #name ": " text "\n"
	if (argc == 4 && !strcmp(argv[1], "--actor"))
		return actor_main(atoi(argv[2]), argv[3]);
	if (argc == 2 && !strcmp(argv[1], "--allowed"))
		return fputs("Not compared:\n" ALLOWED(SAY), stdout) < 0;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--preload"))
			config.preload = argv[i + 1];
		else if (!strcmp(argv[i], "--service"))
			config.service = argv[i + 1];
		else if (!strcmp(argv[i], "--peer"))
			config.peer_ns = argv[i + 1];
	}
	slow = getenv("FUZZ_SLOW") != NULL;
	if (prepare()) {
		perror("executor");
		return 2;
	}
	snprintf(shared->lie, sizeof(shared->lie), "%s", getenv("FUZZ_LIE") ? getenv("FUZZ_LIE") : "");
	while ((r = program_read(&program)) != 0) {
		if (r > 0)
			run(&program, looks && !strchr(program.name, '~'));
		else
			printf("trace %s\nnot understood\nend\n", program.name), fflush(stdout);
	}
	if (process_a)
		end_children(), end_process(process_a);
	if (process_p)
		end_process(process_p);
	return 0;
}
