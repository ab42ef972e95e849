/* SPDX-License-Identifier: MIT */
/*
 * Beginning and end of the stack, and the repair of shared memory that fails under the service.
 *
 * Repair: chunks and regions are sealed against truncation, but a page can still be missing when it is touched (a hole in a
 * chunk of huge pages with an empty pool, a memory error).  That is SIGBUS in the service's thread, in the middle of anything.
 * The handler puts an ordinary page in place so that the instruction goes on, and marks the memory set dead: its processes
 * lose their sessions in the next round of the loop.  Nobody else notices.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "slow/admin.h"
#include "slow/control.h"
#include "slow/epset.h"
#include "slow/memory.h"
#include "slow/process.h"
#include "slow/watch.h"

static struct {
	struct tas_pollable io; /* eventfd: some set is dead */
	struct sigaction old;
	bool installed;
} repair = { .io.fd = -1 };

void tas__set_condemn(struct tas_set *s)
{
	const uint64_t one = 1;

	tas__set_kill(s);
	(void)!write(repair.io.fd, &one, sizeof one);
}

static void on_bus_error(int sig, siginfo_t *info, void *context)
{
	size_t page = 4096;
	struct tas_proc *p = tas__proc_find(info->si_addr);
	struct tas_set *e = p ? NULL : tas__epsets_at(info->si_addr);
	struct tas_set *s = p ? p->set : e ? e : tas__mem_find(info->si_addr, &page);
	uintptr_t at = (uintptr_t)info->si_addr & ~(uintptr_t)(page - 1);
	int saved = errno;

	(void)context;
	if (!s || mmap((void *)at, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
		sigaction(sig, &repair.old, NULL); /* not ours: the instruction faults again, for the previous handler */
		return;
	}
	tas__set_condemn(s);
	errno = saved;
}

static void end_dead_sets(struct tas_pollable *io, uint32_t events)
{
	uint64_t n;

	(void)events;
	(void)!read(io->fd, &n, sizeof n);
	for (const struct tas_set *s = tas__sets(); s; s = s->next)
		if (s->number && tas__set_dead(s))
			tas__socks_reset(s);
	for (uint32_t i = 0; i < tas__n_procs; i++) {
		struct tas_proc *p = tas__procs[i];

		if (!p || !tas__set_dead(p->set))
			continue;
		tas_warn("%s (pid %d) damaged what it shares with the service: its session ends", p->comm, (int)p->pid);
		tas__proc_end(p);
	}
}

static int repair_init(void)
{
	struct sigaction a = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
	int err;

	repair.io.fn = end_dead_sets;
	repair.io.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (repair.io.fd < 0)
		return -errno;
	err = tas_loop_add(&repair.io, EPOLLIN);
	if (err) {
		close(repair.io.fd);
		repair.io.fd = -1;
		return err;
	}
	repair.installed = !sigaction(SIGBUS, &a, &repair.old);
	return repair.installed ? 0 : -errno;
}

static void repair_exit(void)
{
	if (repair.installed)
		sigaction(SIGBUS, &repair.old, NULL);
	repair.installed = false;
	if (repair.io.fd >= 0) {
		tas_loop_del(&repair.io);
		close(repair.io.fd);
	}
	repair.io.fd = -1;
}

static int said(int err, const char *what)
{
	if (err)
		tas_warn("cannot start: %s: %s", what, strerror(-err));
	return err;
}

int tas_stack_init(void)
{
	int err;

	tas__admin_init();
	tas__ring_init();
	err = said(tas__mem_init(), "shared memory");
	err = err ? err : said(tas__procs_init(), "address space for processes");
	err = err ? err : said(repair_init(), "memory repair");
	err = err ? err : said(tas__socks_init(), "sockets");
	if (!err && tas__watch_init())
		tas_warn("no inotify: sockets cannot be given to other programs (see fs.inotify.max_user_instances)");
	err = err ? err : tas__control_init(); /* speaks for itself */
	if (err)
		tas_stack_exit();
	return err;
}

void tas_stack_exit(void)
{
	tas__control_exit();
	tas__procs_exit(); /* what they held closes as at their death */
	tas__bridges_exit();
	tas__socks_exit(); /* what is left says goodbye to its peer */
	tas__watch_exit();
	repair_exit();
	tas__epsets_exit();
	tas__mem_exit();
	tas__ring_exit();
}
