/* SPDX-License-Identifier: MIT */
/*
 * The conductor: gives the steps of a program to actors, one after the other, and writes the trace.
 *
 * A step is over when its call has returned, or sleeps; then the calls that sleep since earlier steps are looked at, and
 * what every number of every process is ready for.  All that is one line of the trace.
 *
 * On the kernel one look is enough: over loopback and veth, what a call does at a distance is done when it returns.  The
 * service needs time.  There the conductor is given the kernel's trace, and looks again until the line is the expected one,
 * or the limit is over: so no step begins before both runs have the same past, and time is lost only where something is
 * wrong.  (Marks in the name of a program: ! has little patience, + much, ~ looks at nothing between the steps.)  What cannot be seen has happened as well: requests to the service's control socket are answered after everything
 * that was asked for before them, so a few of them in a row are a barrier.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "abi/tas_msg.h"
#include "program.h"

enum { PROGRAMS_PER_PROCESS = 48, N_PORTS = 128 };
static const long result_ms = 3000, stuck_ms = 20000;
static long settle_ms;

static struct {
	const char *preload, *service, *peer_ns;
	char shm[64];
	int control;
} config = { .control = -1 };

static struct {
	int number, owner, port;
	bool hidden; /* not looked at: an epoll set */
	unsigned int since;
} var[N_VARS];

static pid_t process_a, process_p;
static int stat_fd[N_SLOTS], stat_tid[N_SLOTS];
static bool waiting[N_SLOTS]; /* its call sleeps */
static int ports[N_PORTS], n_ports, programs_run;
static unsigned int clock_of_vars;
static bool slow; /* kernel: look twice */

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- processes ---- */
static pid_t start(int n, bool subject)
{
	char number[8];
	pid_t pid;

	snprintf(number, sizeof(number), "%d", n);
	atomic_store(&shared->slot[n].state, SLOT_NONE);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!subject && config.peer_ns) {
		int fd = open(config.peer_ns, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || setns(fd, CLONE_NEWNET))
			_exit(4);
	}
	if (subject && config.preload) {
		setenv("LD_PRELOAD", config.preload, 1);
		setenv("TAS_SOCKET", config.service, 1);
	}
	close(0);
	close(1);
	open("/dev/null", O_RDONLY);
	open("/dev/null", O_WRONLY);
	execl("/proc/self/exe", "fuzz-actor", "--actor", number, config.shm, (char *)NULL);
	_exit(5);
}

static bool ready_within(int n, long ms)
{
	long end = now_ms() + ms;

	while (atomic_load(&shared->slot[n].state) == SLOT_NONE && now_ms() < end)
		futex_wait(&shared->done, atomic_load(&shared->done), 200000);
	return atomic_load(&shared->slot[n].state) != SLOT_NONE;
}

static void end_process(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Children of A are nobody's to wait for, or ours (subreaper) when their parent has ended. */
static bool wait_gone(pid_t pid)
{
	for (int i = 0; i < 20000; i++) {
		waitpid(pid, NULL, WNOHANG);
		if (kill(pid, 0))
			return true;
		usleep(50);
	}
	return false;
}

static void end_child(int n)
{
	int pid = atomic_load(&shared->slot[n].pid);

	if (atomic_load(&shared->slot[n].state) == SLOT_NONE)
		return;
	kill(pid, SIGKILL);
	wait_gone(pid);
	atomic_store(&shared->slot[n].state, SLOT_NONE);
	waiting[n] = false;
}

static void end_children(void)
{
	for (int n = SLOT_C1; n <= SLOT_C3; n++)
		end_child(n);
}

static void begin_subject(void)
{
	end_children();
	if (process_a)
		end_process(process_a);
	for (int n = SLOT_A; n <= SLOT_T3; n++) {
		atomic_store(&shared->slot[n].state, SLOT_NONE);
		waiting[n] = false;
	}
	process_a = start(SLOT_A, true);
	programs_run = 0;
	if (!ready_within(SLOT_A, 20000)) {
		fprintf(stderr, "the subject does not start\n");
		exit(3);
	}
}

static void begin_peer(void)
{
	if (process_p)
		end_process(process_p);
	waiting[SLOT_P] = false;
	process_p = start(SLOT_P, false);
	if (!ready_within(SLOT_P, 20000)) {
		fprintf(stderr, "the peer does not start\n");
		exit(3);
	}
}

static int process_of(int n)
{
	return n >= SLOT_C1 ? n : SLOT_A;
}

static bool gone(int n)
{
	pid_t *pid = n == SLOT_P ? &process_p : &process_a;

	if (n >= SLOT_C1 && n <= SLOT_C3)
		return waitpid(atomic_load(&shared->slot[n].pid), NULL, WNOHANG) > 0 || kill(atomic_load(&shared->slot[n].pid), 0);
	if (!*pid || waitpid(*pid, NULL, WNOHANG) == *pid)
		*pid = 0;
	return !*pid;
}

/* ---- orders ---- */
static void barrier(int rounds)
{
	static char room[sizeof(struct tas_msg) + TAS_MSG_TEXT_MAX];
	struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_ADMIN };

	while (config.control >= 0 && rounds--) {
		if (send(config.control, &m, sizeof(m), MSG_NOSIGNAL) < 0 || recv(config.control, room, sizeof(room), 0) <= 0) {
			fprintf(stderr, "the service does not answer\n");
			exit(3);
		}
	}
}

