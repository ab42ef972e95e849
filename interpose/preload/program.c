// SPDX-License-Identifier: MIT
/*
 * The library as a program.  posix_spawn() makes its process inside libc: when the program to be run cannot have us
 * (deaf.c), nobody stands between fork and exec who could give it bridges.  So the wrapper starts this library instead,
 * which does in the child what exec does (exec.c), and becomes the program.
 *
 *   argv:  a name, path of the program, its own argv
 *   envp:  the program's, but for: LD_PRELOAD's name has another first letter, or the linker would load us twice; and behind
 *          the entry TAS_PROGRAM= stands what only we need
 *
 * The status is 127 if the program cannot be run, as of a shell.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload.h"
#include "tas.h"

/* The kernel looks here for who loads us. */
__attribute__((section(".interp"), used)) static const char interpreter[] = "/lib64/ld-linux-x86-64.so.2";

static const char preload[] = "LD_PRELOAD=", hidden[] = "TD_PRELOAD=", ours[] = "TAS_PROGRAM=";

int main(int argc, char **argv);

int main(int argc, char **argv)
{
	if (argc < 3)
		return 127;
	for (char **e = environ; *e; e++) {
		if (!strncmp(*e, hidden, sizeof hidden - 1)) {
			**e = preload[0];
		} else if (!strcmp(*e, ours)) {
			*e = NULL;
			break;
		}
	}
	tas__w_execve(argv[1], argv + 2, environ);
	return 127;
}

static size_t count(char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

char *const *tas__program_start(const char *path, char *const *argv, char *const **envp, struct tas__mem *mem)
{
	const char *sock = tas_socket_path();
	size_t n_args = count(argv), n_env = count(*envp), text = strlen(sock) + sizeof "TAS_SOCKET=";
	char **args, **env, *p;

	for (size_t i = 0; i < n_env; i++)
		if (!strncmp((*envp)[i], preload, sizeof preload - 1))
			text += strlen((*envp)[i]) + 1;
	mem->len = (n_args + 3 + n_env + 3) * sizeof *args + text;
	args = mmap(NULL, mem->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (args == MAP_FAILED)
		return NULL;
	mem->at = args;
	env = args + n_args + 3;
	p = (char *)(env + n_env + 3);
	args[0] = tas__self_path;
	args[1] = (char *)path;
	memcpy(args + 2, argv, n_args * sizeof *args);
	for (size_t i = 0; i < n_env; i++) {
		env[i] = (*envp)[i];
		if (strncmp(env[i], preload, sizeof preload - 1))
			continue;
		env[i] = strcpy(p, env[i]);
		env[i][0] = hidden[0];
		p += strlen(p) + 1;
	}
	env[n_env] = (char *)ours;
	env[n_env + 1] = p;
	strcpy(stpcpy(p, "TAS_SOCKET="), sock);
	*envp = env;
	return args;
}
