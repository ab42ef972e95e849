/* SPDX-License-Identifier: MIT */
/*
 * Whose an epoll set is: how its memory is made, found by who else has a descriptor, kept, and what fork does.
 *
 * The kernel's set carries the token as the data of the set's eventfd.  Who meets an epoll descriptor for the first time (after
 * exec, in a message) reads it in fdinfo; who waits in the kernel for a set that had no member of TAS sees it as an event.  Two
 * processes that have the same set must not both make memory for it, so who may not be alone asks the service to be the only
 * one of its memory set that makes any, and looks at the kernel's set once more.
 */
#include <string.h>

#include "sockets/ep.h"

enum { SPARE_MAX = 8, TOKENS_MAX = 8, AGAIN_MAX = 20000 };

/* Memory of sets that were closed while nobody else had them: the next set takes it.  Table lock. */
static struct tas_ep_part spare[SPARE_MAX];
static unsigned n_spare;

/* ---- what the kernel's set says ---- */
static const char *skip_to(const char *c, const char *name)
{
	size_t n = strlen(name);

	for (; *c; c++)
		if (!strncmp(c, name, n))
			return c + n;
	return c;
}

static uint64_t number(const char *c, unsigned base)
{
	uint64_t v = 0;

	while (*c == ' ')
		c++;
	for (;; c++) {
		unsigned d = *c >= '0' && *c <= '9' ? (unsigned)(*c - '0') : *c >= 'a' && *c <= 'f' ? (unsigned)(*c - 'a') + 10 : 99;

		if (d >= base)
			return v;
		v = v * base + d;
	}
}

/* "tfd:        5 events: 40000000 data: ffffffff  pos:0 ino:2c5e sdev:8" */
static bool parse(const char *c, struct tas_line *l)
{
	if (strncmp(c, "tfd:", 4))
		return false;
	l->fd = (int)number(c + 4, 10);
	l->events = (uint32_t)number(skip_to(c, "events:"), 16);
	l->data = number(skip_to(c, "data:"), 16);
	l->ino = number(skip_to(c, "ino:"), 16);
	return true;
}

bool tas__ep_lines(int epfd, bool (*fn)(const struct tas_line *l, void *arg), void *arg)
{
	char path[40] = "/proc/self/fdinfo/", buf[4096], digits[12];
	int n = 0, at = 18, file;
	struct tas_line l;
	bool stop = false;
	size_t have = 0;
	ssize_t r;

	for (unsigned v = (unsigned)epfd; v || !n; v /= 10)
		digits[n++] = (char)('0' + v % 10);
	while (n)
		path[at++] = digits[--n];
	file = (int)sys4(SYS_openat, AT_FDCWD, SYS_P(path), O_RDONLY | O_CLOEXEC, 0);
	while (file >= 0 && !stop && (r = sys_read(file, buf + have, sizeof buf - 1 - have)) > 0) {
		char *line = buf, *end;

		have += (size_t)r;
		buf[have] = 0;
		for (; !stop && (end = memchr(line, '\n', have - (size_t)(line - buf))); line = end + 1) {
			*end = 0;
			stop = parse(line, &l) && fn(&l, arg);
		}
		have -= (size_t)(line - buf);
		memmove(buf, line, have);
	}
	if (file >= 0)
		sys_close(file);
	return stop;
}

struct tokens {
	uint64_t t[TOKENS_MAX];
	unsigned n;
};

static bool add_token(const struct tas_line *l, void *arg)
{
	struct tokens *t = arg;

	if (tas__is_wake(l->data) && t->n < TOKENS_MAX)
		t->t[t->n++] = l->data;
	return false;
}

/* ---- memory ---- */
static int part_map(struct tas_ep_part *p, struct tas_session *ss, const struct tas_msg *m, int memfd, int efd)
{
	struct stat st;

	*p = (struct tas_ep_part){.index = m->u.ep.index, .token = m->u.ep.token, .efd = efd, .bells_fd = -1};
	if (sys_fstat(memfd, &st) == 0 && (uint64_t)st.st_size >= sizeof *p->m)
		p->m = tas__shared_map(memfd, sizeof *p->m);
	sys_close(memfd);
	tas__session_ref(ss);
	p->ss = ss;
	if (p->m)
		return 0;
	tas__part_drop(p, true);
	return -ENOMEM;
}

