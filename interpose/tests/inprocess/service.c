/* SPDX-License-Identifier: MIT */
/*
 * The service as a thread of the test process, on the same mapping of every shared page as the client: what the library maps is
 * answered with the service's own address.  So ThreadSanitizer sees both sides of every shared word as one.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fast/sock.h"
#include "lowlevel/low.h"
#include "service/edge.h"
#include "slow/epset.h"
#include "slow/stack.h"
#include "service.h"

struct tas_core tas_cores[TAS_CORES_MAX];
unsigned tas_n_cores = 1;

static struct tas_net nets[TAS_CORES_MAX];
static pthread_t thread;
static int ready[2];

/* The service's address of the object behind fd: a region tells its slot itself, the others are known by their inode. */
__attribute__((no_sanitize("thread"))) static void *same_mapping(int fd, uint64_t size)
{
	struct tas_region_header h;
	struct stat st, own;

	(void)size;
	if (pread(fd, &h, sizeof h, 0) == sizeof h && h.magic == TAS_ABI_MAGIC && h.proc_slot < TAS_PROC_MAX &&
	    tas__procs[h.proc_slot])
		return tas__procs[h.proc_slot]->region;
	if (fstat(fd, &st))
		return NULL;
	for (uint32_t i = 0; i < TAS_EP_MAX; i++)
		if (tas__epsets[i] && !fstat(tas__epsets[i]->memfd, &own) && own.st_ino == st.st_ino)
			return tas__epsets[i]->m;
	for (uint32_t i = 0; i < TAS_PROC_MAX; i++) {
		const struct tas_set *s = tas__procs[i] ? tas__procs[i]->set : NULL;

		for (uint32_t k = 0; s && k < s->n_chunks; k++)
			if (!fstat(s->chunk[k]->fd, &own) && own.st_ino == st.st_ino)
				return s->chunk[k]->map;
	}
	return NULL;
}

static void *run(void *arg)
{
	struct tas_core *c = &tas_cores[0];
	char ok = 'y';

	(void)arg;
	if (tas__link_open(c->net) || tas__net_init(c) || tas__loop_init() || tas_stack_init())
		ok = 'n';
	if (write(ready[1], &ok, 1) != 1 || ok == 'n')
		return NULL;
	tas__loop_run(c);
	tas_stack_exit();
	tas__net_exit(c);
	tas__loop_exit();
	return NULL;
}

/* The library reads its environment when it is loaded: set it, and begin again. */
int inprocess_environment(char **argv)
{
	char path[64];

	snprintf(path, sizeof path, "/tmp/tas-inprocess-%d.sock", (int)getpid());
	if (getenv("TAS_SOCKET") && !strcmp(getenv("TAS_SOCKET"), path))
		return 0;
	setenv("TAS_SOCKET", path, 1);
	setenv("TAS_REQUIRE", "1", 1);
	execv("/proc/self/exe", argv);
	return -1;
}

int inprocess_start(void)
{
	char ok = 'n';

	tas_config = (struct tas_config){
		.link = TAS_LINK_NONE,
		.socket_mode = 0600,
		.ready_fd = -1,
		.quiet = true,
		.fp_cores_max = 1,
		.poll_ns_tas = 20000,
		.poll_ns_app = 20000,
		.tcp_rxbuf_len = 1 << 20,
		.tcp_txbuf_len = 1 << 20,
		.tcp_handshake_timeout = 1000000000,
		.tcp_handshake_retries = 6,
		.direct_after = 4,
	};
	snprintf(tas_config.socket_path, sizeof tas_config.socket_path, "%s", getenv("TAS_SOCKET"));
	for (unsigned i = 0; i < TAS_CORES_MAX; i++) {
		tas_cores[i].index = i;
		tas_cores[i].net = &nets[i];
	}
	tas__slack_pass_ns = 200 * 1000; /* idle connections meet those that write */
	tas__map_hook = same_mapping;
	if (pipe(ready) || pthread_create(&thread, NULL, run, NULL))
		return -1;
	return read(ready[0], &ok, 1) == 1 && ok == 'y' ? 0 : -1;
}

void inprocess_stop(void)
{
	struct tas_session *ss = tas__session_get();
	struct tas_msg m = { 0 };

	if (ss) {
		tas__ask(ss, &m, TAS_MSG_SHUTDOWN, NULL, 0);
		tas__session_put(ss);
	}
	pthread_join(thread, NULL);
}

/* Counters belong to the service's thread: a look from outside may be stale, and is not the race we look for. */
__attribute__((no_sanitize("thread"))) uint64_t inprocess_counter(int which)
{
	return *(volatile uint64_t *)&tas_cores[0].counters[which];
}

__attribute__((no_sanitize("thread"))) uint64_t inprocess_memory(void)
{
	uint64_t used = 0;

	for (uint32_t i = 0; i < TAS_PROC_MAX; i++) {
		const struct tas_set *s = tas__procs[i] ? tas__procs[i]->set : NULL;

		for (uint32_t k = 0; s && k < s->n_chunks; k++)
			used += *(volatile uint32_t *)&s->chunk[k]->used;
	}
	return used;
}
