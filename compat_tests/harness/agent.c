/* SPDX-License-Identifier: MIT */
/* Agent of the conformance suite: makes calls on request and says what they gave.
 *
 * The same program runs on the kernel and under the interposer. It knows no call by itself: a request names a function
 * of libc, which dlsym finds where a program would (so an interposer's comes first), and describes its arguments. One
 * request is one line over a unix socket (a kernel socket on a high number, which the calls under test never meet):
 *
 *	c NAME i|l ARG...	call, which returns an int or a long, in the main thread
 *	t ID NAME i|l ARG...	the same in thread ID, which stays until it is asked for
 *	w ID MS			waits so long for the thread's result: "blocked", "cancelled", or the result
 *	b ID			the result if the thread ends, "blocked" as soon as it sleeps
 *	k ID SIGNAL | K ID	signal to, or cancellation of, a thread
 *	s SIGNAL FLAGS		installs a handler that counts (FLAGS: sa_flags), or with FLAGS -1 the default, -2 ignores
 *	n			signals counted since the last n
 *	f | e | x		forks: the child connects again as an agent of its own | executes itself likewise | exits
 *	r			closes everything, default signal handlers; says what was left
 *
 * Arguments, passed as one register each: iN a number (or a wild pointer); pointers to memory: bHEX these bytes, BHEX
 * also returned after the call, oN room for so many that are returned, zN room that is not, pN,S a pattern of N bytes,
 * gHEX bytes that end at an unmapped page, [ ... ] a structure of qN dN wN (8, 4, 2 bytes), xHEX and pointers, { ... } one
 * that is returned. A result is "r RETURN ERRNO" and what is to be returned, in order, in hex.
 *
 * SIGPROF to a thread makes it print its stack on stderr: that is how a hang is reported.
 * AGENT_MUTATE makes it lie in one way (errno, event, byte, lost, backlog): so the suite proves that it would notice. */
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHANNEL 900 /* number of the control socket */
#define N_ARGS 8
#define N_BLOCKS 64
#define N_THREADS 64
#define N_SIGNALS 65
#define LINE_MAX_LEN (8 << 20)

struct block {
	unsigned char *mem;
	size_t len, mapped; /* mapped: length of the mapping, or 0: from malloc */
	int returned;
};

struct call {
	char name[48];
	void *function;
	int is_long, n_args;
	long arg[N_ARGS], ret;
	int error, n_blocks;
	struct block block[N_BLOCKS];
};

struct thread {
	int used;
	atomic_int tid;
	pthread_t thread;
	struct call *call;
};

static struct thread threads[N_THREADS];
static volatile sig_atomic_t counted[N_SIGNALS];
static const char *path, *mutate;
static char *line;
static size_t line_have;
static FILE *reply;
static char *reply_text;
static size_t reply_len;