static int part_new(struct tas_session *ss, uint32_t flags, struct tas_ep_part *p)
{
	struct tas_msg m = {.op = TAS_MSG_EP_OPEN, .u.ep = {.flags = flags}};
	int efd, in[1], r;
	unsigned n = 1;

	if (!flags && n_spare && spare[n_spare - 1].ss == ss) {
		*p = spare[--n_spare];
		return 0;
	}
	efd = (int)sys2(SYS_eventfd2, 0, O_NONBLOCK | O_CLOEXEC);
	if (efd < 0)
		return efd;
	efd = tas__internal_fd(efd);
	r = tas__rpc(ss, &m, &efd, 1, in, &n);
	if (!r)
		r = m.err ? m.err : n == 1 ? 0 : -EMFILE;
	if (r) {
		tas__internal_close(efd);
		return r;
	}
	r = part_map(p, ss, &m, in[0], efd);
	if (!r)
		p->m->head.used = 1;
	return r;
}

static int part_open(struct tas_session *ss, uint64_t token, struct tas_ep_part *p)
{
	struct tas_msg m = {.op = TAS_MSG_EP_OPEN, .u.ep = {.token = token}};
	int in[2], r;
	unsigned n = 2;

	r = tas__rpc(ss, &m, NULL, 0, in, &n);
	if (!r)
		r = m.err;
	if (!r && n == 2)
		return part_map(p, ss, &m, in[0], tas__internal_fd(in[1]));
	while (n && n <= 2)
		sys_close(in[--n]);
	return r ? r : -EMFILE;
}

static int part_find(int fd, struct tas_session *ss, struct tas_ep_part *p)
{
	struct tokens t = {.n = 0};
	int r = -ENOENT;

	tas__ep_lines(fd, add_token, &t);
	while (t.n && r)
		r = part_open(ss, t.t[--t.n], p);
	return r;
}

/* Its eventfd becomes a member of the kernel's set, which so carries the token. */
static int part_place(int fd, const struct tas_ep_part *p)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = p->token};

	return tas__epoll_ctl_raw(fd, EPOLL_CTL_ADD, p->efd, &ev);
}

/* Of a set that others may have. */
static int part_agree(int fd, struct tas_session *ss, struct tas_ep_part *p)
{
	struct timespec nap = {0, 100000};
	struct tas_ep_part mine;
	struct tas_msg m = {0};
	int r;

	for (int i = 0; i < AGAIN_MAX; i++) {
		r = part_find(fd, ss, p);
		if (!r)
			return 0;
		r = part_new(ss, TAS_EP_ALONE, &mine);
		if (r != -EAGAIN)
			break;
		sys2(SYS_nanosleep, SYS_P(&nap), 0);
	}
	if (r)
		return r;
	if (part_find(fd, ss, p) == 0) {
		tas__part_drop(&mine, true);
		return 0;
	}
	*p = mine;
	r = part_place(fd, p);
	m.u.ep.index = p->index;
	if (r)
		tas__part_drop(p, true);
	else
		tas__tell(atomic_load(&ss->ctl), &m, TAS_MSG_EP_MADE);
	/* who waits in the kernel does not know yet: the kernel has to tell */
	if (!r)
		p->m->head.exposed = p->m->head.kernel = 1;
	return r;
}

