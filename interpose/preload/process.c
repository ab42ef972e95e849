// SPDX-License-Identifier: MIT
/*
 * Calls that make processes.  fork needs no wrapper: the client library has atfork handlers.  What makes a process
 * without running them, or runs another program, is here.  A process that shares our memory until it execs (vfork,
 * clone with CLONE_VFORK) finds passive wrappers; see tas__vfork_depth.
 */
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "preload.h"
#include "raw.h"

void tas__vfork_begin(void);
int tas__vfork_end(long pid);

/* Called by vfork.S, in the parent, around the system call. */
__attribute__((visibility("hidden"))) void tas__vfork_begin(void)
{
	if (!tas__passive())
		tas_before_spawn();
	tas__vfork_depth++;
	tas__raw_pause();
}

__attribute__((visibility("hidden"))) int tas__vfork_end(long pid)
{
	tas__raw_resume();
	tas__vfork_depth--;
	tas__mem_free(&tas__vfork_mem);
	return (int)tas__result(pid);
}

/* fork without libc's atfork handlers. */
pid_t tas__w__Fork(void)
{
	pid_t pid;

	if (tas__passive())
		return tas__real._Fork();
	tas_fork_prepare();
	pid = tas__real._Fork();
	if (pid == 0) {
		tas_fork_child();
		tas__raw_arm();
	} else {
		tas_fork_parent();
	}
	return pid;
}

struct start {
	int (*fn)(void *);
	void *arg;
};

static int forked(void *arg)
{
	struct start start = *(struct start *)arg;

	tas_fork_child();
	tas__raw_arm();
	return start.fn(start.arg);
}

int tas__w_clone(int (*fn)(void *), void *stack, int flags, void *arg, pid_t *ptid, void *tls, pid_t *ctid)
{
	struct start start = {fn, arg};
	int pid;

	if ((flags & CLONE_THREAD) && tas__raw_mode != TAS_RAW_OFF)
		tas__raw_restore();
	if (tas__passive() || (flags & CLONE_THREAD) || !fn || !stack)
		return tas__real.clone(fn, stack, flags, arg, ptid, tls, ctid);
	if (!(flags & CLONE_VM)) {
		tas_fork_prepare();
		pid = tas__real.clone(forked, stack, flags, &start, ptid, tls, ctid);
		tas_fork_parent();
		return pid;
	}
	tas_before_spawn();
	if (!(flags & CLONE_VFORK))
		tas__raw_restore();
	if (!(flags & CLONE_VFORK) || (flags & CLONE_SETTLS))
		return tas__real.clone(fn, stack, flags, arg, ptid, tls, ctid);
	tas__vfork_depth++;
	pid = tas__real.clone(fn, stack, flags, arg, ptid, tls, ctid);
	tas__vfork_depth--;
	tas__mem_free(&tas__vfork_mem);
	return pid;
}
TAS_SAME(__clone, clone);

/* As libc's, whose own dup2 no wrapper sees. */
int tas__w_daemon(int nochdir, int noclose)
{
	struct stat st;
	int fd, err;

	switch (fork()) {
	case -1:
		return -1;
	case 0:
		break;
	default:
		_exit(0);
	}
	if (setsid() == -1)
		return -1;
	if (!nochdir && chdir("/") < 0)
		err = errno; /* libc does not look either */
	if (noclose)
		return 0;
	fd = open("/dev/null", O_RDWR);
	if (fd < 0)
		return -1;
	err = fstat(fd, &st) < 0 ? errno : 0;
	if (!err && (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)))
		err = ENODEV;
	if (err) {
		tas__w_close(fd);
		errno = err;
		return -1;
	}
	for (int to = 0; to < 3; to++)
		tas__w_dup2(fd, to);
	if (fd > 2)
		tas__w_close(fd);
	return 0;
}

int tas__w_forkpty(int *master, char *name, const struct termios *tio, const struct winsize *ws)
{
	int pid = tas__real.forkpty(master, name, tio, ws);

	/* libc has put the terminal on these numbers */
	if (pid == 0 && !tas__passive())
		for (int i = 0; i < 3; i++)
			if (!tas__kernel(i))
				tas_note_close(i);
	return pid;
}

typedef int spawn_fn(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
		     char *const[], char *const[]);

/* libc searches in the child, but along the PATH of the parent; so a program that cannot have us is known here.  Which
 * numbers file actions give to it nobody can ask: any may become one that survives. */
static int spawn(spawn_fn *real, pid_t *pid, const char *path, const posix_spawn_file_actions_t *acts,
		 const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	struct tas__mem mem = {NULL, 0};
	char room[PATH_MAX];
	const char *found;
	int r;

	if (tas__passive())
		return real(pid, path, acts, attr, argv, envp);
	tas_before_spawn();
	if (acts ? tas_has_sockets() : tas_exec_keeps_sockets()) {
		found = real == tas__real.posix_spawnp ? tas__search(path, room) : path;
		if (!tas__wild(found) && argv && tas__deaf(AT_FDCWD, found) && access(found, X_OK) == 0 &&
		    access(tas__self_path, X_OK) == 0) {
			char *const *program = tas__program_start(found, argv, &envp, &mem);

			if (program) {
				argv = program;
				path = tas__self_path;
			}
		} else {
			envp = tas__env_with_us(envp, &mem);
		}
	}
	r = real(pid, path, acts, attr, argv, envp);
	tas__mem_free(&mem);
	return r;
}

int tas__w_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *acts,
		       const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	return spawn(tas__real.posix_spawn, pid, path, acts, attr, argv, envp);
}

int tas__w_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *acts,
			const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	return spawn(tas__real.posix_spawnp, pid, file, acts, attr, argv, envp);
}

/* ---- who and where we are: sockets made from now on are another user's, or another namespace's ---- */
static int changed(int r, bool netns)
{
	if (r == 0 && !tas__vfork_depth)
		tas_identity_changed(netns);
	return r;
}

int tas__w_setns(int fd, int type)
{
	return changed(tas__real.setns(fd, type), true);
}

int tas__w_unshare(int flags)
{
	int r = tas__real.unshare(flags);

	return flags & CLONE_NEWNET ? changed(r, true) : r;
}

int tas__w_setuid(uid_t u)
{
	return changed(tas__real.setuid(u), false);
}

int tas__w_seteuid(uid_t e)
{
	return changed(tas__real.seteuid(e), false);
}

int tas__w_setreuid(uid_t r, uid_t e)
{
	return changed(tas__real.setreuid(r, e), false);
}

int tas__w_setresuid(uid_t r, uid_t e, uid_t s)
{
	return changed(tas__real.setresuid(r, e, s), false);
}
