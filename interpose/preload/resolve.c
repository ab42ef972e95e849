// SPDX-License-Identifier: MIT
/*
 * Pointers to the next definitions, and the start of the library.
 *
 * Each pointer begins as a stub that looks up its own symbol only.  (One at a time, because such an early call may come
 * out of malloc's initialisation, and dlsym allocates when it does not find a symbol.)  The constructor looks all of
 * them up.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload.h"
#include "raw.h"

bool tas__ready;
__thread int tas__vfork_depth __attribute__((tls_model("initial-exec")));
__thread struct tas__mem tas__vfork_mem __attribute__((tls_model("initial-exec")));
char tas__self_path[4096];

/* A symbol that this libc does not have fails as a kernel without the call does. */
#define FAILED(ret) (ret) _Generic((ret *)0, void * : 0, FILE ** : 0, default : -1)
#define FD(ret, name, params, args, goes) \
	static ret absent_##name params \
	{ \
		errno = ENOSYS; \
		return FAILED(ret); \
	} \
	static ret lazy_##name params;
#define OWN(ret, name, params, args, file) FD(ret, name, params, args, file)
#define NEW(ret, name, params, file)
#define SAME(name, target)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
TAS_CALLS(FD, OWN, NEW, SAME)
#pragma GCC diagnostic pop
#undef FD

#define FD(ret, name, params, args, goes) .name = lazy_##name,
struct tas__real tas__real = {TAS_CALLS(FD, OWN, NEW, SAME)};
#undef FD

static void *next(const char *name, void *absent)
{
	void *sym = dlsym(RTLD_NEXT, name);

	return sym ? sym : absent;
}

#define FD(ret, name, params, args, goes) \
	static ret lazy_##name params \
	{ \
		tas__real.name = (__typeof__(tas__real.name))next(#name, (void *)absent_##name); \
		return tas__real.name args; \
	}
TAS_CALLS(FD, OWN, NEW, SAME)
#undef FD

static void resolve_all(void)
{
#define FD(ret, name, params, args, goes) \
	tas__real.name = (__typeof__(tas__real.name))next(#name, (void *)absent_##name);
	TAS_CALLS(FD, OWN, NEW, SAME)
#undef FD
}

/* For library.S, which jumps. */
__attribute__((visibility("hidden"))) void *tas__next_dlopen, *tas__next_dlmopen;
__attribute__((visibility("hidden"))) bool tas__keep_deepbind;
void tas__next_find(void);

__attribute__((visibility("hidden"))) void tas__next_find(void)
{
	tas__next_dlopen = dlsym(RTLD_NEXT, "dlopen");
	tas__next_dlmopen = dlsym(RTLD_NEXT, "dlmopen");
}

static bool env_says(const char *name, const char *value)
{
	const char *s = secure_getenv(name);

	return s && !strcmp(s, value);
}

/* Our own path, absolute, for programs that are started with an environment without us. */
static void find_self(void)
{
	char path[sizeof tas__self_path];
	size_t n = 0;
	Dl_info us;

	if (!dladdr((void *)tas__start, &us) || !us.dli_fname)
		return;
	if (us.dli_fname[0] != '/') {
		if (!getcwd(path, sizeof path - 1))
			return;
		n = strlen(path);
		path[n++] = '/';
	}
	if (n + strlen(us.dli_fname) >= sizeof path)
		return;
	strcpy(path + n, us.dli_fname);
	strcpy(tas__self_path, path);
}

void tas__start(void)
{
	static int started;

	if (__atomic_exchange_n(&started, 1, __ATOMIC_ACQ_REL))
		return;
	tas_init(true);
	__atomic_store_n(&tas__ready, true, __ATOMIC_RELEASE);
}

__attribute__((constructor)) static void construct(void)
{
	int err = errno;

	resolve_all();
	tas__next_find();
	tas__keep_deepbind = env_says("TAS_DEEPBIND", "keep");
	find_self();
	tas__start();
	tas__signals_start();
	for (int fd = 0; fd < 3; fd++)
		tas__standard_stream(fd);
	tas__raw_start();
	errno = err;
}