static bool cache_make(struct tas_ep *ep)
{
	if (!ep->cache)
		ep->cache = sys_mmap(NULL, TAS_EP_ITEMS * sizeof *ep->cache, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	return ep->cache;
}

/* Nobody marks and rings: there is no service, or it has no room. */
static bool blind(struct tas_ep *ep)
{
	struct tas_ep_part p = TAS_EP_NO_PART;

	if (ep->p.m)
		return true;
	p.m = cache_make(ep) ? sys_mmap(NULL, sizeof *p.m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1)
			     : NULL;
	if (!p.m)
		return false;
	p.m->head.used = 1;
	p.m->head.kernel = ep->kernel;
	tas__ep_take(ep, &p);
	return true;
}

/* Members that it had by then keep their places. */
static void carry_over(struct tas_ep *ep, struct tas_ep_part *p)
{
	const struct tas_ep_memory *from = ep->p.m;
	struct tas_ep_head *h = &p->m->head;

	if (atomic_load(&h->n_items)) { /* another process was here before, with what it had */
		memset(ep->cache, 0, from->head.used * sizeof *ep->cache);
		return;
	}
	memcpy(p->m->item, from->item, from->head.used * sizeof from->item[0]);
	h->used = from->head.used;
	h->kernel |= from->head.kernel;
	h->exposed |= from->head.exposed;
	h->near |= from->head.near;
	h->busy = 1; /* the rest follows from the items */
}

static void watch_members(struct tas_ep *ep)
{
	uint32_t used = ep->p.m->head.used;

	for (uint32_t x = 1; x < used && x < TAS_EP_ITEMS; x++)
		if (ep->cache[x] && ep->cache[x]->o->ss == ep->p.ss)
			tas__obj_sub_add(ep->cache[x]->o, tas__ep_sub(ep), tas__ep_item(ep, x)->events & EPOLLEXCLUSIVE);
	tas__ep_ready_all(ep, TAS_IT_FORCE);
}

static void take(struct tas_ep *ep, struct tas_ep_part *p)
{
	bool had = ep->p.m != NULL;

	if (had)
		carry_over(ep, p);
	if (ep->kernel || ep->shared)
		p->m->head.kernel = 1;
	if (ep->exposed)
		p->m->head.exposed = 1;
	tas__ep_take(ep, p);
	if (had)
		watch_members(ep);
	if (ep->exposed)
		tas__ep_announce(ep, false);
}

bool tas__ep_need(struct tas_ep *ep, struct tas_session *ss)
{
	struct tas_ep_part p;
	int fd, r;

	if (ep->p.m && ep->p.ss == ss)
		return true;
	fd = tas__ep_number(ep);
	if (!tas__alive(ss) || !tas__may(TAS_MAY_OPEN) || fd < 0 || !cache_make(ep))
		return blind(ep);
	if (ep->shared) {
		r = part_agree(fd, ss, &p);
	} else {
		r = part_new(ss, 0, &p);
		if (!r && (r = part_place(fd, &p)))
			tas__part_drop(&p, true);
	}
	if (r)
		return blind(ep);
	take(ep, &p);
	return true;
}

/* Under both locks. */
static bool open_known(struct tas_ep *ep, uint64_t token)
{
	struct tas_session *ss;
	struct tas_ep_part p;
	int r;

	if (ep->p.m)
		return true;
	if (!cache_make(ep) || tas__session_attach(&ss) < 0)
		return false;
	r = part_open(ss, token, &p);
	tas__session_put(ss);
	if (!r)
		take(ep, &p);
	return !r;
}

bool tas__ep_met(struct tas_ep *ep, uint64_t token)
{
	uint64_t mask = tas__table_lock();
	bool ok;

	tas__ep_enter(ep);
	ok = open_known(ep, token);
	tas__ep_exit(ep);
	tas__table_unlock(mask);
	return ok;
}

/* ---- numbers ---- */
struct tas_ep *tas__ep_adopt(int fd, bool shared, int *err)
{
	struct tas_dropped old = {NULL, NULL};
	struct tas_ep *ep;
	uint64_t mask = tas__table_lock();

	ep = tas__ep_new(fd);
	*err = ep ? tas__number_set(fd, TAS_FD_EPOLL, ep, &old) : -ENOMEM;
	if (ep && *err < 0) {
		tas__ep_recycle(ep);
		ep = NULL;
	}
	if (ep) {
		ep->shared = ep->kernel = shared;
		atomic_fetch_add(&ep->refs, 1);
	}
	tas__table_unlock(mask);
	tas__drop_done(old);
	return ep;
}

/* The set that this process has under another number already. */
static bool adopt_known(int fd, uint64_t token)
{
	struct tas_dropped old = {NULL, NULL};
	uint64_t mask = tas__table_lock();
	bool found = false;

	for (struct tas_ep *ep = tas__ep_all(); ep && !found; ep = ep->next) {
		if (!atomic_load(&ep->m) || ep->p.token != token || !tas__ep_try_ref(ep))
			continue;
		found = tas__number_set(fd, TAS_FD_EPOLL, ep, &old) == 0;
		if (!found)
			atomic_fetch_sub(&ep->refs, 1); /* not the last: it has a number */
	}
	tas__table_unlock(mask);
	tas__drop_done(old);
	return found;
}

static void meet(int fd, struct tas_ep *ep)
{
	struct tokens t = {.n = 0};

	tas__ep_lines(fd, add_token, &t);
	while (t.n && !tas__ep_met(ep, t.t[t.n - 1]))
		t.n--;
}

void tas__ep_recall(int fd)
{
	struct tas_ep *ep = tas__ep_get(fd);

	if (ep && ep->shared && !tas__ep_head(ep) && tas__may(TAS_MAY_OPEN))
		meet(fd, ep);
	if (ep)
		tas__ep_put(ep);
}

bool tas__ep_recognise(int fd)
{
	struct timespec none = {0, 0};
	struct tokens t = {.n = 0};
	struct tas_ep *ep;
	long r;
	int err;

	if (!tas__may(TAS_MAY_EPOLL))
		return false;
	/* nowhere to put events: a set keeps them, everything else is EINVAL */
	r = sys6(SYS_epoll_pwait2, fd, 0, 1, SYS_P(&none), 0, 8);
	if (r != 0 && r != -EFAULT)
		return false;
	tas__ep_lines(fd, add_token, &t);
	for (unsigned i = 0; i < t.n; i++)
		if (adopt_known(fd, t.t[i]))
			return true;
	ep = tas__ep_adopt(fd, true, &err);
	if (!ep)
		return false;
	meet(fd, ep);
	tas__ep_put(ep);
	return true;
}

/* ---- it leaves this process's sight ---- */
static void keep(struct tas_ep *ep)
{
	struct tas_msg m = {.u.ep = {.index = ep->p.index}};

	ep->shared = true;
	if (ep->p.ss && !atomic_load(&ep->p.ss->dead))
		tas__tell(atomic_load(&ep->p.ss->ctl), &m, TAS_MSG_EP_KEEP);
}

void tas__ep_passed(int fd)
{
	struct tas_ep *ep = tas__ep_get(fd);
	uint64_t mask;

	if (!ep)
		return;
	mask = tas__ep_lock(ep);
	keep(ep);
	tas__ep_unlock(ep, mask);
	tas__ep_put(ep);
}

bool tas__ep_has_members(int fd)
{
	struct tas_ep *ep = tas__ep_get(fd);
	struct tas_ep_head *h = ep ? tas__ep_head(ep) : NULL;
	bool any = h && atomic_load(&h->n_items);

	if (ep)
		tas__ep_put(ep);
	return any;
}

/* ---- closing ---- */
/* What its members left is gone: is it as new? */
static bool part_clean(struct tas_ep_part *p)
{
	struct tas_ep_head *h = &p->m->head;
	uint64_t n;

	if (!p->ss || !tas__alive(p->ss) || atomic_load(&h->n_items) || atomic_load(&h->holders) != 1)
		return false;
	atomic_store(&h->sleeping, 0);
	atomic_store(&h->top, 0);
	for (int w = 0; w < TAS_EP_WORDS; w++)
		atomic_store(&h->word[w], 0);
	atomic_store(&h->kernel, 0);
	atomic_store(&h->exposed, 0);
	atomic_store(&h->rung, 0);
	atomic_store(&h->sleepers, 0);
	h->near = h->death_seen = 0;
	sys_read(p->efd, &n, sizeof n);
	return true;
}

void tas__part_end(struct tas_ep_part *p)
{
	if (p->m && n_spare < SPARE_MAX && part_clean(p)) {
		spare[n_spare++] = *p;
		*p = TAS_EP_NO_PART;
	} else if (p->m) {
		tas__part_drop(p, true);
	}
}

/* ---- fork: only the locks of this process are held, so nobody is inside, and the memory's are free ---- */
void tas__ep_fork_prepare(void)
{
	while (n_spare)
		tas__part_drop(&spare[--n_spare], true);
	for (struct tas_ep *ep = tas__ep_all(); ep; ep = ep->next)
		tas__mutex_lock(&ep->lock);
}

void tas__ep_fork_parent(void)
{
	for (struct tas_ep *ep = tas__ep_all(); ep; ep = ep->next) {
		ep->shared |= atomic_load(&ep->refs) != 0;
		tas__mutex_unlock(&ep->lock);
	}
}

/* This child is nobody to the service: what it does to the set must not be seen by the others. */
static void part_copy(struct tas_ep *ep)
{
	struct tas_ep_part p = TAS_EP_NO_PART;
	const struct tas_ep_memory *from = ep->p.m;

	p.m = sys_mmap(NULL, sizeof *p.m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	if (!p.m)
		return;
	memcpy(p.m->item, from->item, from->head.used * sizeof from->item[0]);
	p.m->head.used = from->head.used;
	p.m->head.kernel = p.m->head.busy = 1;
	tas__internal_close(ep->p.efd);
	tas__internal_close(ep->p.bells_fd);
	tas__session_put(ep->p.ss);
	tas__shared_unmap(ep->p.m, sizeof *ep->p.m);
	ep->p = p;
	atomic_store(&ep->m, p.m);
}

void tas__ep_fork_child(void)
{
	uint32_t high = atomic_load(&tas__high);

	for (struct tas_ep *ep = tas__ep_all(); ep; ep = ep->next) {
		atomic_store(&ep->lock.w, 0);
		if (!atomic_load(&ep->refs))
			continue;
		ep->shared = true;
		if (ep->p.ss && atomic_load(&ep->p.ss->dead))
			part_copy(ep);
		atomic_store(&ep->raw_waiters, 0);
		atomic_store(&ep->refs, 0);
	}
	for (uint32_t fd = 0; fd < high; fd++) {
		struct tas_entry *e = tas__entry((int)fd);
		struct tas_ep *ep = e && tas__state((int)fd) == TAS_FD_EPOLL ? atomic_load(&e->p) : NULL;

		if (ep)
			atomic_fetch_add(&ep->refs, 1);
	}
}
