/* SPDX-License-Identifier: MIT */
/*
 * Attaching to the service, and the life of sessions.
 *
 * There is at most one current session; `current` holds one reference to it.  When its service dies the session is
 * taken out of current and lives on until the last socket made in it is gone.  Session structs are never unmapped, so
 * that a thread may try to take a reference on a pointer it read a moment ago.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "lowlevel/low.h"
#include "tas.h"
#include "lowlevel/private.h"

enum { SESSIONS_MAX = 64, HELLO_RETRY_MS = 1000 };

static struct tas_session *sessions[SESSIONS_MAX]; /* under tas__attach_lock */
static _Atomic(struct tas_session *) current;
struct tas_mutex tas__attach_lock;
static uint64_t retry_at; /* under tas__attach_lock */
static int last_error; /* under tas__attach_lock */
static _Atomic bool ever;

static char socket_path[sizeof((struct sockaddr_un *)0)->sun_path] = TAS_SOCKET_DEFAULT;
static char own_path[sizeof socket_path]; /* where a service of this user would be; empty: nowhere else to look */
static bool require, logging;

/* Read when first needed, not at start: a program may say where its service is before it makes a socket. */
static void env_read(void)
{
	static _Atomic bool done;
	const char *s;

	if (atomic_load_explicit(&done, memory_order_acquire))
		return;
	s = secure_getenv("TAS_SOCKET");
	if (s && *s)
		snprintf(socket_path, sizeof socket_path, "%s", s);
	else if ((s = secure_getenv("XDG_RUNTIME_DIR")) && *s && strlen(s) < sizeof own_path - 16)
		snprintf(own_path, sizeof own_path, "%s/tas/tas.sock", s);
	s = secure_getenv("TAS_REQUIRE");
	require = s && *s && *s != '0';
	s = secure_getenv("TAS_LOG");
	logging = s && *s && *s != '0';
	atomic_store_explicit(&done, true, memory_order_release);
}

bool tas__service_there(void)
{
	env_read();
	return !access(socket_path, W_OK) || (own_path[0] && !access(own_path, W_OK));
}

bool tas__env_require(void)
{
	env_read();
	return require;
}

const char *tas_socket_path(void)
{
	env_read();
	return socket_path;
}

static void say(const char *fmt, va_list ap)
{
	char line[300] = "tas: ";
	int n = vsnprintf(line + 5, sizeof line - 7, fmt, ap);

	n = n < 0 ? 5 : n > (int)sizeof line - 8 ? (int)sizeof line - 3 : n + 5;
	line[n++] = '\n';
	sys_write(2, line, (size_t)n);
}

