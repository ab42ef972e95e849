/* SPDX-License-Identifier: MIT */
/*
 * The main loop of core 0: packets, hints and timers in rounds; descriptors now and then; sleep when there is nothing.
 *
 * One epoll instance holds everything that can wake the service: control sockets, doorbells, pidfds, signals, and the
 * port's descriptor.  While there is work it is asked without waiting every 30 µs, every 5 µs in idle rounds, and every 2 µs
 * for a millisecond after a request came over a control socket (who asks waits for each answer; a doorbell is none: its
 * process is looked at every round from then on); asleep we wait in it until an event or the next timer.  All of it is
 * level-triggered: what a round leaves unread wakes the next one, so nothing can be lost between the last look and the sleep.
 *
 * Looking at a tap costs a system call even when it is empty.  While the port has been silent for 50 µs and other work keeps
 * the loop busy (applications that talk to each other), it is looked at every 2 µs only.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "service/threads.h"

enum { EVENTS = 64, EMPTY_WAKES = 64, STRETCH_MAX = 2 };
static const uint64_t look_busy = 30000, look_idle = 5000, look_asked = 2000, asked_lately = 1000000;
static const uint64_t port_quiet = 50000, port_every = 2000, short_wait = 2000, full_wait = 20000, back_off = 1000000;

static int epfd = -1;
static bool stopping;
static struct epoll_event events[EVENTS];
static int n_events;
static bool woken; /* the last look with a wait ended by an event, not by its time */

static struct tas_pollable port[TAS_CORES_MAX]; /* one for each queue that is ours; fn NULL: it is not */
static bool port_ready;
static unsigned empty_wakes; /* the port's descriptor was readable, but no packet came: in a row */

uint64_t tas__clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int control(int op, struct tas_pollable *p, uint32_t epoll_events)
{
	struct epoll_event e = { .events = epoll_events, .data.ptr = p };

	return epoll_ctl(epfd, op, p->fd, &e) ? -errno : 0;
}

int tas_loop_add(struct tas_pollable *p, uint32_t epoll_events)
{
	return control(EPOLL_CTL_ADD, p, epoll_events);
}

int tas_loop_mod(struct tas_pollable *p, uint32_t epoll_events)
{
	return control(EPOLL_CTL_MOD, p, epoll_events);
}

/* Events of p that were fetched but not yet handled are forgotten: p may be freed after this. */
void tas_loop_del(struct tas_pollable *p)
{
	int i;

	control(EPOLL_CTL_DEL, p, 0);
	for (i = 0; i < n_events; i++)
		if (events[i].data.ptr == p)
			events[i].data.ptr = NULL;
}

void tas_loop_stop(void)
{
	stopping = true;
}

static uint64_t doorbells(const struct tas_core *c)
{
	return c->counters[TAS_CTR_doorbells];
}

/* Looks at descriptors, waiting ns at most; UINT64_MAX: without limit.  Handlers see the time after the wait. */
static unsigned look(struct tas_core *c, uint64_t ns)
{
	struct timespec t = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
	uint64_t before = ns ? tas__clock() : 0;
	unsigned done = 0;
	bool stopped = false;
	int i;

	n_events = ns ? epoll_pwait2(epfd, events, EVENTS, ns == UINT64_MAX ? NULL : &t, NULL) :
			epoll_wait(epfd, events, EVENTS, 0);
	if (ns) {
		c->now = tas__clock();
		tas_count(c, TAS_CTR_sleep_ns, c->now - before); /* before the handlers: one of them may tell it */
	}
	woken = n_events > 0;
	for (i = 0; i < n_events; i++) {
		struct tas_pollable *p = events[i].data.ptr;

		if (!p)
			continue;
		done += p < port || p >= port + TAS_CORES_MAX;
		if (!p->calm && !stopped) {
			stopped = true;
			tas_alone_in();
		}
		p->fn(p, events[i].events);
	}
	n_events = 0;
	if (stopped)
		tas_alone_out();
	return done;
}

