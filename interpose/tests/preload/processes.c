// SPDX-License-Identifier: MIT
/* Every way to make a process or to become another program, with a TCP connection in hand. */
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "say.h"

extern char **environ;
pid_t _Fork(void);
static const char *self;

/* The far end of a connection says what it got from whoever holds the near end, until that is closed. */
static void heard(int far)
{
	char buf[128];
	size_t n = 0;
	ssize_t r;

	while (n < sizeof buf && (r = read(far, buf + n, sizeof buf - n)) > 0)
		n += (size_t)r;
	SAY_TEXT(buf, n);
	close(far);
}

static int child_main(void *arg)
{
	SAY(write(*(int *)arg, "clone", 5));
	_exit(5);
}

static void forks(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	int s[2];
	pid_t pid;

	tcp_pair(s);
	if (!(pid = fork())) {
		close(s[1]);
		SAY(write(s[0], "fork ", 5));
		_exit(1);
	}
	SAY(wait_status(pid));
	if (!(pid = _Fork())) {
		write(s[0], "_Fork ", 6);
		_exit(2);
	}
	SAY(wait_status(pid));
	if (!(pid = (pid_t)syscall(SYS_fork))) {
		write(s[0], "SYS_fork ", 9);
		_exit(3);
	}
	SAY(wait_status(pid));
	pid = clone(child_main, stack + sizeof stack, SIGCHLD, &s[0]);
	SAY(wait_status(pid));
	SAY(write(s[0], " parent", 7));
	close(s[0]);
	heard(s[1]);
}

static int quiet_child(void *arg)
{
	(void)arg;
	_exit(6);
}

static void vforks(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	char *argv[] = {"sh", "-c", "exit 4", NULL};
	int s[2];
	pid_t pid;

	tcp_pair(s);
	for (int i = 0; i < 3; i++) {
		pid = vfork();
		if (!pid) {
			close(s[0]);
			close(s[1]);
			dup2(2, s[1]);
			closefrom(3);
			if (i == 0)
				_exit(7);
			if (i == 1)
				execv("/nonexistent", argv);
			execvp("sh", argv);
			_exit(8);
		}
		SAY(wait_status(pid));
	}
	pid = clone(quiet_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	SAY(wait_status(pid));
	SAY(write(s[0], "still here", 10));
	close(s[0]);
	heard(s[1]);
}

static void spawns(void)
{
	char *argv[] = {"sh", "-c", "exit 4", NULL};
	char *none[] = {NULL};
	char buf[16];
	pid_t pid;
	FILE *p;

	SAY(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ));
	SAY(wait_status(pid));
	SAY(posix_spawnp(&pid, "sh", NULL, NULL, argv, none));
	SAY(wait_status(pid));
	SAY(posix_spawn(&pid, "/nonexistent", NULL, NULL, argv, environ));
	SAY(WEXITSTATUS(system("exit 9")));
	SAY(system(NULL) != 0);
	p = popen("echo popen", "r");
	SAY(fgets(buf, sizeof buf, p) != NULL);
	SAY_TEXT(buf, 5);
	SAY(pclose(p));
}

