/* SPDX-License-Identifier: MIT */
/*
 * What the control half of the service calls, for its tests: a loop that runs as far as it is pumped, and sockets that
 * are nothing but claims.  Include once.
 */
#ifndef TAS_FAKE_STACK_H
#define TAS_FAKE_STACK_H

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "one_thread.h"
#include "slow/stack.h"

struct tas_config tas_config;
struct tas_core tas_cores[TAS_CORES_MAX];
unsigned tas_n_cores = 1;

enum { FAKE_SOCKS = 64, FAKE_BATCH = 16 };

static struct {
	int epoll;
	bool stopped;
	struct epoll_event ev[FAKE_BATCH];
	int n_ev;
	struct tas_sock_base sock[FAKE_SOCKS];
	unsigned closes, forgotten, hints, polls, listing, resets;
	bool busy;
	struct tas_ident last_ident;
	char warning[256];
} fake;

/* ---- loop ---- */
int tas_loop_add(struct tas_pollable *p, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = p };

	return epoll_ctl(fake.epoll, EPOLL_CTL_ADD, p->fd, &e) ? -errno : 0;
}

int tas_loop_mod(struct tas_pollable *p, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = p };

	return epoll_ctl(fake.epoll, EPOLL_CTL_MOD, p->fd, &e) ? -errno : 0;
}

void tas_loop_del(struct tas_pollable *p)
{
	epoll_ctl(fake.epoll, EPOLL_CTL_DEL, p->fd, NULL);
	for (int i = 0; i < fake.n_ev; i++)
		if (fake.ev[i].data.ptr == p)
			fake.ev[i].data.ptr = NULL;
}

void tas_loop_stop(void)
{
	fake.stopped = true;
}

/* Handles what is ready, waiting up to ms for it.  Returns how many events there were. */
static int pump_once(int ms)
{
	int n = fake.n_ev = epoll_wait(fake.epoll, fake.ev, FAKE_BATCH, ms);

	for (int i = 0; i < n; i++) {
		struct tas_pollable *p = fake.ev[i].data.ptr;

		if (p)
			p->fn(p, fake.ev[i].events);
	}
	fake.n_ev = 0;
	return n;
}

static inline unsigned pump(void)
{
	unsigned n = 0;
	int r;

	while (n < 10000 && (r = pump_once(0)) > 0)
		n += (unsigned)r;
	return n;
}

static inline double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

#define PUMP_UNTIL(cond)                                        \
	({                                                      \
		double end_ = seconds() + 5;                    \
		while (!(cond) && seconds() < end_)             \
			pump_once(10);                          \
		(cond);                                         \
	})

void tas_info(const char *fmt, ...)
{
	(void)fmt;
}

void tas_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(fake.warning, sizeof fake.warning, fmt, ap);
	va_end(ap);
}

/* ---- sockets ---- */
struct tas_sock_base *tas__sock(uint32_t id, uint32_t gen)
{
	struct tas_sock_base *s = id < FAKE_SOCKS ? &fake.sock[id] : NULL;

	return s && s->kind && (!gen || s->gen == gen) ? s : NULL;
}

struct tas_sock_base *tas__sock_by_cookie(uint64_t cookie)
{
	for (uint32_t i = 0; i < FAKE_SOCKS; i++)
		if (fake.sock[i].kind && cookie && fake.sock[i].ident.cookie == cookie)
			return &fake.sock[i];
	return NULL;
}

void tas__sock_identify(struct tas_sock_base *s, const struct tas_ident *i)
{
	s->ident = *i;
}

void tas__sock_last_close(struct tas_sock_base *s)
{
	struct tas_set *set = s->set;

	tas__watch_del(s);
	tas__mem_free(set, s->block, TAS_BLOCK_SIZE);
	s->kind = TAS_K_FREE;
	s->set = NULL;
	fake.closes++;
	set->n_socks--;
	tas__set_put(set);
}

void tas__sock_unclaimed(struct tas_sock_base *s)
{
	if (!s->watched && !tas__claimed(s))
		tas__sock_last_close(s);
}

void tas__sock_forget_proc(struct tas_sock_base *s, const struct tas_proc *p)
{
	(void)s;
	(void)p;
	fake.forgotten++;
}

/* A socket that p claims. */
static inline struct tas_sock_base *fake_sock(struct tas_proc *p)
{
	for (uint32_t i = 1; i < FAKE_SOCKS; i++) {
		struct tas_sock_base *s = &fake.sock[i];

		if (s->kind)
			continue;
		*s = (struct tas_sock_base){ .id = i, .gen = s->gen + 1, .kind = TAS_K_LINK, .wd = -1, .set = p->set };
		s->block = tas__mem_alloc(p->set, TAS_BLOCK_SIZE);
		p->set->n_socks++;
		tas_claim_set(p->region->claims, i);
		return s;
	}
	return NULL;
}

unsigned tas__proc_hints_all(struct tas_proc *p)
{
	return tas__proc_hints(&tas_cores[0], p);
}

unsigned tas_core_rang(struct tas_core *c, uint32_t slot)
{
	tas__proc_poll_start(c, tas__procs[slot]);
	return tas__proc_hints(c, tas__procs[slot]);
}

unsigned tas_core_flows(const struct tas_core *c)
{
	(void)c;
	return 0;
}

