/* SPDX-License-Identifier: MIT */
/*
 * Shared memory of a session: the region at attach, chunks when a position in them is first met; the doorbell; the
 * library's own descriptors.
 */
#include "lowlevel/low.h"

long (*tas__gate)(long nr, long a, long b, long c, long d, long e, long f);

void (*tas__internal_mark)(int fd, bool internal);

/* High numbers, but not so high that the kernel's descriptor table grows large for them. */
int tas__internal_fd(int fd)
{
	struct rlimit rl = {1024, 1024};
	int top, high = -1;

	if (fd < 0)
		return fd;
	sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, SYS_P(&rl));
	top = rl.rlim_cur > 4096 ? 4096 : (int)rl.rlim_cur;
	for (int base = top - top / 8; base > 8 && high < 0; base /= 2)
		high = sys_fcntl(fd, F_DUPFD_CLOEXEC, (unsigned long)base);
	if (high >= 0) {
		sys_close(fd);
		fd = high;
	}
	if (tas__internal_mark)
		tas__internal_mark(fd, true);
	return fd;
}

void tas__internal_close(int fd)
{
	if (fd < 0)
		return;
	if (tas__internal_mark)
		tas__internal_mark(fd, false);
	sys_close(fd);
}

void *(*tas__map_hook)(int fd, uint64_t size);

void *tas__shared_map(int fd, uint64_t size)
{
	if (tas__map_hook)
		return tas__map_hook(fd, size);
	return sys_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd);
}

void tas__shared_unmap(void *p, uint64_t size)
{
	if (!tas__map_hook)
		sys_munmap(p, size);
}

static uint8_t *map_chunk(struct tas_session *ss, uint32_t index, _Atomic(uint8_t *) *slot)
{
	struct tas_msg m = {.op = TAS_MSG_CHUNK, .u.chunk.index = index};
	int fd[1];
	unsigned n = 1;
	uint8_t *p = NULL, *expected = NULL;
	struct stat st;

	if (tas__rpc(ss, &m, NULL, 0, fd, &n) < 0)
		return NULL;
	if (m.err == 0 && n == 1 && sys_fstat(fd[0], &st) == 0 && st.st_size >= TAS_CHUNK_SIZE)
		p = tas__shared_map(fd[0], TAS_CHUNK_SIZE);
	if (m.err == 0 && !p)
		tas__warn_once("no room to map %d MiB of shared memory (RLIMIT_AS?); using the kernel's TCP",
			       (int)(TAS_CHUNK_SIZE >> 20));
	if (n == 1)
		sys_close(fd[0]);
	if (p && !atomic_compare_exchange_strong(slot, &expected, p)) {
		tas__shared_unmap(p, TAS_CHUNK_SIZE); /* another thread was faster */
		p = expected;
	}
	return p;
}

/* ---- memory that several sets share ---- */
static struct tas_shared *shared_find(struct tas_session *ss, uint32_t number)
{
	for (unsigned i = 0; i < TAS_SHARED_MAX; i++) {
		struct tas_shared *s = atomic_load_explicit(&ss->shared[i], memory_order_acquire);

		if (!s || atomic_load_explicit(&s->number, memory_order_relaxed) == number)
			return s;
	}
	return NULL;
}

static void shared_unmap(struct tas_shared *s)
{
	for (unsigned i = 0; i < TAS_CHUNKS_MAX; i++) {
		uint8_t *p = atomic_load(&s->chunk[i]);

		if (!p)
			continue;
		atomic_store(&s->chunk[i], NULL);
		tas__shared_unmap(p, TAS_CHUNK_SIZE);
	}
}

int tas__shared_hold(struct tas_session *ss, uint32_t number)
{
	struct tas_shared *s = shared_find(ss, number);

	for (unsigned i = 0; !s && i < TAS_SHARED_MAX; i++) { /* one that nobody uses, or the first empty place */
		s = atomic_load(&ss->shared[i]);
		if (s && s->refs) {
			s = NULL;
			continue;
		}
		if (!s)
			s = sys_mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
		if (!s)
			return -ENOMEM;
		atomic_store(&s->number, number);
		atomic_store_explicit(&ss->shared[i], s, memory_order_release);
	}
	if (!s)
		return -ENOMEM;
	s->refs++;
	return 0;
}