/* Other programs get a connection by file actions, by a shell's redirections, and by simply inheriting it. */
static void spawned_with_sockets(void)
{
	char *cat[] = {"cat", NULL}, *shell[] = {"sh", "-c", "read a; echo got $a; exit 2", NULL};
	char line[64], command[64];
	posix_spawn_file_actions_t acts;
	pid_t pid;
	int s[2];
	FILE *p;

	tcp_pair(s);
	fcntl(s[0], F_SETFD, FD_CLOEXEC);
	fcntl(s[1], F_SETFD, FD_CLOEXEC);
	posix_spawn_file_actions_init(&acts);
	posix_spawn_file_actions_adddup2(&acts, s[1], 0);
	posix_spawn_file_actions_adddup2(&acts, s[1], 1);
	posix_spawn_file_actions_addclosefrom_np(&acts, 3);
	SAY(posix_spawnp(&pid, "cat", &acts, NULL, cat, environ));
	close(s[1]);
	SAY(write(s[0], "through cat\n", 12));
	SAY(read_line(s[0], line, sizeof line));
	SAY_TEXT(line, strlen(line));
	shutdown(s[0], SHUT_WR);
	SAY(read_line(s[0], line, sizeof line));
	SAY(wait_status(pid));
	close(s[0]);

	tcp_pair(s);
	posix_spawn_file_actions_destroy(&acts);
	posix_spawn_file_actions_init(&acts);
	posix_spawn_file_actions_addclose(&acts, s[0]);
	posix_spawn_file_actions_adddup2(&acts, s[1], 0);
	posix_spawn_file_actions_adddup2(&acts, s[1], 1);
	SAY(posix_spawn(&pid, "/bin/sh", &acts, NULL, shell, environ));
	SAY(write(s[0], "words\n", 6));
	SAY(read_line(s[0], line, sizeof line));
	SAY_TEXT(line, strlen(line));
	SAY(wait_status(pid));
	posix_spawn_file_actions_destroy(&acts);
	snprintf(command, sizeof command, "echo system >&%d", s[1]);
	SAY(WEXITSTATUS(system(command)));
	SAY(read_line(s[0], line, sizeof line));
	SAY_TEXT(line, strlen(line));
	snprintf(command, sizeof command, "cat >&%d", s[1]);
	p = popen(command, "w");
	fputs("popen\n", p);
	SAY(pclose(p));
	SAY(read_line(s[0], line, sizeof line));
	SAY_TEXT(line, strlen(line));
	snprintf(command, sizeof command, "read a <&%d; echo $a", s[1]);
	p = popen(command, "r");
	SAY(write(s[0], "for the pipe\n", 13));
	SAY(fgets(line, sizeof line, p) != NULL);
	SAY_TEXT(line, strlen(line));
	SAY(pclose(p));
	close(s[1]);
	SAY(read(s[0], line, sizeof line));
	close(s[0]);
}

/* One exec spelling: 0 execve, 1 execv … with our own program as the target, which writes to the number it is given. */
static void become(int how, int fd)
{
	char number[12], name[12];
	char *argv[] = {(char *)self, "--write", number, name, NULL};

	snprintf(number, sizeof number, "%d", fd);
	snprintf(name, sizeof name, "exec%d ", how);
	switch (how) {
	case 0:
		execve(self, argv, environ);
		break;
	case 1:
		execv(self, argv);
		break;
	case 2:
		execvp(self, argv);
		break;
	case 3:
		execvpe(self, argv, environ);
		break;
	case 4:
		execl(self, self, "--write", number, name, NULL);
		break;
	case 5:
		execlp(self, self, "--write", number, name, NULL);
		break;
	case 6:
		execle(self, self, "--write", number, name, NULL, environ);
		break;
	case 7:
		fexecve(open(self, O_RDONLY | O_CLOEXEC), argv, environ);
		break;
	case 8:
		execveat(AT_FDCWD, self, argv, environ, 0);
		break;
	case 9:
		syscall(SYS_execve, self, argv, environ);
		break;
	case 10:
		clearenv();
		execv(self, argv);
		break;
	case 11:
		execve("/nonexistent", argv, environ);
		SAY(write(fd, "failed ", 7));
		execve(self, argv, environ);
	}
	_exit(99);
}

static void execs(void)
{
	int s[2];

	tcp_pair(s);
	fcntl(s[1], F_SETFD, FD_CLOEXEC);
	for (int how = 0; how <= 11; how++) {
		pid_t pid = fork();

		if (!pid)
			become(how, s[0]);
		printf("exec %d: %d\n", how, wait_status(pid));
		fflush(stdout);
	}
	close(s[0]);
	heard(s[1]);
}

