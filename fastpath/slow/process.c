/* SPDX-License-Identifier: MIT */
/*
 * Attached processes.
 *
 * Every process has a slot of address space at a fixed stride: private pages (struct tas_proc and the list node below), then
 * its region, which it shares with nobody but the service.  The stride makes liveness work: the kernel's robust list wants
 * all futex words at one distance from their list nodes, and the nodes must be out of the applications' reach.  When the
 * loop's thread dies, for whatever reason, the kernel walks the list, sets FUTEX_OWNER_DIED in every region's alive word
 * and wakes one sleeper of each, who wakes the rest.  (This replaces glibc's own robust list in that thread: nothing here
 * uses robust mutexes.)
 *
 * A process ends when its pidfd says so, or when its control socket hangs up before it said who it is (a fork that failed or
 * died young).  Only a hang-up after TAS_MSG_EXEC_BEGIN has another meaning: the old image is gone, the next may come; what it
 * could not inherit (sockets that are not watched) is dropped at once.  Whoever loses its last claim is closed by fast/.
 *
 * Slot 2047 is never used: slot + 1 has to fit the 11 bits that lock words have for it.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "slow/control.h"
#include "slow/epset.h"
#include "slow/memory.h"
#include "slow/process.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

enum {
	SLOTS = TAS_PROC_MAX - 1,
	SLOTS_PER_USER = SLOTS / 2, /* of a user that is neither root nor the service's own */
	PAGE = 4096,
};

struct node { /* robust list entry; the kernel knows its first member */
	struct robust_list link;
	struct node *prev; /* NULL: first */
};

struct slot {
	struct tas_proc p;
	struct node node;
};

#define ROUND(n) (((n) + PAGE - 1) / PAGE * PAGE)
#define REGION_AT ROUND(sizeof(struct slot)) /* in a slot */
#define REGION_SIZE ROUND(sizeof(struct tas_region))
#define STRIDE (REGION_AT + REGION_SIZE)

struct tas_proc *tas__procs[TAS_PROC_MAX];
uint32_t tas__n_procs;

static struct {
	uint8_t *base; /* STRIDE * SLOTS, reserved */
	bool taken[SLOTS];
	struct tas_set *set[SLOTS]; /* of the processes that can be found: a scan of all of them touches few lines */
	uint32_t count;
	uint64_t instance;
	pid_t tid;
	struct robust_list_head robust;
	void *old_robust; /* what the thread had before */
	size_t old_robust_len;
} procs;

static struct slot *slot_of(const struct tas_proc *p)
{
	return (struct slot *)(procs.base + (size_t)p->slot * STRIDE);
}

/* ---- liveness ---- */
/* The thread can be killed between any two instructions: every list that the kernel can see is whole. */
static void robust_add(struct node *n)
{
	struct node *first = (struct node *)procs.robust.list.next;

	n->prev = NULL;
	n->link.next = procs.robust.list.next;
	if ((struct robust_list *)first != &procs.robust.list)
		first->prev = n;
	atomic_signal_fence(memory_order_seq_cst);
	procs.robust.list.next = &n->link;
}

static void robust_del(struct node *n)
{
	struct robust_list *next = n->link.next;

	if (next != &procs.robust.list)
		((struct node *)next)->prev = n->prev;
	if (n->prev)
		n->prev->link.next = next;
	else
		procs.robust.list.next = next;
	atomic_signal_fence(memory_order_seq_cst);
}

/* For a process that is alive and must not wait for this service any more. */
static void say_dead(struct tas_region *r)
{
	atomic_store_explicit(&r->alive, FUTEX_OWNER_DIED | FUTEX_WAITERS, memory_order_seq_cst);
	syscall(SYS_futex, &r->alive, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* ---- slots ---- */
static int slot_take(void)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		if (procs.taken[i])
			continue;
		procs.taken[i] = true;
		procs.count++;
		return (int)i;
	}
	return -EAGAIN;
}