/* ---- the port's descriptor ---- */
static void on_port(struct tas_pollable *p, uint32_t ev)
{
	int error = 0;
	socklen_t len = sizeof(error);

	port_ready = true;
	if (tas_cores[0].net->interrupts) {
		uint64_t count;

		if (read(p->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			tas_warn("link %s: interrupt: %s", tas_config.link_name, strerror(errno));
		return;
	}
	if (!(ev & (EPOLLERR | EPOLLHUP)))
		return;
	/* A packet socket whose interface went down reports that once and works again when it comes back. */
	if (!getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len) && error) {
		tas_warn("link %s: %s", tas_config.link_name, strerror(error));
		return;
	}
	tas_warn("link %s is gone; connections over it will time out", tas_config.link_name);
	tas_loop_del(p);
	p->fd = -1;
}

int tas__loop_hear(const struct tas_net *n, unsigned queue)
{
	struct tas_pollable *p = &port[queue];

	if (!n->up || tas_config.fp_no_ints || n->queue_fd[queue] < 0)
		return 0;
	*p = (struct tas_pollable){ .fd = n->queue_fd[queue], .fn = on_port, .calm = true };
	return tas_loop_add(p, EPOLLIN);
}

void tas__loop_deaf(unsigned queue)
{
	if (port[queue].fn && port[queue].fd >= 0)
		tas_loop_del(&port[queue]);
	port[queue].fn = NULL;
}

/* ---- rounds ---- */
struct loop {
	struct tas_idle idle;
	uint64_t last_look, last_event, next_port, last_packet, last_work;
	uint64_t round, slept; /* when this round began, and the time asleep until then */
	bool woken;       /* the round follows a sleep that an event ended */
	unsigned stretch; /* the polling interval, doubled so often */
};

static unsigned receive(struct loop *l, struct tas_core *c)
{
	unsigned n;

	if (c->now < l->next_port && !port_ready)
		return 0;
	n = tas__net_receive(c);
	empty_wakes = n || !port_ready ? 0 : empty_wakes + 1;
	port_ready = false;
	if (n)
		l->last_packet = c->now;
	l->next_port = c->now - l->last_packet > port_quiet ? c->now + port_every : 0;
	return n;
}

/* News that came soon after we went to sleep would have been cheaper polled for: poll longer.  A long sleep: less. */
static void adapt(struct loop *l, uint64_t slept)
{
	if (slept < 4 * tas_config.poll_ns_tas)
		l->stretch += l->stretch < STRETCH_MAX;
	else if (slept > 16 * tas_config.poll_ns_tas)
		l->stretch -= l->stretch > 0;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/*
 * How long may we sleep beside a port that cannot wake us (memif, a device without interrupts)?  Not long while packets come:
 * each look costs a wake-up.  Silent for two seconds: 200 looks a second, under 1 % of a processor.
 */
uint64_t tas__nap(uint64_t silent)
{
	static const struct {
		uint64_t silent, sleep;
	} steps[] = { { 1000000, 20000 }, { 100000000, 100000 }, { 2000000000, 500000 }, { UINT64_MAX, 5000000 } };
	unsigned i = 0;

	while (silent > steps[i].silent)
		i++;
	return steps[i].sleep;
}

static uint64_t nap(const struct loop *l, const struct tas_core *c, uint64_t now)
{
	return c->net->up && c->net->fd < 0 ? now + tas__nap(now - l->last_packet) : UINT64_MAX;
}

/* A port with interrupts: armed, then looked at once more, as for every sleep. */
static void arm_queues(const struct tas_core *c, bool on)
{
	tas__link_arm(c->net, 0, on);
	for (unsigned q = tas__threads_running(); q < c->net->n_queues; q++)
		tas__link_arm(c->net, q, on);
}

static bool arm_port(struct loop *l, struct tas_core *c)
{
	if (!c->net->interrupts)
		return true;
	arm_queues(c, true);
	l->next_port = 0;
	return !receive(l, c);
}

static void sleep_until_news(struct loop *l, struct tas_core *c)
{
	uint64_t now = tas__clock(), deadline = earlier(tas_core_deadline(c), tas__net_deadline(c)), looked_at = nap(l, c, now);
	uint64_t rung = doorbells(c);
	unsigned seen;

	deadline = earlier(deadline, tas__latency_deadline(l->last_work, now));
	deadline = earlier(deadline, tas__seat_deadline());
	if (deadline <= now + short_wait)
		return;
	if (tas_net_full(c)) /* output waits: nobody says when there is room */
		looked_at = earlier(looked_at, now + full_wait);
	deadline = earlier(deadline, looked_at);
	if (empty_wakes > EMPTY_WAKES) { /* no buffers, or a port that cries wolf: do not spin on it */
		look(c, 0);
		usleep((useconds_t)(back_off / 1000));
		empty_wakes = 0;
		return;
	}
	if (!tas_core_sleep_begin(c))
		return;
	if (!tas__threads_sleep()) {
		tas_core_sleep_end(c);
		return;
	}
	woken = true;
	seen = arm_port(l, c) ? look(c, deadline == UINT64_MAX ? UINT64_MAX : deadline - now) : 0;
	tas__threads_woke();
	if (seen > doorbells(c) - rung)
		l->last_event = c->now;
	tas_core_sleep_end(c);
	if (c->net->interrupts)
		arm_queues(c, false);
	l->last_look = c->now;
	if (!woken && looked_at != UINT64_MAX)
		return; /* only a look at the port: no news so far */
	adapt(l, c->now - now);
	l->woken = woken;
	l->idle.last_work = c->now; /* what follows a wake comes soon */
}

static bool look_due(const struct loop *l, uint64_t now, bool work)
{
	uint64_t every = now - l->last_event <= asked_lately ? look_asked : work ? look_busy : look_idle;

	return now - l->last_look >= every;
}

/* --fp-cycles: the last round's, by stage if it did something.  Who waits at its end does so because there was nothing. */
void tas__account_cycles(struct tas_core *c, unsigned work)
{
	static const enum tas_counter counter[TAS_ST_N] = {
		TAS_CTR_cycles_receive, TAS_CTR_cycles_hints, TAS_CTR_cycles_timers, TAS_CTR_cycles_output,
		TAS_CTR_cycles_wake, TAS_CTR_cycles_transmit, TAS_CTR_cycles_control,
	};
	uint64_t last = c->stage_end;

	for (unsigned s = 0; s < TAS_ST_N; s++) {
		tas_count(c, work ? counter[s] : TAS_CTR_cycles_idle, c->stage[s]);
		c->stage[s] = 0;
	}
	c->stage_end = __builtin_ia32_rdtsc();
	tas_count(c, work ? TAS_CTR_cycles_control : TAS_CTR_cycles_idle, c->stage_end - last);
}

/* For tasctl top: where the time of the last round went. */
static void account(struct loop *l, struct tas_core *c, unsigned work)
{
	uint64_t took = c->now - l->round, slept = c->counters[TAS_CTR_sleep_ns] - l->slept;

	tas_count(c, TAS_CTR_rounds, 1);
	tas_count(c, work ? TAS_CTR_work_ns : TAS_CTR_poll_ns, took > slept ? took - slept : 0);
	l->round = c->now;
	l->slept += slept;
	if (tas_config.fp_cycles)
		tas__account_cycles(c, work);
}

void tas__loop_run(struct tas_core *c)
{
	bool may_sleep = !c->net->up || !tas_config.fp_no_ints;
	struct loop l = { .slept = c->counters[TAS_CTR_sleep_ns] };
	unsigned work = 0;

	l.round = l.idle.last_work = tas__clock();
	c->stage_end = __builtin_ia32_rdtsc();
	while (!stopping) {
		c->now = tas__clock();
		account(&l, c, work);
		tas__seat_look(c, l.idle.held_until > c->now);
		work = c->burst = c->net->up ? receive(&l, c) : 0;
		if (tas_net_full(c))
			tas__net_flush(c);
		work += tas__threads_round(c);
		work += tas_core_poll(c);
		tas_core_ring(c);
		if (work && l.woken)
			tas__latency_woken(c->now);
		l.woken = false;
		if (c->net->up) {
			tas__link_timer(c);
			tas__net_timer(c);
			tas__net_flush(c);
			tas__stage(c, TAS_ST_transmit);
		}
		if (look_due(&l, c->now, work)) {
			uint64_t rung = doorbells(c);
			unsigned seen = look(c, 0);

			work += seen;
			l.last_look = c->now;
			if (seen > doorbells(c) - rung)
				l.last_event = c->now;
		}
		tas__stage(c, TAS_ST_control);
		if (work)
			l.last_work = l.idle.last_work = c->now;
		else if (!may_sleep)
			sched_yield();
		else if (!tas__idle(&l.idle, c->now, tas_config.poll_ns_tas << l.stretch))
			sleep_until_news(&l, c);
	}
}

int tas__loop_init(void)
{
	const struct tas_net *n = tas_cores[0].net;
	int err;

	epfd = epoll_create1(EPOLL_CLOEXEC);
	err = epfd < 0 ? -errno : tas__loop_hear(n, 0);
	for (unsigned q = 1; !err && !n->switched && q < n->n_queues; q++)
		err = tas__loop_hear(n, q);
	return err;
}

void tas__loop_exit(void)
{
	if (epfd >= 0)
		close(epfd);
	epfd = -1;
}