/* A listener that another image inherits goes on listening. */
static void inherited_listener(void)
{
	struct sockaddr_in sin;
	int l = listener(&sin), c;
	char buf[16], number[12];
	pid_t pid = fork();

	if (!pid) {
		snprintf(number, sizeof number, "%d", l);
		execl(self, self, "--serve", number, NULL);
		_exit(99);
	}
	close(l);
	c = socket(AF_INET, SOCK_STREAM, 0);
	SAY(connect(c, (struct sockaddr *)&sin, sizeof sin));
	SAY(recv(c, buf, 6, MSG_WAITALL));
	SAY_TEXT(buf, 6);
	close(c);
	SAY(wait_status(pid));
}

/* The same with a program that uses stdio. */
static void inetd_stdio(void)
{
	char buf[64];
	int s[2];
	pid_t pid;

	tcp_pair(s);
	if (!(pid = fork())) {
		dup2(s[0], 0);
		dup2(s[0], 1);
		closefrom(3);
		execl(self, self, "--lines", NULL);
		_exit(99);
	}
	close(s[0]);
	SAY(write(s[1], "one\ntwo\n", 8));
	SAY(recv(s[1], buf, 14, MSG_WAITALL));
	SAY_TEXT(buf, 14);
	SAY(shutdown(s[1], SHUT_WR));
	SAY(recv(s[1], buf, 64, MSG_WAITALL));
	SAY_TEXT(buf, 7);
	SAY(wait_status(pid));
	close(s[1]);
}

/* inetd: the connection becomes 0 and 1 of a program that knows of no sockets. */
static void inetd(void)
{
	char buf[32];
	int s[2];
	pid_t pid;

	tcp_pair(s);
	if (!(pid = fork())) {
		dup2(s[0], 0);
		closefrom(3);
		execl(self, self, "--echo", NULL);
		_exit(99);
	}
	close(s[0]);
	SAY(write(s[1], "inetd\n", 6));
	SAY(read(s[1], buf, sizeof buf));
	SAY_TEXT(buf, 5);
	SAY(shutdown(s[1], SHUT_WR));
	SAY(read(s[1], buf, sizeof buf));
	SAY(wait_status(pid));
	close(s[1]);
}

static void daemonized(void)
{
	int s[2];
	pid_t pid;

	tcp_pair(s);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (!(pid = fork())) {
		close(s[1]);
		SAY(dup2(s[0], 1));
		if (daemon(0, 0) == 0 && write(s[0], "daemon", 6) == 6 && write(1, "null", 4) == 4)
			_exit(12);
		_exit(13);
	}
	close(s[0]);
	SAY(wait_status(pid));
	heard(s[1]);
	SAY(wait_status(-1));
}

int main(int argc, char **argv)
{
	char buf[64];
	ssize_t n;
	int fd = argc > 2 ? atoi(argv[2]) : 0;

	alarm(60);
	self = "/proc/self/exe";
	if (argc > 3 && !strcmp(argv[1], "--write"))
		return write(fd, argv[3], strlen(argv[3])) == (ssize_t)strlen(argv[3]) ? 20 : 21;
	if (argc > 2 && !strcmp(argv[1], "--serve")) {
		fd = accept(fd, NULL, NULL);
		return write(fd, "served", 6) == 6 ? 22 : 23;
	}
	if (argc > 1 && !strcmp(argv[1], "--echo")) {
		while ((n = read(0, buf, sizeof buf)) > 0)
			if (write(0, buf, (size_t)n) != n)
				return 24;
		return 25;
	}
	if (argc > 1 && !strcmp(argv[1], "--lines")) {
		while (fgets(buf, sizeof buf, stdin)) {
			printf("I: %s", buf);
			fflush(stdout);
		}
		printf("ended %d", fileno(stdout)); /* flushed by exit */
		return 26;
	}
	forks();
	vforks();
	spawns();
	spawned_with_sockets();
	execs();
	inherited_listener();
	inetd();
	inetd_stdio();
	daemonized();
	return 0;
}