static bool sleeps(int n)
{
	int tid = atomic_load(&shared->slot[n].tid);
	char text[512], *p;
	ssize_t len;

	if (stat_tid[n] != tid) {
		if (stat_tid[n])
			close(stat_fd[n]);
		snprintf(text, sizeof(text), "/proc/%d/task/%d/stat", atomic_load(&shared->slot[n].pid), tid);
		stat_fd[n] = open(text, O_RDONLY | O_CLOEXEC);
		stat_tid[n] = stat_fd[n] < 0 ? 0 : tid;
	}
	if (stat_fd[n] < 0)
		return false;
	len = pread(stat_fd[n], text, sizeof(text) - 1, 0);
	if (len <= 0)
		return false;
	text[len] = 0;
	p = strrchr(text, ')');
	return p && p[1] && p[2] == 'S';
}

static bool is_done(int n)
{
	return atomic_load(&shared->slot[n].state) == SLOT_DONE;
}

/* Asleep in its call (and not before or behind it). */
static bool is_asleep(int n)
{
	if (atomic_load(&shared->slot[n].state) != SLOT_RUNNING || !sleeps(n))
		return false;
	usleep(20);
	return sleeps(n) && atomic_load(&shared->slot[n].state) == SLOT_RUNNING;
}

static void ask(int n)
{
	atomic_store(&shared->slot[n].state, SLOT_ASKED);
	futex_wake(&shared->slot[n].state);
}

enum outcome { DONE, ASLEEP, LOST, AGAIN /* after exec */ };

/* patient: the call is expected to return (or must); then being asleep means nothing for a while. */
static enum outcome await(int n, long patience)
{
	long end = now_ms() + patience;
	int looks = 0;

	for (;;) {
		uint32_t seen = atomic_load(&shared->done);

		if (is_done(n))
			return DONE;
		if (atomic_load(&shared->slot[n].state) == SLOT_IDLE)
			return AGAIN;
		futex_wait(&shared->done, seen, looks++ < 5 ? 100000 : 2000000);
		if (is_done(n))
			return DONE;
		if (now_ms() >= end && is_asleep(n)) {
			barrier(3);
			if (is_asleep(n))
				return is_done(n) ? DONE : ASLEEP;
		}
		if (looks % 8 == 7 && gone(process_of(n)))
			return LOST;
		if (now_ms() >= end + stuck_ms)
			return LOST;
	}
}

