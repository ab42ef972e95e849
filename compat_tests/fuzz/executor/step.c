/* SPDX-License-Identifier: MIT */
/*
 * A step of a program: an order to an actor, and the line of the trace that comes of it.
 *
 * A step is over when its call has returned, or sleeps; then the calls that sleep since earlier steps are looked at, and
 * what every number of every process is ready for.  All that is one line of the trace.
 *
 * On the kernel one look is enough: over loopback and veth, what a call does at a distance is done when it returns.  The
 * service needs time.  There the conductor is given the kernel's trace, and looks again until the line is the expected one,
 * or the limit is over: so no step begins before both runs have the same past, and time is lost only where something is
 * wrong.  (Marks in the name of a program: ! has little patience, + much, ~ looks at nothing between the steps.)  What
 * cannot be seen has happened as well: requests to the service's control socket are answered after everything that was
 * asked for before them, so a few of them in a row are a barrier.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conductor.h"

enum { N_PORTS = 128 };

static struct {
	int number, owner, port;
	bool hidden; /* not looked at: an epoll set */
	unsigned int since;
} var[N_VARS];

static int ports[N_PORTS], n_ports;
static unsigned int clock_of_vars;
static long settle_ms;
static bool slow; /* kernel: look twice */

/* ---- text ---- */
static void append(char *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(char *line, const char *format, ...)
{
	size_t n = strlen(line);
	va_list ap;

	va_start(ap, format);
	vsnprintf(line + n, LINE - n, format, ap);
	va_end(ap);
}

static int port_name(int port) /* allowed: ports */
{
	for (int i = 0; i < n_ports; i++)
		if (ports[i] == port)
			return i;
	if (n_ports == N_PORTS)
		return -1;
	ports[n_ports] = port;
	return n_ports++;
}

static void append_result(char *line, const struct slot *s)
{
	const char *t = s->text, *open;

	append(line, "%ld", s->ret);
	if (s->error)
		append(line, " %s", strerrorname_np(s->error) ? strerrorname_np(s->error) : "?");
	while ((open = strchr(t, '<'))) {
		int port = atoi(open + 1);

		append(line, port ? "%.*sp%d" : "%.*s0", (int)(open - t), t, port_name(port));
		t = strchr(open, '>') + 1;
	}
	append(line, "%s", t);
}

/* ---- a step ---- */
static int owner_of(int n)
{
	return process_of(n);
}

static void assign(int v, int number, int n, const struct step *s)
{
	const char *op = ops[s->op].name;

	if (v < 0)
		return;
	var[v].hidden = !strcmp(op, "epoll") || (!strncmp(op, "dup", 3) && s->arg[0].kind == ARG_VAR && var[s->arg[0].value].hidden);
	var[v].port = !strncmp(op, "dup", 3) && s->arg[0].kind == ARG_VAR ? var[s->arg[0].value].port : 0;
	var[v].number = number;
	var[v].owner = owner_of(n);
	var[v].since = ++clock_of_vars;
}

/* HOST:PORT, or @v for wherever v can be reached from here. */
static void address(struct slot *s, int n, const char *text)
{
	struct sockaddr_in *in = (void *)&s->addr;
	struct sockaddr_in6 *in6 = (void *)&s->addr;
	const char *colon = strchr(text, ':'), *at = strchr(text, '@');
	int v = at && at[1] >= 'a' && at[1] <= 'z' ? at[1] - 'a' : -1;
	int port = v >= 0 ? var[v].port : colon ? atoi(colon + 1) : 0;
	bool far = v >= 0 && (n == SLOT_P) != (var[v].owner == SLOT_P);
	const char *host = "127.0.0.1";

	memset(&s->addr, 0, sizeof(s->addr));
	if (!strncmp(text, "any:", 4))
		host = "0.0.0.0";
	else if (!strncmp(text, "link:", 5) || far)
		host = (n == SLOT_P) != far ? "10.77.0.2" : "10.77.0.1";
	else if (!strncmp(text, "nowhere:", 8))
		host = "192.0.2.1";
	if (v >= 0 && !port)
		port = 1; /* nobody listens there */
	if (!strncmp(text, "lo6:", 4) || !strncmp(text, "any6:", 5)) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		in6->sin6_addr = text[0] == 'l' ? in6addr_loopback : in6addr_any;
		s->addr_len = sizeof(*in6);
		return;
	}
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)port);
	inet_pton(AF_INET, host, &in->sin_addr);
	s->addr_len = sizeof(*in);
}

static bool must_return(int op)
{
	static const char *const names[] = { "fill", "drain", "fork", "exec", "exit", "thread", "look", "reset", "poll0" };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(ops[op].name, names[i]))
			return true;
	return false;
}

