/* SPDX-License-Identifier: MIT */
/* A service of our own for the tests of one program: build/tas --link=none on a socket in a fresh folder. */
#ifndef TAS_TEST_SERVICE_CHILD_H
#define TAS_TEST_SERVICE_CHILD_H

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t service_pid;
static char service_dir[64];

/* The service that was built with this test; NULL: none was. */
static const char *service_path(void)
{
	static char path[PATH_MAX];
	ssize_t n;
	char *slash;

	if (path[0])
		return path;
	n = readlink("/proc/self/exe", path, sizeof path - 16);
	path[n < 0 ? 0 : n] = 0;
	for (int i = 0; i < 2; i++) {
		slash = strrchr(path, '/');
		if (slash)
			*slash = 0;
	}
	strcat(path, "/tas");
	if (access(path, X_OK) == 0)
		return path;
	path[0] = 0;
	return NULL;
}

/* Starts it and waits until it is ready. */
static int service_start(void)
{
	char arg[128], ready[32], byte;
	int p[2];

	if (!service_path())
		return 0; /* the tests skip themselves */
	if (!service_dir[0]) {
		strcpy(service_dir, "/tmp/tas-client-test.XXXXXX");
		if (!mkdtemp(service_dir))
			return -1;
	}
	snprintf(arg, sizeof arg, "%s/tas.sock", service_dir);
	setenv("TAS_SOCKET", arg, 1);
	snprintf(arg, sizeof arg, "--socket=%s/tas.sock", service_dir);
	if (pipe(p) < 0)
		return -1;
	snprintf(ready, sizeof ready, "--ready-fd=%d", p[1]);
	service_pid = fork();
	if (service_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(p[0]);
		execl(service_path(), "tas", "--link=none", "--quiet", arg, ready, (char *)NULL);
		_exit(127);
	}
	close(p[1]);
	if (read(p[0], &byte, 1) != 1)
		return -1;
	close(p[0]);
	return 0;
}

static void service_kill(int sig)
{
	if (service_pid <= 0)
		return;
	kill(service_pid, sig);
	waitpid(service_pid, NULL, 0);
	service_pid = 0;
}

static int service_setup(void **state)
{
	(void)state;
	return service_start();
}

static int service_teardown(void **state)
{
	char path[128];

	(void)state;
	service_kill(SIGTERM);
	if (service_dir[0]) {
		snprintf(path, sizeof path, "%s/tas.sock", service_dir);
		unlink(path);
		snprintf(path, sizeof path, "%s/tas.sock.lock", service_dir);
		unlink(path);
		rmdir(service_dir);
	}
	return 0;
}

#endif
