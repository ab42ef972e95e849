// SPDX-License-Identifier: MIT
/*
 * system and popen.  libc starts /bin/sh inside of itself; that is enough as long as the shell gets us by its environment.
 * When it does not (the program took LD_PRELOAD out of its own environment, or the shell is static) and TAS sockets would
 * survive, the shell is started by our posix_spawn, which takes care of both, and libc's work is done here.
 */
#include <paths.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload.h"

static bool shell_is_without_us(void)
{
	return tas_exec_keeps_sockets() && (!tas__env_has_us(environ) || tas__deaf(AT_FDCWD, _PATH_BSHELL));
}

static int shell(pid_t *pid, const char *command, const posix_spawn_file_actions_t *acts, const posix_spawnattr_t *attr)
{
	const char *argv[] = {"sh", "-c", "--", command, NULL};

	return tas__w_posix_spawn(pid, _PATH_BSHELL, acts, attr, (char *const *)argv, environ);
}

/* ---- system ---- */
/* SIGINT and SIGQUIT are ignored while any system() of the process runs. */
static struct {
	pthread_mutex_t lock;
	unsigned running;
	struct sigaction quits, interrupts;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void ignore(bool on)
{
	struct sigaction ign = {.sa_handler = SIG_IGN};

	pthread_mutex_lock(&all.lock);
	if (on && !all.running++) {
		tas__w_sigaction(SIGINT, &ign, &all.interrupts);
		tas__w_sigaction(SIGQUIT, &ign, &all.quits);
	} else if (!on && !--all.running) {
		tas__w_sigaction(SIGINT, &all.interrupts, NULL);
		tas__w_sigaction(SIGQUIT, &all.quits, NULL);
	}
	pthread_mutex_unlock(&all.lock);
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

struct started {
	pid_t pid;
	sigset_t mask;
};

static void restore(struct started *s)
{
	ignore(false);
	tas__w_sigprocmask(SIG_SETMASK, &s->mask, NULL);
}

/* The thread was cancelled: so is the shell. */
static void cancelled(void *arg)
{
	struct started *s = arg;

	kill(s->pid, SIGKILL);
	wait_for(s->pid);
	restore(s);
}

static int run(const char *command)
{
	struct started s;
	sigset_t block, reset;
	posix_spawnattr_t attr;
	int err, status = -1;

	sigemptyset(&block);
	sigaddset(&block, SIGCHLD);
	ignore(true);
	tas__w_sigprocmask(SIG_BLOCK, &block, &s.mask);
	sigemptyset(&reset);
	if (all.interrupts.sa_handler != SIG_IGN)
		sigaddset(&reset, SIGINT);
	if (all.quits.sa_handler != SIG_IGN)
		sigaddset(&reset, SIGQUIT);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &s.mask);
	posix_spawnattr_setsigdefault(&attr, &reset);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	err = shell(&s.pid, command, NULL, &attr);
	posix_spawnattr_destroy(&attr);
	if (err == 0) {
		pthread_cleanup_push(cancelled, &s);
		status = wait_for(s.pid);
		err = errno;
		pthread_cleanup_pop(0);
	} else {
		status = W_EXITCODE(127, 0);
	}
	restore(&s);
	errno = err;
	return status;
}

int tas__w_system(const char *command)
{
	if (!command || tas__passive())
		return tas__real.system(command);
	if (shell_is_without_us())
		return run(command);
	tas_before_spawn();
	return tas__real.system(command);
}

/* ---- popen ---- */
static struct opened {
	FILE *f;
	pid_t pid;
	struct opened *next;
} *opened;
static pthread_mutex_t opened_lock = PTHREAD_MUTEX_INITIALIZER;

/* The child has no streams of earlier calls. */
static int actions_of(posix_spawn_file_actions_t *acts, int theirs, int to)
{
	int err = posix_spawn_file_actions_init(acts);

	if (err)
		return err;
	for (struct opened *o = opened; o && !err; o = o->next)
		if (fileno(o->f) != to)
			err = posix_spawn_file_actions_addclose(acts, fileno(o->f));
	return err ? err : posix_spawn_file_actions_adddup2(acts, theirs, to);
}

static FILE *open_pipe(const char *command, bool read, bool cloexec)
{
	struct opened *o = malloc(sizeof *o);
	posix_spawn_file_actions_t acts;
	int p[2], err;

	if (!o || pipe2(p, O_CLOEXEC) < 0) {
		free(o);
		return NULL;
	}
	o->f = tas__real.fdopen(p[!read], read ? "r" : "w");
	if (!o->f) {
		err = errno;
		tas__real.close(p[!read]);
	} else {
		pthread_mutex_lock(&opened_lock);
		err = actions_of(&acts, p[read], read ? 1 : 0);
		if (!err)
			err = shell(&o->pid, command, &acts, NULL);
		posix_spawn_file_actions_destroy(&acts);
		if (!err) {
			o->next = opened;
			opened = o;
			if (!cloexec)
				tas__real.fcntl(p[!read], F_SETFD, 0);
		} else {
			tas__real.fclose(o->f);
		}
		pthread_mutex_unlock(&opened_lock);
	}
	tas__real.close(p[read]);
	if (!err)
		return o->f;
	free(o);
	errno = err;
	return NULL;
}

FILE *tas__w_popen(const char *command, const char *mode)
{
	bool way = !tas__wild(mode) && (strchr(mode, 'r') != NULL) != (strchr(mode, 'w') != NULL) &&
		   strspn(mode, "rwe") == strlen(mode);

	if (tas__passive())
		return tas__real.popen(command, mode);
	if (way && shell_is_without_us())
		return open_pipe(command, strchr(mode, 'r'), strchr(mode, 'e'));
	tas_before_spawn();
	return tas__real.popen(command, mode);
}
TAS_SAME(_IO_popen, popen);

int tas__w_pclose(FILE *f)
{
	struct opened *o, **p;

	pthread_mutex_lock(&opened_lock);
	for (p = &opened; *p && (*p)->f != f; p = &(*p)->next)
		;
	o = *p;
	if (o)
		*p = o->next;
	pthread_mutex_unlock(&opened_lock);
	if (!o)
		return tas__real.pclose(f);

	pid_t pid = o->pid;

	free(o);
	tas__real.fclose(f);
	return wait_for(pid);
}
