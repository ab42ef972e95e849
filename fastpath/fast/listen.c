/* SPDX-License-Identifier: MIT */
/*
 * Listeners, the accept queue, and who gets a new connection.
 *
 * Namespaces: listeners on loopback and wildcard addresses are keyed by the network namespace of their backing socket for local
 * connections.  Link addresses form one table across namespaces: the first binder of a port owns it (owns_link).
 *
 * The accept queue is an array in shared memory that any process of the memory set pops (tas_abi.h).  A connection in the queue
 * belongs to the listener until its entry has been popped (tas__accept_waiting); the service learns of pops by looking.
 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "fast/sock.h"

enum { AQ_ENTRIES_MIN = 4096, AQ_ENTRIES_MAX = 65536, RETRY_NS = 1000 * 1000 };

static struct tas_accept_entry *queue(const struct tas_sock *l)
{
	return tas__mem_ptr(l->base.set, l->rx[0].off);
}

static uint32_t entries(const struct tas_sock *l)
{
	return l->rx[0].len / sizeof(struct tas_accept_entry);
}

static void aq_unlink(struct tas_sock *conn)
{
	*conn->aq_pprev = conn->aq_next;
	if (conn->aq_next)
		conn->aq_next->aq_pprev = conn->aq_pprev;
	else
		conn->aq_of->u.lis.aq_tail = conn->aq_pprev;
	conn->aq_of = conn->aq_next = NULL;
	conn->aq_pprev = NULL;
}

static void aq_link(struct tas_sock *l, struct tas_sock *conn)
{
	if (!l->u.lis.aq_tail)
		l->u.lis.aq_tail = &l->u.lis.aq_head;
	conn->aq_of = l;
	conn->aq_next = NULL;
	conn->aq_pprev = l->u.lis.aq_tail;
	*l->u.lis.aq_tail = conn;
	l->u.lis.aq_tail = &conn->aq_next;
}

void tas__accept_forget(struct tas_sock *s)
{
	tas_shared_in();
	if (s->aq_of)
		aq_unlink(s);
	while (s->base.kind == TAS_K_LISTENER && s->u.lis.aq_head)
		aq_unlink(s->u.lis.aq_head);
	tas_shared_out();
}

uint32_t tas__accept_queued(struct tas_sock *l)
{
	uint64_t popped = atomic_load_explicit(&l->base.b->a.rx_consumed, memory_order_acquire);

	/* nonsense counts as full: the listener gets nothing more, and harms only itself */
	if (popped > l->u.lis.queued || popped < l->consumed)
		return l->u.lis.limit;
	l->consumed = popped;
	while (l->u.lis.aq_head && l->u.lis.aq_head->aq_at < popped)
		aq_unlink(l->u.lis.aq_head);
	return (uint32_t)(l->u.lis.queued - popped);
}

bool tas__accept_room(struct tas_sock *l)
{
	return tas__accept_queued(l) < l->u.lis.limit;
}

void tas__accept_push(struct tas_sock *l, struct tas_sock *conn)
{
	struct tas_accept_entry *e = &queue(l)[l->u.lis.queued & (entries(l) - 1)];

	atomic_store_explicit(&e->id, conn->base.id, memory_order_relaxed);
	atomic_store_explicit(&e->gen, conn->base.gen, memory_order_relaxed);
	atomic_store_explicit(&e->block, conn->base.block, memory_order_relaxed);
	conn->listener = NULL;
	conn->aq_at = l->u.lis.queued++;
	aq_link(l, conn);
	/* pairs with the acquire load of rx_delivered before an acceptor reads the entry */
	atomic_store_explicit(&l->base.b->s.rx_delivered, l->u.lis.queued, memory_order_release);
	l->delivered = l->u.lis.queued;
	l->u.lis.news++;
	if (tas_alone || l->core == tas_this)
		tas__wake_soon(l, TAS_WAKE_IN);
	else
		tas__wake(l, TAS_WAKE_IN); /* its core has a list for that, which is not ours */
}

uint32_t tas__accept_news(struct tas_sock *l)
{
	uint32_t n = l->u.lis.news;

	l->u.lis.news = 0;
	return n;
}

bool tas__accept_waiting(const struct tas_sock *conn)
{
	const struct tas_sock *l;
	bool waits;

	tas_shared_in();
	l = conn->aq_of;
	waits = l && !l->base.closed && atomic_load_explicit(&l->base.b->a.rx_consumed, memory_order_acquire) <= conn->aq_at;
	tas_shared_out();
	return waits;
}

static bool overlaps(const struct tas_addr *a, const struct tas_addr *b)
{
	return tas__addr_any(a) || tas__addr_any(b) || tas__addr_same_ip(a, b);
}

static bool matches(const struct tas_sock *l, const struct tas_addr *dst)
{
	const struct tas_addr *a = &l->base.local;

	if (tas__addr_any(a))
		return a->family == dst->family || (a->family == AF_INET6 && !l->u.lis.v6only);
	return tas__addr_same_ip(a, dst);
}