int tas__sock_subscribe(struct tas_sock_base *s, const struct tas_proc *p, uint32_t ws, uint32_t flags)
{
	(void)flags;
	(void)s;
	(void)p;
	(void)ws;
	return 0;
}

void tas__sock_unsubscribe(struct tas_sock_base *s, const struct tas_proc *p, uint32_t ws, uint32_t flags)
{
	(void)s;
	(void)p;
	(void)ws;
	(void)flags;
}

int tas__op_bind(struct tas_proc *p, const struct tas_ident *i, const struct tas_msg *req, struct tas_msg *rep)
{
	(void)p;
	(void)req;
	(void)rep;
	fake.last_ident = *i;
	return 0;
}

int tas__op_listen(struct tas_proc *p, const struct tas_ident *i, const struct tas_msg *req, struct tas_msg *rep)
{
	(void)p;
	(void)i;
	(void)req;
	(void)rep;
	return -EADDRINUSE;
}

int tas__op_connect(struct tas_proc *p, const struct tas_ident *i, const struct tas_msg *req, struct tas_msg *rep)
{
	struct tas_sock_base *s = fake_sock(p);

	(void)req;
	s->ident = *i;
	rep->u.sock = (struct tas_msg_sock){ .id = s->id, .gen = s->gen, .block = s->block };
	return 0;
}

int tas__op_unlisten(struct tas_proc *p, const struct tas_msg *req)
{
	(void)p;
	(void)req;
	return 0;
}

int tas__op_info(struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep)
{
	(void)p;
	(void)req;
	(void)rep;
	return -ENOENT;
}

unsigned tas__proc_hints(struct tas_core *c, struct tas_proc *p)
{
	(void)c;
	(void)p;
	fake.hints++;
	return 0;
}

/* Only its set changes; fake.busy: somebody is at its bytes. */
int tas__sock_move(struct tas_sock_base *s, struct tas_set *to)
{
	struct tas_set *from = s->set;

	if (fake.busy)
		return -EAGAIN;
	tas__mem_free(from, s->block, TAS_BLOCK_SIZE);
	s->block = tas__mem_alloc(to, TAS_BLOCK_SIZE);
	s->set = to;
	to->n_socks++;
	from->n_socks--;
	tas__set_put(from);
	return 0;
}

int tas__bridge_new(struct tas_sock_base *s, int fd, int *program, struct tas_bridge **b)
{
	(void)s;
	(void)fd;
	(void)program;
	(void)b;
	return TAS_FALLBACK;
}

void tas__ring_init(void)
{
}

void tas__ring_exit(void)
{
}

void tas__bridge_start(struct tas_bridge *b)
{
	(void)b;
}

void tas__bridge_end(struct tas_bridge *b)
{
	(void)b;
}

int tas__op_ordinary(const struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep)
{
	(void)p, (void)req, (void)rep;
	return -EINVAL;
}

int tas__op_locks(const struct tas_proc *p, const struct tas_msg *req)
{
	(void)p, (void)req;
	return -EINVAL;
}

void tas__sock_taken(const struct tas_proc *by, struct tas_sock_base *s)
{
	(void)by, (void)s;
}

void tas__direct_shut_in(const struct tas_proc *p)
{
	(void)p;
}

int tas__op_bell(const struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep)
{
	(void)p, (void)req, (void)rep;
	return -ENOENT;
}

int tas__op_bells_hear(const struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep)
{
	(void)p, (void)req, (void)rep;
	return -ENOENT;
}

void tas__bells_forget(struct tas_epset *e)
{
	(void)e;
}

void tas__bells_revoke(struct tas_epset *e)
{
	(void)e;
}

void tas__bells_forget_set(const struct tas_set *s)
{
	(void)s;
}

uint32_t tas__bridges_count(void)
{
	return 0;
}

void tas__bridges_exit(void)
{
}

void tas__moved_drop_all(struct tas_set *set)
{
	(void)set;
}

void tas__socks_reset(const struct tas_set *set)
{
	(void)set;
	fake.resets++;
}

/* Every socket of a set, as fast/ looks at them when one of its processes has ended. */
void tas__socks_check(struct tas_set *set)
{
	(void)set;
}

void tas__proc_poll_start(struct tas_core *c, struct tas_proc *p)
{
	(void)c;
	(void)p;
	fake.polls++;
}

void tas__proc_poll_stop(struct tas_proc *p)
{
	(void)p;
}

void tas__sock_gauges(struct tas_sock_gauges *g)
{
	memset(g, 0, sizeof *g);
	for (uint32_t i = 0; i < FAKE_SOCKS; i++)
		g->sockets += fake.sock[i].kind != 0;
}

/* As many as fake.listing says, whatever there is. */
int tas__sock_json(uint32_t *id, char *buf, size_t room)
{
	int n;

	if (*id >= fake.listing)
		return 0;
	n = snprintf(buf, room, "{\"id\":%u,\"filler\":\"................................\"}", *id);
	if (n < 0 || (size_t)n >= room)
		return -ENOSPC;
	++*id;
	return n;
}

int tas__socks_init(void)
{
	memset(fake.sock, 0, sizeof fake.sock);
	return 0;
}

void tas__socks_exit(void)
{
	memset(fake.sock, 0, sizeof fake.sock);
}

#endif