/* ---- arguments ---- */
static unsigned char *block_new(struct call *c, size_t len, int guard, int returned)
{
	struct block *b = &c->block[c->n_blocks];
	size_t page = 4096, room = (len + page - 1) / page * page;

	if (c->n_blocks == N_BLOCKS)
		exit(3);
	c->n_blocks++;
	b->len = len;
	b->returned = returned;
	if (!guard) {
		b->mem = malloc(len + 1);
		return b->mem;
	}
	b->mapped = room + page;
	b->mem = mmap(NULL, b->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(b->mem + room, page, PROT_NONE);
	return b->mem + room - len;
}

static void blocks_free(struct call *c)
{
	for (int i = 0; i < c->n_blocks; i++) {
		if (c->block[i].mapped)
			munmap(c->block[i].mem, c->block[i].mapped);
		else
			free(c->block[i].mem);
	}
	free(c);
}

static size_t unhex(unsigned char *to, const char *text)
{
	size_t n = 0;
	unsigned int byte;

	for (; text[0] && text[1] && sscanf(text, "%2x", &byte) == 1; text += 2)
		to[n++] = byte;
	return n;
}

static long argument(struct call *c, char *token, char **rest);

/* Fields up to the closing bracket; memory grows in place, since nobody has its address before the end. */
static long structure(struct call *c, char **rest, int returned)
{
	int at = c->n_blocks;
	unsigned char *mem = block_new(c, 1 << 16, 0, returned);
	size_t n = 0;
	char *token;

	while ((token = strsep(rest, " ")) && *token != ']' && *token != '}') {
		long v = strchr("qdw", *token) ? strtol(token + 1, NULL, 0) : 0;
		size_t size = *token == 'q' ? 8 : *token == 'd' ? 4 : *token == 'w' ? 2 : 0;

		if (*token == 'x') {
			n += unhex(mem + n, token + 1);
			continue;
		}
		if (!size) {
			v = argument(c, token, rest);
			size = 8;
		}
		memcpy(mem + n, &v, size);
		n += size;
	}
	c->block[at].len = n;
	return (long)mem;
}

static long argument(struct call *c, char *token, char **rest)
{
	size_t n = strlen(token + 1) / 2;
	unsigned char *mem;
	long size = strtol(token + 1, NULL, 0);
	unsigned int seed = 0;
	char *comma;

	switch (*token) {
	case 'i':
		return size;
	case '[':
	case '{':
		return structure(c, rest, *token == '{');
	case 'b':
	case 'B':
	case 'g':
		mem = block_new(c, n, *token == 'g', *token == 'B');
		unhex(mem, token + 1);
		return (long)mem;
	case 'o':
	case 'z':
		mem = block_new(c, size, 0, *token == 'o');
		memset(mem, 0xa5, size);
		return (long)mem;
	case 'p':
		comma = strchr(token, ',');
		seed = comma ? strtoul(comma + 1, NULL, 0) : 0;
		mem = block_new(c, size, 0, 0);
		for (long i = 0; i < size; i++)
			mem[i] = (i + seed) * 2654435761u >> 24;
		return (long)mem;
	}
	fprintf(stderr, "agent: argument %s\n", token);
	exit(3);
}

static struct call *parse(char *text)
{
	struct call *c = calloc(1, sizeof(*c));
	char *token = strsep(&text, " ");

	snprintf(c->name, sizeof(c->name), "%s", token ? token : "");
	c->function = dlsym(RTLD_DEFAULT, c->name);
	token = strsep(&text, " ");
	c->is_long = token && *token == 'l';
	while ((token = strsep(&text, " ")) && c->n_args < N_ARGS)
		if (*token)
			c->arg[c->n_args++] = argument(c, token, &text);
	return c;
}

/* ---- calls ---- */
static int lies(const char *how)
{
	return mutate && !strcmp(mutate, how);
}

static void mutate_after(struct call *c)
{
	int waits = strstr(c->name, "poll") || strstr(c->name, "epoll_wait");

	if (lies("errno") && c->ret == -1 && c->error == ENOTCONN)
		c->error = EPIPE;
	if (lies("event") && waits && c->ret > 0 && c->arg[0]) {
		if (strstr(c->name, "epoll"))
			((struct epoll_event *)c->arg[1])->events &= ~EPOLLIN;
		else
			((struct pollfd *)c->arg[0])->revents &= ~POLLIN;
	}
	if (lies("byte") && !strcmp(c->name, "recv") && c->ret > 0)
		((unsigned char *)c->arg[1])[c->ret - 1] ^= 1;
	if (lies("lost") && !strcmp(c->name, "recv") && c->ret > 0)
		c->ret--;
}

static void call_run(struct call *c)
{
	long (*function)(long, long, long, long, long, long, long, long);
	long *a = c->arg;

	if (!c->function) {
		c->ret = -1;
		c->error = ENOSYS;
		return;
	}
	if (lies("backlog") && !strcmp(c->name, "listen"))
		a[1]++;
	memcpy(&function, &c->function, sizeof(function));
	errno = 0;
	c->ret = function(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
	c->error = errno;
	if (!c->is_long)
		c->ret = (int)c->ret;
	if (c->ret != -1)
		c->error = 0;
	if (mutate)
		mutate_after(c);
}

static void call_show(struct call *c)
{
	fprintf(reply, "r %ld %d", c->ret, c->error);
	for (int i = 0; i < c->n_blocks; i++) {
		if (!c->block[i].returned)
			continue;
		fputs(" x", reply);
		for (size_t n = 0; n < c->block[i].len; n++)
			fprintf(reply, "%02x", c->block[i].mem[n]);
	}
	blocks_free(c);
}

/* ---- threads ---- */
static void *thread_main(void *arg)
{
	struct thread *t = arg;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_UNBLOCK, &all, NULL);
	atomic_store(&t->tid, syscall(SYS_gettid));
	call_run(t->call);
	return NULL;
}

static void thread_start(struct thread *t, char *text)
{
	pthread_attr_t attr;

	t->call = parse(text);
	atomic_store(&t->tid, 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 << 10);
	t->used = !pthread_create(&t->thread, &attr, thread_main, t);
	pthread_attr_destroy(&attr);
	fputs(t->used ? "ok" : "error", reply);
}

/* Joins within so many ms and shows the result. */
static int thread_end(struct thread *t, long ms)
{
	struct timespec end;
	void *value;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_nsec += ms % 1000 * 1000000;
	end.tv_sec += ms / 1000 + end.tv_nsec / 1000000000;
	end.tv_nsec %= 1000000000;
	if (pthread_timedjoin_np(t->thread, &value, &end))
		return 0;
	t->used = 0;
	if (value != PTHREAD_CANCELED) {
		call_show(t->call);
		return 1;
	}
	fputs("cancelled", reply);
	blocks_free(t->call);
	return 1;
}

static int thread_sleeps(struct thread *t)
{
	char name[64], text[256] = "";
	FILE *f;

	snprintf(name, sizeof(name), "/proc/self/task/%d/stat", atomic_load(&t->tid));
	f = fopen(name, "re");
	if (!f)
		return 0;
	if (!fgets(text, sizeof(text), f))
		text[0] = 0;
	fclose(f);
	return strstr(text, ") S") != NULL;
}

/* Blocked is who sleeps four times in a row, a millisecond apart. */
static void thread_blocked(struct thread *t)
{
	int asleep = 0;

	for (int i = 0; i < 3000; i++) {
		if (thread_end(t, 1))
			return;
		asleep = atomic_load(&t->tid) && thread_sleeps(t) ? asleep + 1 : 0;
		if (asleep == 4)
			break;
	}
	fputs(asleep == 4 ? "blocked" : "spinning", reply);
}

/* ---- signals, processes, reset ---- */
static void count(int number)
{
	counted[number]++;
}

static void handler(int number, long flags)
{
	struct sigaction sa = { .sa_handler = flags == -1 ? SIG_DFL : flags == -2 ? SIG_IGN : count };

	sa.sa_flags = flags < 0 ? 0 : (int)flags;
	fprintf(reply, "%d", sigaction(number, &sa, NULL));
}

static void show_counted(void)
{
	fputs("n", reply);
	for (int i = 1; i < N_SIGNALS; i++) {
		if (counted[i])
			fprintf(reply, " %d:%d", i, (int)counted[i]);
		counted[i] = 0;
	}
}

static void channel_open(void)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), high;

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		exit(4);
	high = fcntl(fd, F_DUPFD_CLOEXEC, CHANNEL);
	if (high < 0)
		exit(4);
	close(fd);
	if (high != CHANNEL) {
		dup3(high, CHANNEL, O_CLOEXEC);
		close(high);
	}
	line_have = 0;
	dprintf(CHANNEL, "hello %d\n", getpid());
}