struct tas_shared *tas__shared_held(struct tas_session *ss, uint32_t number)
{
	return number ? shared_find(ss, number) : NULL;
}

void tas__shared_release(struct tas_session *ss, uint32_t number)
{
	uint64_t mask = tas__signals_block();
	struct tas_shared *s;

	tas__mutex_lock(&ss->ws_lock);
	s = shared_find(ss, number);
	if (s && !--s->refs) {
		atomic_store(&s->number, 0);
		shared_unmap(s);
	}
	tas__mutex_unlock(&ss->ws_lock);
	tas__signals_restore(mask);
}

void tas__shared_free(struct tas_session *ss)
{
	for (unsigned i = 0; i < TAS_SHARED_MAX; i++) {
		struct tas_shared *s = atomic_exchange(&ss->shared[i], NULL);

		if (!s)
			return;
		shared_unmap(s);
		sys_munmap(s, sizeof *s);
	}
}

/* Where the address of a chunk is kept; NULL: nowhere. */
static _Atomic(uint8_t *) *slot_of(struct tas_session *ss, uint32_t chunk)
{
	uint32_t number = TAS_CHUNK_NUMBER(chunk), index = TAS_CHUNK_INDEX(chunk);
	struct tas_shared *s;

	if (!number)
		return &ss->chunk[index];
	s = shared_find(ss, number);
	return s ? &s->chunk[index] : NULL;
}

static __attribute__((noinline)) uint8_t *mem_slow(struct tas_session *ss, uint32_t chunk)
{
	_Atomic(uint8_t *) *slot = slot_of(ss, chunk);
	uint8_t *p;

	if (!slot)
		return NULL;
	p = atomic_load_explicit(slot, memory_order_acquire);
	return p ? p : map_chunk(ss, chunk, slot);
}

void *tas__mem_known(struct tas_session *ss, tas_off_t off, uint32_t n)
{
	uint32_t at = TAS_OFF_BYTE(off);
	_Atomic(uint8_t *) *slot = slot_of(ss, TAS_OFF_CHUNK(off));
	uint8_t *p = slot ? atomic_load_explicit(slot, memory_order_acquire) : NULL;

	return p && at <= TAS_CHUNK_SIZE && n <= TAS_CHUNK_SIZE - at ? p + at : NULL;
}

void *tas__mem(struct tas_session *ss, tas_off_t off, uint32_t n)
{
	uint32_t i = TAS_OFF_CHUNK(off), at = TAS_OFF_BYTE(off);
	uint8_t *p;

	if (at > TAS_CHUNK_SIZE || n > TAS_CHUNK_SIZE - at)
		return NULL;
	p = i < TAS_CHUNKS_MAX ? atomic_load_explicit(&ss->chunk[i], memory_order_acquire) : NULL;
	if (__builtin_expect(!p, 0))
		p = mem_slow(ss, i);
	return p ? p + at : NULL;
}

void tas__doorbell(struct tas_session *ss, unsigned core)
{
	uint64_t one = 1;

	if (atomic_exchange_explicit(&ss->r->core[core].need_wakeup, 0, memory_order_seq_cst))
		sys_write(atomic_load_explicit(&ss->door, memory_order_relaxed), &one, sizeof one);
}

void tas__session_moved(struct tas_session *ss, uint32_t set_id)
{
	if (ss->set_id == set_id)
		return;
	ss->set_id = set_id;
	for (unsigned i = 0; i < TAS_CHUNKS_MAX; i++) {
		uint8_t *p = atomic_exchange(&ss->chunk[i], NULL);

		if (p && !atomic_load(&ss->bells)) /* else it stays for them */
			tas__shared_unmap(p, TAS_CHUNK_SIZE);
	}
}