static bool order(int n, const char *name, int n_args, const long *arg)
{
	struct slot *s = &shared->slot[n];

	s->op = op_find(name);
	s->n_args = n_args;
	s->n_look = 0;
	memset(s->var, -1, sizeof(s->var));
	for (int i = 0; i < n_args; i++)
		s->arg[i] = arg[i];
	ask(n);
	if (await(n, result_ms) != DONE)
		return false;
	atomic_store(&s->state, SLOT_IDLE);
	return true;
}

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
	switch (await(n, must_return(s->op) ? stuck_ms : expecting && !expect_sleep ? result_ms : 0)) {
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
	if (!strcmp(op, "fork") && s->n_args && !ready_within((int)s->arg[0].value, result_ms))
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
	if (await(n, stuck_ms) != DONE) {
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
static bool run_step(const struct step *s, int index, const char *expect, bool looks, char *line)
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
			if (!looks && expect) /* nothing else says that all has come */
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

/* ---- a program ---- */
static void begin_program(const struct program *p)
{
	if (!process_a || gone(SLOT_A) || programs_run++ >= PROGRAMS_PER_PROCESS)
		begin_subject();
	if (!process_p || gone(SLOT_P))
		begin_peer();
	for (long n = SLOT_T1; n <= SLOT_T3; n++)
		if (p->uses[n] && atomic_load(&shared->slot[n].state) == SLOT_NONE && (!order(SLOT_A, "thread", 1, &n) || !ready_within((int)n, 5000)))
			fprintf(stderr, "no thread\n");
	for (int v = 0; v < N_VARS; v++) {
		var[v].number = -1;
		var[v].owner = -1;
		var[v].port = 0;
		var[v].since = 0;
		var[v].hidden = false;
	}
	n_ports = 0;
}

static void end_program(void)
{
	bool stuck = false;

	end_children();
	for (int n = SLOT_A; n <= SLOT_T3; n++)
		stuck |= atomic_load(&shared->slot[n].state) != SLOT_IDLE && atomic_load(&shared->slot[n].state) != SLOT_NONE;
	if (stuck || atomic_load(&shared->slot[SLOT_A].state) != SLOT_IDLE || !order(SLOT_A, "reset", 0, NULL))
		begin_subject();
	if (atomic_load(&shared->slot[SLOT_P].state) != SLOT_IDLE || !order(SLOT_P, "reset", 0, NULL))
		begin_peer();
	barrier(2);
}

static void run(const struct program *p, bool looks)
{
	static char line[LINE * 2];
	bool met = true;

	settle_ms = strchr(p->name, '!') ? 50 : strchr(p->name, '+') ? 1500 : 120;
	begin_program(p);
	printf("trace %s\n", p->name);
	for (int i = 0; i < p->n_steps && met; i++) {
		met = run_step(&p->step[i], i, i < p->n_expect ? p->expect[i] : NULL, looks, line);
		printf("%s\n", line);
	}
	printf("end\n");
	fflush(stdout);
	end_program();
}

static int connect_control(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (void *)&a, sizeof(a)))
		return -1;
	return fd;
}

static int prepare(void)
{
	int fd = (int)syscall(SYS_memfd_create, "fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, sizeof(*shared)))
		return -1;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		return -1;
	snprintf(config.shm, sizeof(config.shm), "/proc/%d/fd/%d", getpid(), fd);
	shared->conductor = getpid();
	if (config.preload && (config.control = connect_control(config.service)) < 0)
		return -1;
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return 0;
}

int main(int argc, char **argv)
{
	static struct program program;
	bool looks = true;
	int r;

#define SAY(name, text) "  " #name ": " text "\n"
	if (argc == 4 && !strcmp(argv[1], "--actor"))
		return actor_main(atoi(argv[2]), argv[3]);
	if (argc == 2 && !strcmp(argv[1], "--allowed"))
		return fputs("Not compared:\n" ALLOWED(SAY), stdout) < 0;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--preload"))
			config.preload = argv[i + 1];
		else if (!strcmp(argv[i], "--service"))
			config.service = argv[i + 1];
		else if (!strcmp(argv[i], "--peer"))
			config.peer_ns = argv[i + 1];
	}
	slow = getenv("FUZZ_SLOW") != NULL;
	if (prepare()) {
		perror("executor");
		return 2;
	}
	snprintf(shared->lie, sizeof(shared->lie), "%s", getenv("FUZZ_LIE") ? getenv("FUZZ_LIE") : "");
	while ((r = program_read(&program)) != 0) {
		if (r > 0)
			run(&program, looks && !strchr(program.name, '~'));
		else
			printf("trace %s\nnot understood\nend\n", program.name), fflush(stdout);
	}
	if (process_a)
		end_children(), end_process(process_a);
	if (process_p)
		end_process(process_p);
	return 0;
}
