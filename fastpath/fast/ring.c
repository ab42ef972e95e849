/* SPDX-License-Identifier: MIT */
/*
 * Ringing an application's eventfd without ever waiting for it.
 *
 * The application shares the open file: it can fill the counter and clear O_NONBLOCK, and a write would wait for ever.  Two ways
 * around that:
 *
 * For processes of other users the kernel rings: an asynchronous read of no bytes names the eventfd (IOCB_FLAG_RESFD) and is complete
 * when io_submit() returns.  That never waits, whatever the mode of the file; it costs half a microsecond more than a write.
 *
 * For our own user's, and where io_setup() is not to be had: write.  While writes are made, a timer's signal comes a hundred times
 * a second and ends one that waits; the offender's memory set is given up.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fast/sock.h"

enum { GUARD_NS = 10 * 1000 * 1000, AIO_EVENTS = 128 };

/* ---- the kernel rings ---- */
static int zero = -1; /* /dev/zero: a read of it is complete at once */
static _Thread_local struct {
	aio_context_t ctx; /* 0: none */
	unsigned pending;
	bool tried;
} aio;

static bool aio_ring(int efd)
{
	static char nowhere[1];
	struct iocb cb = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)zero,
		.aio_buf = (uintptr_t)nowhere,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)efd,
	};
	struct iocb *list[] = { &cb };
	struct io_event done[AIO_EVENTS];

	if (aio.pending >= AIO_EVENTS / 2)
		aio.pending -= (unsigned)syscall(SYS_io_getevents, aio.ctx, 0, AIO_EVENTS, done, NULL);
	if (syscall(SYS_io_submit, aio.ctx, 1, list) != 1)
		return false;
	aio.pending++;
	return true;
}

/* ---- no write waits ---- */
/* A timer for each thread: its signal goes to that thread. */
static _Thread_local timer_t guard;
static _Thread_local bool guard_made, guard_runs;
static _Thread_local volatile sig_atomic_t guard_written; /* since the last tick */

static void guard_set(long ns)
{
	const struct itimerspec t = { .it_value.tv_nsec = ns, .it_interval.tv_nsec = ns };

	guard_runs = ns != 0;
	timer_settime(guard, 0, &t, NULL);
}

static void guard_tick(int sig)
{
	(void)sig;
	if (!guard_written)
		guard_set(0);
	guard_written = 0;
}

static void guard_make(void)
{
	struct sigevent e = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGVTALRM };
	struct sigaction a = { .sa_handler = guard_tick }; /* without SA_RESTART */

	e._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	guard_made = !sigaction(SIGVTALRM, &a, NULL) && !timer_create(CLOCK_MONOTONIC, &e, &guard);
}

static bool write_guarded(int efd)
{
	const uint64_t one = 1;

	if (!guard_made)
		guard_make();
	guard_written = 1; /* before the look: a tick in between leaves the timer running */
	if (guard_made && !guard_runs)
		guard_set(GUARD_NS);
	return write(efd, &one, sizeof one) == sizeof one || errno != EINTR;
}

static uid_t self;

static bool aio_ready(void)
{
	if (!aio.tried && zero >= 0 && syscall(SYS_io_setup, AIO_EVENTS, &aio.ctx))
		aio.ctx = 0;
	aio.tried = true;
	return aio.ctx;
}

bool tas__ring(uid_t uid, int efd)
{
	return (uid != self && aio_ready() && aio_ring(efd)) || write_guarded(efd);
}

void tas__ring_init(void)
{
	self = geteuid();
	zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
}

void tas__ring_thread_exit(void)
{
	if (aio.ctx)
		syscall(SYS_io_destroy, aio.ctx);
	aio.ctx = 0;
	aio.tried = false;
	if (guard_made)
		timer_delete(guard);
	guard_made = guard_runs = false;
}

void tas__ring_exit(void)
{
	tas__ring_thread_exit();
	if (zero >= 0)
		close(zero);
	zero = -1;
}