/* The slot's memory goes back to the system, its addresses stay reserved. */
static void slot_free(uint32_t i)
{
	(void)!mmap(procs.base + (size_t)i * STRIDE, STRIDE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	procs.taken[i] = false;
	procs.count--;
}

static bool user_full(uid_t uid)
{
	uint32_t n = 0;

	if (!uid || uid == geteuid())
		return false;
	for (uint32_t i = 0; i < tas__n_procs; i++)
		n += tas__procs[i] && tas__procs[i]->uid == uid;
	return n >= SLOTS_PER_USER;
}

/* Maps slot i: private pages, then a fresh region.  Returns the region's memfd or -errno. */
static int slot_map(uint32_t i)
{
	uint8_t *at = procs.base + (size_t)i * STRIDE;
	int err, fd = tas__memfd("tas-region", REGION_SIZE, false);

	if (fd < 0)
		return fd;
	if (mmap(at, REGION_AT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED &&
	    mmap(at + REGION_AT, REGION_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED)
		return fd;
	err = errno;
	close(fd);
	return -err;
}

static void region_fill(struct tas_proc *p)
{
	struct tas_region *r = p->region;

	r->h = (struct tas_region_header){
		.magic = TAS_ABI_MAGIC,
		.abi = TAS_ABI_MAX,
		.size = REGION_SIZE,
		.proc_slot = p->slot,
		.set_id = p->set->id,
		.n_cores = tas_n_cores,
		.sock_max = TAS_SOCK_MAX,
		.ws_max = TAS_WS_MAX,
		.block_size = TAS_BLOCK_SIZE,
		.chunk_size = TAS_CHUNK_SIZE,
		.instance = procs.instance,
		.poll_us = (uint32_t)(tas_config.poll_ns_app / 1000),
	};
	for (unsigned i = 0; i < tas_n_cores; i++) /* not polled until it rings */
		atomic_store_explicit(&r->core[i].need_wakeup, 1, memory_order_relaxed);
	atomic_store_explicit(&r->alive, (uint32_t)procs.tid | FUTEX_WAITERS, memory_order_release);
}

static void doorbell_rang(struct tas_pollable *io, uint32_t events)
{
	struct tas_proc *p = (struct tas_proc *)((char *)io - offsetof(struct tas_proc, doorbell));

	/* Edge triggered and never read: the application shares the open file, and a read could be made to block. */
	(void)events;
	tas_count(&tas_cores[0], TAS_CTR_doorbells, 1);
	tas_core_rang(&tas_cores[0], p->slot);
}

static int doorbell_make(struct tas_proc *p)
{
	int err;

	p->doorbell.fn = doorbell_rang;
	p->doorbell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->doorbell.fd < 0)
		return -errno;
	p->doorbell.calm = true;
	err = tas_loop_add(&p->doorbell, EPOLLIN | EPOLLET);
	if (!err && (err = tas_threads_hear(p->doorbell.fd, p->slot)))
		tas_loop_del(&p->doorbell);
	if (err) {
		close(p->doorbell.fd);
		p->doorbell.fd = -1;
	}
	return err;
}

static void io_close(struct tas_pollable *io)
{
	if (io->fd < 0)
		return;
	if (io->calm)
		tas_threads_deaf(io->fd, 1);
	tas_loop_del(io);
	close(io->fd);
	io->fd = -1;
}

static void ws_close_all(struct tas_proc *p)
{
	for (uint32_t i = 0; p->n_ws && i < TAS_WS_MAX; i++) {
		if (p->ws_efd[i] < 0)
			continue;
		close(p->ws_efd[i]);
		p->ws_efd[i] = -1;
		p->n_ws--;
	}
}

int tas__proc_new(struct tas_set *set, uid_t uid, gid_t gid, const char *comm, struct tas_proc **out, int *region)
{
	struct tas_proc *p;
	struct slot *slot;
	int err, i = user_full(uid) ? -EAGAIN : slot_take();

	if (i < 0)
		return i;
	*region = err = slot_map((uint32_t)i);
	if (err < 0)
		goto out_slot;
	slot = (struct slot *)(procs.base + (size_t)i * STRIDE);
	p = &slot->p;
	p->slot = (uint32_t)i;
	p->uid = uid;
	p->gid = gid;
	p->pidfd.fd = p->doorbell.fd = -1;
	memset(p->ws_efd, 0xff, sizeof p->ws_efd);
	snprintf(p->comm, sizeof p->comm, "%s", comm);
	p->region = (struct tas_region *)(void *)((uint8_t *)slot + REGION_AT);
	p->set = set ? set : tas__set_new(uid, gid);
	err = p->set ? doorbell_make(p) : -ENOMEM;
	if (err)
		goto out_set;
	p->set->n_procs++;
	region_fill(p);
	robust_add(&slot->node);
	tas__procs[i] = p;
	procs.set[i] = p->set;
	if (tas__n_procs <= (uint32_t)i)
		tas__n_procs = (uint32_t)i + 1;
	tas_count(&tas_cores[0], TAS_CTR_procs_attached, 1);
	*out = p;
	return 0;
out_set:
	if (p->set && !set)
		tas__set_put(p->set);
	close(*region);
out_slot:
	slot_free((uint32_t)i);
	return err;
}

/* ---- who it is ---- */
static bool readable(int fd)
{
	struct pollfd f = { .fd = fd, .events = POLLIN };

	return poll(&f, 1, 0) == 1 && (f.revents & POLLIN);
}

static bool hung_up(int fd)
{
	struct pollfd f = { .fd = fd, .events = POLLRDHUP };

	return poll(&f, 1, 0) == 1 && (f.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static void died(struct tas_pollable *io, uint32_t events)
{
	(void)events;
	tas__proc_end((struct tas_proc *)((char *)io - offsetof(struct tas_proc, pidfd)));
}

/* A pidfd for the pid that the session's credentials named.  Pids can be used again: the kernel tells who made the
 * connection (Linux 6.5), else the sender must still hold the other end after the pidfd was made. */
static int pidfd_for(pid_t pid, int session)
{
	struct ucred maker;
	socklen_t len = sizeof maker, fdlen = sizeof(int);
	int fd = -1;

	if (!getsockopt(session, SOL_SOCKET, SO_PEERCRED, &maker, &len) && maker.pid == pid &&
	    !getsockopt(session, SOL_SOCKET, SO_PEERPIDFD, &fd, &fdlen))
		return fd;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return -errno;
	if (hung_up(session)) {
		close(fd);
		return -ESRCH;
	}
	return fd;
}

int tas__proc_identify(struct tas_proc *p, pid_t pid, int session)
{
	int err, fd = pid > 0 ? pidfd_for(pid, session) : -ESRCH;

	if (pid <= 0) /* of a pid namespace that we do not see: its session alone tells whether it lives */
		return 0;
	if (fd < 0)
		return fd;
	if (readable(fd)) {
		close(fd);
		return -ESRCH;
	}
	p->pidfd = (struct tas_pollable){ .fd = fd, .fn = died };
	err = tas_loop_add(&p->pidfd, EPOLLIN);
	if (err) {
		close(fd);
		p->pidfd.fd = -1;
		return err;
	}
	p->pid = pid;
	return 0;
}

static bool is_dead(const struct tas_proc *p)
{
	return p->pidfd.fd < 0 || readable(p->pidfd.fd);
}

/* ---- claims ---- */
bool tas__claimed(const struct tas_sock_base *s)
{
	for (uint32_t i = 0; i < tas__n_procs; i++)
		if (procs.set[i] && tas__set_reaches(procs.set[i], s->set) &&
		    tas_claim_test(tas__procs[i]->region->claims, s->id))
			return true;
	return false;
}

void tas__claims_clear(const struct tas_sock_base *s)
{
	for (uint32_t i = 0; i < tas__n_procs; i++)
		if (procs.set[i] && tas__set_reaches(procs.set[i], s->set) &&
		    tas_claim_test(tas__procs[i]->region->claims, s->id))
			tas_claim_clear(tas__procs[i]->region->claims, s->id);
}

/* Calls fn for every socket that p may hold and claims.  The bitmap is the application's: ids may be anything. */
static void each_claim(struct tas_proc *p, void (*fn)(struct tas_proc *p, struct tas_sock_base *s))
{
	for (uint32_t w = 0; w < TAS_SOCK_MAX / 64; w++) {
		uint64_t bits = atomic_load_explicit(&p->region->claims[w], memory_order_acquire);

		for (; bits; bits &= bits - 1) {
			struct tas_sock_base *s = tas__sock(w * 64 + (uint32_t)__builtin_ctzll(bits), 0);

			if (s && tas__set_reaches(p->set, s->set))
				fn(p, s);
		}
	}
}

static void claim_drop(struct tas_proc *p, struct tas_sock_base *s)
{
	tas__sock_forget_proc(s, p);
	tas_claim_clear(p->region->claims, s->id);
	tas__sock_unclaimed(s);
}

static void claim_drop_unwatched(struct tas_proc *p, struct tas_sock_base *s)
{
	if (s->watched)
		tas__sock_forget_proc(s, p);
	else
		claim_drop(p, s);
}

uint32_t tas__proc_claims(const struct tas_proc *p)
{
	uint32_t n = 0;

	for (uint32_t w = 0; w < TAS_SOCK_MAX / 64; w++)
		n += (uint32_t)__builtin_popcountll(
			atomic_load_explicit(&p->region->claims[w], memory_order_relaxed));
	return n;
}

/* Reads all of the parent's bitmap but writes only words that matter: the child's region stays sparse. */
static void claims_or(struct tas_proc *to, const struct tas_proc *from)
{
	for (uint32_t w = 0; w < TAS_SOCK_MAX / 64; w++) {
		uint64_t bits = atomic_load_explicit(&from->region->claims[w], memory_order_acquire);

		if (bits)
			atomic_fetch_or_explicit(&to->region->claims[w], bits, memory_order_seq_cst);
	}
}

void tas__proc_copy_claims(struct tas_proc *child, const struct tas_proc *parent)
{
	claims_or(child, parent);
}

/* ---- ends ---- */
/* What the process said before it went: a socket closed right before exit has no claim any more, only its hint.  Bounded,
 * because a process that ends by ours may still be running. */
static void last_hints(struct tas_proc *p)
{
	for (unsigned i = 0; i < tas_n_cores; i++)
		for (uint32_t n, left = TAS_SOCK_MAX; left && (n = tas__proc_hints(&tas_cores[i], p)); left -= n < left ? n : left)
			;
}

void tas__proc_end(struct tas_proc *p)
{
	struct tas_set *set = p->set;
	uint32_t slot = p->slot;

	last_hints(p);
	tas__proc_poll_stop(p);
	if (tas__proc_claims(p))
		tas_count(&tas_cores[0], TAS_CTR_procs_died, 1);
	/* From here on nobody finds it: what a process that still runs writes into its claims does not count. */
	tas__procs[slot] = NULL;
	procs.set[slot] = NULL;
	while (tas__n_procs && !tas__procs[tas__n_procs - 1])
		tas__n_procs--;
	each_claim(p, claim_drop);
	tas__epsets_proc_end(p);
	tas__socks_check(set); /* killed between giving up a claim and saying so */
	ws_close_all(p);
	io_close(&p->pidfd);
	io_close(&p->doorbell);
	if (p->session)
		tas__session_close(p->session);
	say_dead(p->region);
	robust_del(&slot_of(p)->node);
	slot_free(slot);
	if (--set->n_procs == 0)
		tas__moved_drop_all(set);
	tas__set_put(set);
	tas__exit_if_unused();
}

/* The image is gone, and with it its threads, wait sets and descriptors with FD_CLOEXEC. */
static void image_gone(struct tas_proc *p)
{
	p->between = true;
	p->exec_pending = false;
	last_hints(p);
	tas__proc_poll_stop(p);
	ws_close_all(p);
	io_close(&p->doorbell);
	each_claim(p, claim_drop_unwatched);
	tas__epsets_proc_end(p);
}

void tas__proc_hangup(struct tas_proc *p)
{
	if (is_dead(p))
		tas__proc_end(p);
	else if (p->exec_pending)
		image_gone(p);
}

struct tas_proc *tas__proc_by_pid(pid_t pid, uid_t uid, gid_t gid)
{
	for (uint32_t i = 0; pid > 0 && i < tas__n_procs; i++) {
		struct tas_proc *p = tas__procs[i];

		if (!p || p->pid != pid)
			continue;
		if (!is_dead(p) && p->uid == uid && p->gid == gid)
			return p;
		if (is_dead(p) || p->between) /* an image with other credentials does not take over */
			tas__proc_end(p);
	}
	return NULL;
}

void tas__proc_succeed(struct tas_proc *old, struct tas_proc *p)
{
	if (!old->between) /* an exec, or a closed control socket, that nobody announced */
		image_gone(old);
	claims_or(p, old);
	for (uint32_t w = 0; w < TAS_SOCK_MAX / 64; w++)
		if (atomic_load_explicit(&old->region->claims[w], memory_order_relaxed))
			atomic_store_explicit(&old->region->claims[w], 0, memory_order_seq_cst);
	tas__proc_end(old);
}

void tas__proc_set(struct tas_proc *p, struct tas_set *set)
{
	p->set = procs.set[p->slot] = set;
}

uint32_t tas__proc_count(void)
{
	return procs.count;
}

uint64_t tas__instance(void)
{
	return procs.instance;
}

struct tas_proc *tas__proc_find(const void *addr)
{
	const uint8_t *a = addr;
	size_t i;

	if (!procs.base || a < procs.base || a >= procs.base + (size_t)STRIDE * SLOTS)
		return NULL;
	i = (size_t)(a - procs.base) / STRIDE;
	return (size_t)(a - procs.base) % STRIDE >= REGION_AT ? tas__procs[i] : NULL;
}

int tas__procs_init(void)
{
	procs.base = mmap(NULL, (size_t)STRIDE * SLOTS, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (procs.base == MAP_FAILED) {
		procs.base = NULL;
		return -errno;
	}
	if (getentropy(&procs.instance, sizeof procs.instance))
		procs.instance = ((uint64_t)getpid() << 32) ^ tas_cores[0].now;
	procs.tid = (pid_t)syscall(SYS_gettid);
	procs.robust.list.next = &procs.robust.list;
	procs.robust.list_op_pending = NULL;
	procs.robust.futex_offset = (long)(REGION_AT + offsetof(struct tas_region, alive)) - (long)offsetof(struct slot, node);
	syscall(SYS_get_robust_list, 0, &procs.old_robust, &procs.old_robust_len);
	if (syscall(SYS_set_robust_list, &procs.robust, sizeof procs.robust)) {
		int err = errno;

		munmap(procs.base, (size_t)STRIDE * SLOTS);
		procs.base = NULL;
		return -err;
	}
	return 0;
}

void tas__procs_exit(void)
{
	if (!procs.base)
		return;
	while (tas__n_procs)
		tas__proc_end(tas__procs[tas__n_procs - 1]);
	syscall(SYS_set_robust_list, procs.old_robust, procs.old_robust_len);
	munmap(procs.base, (size_t)STRIDE * SLOTS);
	procs.base = NULL;
}