static void take_result(int n, const struct step *s, char *line)
{
	struct slot *slot = &shared->slot[n];

	if (slot->port && s->arg[0].kind == ARG_VAR)
		var[s->arg[0].value].port = slot->port;
	if (s->to >= 0)
		assign(s->to, (int)slot->ret, n, s);
	if (s->to_second >= 0)
		assign(s->to_second, slot->second, n, s);
	append_result(line, slot);
	atomic_store(&slot->state, SLOT_IDLE);
}

static const struct step *current[N_SLOTS]; /* step whose call a slot is in */

static void lost(int n, char *line)
{
	append(line, "died");
	waiting[n] = false;
	atomic_store(&shared->slot[n].state, SLOT_NONE);
	if (process_of(n) == SLOT_A)
		for (int i = SLOT_A; i <= SLOT_T3; i++)
			atomic_store(&shared->slot[i].state, SLOT_NONE);
}

/* A number that two variables had belongs to the later one. */
static bool is_stale(int v)
{
	for (int i = 0; i < N_VARS; i++)
		if (var[i].number == var[v].number && var[i].owner == var[v].owner && var[i].since > var[v].since)
			return true;
	return false;
}

static int look_list(int n)
{
	struct slot *s = &shared->slot[n];
	int count = 0;

	for (int v = 0; v < N_VARS && count < N_ARGS; v++) {
		bool shown = var[v].owner == process_of(n) || (var[v].owner == SLOT_A && n >= SLOT_C1 && n <= SLOT_C3);

		if (!shown || var[v].number < 0 || var[v].hidden || is_stale(v))
			continue;
		s->look[count] = var[v].number;
		s->look_var[count++] = (int8_t)v;
	}
	return s->n_look = count;
}

static void carry_out(int n, const struct step *s, bool expect_sleep, bool expecting, int index, char *line)
{
	struct slot *slot = &shared->slot[n];
	const char *op = ops[s->op].name;
	int pid;

	current[n] = s;
	slot->op = s->op;
	slot->n_args = s->n_args;
	memset(slot->arg, 0, sizeof(slot->arg));
	for (int i = 0; i < s->n_args; i++) {
		bool is_var = s->arg[i].kind == ARG_VAR;

		slot->arg[i] = is_var ? var[s->arg[i].value].number : s->arg[i].value;
		slot->var[i] = is_var ? (int8_t)s->arg[i].value : -1;
	}
	if (s->n_args <= 3)
		slot->arg[3] = index + 1; /* origin of the pattern */
	if (s->addr[0])
		address(slot, n, s->addr);
	pid = atomic_load(&slot->pid);
	ask(n);
	if (!strcmp(op, "exit")) {
		append(line, "%s", wait_gone(pid) ? "gone" : "there");
		atomic_store(&slot->state, SLOT_NONE);
		return;
	}
	switch (await(n, must_return(s->op) ? STUCK_MS : expecting && !expect_sleep ? RESULT_MS : 0)) {
	case DONE:
		take_result(n, s, line);
		break;
	case AGAIN:
		append(line, "0");
		break;
	case ASLEEP:
		waiting[n] = true;
		append(line, "waits");
		break;
	case LOST:
		lost(n, line);
		break;
	}
	if (!strcmp(op, "fork") && s->n_args && !ready_within((int)s->arg[0].value, RESULT_MS))
		append(line, " no child");
}

/* What is no call of the actor's, or cannot be asked of it. */
static bool without_call(int n, const struct step *s, char *line)
{
	const char *op = ops[s->op].name;
	int target = s->n_args ? (int)s->arg[0].value : 0;
	uint32_t state = atomic_load(&shared->slot[n].state);

	if (state == SLOT_NONE)
		append(line, "absent");
	else if (!strcmp(op, "kill") && s->arg[0].kind == ARG_SLOT) {
		if (waiting[target])
			syscall(SYS_tgkill, atomic_load(&shared->slot[target].pid), atomic_load(&shared->slot[target].tid), (int)s->arg[1].value);
		append(line, waiting[target] ? "sent" : "not waiting");
	} else if (waiting[n])
		append(line, "busy");
	else if (!strcmp(op, "fork") && (s->arg[0].kind != ARG_SLOT || target < SLOT_C1 || target > SLOT_C3 || n == SLOT_P ||
					 atomic_load(&shared->slot[target].state) != SLOT_NONE))
		append(line, "taken");
	else if ((!strcmp(op, "exit") || !strcmp(op, "exec")) && (n < SLOT_C1 || n > SLOT_C3))
		append(line, "refused");
	else if (!strcmp(op, "reset") || !strcmp(op, "thread") || !strcmp(op, "look"))
		append(line, "refused");
	else
		return false;
	return true;
}