/* The listener for dst: an exact address before a wildcard; among SO_REUSEPORT listeners by hash. */
struct tas_sock *tas__listener_find(const struct tas_addr *dst, uint64_t netns, bool link, uint32_t hash)
{
	struct tas_sock *best = NULL, *l;
	bool best_exact = false;
	uint32_t n = 0;

	for (l = tas__port_first(tas__port(dst)); l && l->base.kind == TAS_K_LISTENER; l = l->port_next) {
		bool exact = !tas__addr_any(&l->base.local);

		if (l->base.closed || !matches(l, dst))
			continue;
		if (link ? !l->u.lis.owns_link : l->base.netns != netns)
			continue;
		if (best && best_exact && !exact)
			continue;
		if (!best || (exact && !best_exact)) {
			best = l;
			best_exact = exact;
			n = 1;
			continue;
		}
		/* reservoir by hash: the same flow meets the same listener while the group stays as it is */
		n++;
		if (l->reuseport && (uint64_t)(hash * 0x9e3779b1u) * n >> 32 == n - 1)
			best = l;
	}
	return best;
}

/* ---- requests ---- */
static bool is_link_addr(const struct tas_addr *a)
{
	struct tas_route r;

	if (tas__addr_any(a) || tas__addr_loopback(a))
		return false;
	tas_net_route(a, &r);
	return r.kind == TAS_ROUTE_OWN;
}

/* Linux's inet_csk_bind_conflict, for what the kernel cannot see: connections of TAS on that port, and listeners of other
 * namespaces on a link address. */
static bool conflict(const struct tas_sock *o, const struct tas_addr *a, uint64_t netns, uint32_t flags, bool link)
{
	const struct tas_sock_base *b = &o->base;

	if (!overlaps(&b->local, a))
		return false;
	if (b->kind == TAS_K_LISTENER) /* of the same namespace: the kernel's business */
		return link && b->netns != netns && o->u.lis.owns_link;
	if (b->netns != netns)
		return false;
	return !(flags & TAS_BIND_REUSEADDR && o->reuse) && !(flags & TAS_BIND_REUSEPORT && o->reuseport);
}

int tas__op_bind(struct tas_proc *p, const struct tas_ident *i, const struct tas_msg *req, struct tas_msg *rep)
{
	struct tas_addr a = tas__addr_unmap(&req->u.bind.local);
	bool link = is_link_addr(&a);

	(void)p;
	rep->u.bind.flags = link ? TAS_BIND_FREEBIND : 0;
	if (!a.port)
		return 0;
	for (struct tas_sock *o = tas__port_first(tas__port(&a)); o; o = o->port_next)
		if (conflict(o, &a, i->netns, req->u.bind.flags, link))
			return -EADDRINUSE;
	return 0;
}

static int listener_fill(struct tas_sock *l, const struct tas_ident *i, const struct tas_msg *req)
{
	uint32_t n = AQ_ENTRIES_MIN;

	while (n < req->u.listen.backlog + 1u && n < AQ_ENTRIES_MAX)
		n *= 2;
	l->rx[0].len = n * (uint32_t)sizeof(struct tas_accept_entry);
	l->rx[0].off = tas__mem_alloc(l->base.set, l->rx[0].len);
	if (!l->rx[0].off) {
		l->rx[0].len = 0;
		return -ENOBUFS;
	}
	l->rx[0].gen = 1;
	l->rx[0].active = true;
	struct tas_extent *e = &l->base.b->x.rx[0];

	atomic_store_explicit(&e->off, l->rx[0].off, memory_order_relaxed);
	atomic_store_explicit(&e->len, l->rx[0].len, memory_order_relaxed);
	e->kind = TAS_EXT_SERVICE;
	atomic_store_explicit(&e->gen, 1, memory_order_release);
	tas__sock_identify(&l->base, i);
	return 0;
}

static void set_backlog(struct tas_sock *l, uint32_t backlog)
{
	/* Linux: the queue is full when it holds more than backlog, so backlog + 1 fit */
	l->u.lis.limit = backlog + 1 < entries(l) ? backlog + 1 : entries(l);
	atomic_store_explicit(&l->base.b->s.aq_limit, l->u.lis.limit, memory_order_relaxed);
}

static int listen_again(struct tas_proc *p, struct tas_sock_base *b, const struct tas_msg *req, struct tas_msg *rep)
{
	if (!tas__set_reaches(p->set, b->set))
		return -EACCES;
	set_backlog(tas__of(b), req->u.listen.backlog);
	tas__of(b)->u.lis.opts = req->u.listen.opts;
	tas_claim_set(p->region->claims, b->id);
	rep->u.sock = (struct tas_msg_sock){ .id = b->id, .gen = b->gen, .block = b->block };
	return 0;
}