static void agent_fork(void)
{
	pid_t pid = fork();

	if (!pid) {
		close(CHANNEL);
		memset(threads, 0, sizeof(threads));
		channel_open();
		fputs("child", reply);
		return;
	}
	fprintf(reply, "%d", pid);
}

static void agent_reset(void)
{
	struct rlimit files = { 1024, 1024 };
	int stuck = 0, n = 0, fds[1024];
	DIR *dir;
	struct dirent *e;

	for (int i = 0; i < N_THREADS; i++)
		stuck += threads[i].used && pthread_tryjoin_np(threads[i].thread, NULL) == EBUSY;
	memset(threads, 0, sizeof(threads));
	for (int i = 1; i < N_SIGNALS; i++) {
		if (i != SIGKILL && i != SIGSTOP && i != SIGPROF)
			signal(i, i == SIGPIPE ? SIG_IGN : SIG_DFL);
		counted[i] = 0;
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = 1024;
	setrlimit(RLIMIT_NOFILE, &files);
	dir = opendir("/proc/self/fd");
	while (dir && (e = readdir(dir))) {
		int fd = atoi(e->d_name);

		if (isdigit((unsigned char)e->d_name[0]) && fd > 2 && fd < CHANNEL && fd != dirfd(dir) && n < 1024)
			fds[n++] = fd;
	}
	if (dir)
		closedir(dir);
	for (int i = 0; i < n; i++)
		close(fds[i]);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	fprintf(reply, "stuck %d", stuck);
}

/* Whoever gets SIGPROF says where it is: the harness sends it to the threads of an agent that hangs. */
static void show_stack(int number)
{
	void *frames[40];
	int saved = errno;

	(void)number;
	dprintf(2, "stack of thread %ld\n", syscall(SYS_gettid));
	backtrace_symbols_fd(frames, backtrace(frames, 40), 2);
	errno = saved;
}

/* ---- the loop ---- */
static void serve(char *text)
{
	char *rest = text + 1;
	long id, value = 0;

	if (*text == 'c') {
		struct call *c = parse(text + 2);

		call_run(c);
		call_show(c);
		return;
	}
	if (*text == 'n')
		return show_counted();
	if (*text == 'r')
		return agent_reset();
	if (*text == 'f')
		return agent_fork();
	if (*text == 'x')
		_exit(0);
	if (*text == 'e')
		execl("/proc/self/exe", "agent", path, (char *)NULL);
	id = strtol(rest, &rest, 10);
	if (*text == 't')
		return thread_start(&threads[id % N_THREADS], rest + 1);
	value = strtol(rest, &rest, 10);
	if (*text == 's')
		return handler(id, value);
	if (!threads[id % N_THREADS].used)
		fputs("none", reply);
	else if (*text == 'k')
		fprintf(reply, "%d", pthread_kill(threads[id % N_THREADS].thread, value));
	else if (*text == 'K')
		fprintf(reply, "%d", pthread_cancel(threads[id % N_THREADS].thread));
	else if (*text == 'b')
		thread_blocked(&threads[id % N_THREADS]);
	else if (*text == 'w' && !thread_end(&threads[id % N_THREADS], value))
		fputs("blocked", reply);
}

static int answer(void)
{
	size_t done = 0;

	fputc('\n', reply);
	fflush(reply);
	while (done < reply_len) {
		ssize_t n = write(CHANNEL, reply_text + done, reply_len - done);

		if (n < 0 && errno != EINTR)
			return -1;
		done += n > 0 ? n : 0;
	}
	rewind(reply);
	return 0;
}

/* The next line in place of `line`, or NULL at the end. */
static char *next_line(size_t *used)
{
	memmove(line, line + *used, line_have - *used);
	line_have -= *used;
	*used = 0;
	while (line_have < LINE_MAX_LEN) {
		char *end = memchr(line, '\n', line_have);
		ssize_t n;

		if (end) {
			*end = 0;
			*used = end - line + 1;
			return line;
		}
		n = read(CHANNEL, line + line_have, LINE_MAX_LEN - line_have);
		if (n == 0 || (n < 0 && errno != EINTR))
			return NULL;
		line_have += n > 0 ? n : 0;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	size_t used = 0;
	sigset_t none;

	if (argc != 2)
		return 2;
	path = argv[1];
	mutate = getenv("AGENT_MUTATE");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGPROF, &(struct sigaction){ .sa_handler = show_stack, .sa_flags = SA_RESTART }, NULL);
	line = malloc(LINE_MAX_LEN);
	reply = open_memstream(&reply_text, &reply_len);
	if (!line || !reply)
		return 3;
	channel_open();
	for (;;) {
		char *text = next_line(&used);

		if (!text)
			return 0;
		serve(text);
		if (line_have < used) /* a child after fork begins with an empty channel */
			used = line_have;
		if (answer())
			return 0;
	}
}