static bool is_wait(int op)
{
	return !strcmp(ops[op].name, "poll") || !strcmp(ops[op].name, "select") || !strcmp(ops[op].name, "ewait");
}

/* Calls that slept, and have returned; one that was woken and does not sleep yet is waited for. */
static void returned(char *line)
{
	for (int n = 0; n < N_SLOTS; n++) {
		long end = now_ms() + 50;

		while (waiting[n] && !is_done(n) && !is_asleep(n) && now_ms() < end && !gone(process_of(n)))
			;
		if (!waiting[n])
			continue;
		if (is_done(n)) {
			waiting[n] = false;
			append(line, " ;%s ", slot_names[n]);
			if (shared->slot[n].ret > 0 && is_wait(current[n]->op)) { /* allowed: several */
				append(line, "woken");
				atomic_store(&shared->slot[n].state, SLOT_IDLE);
				continue;
			}
			take_result(n, current[n], line);
		} else if (gone(process_of(n))) {
			append(line, " ;%s ", slot_names[n]);
			lost(n, line);
		}
	}
}

static void look(int n, char *line)
{
	struct slot *s = &shared->slot[n];

	if (!look_list(n))
		return;
	s->op = op_find("look");
	ask(n);
	append(line, " ;%s", slot_names[process_of(n)]);
	if (await(n, STUCK_MS) != DONE) {
		append(line, " ");
		lost(n, line);
		return;
	}
	append(line, "%s", s->looked);
	atomic_store(&s->state, SLOT_IDLE);
}

/* first: a process that has looked already, after its call; -1: none. */
static void look_everywhere(char *line, int first)
{
	bool seen[N_SLOTS] = { false };

	for (int n = 0; n < N_SLOTS; n++) {
		if (seen[process_of(n)] || waiting[n] || atomic_load(&shared->slot[n].state) != SLOT_IDLE)
			continue;
		seen[process_of(n)] = true;
		if (process_of(n) == first)
			append(line, " ;%s%s", slot_names[first], shared->slot[first].looked);
		else
			look(n, line);
	}
}

/* May the actor look in the same turn?  Not when its call makes variables, or others may be on their way back. */
static bool looks_at_once(int n, const struct step *s)
{
	bool calm = s->to < 0 && s->to_second < 0 && s->n_args && s->arg[0].kind == ARG_VAR && process_of(n) == n;

	for (int i = 0; i < N_SLOTS; i++)
		calm = calm && !waiting[i];
	return calm;
}

/* The trace of a step.  With an expectation: looks until it is met or the time is over. */
bool run_step(const struct step *s, int index, const char *expect, bool looks, char *line)
{
	static char begun[LINE], again[LINE];
	long end = now_ms() + settle_ms;
	int n = s->actor, first = -1;
	char head[32];

	line[0] = 0;
	append(line, "%s: ", slot_names[n]);
	snprintf(head, sizeof(head), "%s: waits", slot_names[n]);
	shared->slot[n].n_look = 0;
	if (!without_call(n, s, line)) {
		first = looks && looks_at_once(n, s) && look_list(n) ? n : -1;
		carry_out(n, s, expect && !strncmp(expect, head, strlen(head)), expect != NULL, index, line);
	}
	if (first < 0 || shared->slot[n].state != SLOT_IDLE)
		first = -1, barrier(2);
	for (;;) {
		returned(line);
		strcpy(begun, line);
		if (looks)
			look_everywhere(line, first);
		if (!expect && slow) {
			usleep(500);
			strcpy(again, line);
			strcpy(line, begun);
			returned(line);
			if (looks)
				look_everywhere(line, -1);
			if (!strcmp(line, again))
				return true;
			strcpy(line, begun);
			continue;
		}
		if (!expect || !strcmp(line, expect)) {
			barrier(2);
			if (expect && settle_ms >= MUCH_MS) /* what no look shows comes as well: the acknowledgement of a FIN */
				usleep(10000), barrier(2);
			else if (!looks && expect) /* nothing else says that all has come */
				usleep(400), barrier(2);
			return true;
		}
		if (now_ms() > end)
			return false;
		if (first < 0)
			usleep(300);
		first = -1;
		barrier(2);
		strcpy(line, begun);
	}
}

void steps_begin(long settle, bool twice)
{
	settle_ms = settle;
	slow = twice;
	for (int v = 0; v < N_VARS; v++) {
		memset(&var[v], 0, sizeof(var[v]));
		var[v].number = var[v].owner = -1;
	}
	n_ports = 0;
}