int tas__op_listen(struct tas_proc *p, const struct tas_ident *i, const struct tas_msg *req, struct tas_msg *rep)
{
	struct tas_addr a = tas__addr_unmap(&req->u.listen.local);
	struct tas_sock_base *again = tas__sock_by_cookie(i->cookie);
	bool wild = tas__addr_any(&a), link = is_link_addr(&a);
	struct tas_sock *l, *o;
	int err;

	if (again && again->kind == TAS_K_LISTENER)
		return listen_again(p, again, req, rep);
	if (!a.port || again)
		return -EINVAL;
	if (!wild && !link && !tas__addr_loopback(&a)) {
		tas_count(&tas_cores[0], TAS_CTR_fallbacks, 1);
		return TAS_FALLBACK;
	}
	bool owned = false; /* by another namespace */

	for (o = tas__port_first(tas__port(&a)); o; o = o->port_next)
		if (o->base.kind == TAS_K_LISTENER && o->u.lis.owns_link && o->base.netns != i->netns &&
		    overlaps(&o->base.local, &a))
			owned = true;
	if (owned && link)
		return -EADDRINUSE;
	l = tas__sock_new(&tas_cores[0], TAS_K_LISTENER);
	if (!l)
		return -ENOMEM;
	l->base.local = a;
	l->base.netns = i->netns;
	l->u.lis.v6only = req->u.listen.flags & TAS_BIND_V6ONLY;
	l->u.lis.owns_link = (link || wild) && !owned;
	l->u.lis.opts = req->u.listen.opts;
	l->reuse = req->u.listen.flags & TAS_BIND_REUSEADDR;
	l->reuseport = req->u.listen.flags & TAS_BIND_REUSEPORT;
	err = tas__sock_place(l, p->set, i->domain);
	if (!err)
		err = listener_fill(l, i, req);
	if (err) {
		tas__sock_free(l);
		return err;
	}
	set_backlog(l, req->u.listen.backlog);
	tas__sock_publish(l, TAS_S_LISTEN);
	tas__port_add(l);
	tas_claim_set(p->region->claims, l->base.id);
	rep->u.sock = (struct tas_msg_sock){ .id = l->base.id, .gen = l->base.gen, .block = l->base.block };
	return 0;
}

int tas__op_unlisten(struct tas_proc *p, const struct tas_msg *req)
{
	struct tas_sock_base *b = tas__sock(req->u.sock.id, req->u.sock.gen);

	if (!b || !tas__set_reaches(p->set, b->set) || b->kind != TAS_K_LISTENER || !tas_claim_test(p->region->claims, b->id))
		return -EINVAL;
	tas__claims_clear(b); /* forked children's, too: the id's next socket is not theirs */
	tas__sock_last_close(b);
	return 0;
}

/* ---- local connects that wait for room ---- */
void tas__listener_pend(struct tas_sock *l, struct tas_sock *conn)
{
	struct tas_sock **p = &l->u.lis.pending;

	while (*p)
		p = &(*p)->u.local.wait_next;
	conn->u.local.wait_next = NULL;
	conn->listener = l;
	*p = conn;
	l->u.lis.n_pending++;
	tas__timer_set(l, l->core->now + RETRY_NS);
}

void tas__listener_unpend(struct tas_sock *l, struct tas_sock *conn)
{
	struct tas_sock **p = &l->u.lis.pending;

	while (*p && *p != conn)
		p = &(*p)->u.local.wait_next;
	if (!*p)
		return;
	*p = conn->u.local.wait_next;
	conn->listener = NULL;
	l->u.lis.n_pending--;
}

static void hinted(struct tas_sock *l)
{
	/* an acceptor took one, or gave up and leaves it: whoever sleeps takes the next */
	if (!l->u.lis.news && tas__accept_queued(l)) {
		l->u.lis.news = 1;
		tas__wake_soon(l, TAS_WAKE_IN);
	}
	while (l->u.lis.pending && tas__accept_room(l)) {
		struct tas_sock *c = l->u.lis.pending;

		tas__listener_unpend(l, c);
		if (tas__local_establish(c, l) < 0) {
			tas__listener_pend(l, c);
			return;
		}
	}
}

void tas__listener_hint(struct tas_sock *l)
{
	tas_shared_in();
	hinted(l);
	tas_shared_out();
}

void tas__listener_timer(struct tas_sock *l)
{
	if (l->base.closed)
		return;
	tas__listener_hint(l);
	if (l->u.lis.pending)
		tas__timer_set(l, l->core->now + RETRY_NS);
}

/* Linux: closing a listener resets what waits in its queue.  What waits is in a list of our own: the entries in shared memory
 * are the application's to scribble on. */
void tas__listener_close(struct tas_sock *l)
{
	tas__sock_state(l, TAS_S_CLOSE);
	tas__accept_queued(l);
	while (l->u.lis.aq_head) {
		struct tas_sock *conn = l->u.lis.aq_head;

		aq_unlink(conn);
		/* claimed: an acceptor is about to take it out, or will find that another did and give it back */
		if (conn->base.closed || tas__claimed(&conn->base))
			continue;
		conn->base.closed = true;
		if (conn->base.kind == TAS_K_LINK)
			tas__wire_close(conn, true);
		else
			tas__local_close(conn, true);
	}
	while (l->u.lis.pending) {
		struct tas_sock *c = l->u.lis.pending;

		tas__listener_unpend(l, c);
		tas__local_abandon(c, ECONNREFUSED);
	}
	tas__wire_reset_embryos(l);
	tas__sock_free(l);
}
