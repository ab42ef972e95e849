// SPDX-License-Identifier: MIT
/*
 * exec, in all its spellings.  Each ends in execve, execvpe, fexecve or execveat of libc, with the client library told
 * before and after.  If TAS sockets survive the exec and the new environment lacks LD_PRELOAD, our library (and
 * TAS_SOCKET, its way to the service) is put back into it, or the next image would hold sockets that it cannot use.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload.h"
#include "tas.h"

static const char self_name[] = "libtas_interpose.so";

struct target {
	enum { BY_PATH, BY_SEARCH, BY_FD, BY_DIR } how;
	const char *path;
	int fd, flags;
};

/* Index of the last NAME= in envp, or n. */
static size_t find(char *const *envp, size_t n, const char *name)
{
	size_t len = strlen(name), at = n;

	for (size_t i = 0; i < n; i++)
		if (!strncmp(envp[i], name, len))
			at = i;
	return at;
}

bool tas__env_has_us(char *const *envp)
{
	static const char preload[] = "LD_PRELOAD=";
	size_t n = 0, at;

	while (envp && envp[n])
		n++;
	at = find(envp, n, preload);
	return at < n && strstr(envp[at] + sizeof preload - 1, self_name);
}

char *const *tas__env_with_us(char *const *envp, struct tas__mem *mem)
{
	static const char preload[] = "LD_PRELOAD=", path[] = "TAS_SOCKET=";
	const char *sock = tas_socket_path(), *old = "";
	size_t n = 0, at;
	char **copy, *text;

	while (envp && envp[n])
		n++;
	at = find(envp, n, preload);
	if (at < n)
		old = envp[at] + sizeof preload - 1;
	if (strstr(old, self_name) || !tas__self_path[0] || access(tas__self_path, R_OK) != 0)
		return envp;
	mem->len = (n + 3) * sizeof *copy + sizeof preload + strlen(tas__self_path) + 1 + strlen(old) + sizeof path +
		   strlen(sock);
	copy = mmap(NULL, mem->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy == MAP_FAILED)
		return envp;
	mem->at = copy;
	if (n)
		memcpy(copy, envp, n * sizeof *copy);
	text = (char *)(copy + n + 3);
	copy[at] = text;
	text = stpcpy(stpcpy(text, preload), tas__self_path);
	if (*old)
		text = stpcpy(stpcpy(text, ":"), old);
	text++;
	if (at == n)
		n++;
	if (find(copy, n, path) == n) {
		copy[n] = text;
		strcpy(stpcpy(text, path), sock);
	}
	return copy;
}

void tas__mem_free(struct tas__mem *mem)
{
	if (mem->at)
		munmap(mem->at, mem->len);
	mem->at = NULL;
}

static int exec_raw(const struct target *t, char *const argv[], char *const envp[])
{
	switch (t->how) {
	case BY_PATH:
		return tas__real.execve(t->path, argv, envp);
	case BY_SEARCH:
		return tas__real.execvpe(t->path, argv, envp);
	case BY_FD:
		return tas__real.fexecve(t->fd, argv, envp);
	default:
		return tas__real.execveat(t->fd, t->path, argv, envp, t->flags);
	}
}

static bool is_deaf(const struct target *t)
{
	char room[PATH_MAX];

	switch (t->how) {
	case BY_PATH:
		return t->path && tas__deaf(AT_FDCWD, t->path);
	case BY_SEARCH:
		return t->path && tas__deaf(AT_FDCWD, tas__search(t->path, room));
	case BY_FD:
		return tas__deaf(t->fd, NULL);
	default:
		return t->path && (*t->path ? tas__deaf(t->fd, t->path) : tas__deaf(t->fd, NULL));
	}
}

/* In a vfork child as well: bridges touch no memory but the stack. */
static int exec_bridged(const struct target *t, char *const argv[], char *const envp[])
{
	struct tas_bridges b = {.ctl = -1};
	int err;

	if (tas__ready && !tas__wild(t->path) && is_deaf(t))
		tas_bridge(&b);
	exec_raw(t, argv, envp);
	err = errno;
	tas_bridge_cancel(&b);
	errno = err;
	return -1;
}

/* In a vfork child, whose numbers may be others than those that the table knows, and whose memory its parent's, which
 * frees what is left there. */
static int exec_of_vfork(const struct target *t, char *const argv[], char *const envp[])
{
	int err;

	if (tas__vfork_depth && !tas__env_has_us(envp) && tas_may_hold_sockets())
		envp = tas__env_with_us(envp, &tas__vfork_mem);
	exec_bridged(t, argv, envp);
	err = errno;
	tas__mem_free(&tas__vfork_mem);
	errno = err;
	return -1;
}

static int exec_target(const struct target *t, char *const argv[], char *const envp[])
{
	struct tas__mem mem = {NULL, 0};
	int err;

	if (tas__passive())
		return exec_of_vfork(t, argv, envp);
	tas_before_exec();
	if (tas_exec_keeps_sockets())
		envp = tas__env_with_us(envp, &mem);
	exec_bridged(t, argv, envp);
	err = errno;
	tas__mem_free(&mem);
	tas_exec_failed();
	errno = err;
	return -1;
}

int tas__w_execve(const char *path, char *const argv[], char *const envp[])
{
	return exec_target(&(struct target){.how = BY_PATH, .path = path}, argv, envp);
}

int tas__w_execvpe(const char *file, char *const argv[], char *const envp[])
{
	return exec_target(&(struct target){.how = BY_SEARCH, .path = file}, argv, envp);
}

int tas__w_fexecve(int fd, char *const argv[], char *const envp[])
{
	return exec_target(&(struct target){.how = BY_FD, .fd = fd}, argv, envp);
}

int tas__w_execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)
{
	return exec_target(&(struct target){.how = BY_DIR, .fd = dir, .path = path, .flags = flags}, argv, envp);
}

int tas__w_execv(const char *path, char *const argv[])
{
	return tas__w_execve(path, argv, environ);
}

int tas__w_execvp(const char *file, char *const argv[])
{
	return tas__w_execvpe(file, argv, environ);
}

static size_t count(va_list ap)
{
	size_t n = 0;

	while (va_arg(ap, const char *))
		n++;
	return n;
}

/* Collects the arguments of an execl call behind argv[0]; ap ends behind the null. */
static void collect(char **argv, const char *arg, va_list ap)
{
	argv[0] = (char *)arg;
	for (size_t i = 1; argv[i - 1]; i++)
		argv[i] = va_arg(ap, char *);
}

/* Declares argv with the arguments from `arg` on, and leaves ap behind them.  The array lives on the stack, as in libc: a
 * vfork child may come here, and it may not allocate. */
#define GATHER(argv, arg, ap) \
	size_t n_; \
\
	va_start(ap, arg); \
	n_ = (arg) ? count(ap) + 2 : 1; \
	va_end(ap); \
\
	char *argv[n_]; \
\
	va_start(ap, arg); \
	collect(argv, arg, ap)

int tas__w_execl(const char *path, const char *arg, ...)
{
	va_list ap;

	GATHER(argv, arg, ap);
	va_end(ap);
	return tas__w_execve(path, argv, environ);
}

int tas__w_execlp(const char *file, const char *arg, ...)
{
	va_list ap;

	GATHER(argv, arg, ap);
	va_end(ap);
	return tas__w_execvpe(file, argv, environ);
}

int tas__w_execle(const char *path, const char *arg, ...)
{
	va_list ap;

	GATHER(argv, arg, ap);

	char *const *envp = va_arg(ap, char *const *);

	va_end(ap);
	return tas__w_execve(path, argv, envp);
}