void tas__log(const char *fmt, ...)
{
	va_list ap;

	env_read();
	if (!logging)
		return;
	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

void tas__warn_once(const char *fmt, ...)
{
	static _Atomic bool warned;
	va_list ap;

	env_read();
	if (atomic_exchange(&warned, true) && !logging)
		return;
	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

/* ---- references ---- */
void tas__session_ref(struct tas_session *ss)
{
	atomic_fetch_add_explicit(&ss->refs, 1, memory_order_relaxed);
}

struct tas_session *tas__session_get(void)
{
	for (;;) {
		struct tas_session *ss = atomic_load(&current);
		uint32_t n;

		if (!ss)
			return NULL;
		n = atomic_load(&ss->refs);
		while (n && !atomic_compare_exchange_weak(&ss->refs, &n, n + 1))
			;
		if (!n)
			continue;
		if (atomic_load(&current) == ss && tas__alive(ss))
			return ss;
		tas__session_put(ss);
	}
}

/* The last reference is gone: nobody can be inside, except somebody who raises refs from 0, which get() refuses. */
static void session_free(struct tas_session *ss)
{
	tas__internal_close(atomic_exchange(&ss->ctl, -1));
	tas__internal_close(atomic_exchange(&ss->door, -1));
	for (unsigned i = 0; i < TAS_WS_MAX; i++)
		if (ss->ws_open[i / 64] & 1ull << (i % 64))
			tas__internal_close(ss->ws_fd[i]);
	for (unsigned i = 0; i < TAS_CHUNKS_MAX; i++) {
		uint8_t *p = atomic_load(&ss->chunk[i]);

		if (p)
			tas__shared_unmap(p, TAS_CHUNK_SIZE);
		atomic_store(&ss->chunk[i], NULL);
	}
	tas__shared_free(ss);
	tas__shared_unmap(ss->r, ss->size);
	for (unsigned i = 0; i < TAS_BELLS_KNOWN; i++)
		tas__internal_close(atomic_load(&ss->bell[i].fd) - 1);
	memset(ss->bell, 0, sizeof ss->bell);
	memset(ss->ws_open, 0, sizeof ss->ws_open);
	memset(ss->ws_busy, 0, sizeof ss->ws_busy);
	ss->r = NULL; /* marks the struct as free to take, under tas__attach_lock */
}

void tas__session_put(struct tas_session *ss)
{
	uint64_t mask;

	if (atomic_fetch_sub_explicit(&ss->refs, 1, memory_order_acq_rel) != 1)
		return;
	mask = tas__signals_block();
	tas__mutex_lock(&tas__attach_lock);
	session_free(ss);
	tas__mutex_unlock(&tas__attach_lock);
	tas__signals_restore(mask);
}

void tas__session_died(struct tas_session *ss)
{
	struct tas_session *me = ss;

	if (atomic_exchange(&ss->dead, true) || !ss->r) /* no region: still saying hello */
		return;
	/* the kernel woke one sleeper on the liveness word; everybody else hears it from us */
	sys_futex(&ss->r->alive, FUTEX_WAKE, INT32_MAX, NULL);
	if (atomic_compare_exchange_strong(&current, &me, NULL)) {
		tas__log("the service has gone");
		tas__session_put(ss);
	}
}

bool tas__ever_attached(void)
{
	return atomic_load_explicit(&ever, memory_order_relaxed);
}

/* ---- attach ---- */
static int control_connect(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 2};
	int fd = sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return fd;
	memcpy(a.sun_path, path, sizeof a.sun_path);
	sys_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	do
		r = (int)sys3(SYS_connect, fd, SYS_P(&a), sizeof a);
	while (r == -EINTR);
	if (r < 0) {
		sys_close(fd);
		return r;
	}
	return tas__internal_fd(fd);
}

static struct tas_session *session_slot(void)
{
	for (int i = 0; i < SESSIONS_MAX; i++) {
		if (!sessions[i])
			return sessions[i] = sys_mmap(NULL, sizeof *sessions[i], PROT_READ | PROT_WRITE,
						      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
		if (!atomic_load(&sessions[i]->refs) && !sessions[i]->r)
			return sessions[i];
	}
	return NULL;
}

static bool region_ok(const struct tas_region *r, uint64_t size)
{
	/* pairs with the release store of alive, after which the header is complete */
	if (!atomic_load_explicit(&r->alive, memory_order_acquire))
		return false;
	return r->h.magic == TAS_ABI_MAGIC && r->h.abi >= TAS_ABI_MIN && r->h.abi <= TAS_ABI_MAX && r->h.size <= size &&
	       r->h.sock_max == TAS_SOCK_MAX && r->h.ws_max == TAS_WS_MAX && r->h.block_size == TAS_BLOCK_SIZE &&
	       r->h.chunk_size == TAS_CHUNK_SIZE && r->h.n_cores <= TAS_CORES_MAX;
}

/* in: region, doorbell.  Takes both. */
static int session_begin(struct tas_session *ss, const struct tas_msg *m, int ctl, const int *in)
{
	struct stat st;
	struct tas_region *r;

	if (sys_fstat(in[0], &st) < 0 || (uint64_t)st.st_size < sizeof *r)
		return -EPROTO;
	ss->size = (uint64_t)st.st_size;
	r = tas__shared_map(in[0], ss->size);
	if (!r)
		return -ENOMEM;
	if (!region_ok(r, ss->size)) {
		tas__shared_unmap(r, ss->size);
		return -EPROTO;
	}
	ss->r = r;
	ss->slot = m->u.attached.proc_slot;
	ss->set_id = m->u.attached.set_id;
	ss->instance = m->u.attached.instance;
	atomic_store(&ss->dead, false);
	atomic_store(&ss->ctl, ctl);
	atomic_store(&ss->door, tas__internal_fd(in[1]));
	sys_close(in[0]);
	atomic_store(&ss->refs, 1);
	return 0;
}

static int hello(struct tas_session *ss, int ctl)
{
	struct tas_msg m = {.op = TAS_MSG_HELLO, .u.hello = {.abi_min = TAS_ABI_MIN, .abi_max = TAS_ABI_MAX}};
	int in[2], r;
	unsigned n = 2;

	sys2(SYS_prctl, 16 /* PR_GET_NAME */, SYS_P(m.u.hello.comm));
	/* the session is not current: its lock and number serve this one request */
	atomic_store(&ss->ctl, ctl);
	atomic_store(&ss->dead, false);
	ss->seq = 0;
	r = tas__rpc(ss, &m, NULL, 0, in, &n);
	if (r == 0)
		r = m.err;
	if (r == 0 && n != 2)
		r = -EPROTO;
	if (r == 0)
		r = session_begin(ss, &m, ctl, in);
	if (r)
		while (n)
			sys_close(in[--n]);
	return r;
}

static int attach_locked(void)
{
	struct tas_session *ss;
	uint64_t now = tas__now();
	int ctl, r;

	if (now < retry_at)
		return last_error;
	env_read();
	ctl = control_connect(socket_path);
	if ((ctl == -ENOENT || ctl == -ECONNREFUSED) && own_path[0])
		ctl = control_connect(own_path);
	if (ctl < 0) {
		r = ctl;
		goto failed;
	}
	ss = session_slot();
	r = ss ? hello(ss, ctl) : -ENOMEM;
	if (r) {
		if (ss)
			atomic_store(&ss->ctl, -1);
		tas__internal_close(ctl);
		goto failed;
	}
	atomic_store(&ever, true);
	atomic_store(&current, ss);
	return 0;
failed:
	r = r > 0 ? -EPROTO : r;
	retry_at = now + HELLO_RETRY_MS * 1000000ull;
	last_error = r;
	if (r == -EPROTO)
		tas__warn_once("the service at %s speaks another ABI than %u..%u; using the kernel's TCP", socket_path,
			       TAS_ABI_MIN, TAS_ABI_MAX);
	return r;
}

int tas__session_attach(struct tas_session **ss)
{
	uint64_t mask;
	int r = 0;

	*ss = tas__session_get();
	if (*ss)
		return 0;
	mask = tas__signals_block_hard();
	tas__mutex_lock(&tas__attach_lock);
	if (!atomic_load(&current))
		r = attach_locked();
	tas__mutex_unlock(&tas__attach_lock);
	tas__signals_restore(mask);
	if (r < 0)
		return r;
	*ss = tas__session_get();
	return *ss ? 0 : -ECONNREFUSED;
}

int tas_attach(void)
{
	struct tas_session *ss;
	int r = tas__session_attach(&ss);

	if (r == 0)
		tas__session_put(ss);
	return r;
}

void tas_get_status(struct tas_status *st)
{
	struct tas_session *ss = tas__session_get();

	*st = (struct tas_status){0};
	if (!ss)
		return;
	st->attached = true;
	st->abi = ss->r->h.abi;
	st->proc_slot = ss->slot;
	st->set_id = ss->set_id;
	st->n_cores = ss->r->h.n_cores;
	st->instance = ss->instance;
	for (unsigned i = 0; i < TAS_CHUNKS_MAX; i++)
		st->chunks += atomic_load_explicit(&ss->chunk[i], memory_order_relaxed) != NULL;
	for (unsigned i = 0; i < TAS_WS_MAX / 64; i++)
		st->wait_sets += (uint32_t)__builtin_popcountll(ss->ws_open[i]);
	tas__session_put(ss);
}
