// SPDX-License-Identifier: MIT
/*
 * Programs that cannot have us: without a dynamic linker (static), or in its secure mode, in which LD_PRELOAD is not
 * obeyed (set-user-ID, set-group-ID, file capabilities).  A script is what its interpreter is.  Only raw system calls: the
 * caller may be a vfork child.
 */
#include <elf.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

enum { INTERPRETERS_MAX = 4, HEADERS_MAX = 64 };

/* Linux: what makes AT_SECURE true. */
static bool secure(int fd)
{
	struct stat st;

	if (syscall(SYS_fstat, fd, &st) || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
		return false;
	if ((st.st_mode & S_ISUID) && st.st_uid != (uid_t)syscall(SYS_getuid))
		return true;
	if ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != (gid_t)syscall(SYS_getgid))
		return true;
	return syscall(SYS_getuid) && syscall(SYS_fgetxattr, fd, "security.capability", NULL, 0) > 0;
}

static bool without_linker(int fd, const Elf64_Ehdr *e)
{
	Elf64_Phdr p;

	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_phentsize != sizeof p)
		return true; /* of another architecture or width: our library is not for it */
	for (unsigned i = 0; i < e->e_phnum && i < HEADERS_MAX; i++) {
		if (syscall(SYS_pread64, fd, &p, sizeof p, e->e_phoff + i * sizeof p) != sizeof p)
			return false;
		if (p.p_type == PT_INTERP)
			return false;
	}
	return true;
}

/* Name of a script's interpreter, which is left in head. */
static const char *interpreter(char *head, size_t n)
{
	char *name = head + 2, *end;

	head[n] = 0;
	name += strspn(name, " \t");
	end = name + strcspn(name, " \t\n");
	*end = 0;
	return *name ? name : NULL;
}

bool tas__deaf(int dir, const char *path)
{
	union {
		Elf64_Ehdr e;
		char text[257];
	} head;
	bool r = false;

	for (int i = 0; i < INTERPRETERS_MAX; i++) {
		int fd = path ? (int)syscall(SYS_openat, dir, path, O_RDONLY | O_CLOEXEC) : dir;
		long n = fd < 0 ? -1 : syscall(SYS_pread64, fd, &head, sizeof head - 1, 0L);
		bool script = n > 2 && !memcmp(head.text, "#!", 2);

		if (n >= (long)sizeof head.e && !memcmp(head.text, ELFMAG, SELFMAG))
			r = secure(fd) || without_linker(fd, &head.e);
		if (path && fd >= 0)
			syscall(SYS_close, fd);
		if (!script)
			return r;
		path = interpreter(head.text, (size_t)n);
		if (!path)
			return false;
		dir = AT_FDCWD;
	}
	return false;
}

const char *tas__search(const char *file, char room[PATH_MAX])
{
	const char *p = getenv("PATH");

	if (!file || strchr(file, '/'))
		return file;
	for (p = p ? p : "/bin:/usr/bin"; *p;) {
		size_t n = strcspn(p, ":"), len = strlen(file);

		if (n + len + 2 < PATH_MAX) {
			memcpy(room, p, n);
			memcpy(room + n + (n > 0), file, len + 1);
			if (n)
				room[n] = '/';
			if (syscall(SYS_access, room, X_OK) == 0)
				return room;
		}
		p += n + (p[n] == ':');
	}
	return file;
}
