/* SPDX-License-Identifier: MIT */
/*
 * What the service answers to each message: a table of handlers, with what each of them expects.  Nothing that comes from
 * the application is believed: who it is says the kernel (SCM_CREDENTIALS), which socket it means say the descriptor and
 * the set it belongs to.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "slow/admin.h"
#include "slow/control.h"
#include "slow/epset.h"
#include "slow/identity.h"
#include "slow/memory.h"
#include "slow/process.h"
#include "slow/request.h"

enum { HINT_ROUNDS = 64 };

static void reply_fd(struct tas_request *q, int fd, bool close_it)
{
	q->rep_fd[q->n_rep_fds] = fd;
	q->rep_fd_close[q->n_rep_fds++] = close_it;
}

static void reply_attached(struct tas_request *q, const struct tas_proc *p, int region)
{
	q->rep.u.attached.abi = TAS_ABI_MAX;
	q->rep.u.attached.proc_slot = p->slot;
	q->rep.u.attached.region_size = p->region->h.size;
	q->rep.u.attached.instance = p->region->h.instance;
	q->rep.u.attached.set_id = p->set->id;
	reply_fd(q, region, true);
	reply_fd(q, p->doorbell.fd, false);
}

/* A socket of the caller's set, or NULL. */
static struct tas_sock_base *own_sock(const struct tas_proc *p, uint32_t id, uint32_t gen)
{
	struct tas_sock_base *s = id < TAS_SOCK_MAX ? tas__sock(id, gen) : NULL;

	return s && tas__set_reaches(p->set, s->set) && !s->closed ? s : NULL;
}

/* ---- attach, fork, exec ---- */
static void comm_copy(char *to, const char *from, size_t n)
{
	size_t i;

	for (i = 0; i + 1 < n && from[i]; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[i] = '\0';
}

static int hello(struct tas_request *q)
{
	char comm[sizeof q->msg.u.hello.comm];
	struct tas_proc *old, *p;
	int err, region;

	if (q->s->proc)
		return -EISCONN;
	comm_copy(comm, q->msg.u.hello.comm, sizeof comm);
	if (q->msg.u.hello.abi_min > TAS_ABI_MAX || q->msg.u.hello.abi_max < TAS_ABI_MIN) {
		tas_warn("%s (pid %d) speaks ABI %u to %u, this service %u to %u: not attached", comm, (int)q->cred.pid,
			 q->msg.u.hello.abi_min, q->msg.u.hello.abi_max, TAS_ABI_MIN, TAS_ABI_MAX);
		q->rep.u.hello.abi_min = TAS_ABI_MIN;
		q->rep.u.hello.abi_max = TAS_ABI_MAX;
		return -EPROTO;
	}
	old = tas__proc_by_pid(q->cred.pid, q->cred.uid, q->cred.gid);
	err = tas__proc_new(old && !tas__set_dead(old->set) ? old->set : NULL, q->cred.uid, q->cred.gid, comm, &p, &region);
	if (err)
		return err;
	err = tas__proc_identify(p, q->cred.pid, q->s->io.fd);
	if (err) {
		close(region);
		tas__proc_end(p);
		return err;
	}
	/* Another living session of this process (two copies of the library in it) keeps what it has. */
	if (old && (old->between || !old->session))
		tas__proc_succeed(old, p);
	q->s->proc = p;
	p->session = q->s;
	reply_attached(q, p, region);
	return 0;
}

/* One end of a pair that the sender made: no other socket, which could lead back to the service itself. */
static bool is_control_socket(int fd, pid_t sender)
{
	int domain = 0, type = 0;
	struct ucred maker;
	socklen_t len = sizeof domain, mlen = sizeof maker;

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_UNIX &&
	       !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_SEQPACKET &&
	       !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &maker, &mlen) && maker.pid == sender;
}

static int fork_prepare(struct tas_request *q)
{
	struct tas_proc *parent = q->s->proc, *p;
	int err, region;

	if (!is_control_socket(q->fd[0], q->cred.pid))
		return -ENOTSOCK;
	/* as whom it runs by now: privileges may have been dropped since it attached */
	err = tas__proc_new(parent->set, q->cred.uid, q->cred.gid, parent->comm, &p, &region);
	if (err)
		return err;
	p->session = tas__session_new(q->fd[0], p);
	q->fd[0] = -1;
	if (!p->session) {
		close(region);
		tas__proc_end(p);
		return -ENOMEM;
	}
	tas__proc_copy_claims(p, parent);
	p->mail_ended = parent->mail_ended;
	tas__epsets_fork(p, parent);
	reply_attached(q, p, region);
	return 0;
}

/* The credentials were looked at for every message of a process without pid: tas__request(). */
static int fork_child(struct tas_request *q)
{
	q->silent = true;
	return 0;
}

static int exec_begin(struct tas_request *q)
{
	q->s->proc->exec_pending = true;
	return 0;
}

static int exec_failed(struct tas_request *q)
{
	q->s->proc->exec_pending = false;
	return 0;
}

/* ---- sockets by descriptor ---- */
static int resolve(struct tas_request *q)
{
	struct tas_proc *p = q->s->proc;
	struct tas_sock_base *s;
	struct tas_ident i;
	int err = tas__ident_read(q->fd[0], &i);

	if (err) /* whatever it is, it is not ours */
		return TAS_FALLBACK;
	s = tas__sock_by_cookie(i.cookie);
	if (!s || s->closed || s->ident.ino != i.ino)
		return TAS_FALLBACK;
	if (!tas__set_reaches(p->set, s->set) && tas__proc_move(p, s->set)) {
		err = tas__sock_share(s, p->set);
		if (err)
			return err;
	}
	tas_claim_set(p->region->claims, s->id);
	tas__sock_taken(p, s);
	q->rep.u.sock = (struct tas_msg_sock){ .id = s->id, .gen = s->gen, .block = s->block, .set_id = p->set->id };
	return 0;
}

static int watch_one(const struct tas_proc *p, uint32_t id, int fd, uint32_t flags)
{
	struct tas_sock_base *s = own_sock(p, id, 0), *known;
	struct tas_ident i;
	int err;

	if (!s || !tas_claim_test(p->region->claims, id))
		return -ENOENT;
	err = tas__ident_read(fd, &i);
	if (err)
		return err;
	known = tas__sock_by_cookie(i.cookie);
	if ((known && known != s) || (s->ident.cookie && s->ident.cookie != i.cookie))
		return -EINVAL;
	if (!s->ident.cookie)
		tas__sock_identify(s, &i);
	err = tas__watch_add(s, fd);
	s->watched |= !err && !(flags & TAS_WATCH_TOO);
	return err;
}

static int watch_not(const struct tas_proc *p, const struct tas_msg *m)
{
	for (uint32_t i = 0; i < m->u.watch.n && i < TAS_MSG_FDS_MAX; i++) {
		struct tas_sock_base *s = own_sock(p, m->u.watch.id[i], 0);

		if (s && !s->watched)
			tas__watch_del(s);
	}
	return 0;
}

/* Watches as many as can be; tells the first failure. */
static int watch(struct tas_request *q)
{
	int first = 0;

	q->silent = q->msg.u.watch.flags & TAS_WATCH_SILENT;
	if (q->msg.u.watch.flags & TAS_WATCH_NOT)
		return watch_not(q->s->proc, &q->msg);
	if (q->msg.u.watch.n != q->n_fds)
		return -EINVAL;
	for (unsigned i = 0; i < q->n_fds; i++) {
		int err = watch_one(q->s->proc, q->msg.u.watch.id[i], q->fd[i], q->msg.u.watch.flags);

		first = first ? first : err;
	}
	return first;
}

/* ---- bridges ---- */
static int bridge(struct tas_request *q)
{
	struct tas_sock_base *s;
	struct tas_ident i;
	int err = tas__ident_read(q->fd[0], &i), program;

	s = err ? NULL : tas__sock_by_cookie(i.cookie);
	if (!s || s->closed || s->ident.ino != i.ino || s->kind == TAS_K_LISTENER)
		return TAS_FALLBACK;
	if (q->s->n_bridges == TAS_SESSION_BRIDGES)
		return -ENOBUFS;
	err = tas__watch_add(s, q->fd[0]);
	if (err)
		return err;
	err = tas__bridge_new(s, q->fd[0], &program, &q->s->bridge[q->s->n_bridges]);
	if (err)
		return err;
	s->watched = true; /* the bridge has the backing socket: its end is a close like others */
	q->fd[0] = -1;
	q->s->n_bridges++;
	reply_fd(q, program, true);
	return 0;
}

static int bridge_cancel(struct tas_request *q)
{
	while (q->s->n_bridges)
		tas__bridge_end(q->s->bridge[--q->s->n_bridges]);
	return 0;
}

/* ---- memory and wait sets ---- */
static int chunk(struct tas_request *q)
{
	const struct tas_set *set = q->s->proc->set, *shared;
	uint32_t number = TAS_CHUNK_NUMBER(q->msg.u.chunk.index), index = TAS_CHUNK_INDEX(q->msg.u.chunk.index);

	if (number) {
		shared = tas__set_numbered(number);
		if (!shared || !tas__set_reaches(set, shared))
			return -ENOENT;
		set = shared;
	}
	if (index >= set->n_chunks)
		return -ENOENT;
	q->rep.u.chunk.index = q->msg.u.chunk.index;
	reply_fd(q, set->chunk[index]->fd, false);
	return 0;
}

static void ws_close_one(struct tas_proc *p, uint32_t index)
{
	if (p->ws_efd[index] < 0)
		return;
	close(p->ws_efd[index]);
	p->ws_efd[index] = -1;
	p->n_ws--;
}

/* The service will write to it: it must not be something whose write can wait for somebody. */
static bool is_eventfd(int fd)
{
	char path[32], what[32] = "";

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return readlink(path, what, sizeof what - 1) > 0 && !strcmp(what, "anon_inode:[eventfd]");
}

static int ws_open(struct tas_request *q)
{
	struct tas_proc *p = q->s->proc;
	uint32_t index = q->msg.u.ws.index;
	int flags;

	if (index >= TAS_WS_MAX || !is_eventfd(q->fd[0]))
		return -EINVAL;
	flags = fcntl(q->fd[0], F_GETFL);
	if (flags < 0 || fcntl(q->fd[0], F_SETFL, flags | O_NONBLOCK))
		return -EINVAL;
	ws_close_one(p, index);
	p->ws_efd[index] = q->fd[0];
	p->n_ws++;
	q->fd[0] = -1;
	return 0;
}

static int ws_close(struct tas_request *q)
{
	if (q->msg.u.ws.index >= TAS_WS_MAX)
		return -EINVAL;
	ws_close_one(q->s->proc, q->msg.u.ws.index);
	return 0;
}

static int ordinary(struct tas_request *q)
{
	return tas__op_ordinary(q->s->proc, &q->msg, &q->rep);
}

static int locks(struct tas_request *q)
{
	return tas__op_locks(q->s->proc, &q->msg);
}

static int bell(struct tas_request *q)
{
	int fd = tas__op_bell(q->s->proc, &q->msg, &q->rep);

	if (fd < 0)
		return fd;
	reply_fd(q, fd, false);
	return 0;
}

static int bells_hear(struct tas_request *q)
{
	int fd = tas__op_bells_hear(q->s->proc, &q->msg, &q->rep);

	if (fd < 0)
		return fd;
	reply_fd(q, fd, true);
	return 0;
}

static int subscribe(struct tas_request *q)
{
	struct tas_sock_base *s = own_sock(q->s->proc, q->msg.u.subscribe.id, q->msg.u.subscribe.gen);

	if (!s)
		return -ENOENT;
	if (q->msg.u.subscribe.ws >= (q->msg.u.subscribe.flags & TAS_SUB_EPOLL ? (uint32_t)TAS_EP_MAX : (uint32_t)TAS_WS_MAX))
		return -EINVAL;
	return tas__sock_subscribe(s, q->s->proc, q->msg.u.subscribe.ws, q->msg.u.subscribe.flags);
}

static int unsubscribe(struct tas_request *q)
{
	struct tas_sock_base *s = own_sock(q->s->proc, q->msg.u.subscribe.id, q->msg.u.subscribe.gen);

	if (s)
		tas__sock_unsubscribe(s, q->s->proc, q->msg.u.subscribe.ws, q->msg.u.subscribe.flags);
	return 0;
}

/* ---- epoll sets ---- */
static int ep_open(struct tas_request *q)
{
	uint64_t token = q->msg.u.ep.token;
	struct tas_epset *e;
	int err;

	if (token) {
		err = tas__epset_find(q->s->proc, token, &e);
	} else {
		err = q->n_fds && is_eventfd(q->fd[0]) ? tas__epset_new(q->s->proc, q->fd[0], q->msg.u.ep.flags, &e) : -EINVAL;
		if (!err)
			q->fd[0] = -1;
	}
	if (err)
		return err;
	q->rep.u.ep.token = e->token;
	q->rep.u.ep.index = e->index;
	reply_fd(q, e->memfd, false);
	if (token)
		reply_fd(q, e->efd, false);
	return 0;
}

static int ep_made(struct tas_request *q)
{
	q->silent = true;
	tas__epset_made(q->s->proc, q->msg.u.ep.index);
	return 0;
}

static int ep_close(struct tas_request *q)
{
	q->silent = true;
	tas__epset_close(q->s->proc, q->msg.u.ep.index);
	return 0;
}

static int bells_end(struct tas_request *q)
{
	tas__epset_mute(q->s->proc, q->msg.u.ep.index);
	q->silent = true;
	return 0;
}

static int ep_keep(struct tas_request *q)
{
	q->silent = true;
	tas__epset_keep(q->s->proc, q->msg.u.ep.index);
	return 0;
}

static int ep_member(struct tas_request *q)
{
	struct tas_proc *p = q->s->proc;
	struct tas_sock_base *s =
		tas__epset_member(p, q->msg.u.subscribe.ws, q->msg.u.subscribe.id, q->msg.u.subscribe.gen);
	int err;

	if (!s)
		return -ENOENT;
	err = tas__set_reaches(p->set, s->set) ? 0 : tas__sock_share(s, p->set);
	if (err)
		return err;
	q->rep.u.sock = (struct tas_msg_sock){ .id = s->id, .gen = s->gen, .block = s->block, .set_id = p->set->id };
	return 0;
}

/* ---- passed on to fast/ ---- */
static int with_ident(struct tas_request *q, int (*op)(struct tas_proc *, const struct tas_ident *, const struct tas_msg *,
						       struct tas_msg *))
{
	struct tas_ident i;
	int err = tas__ident_read(q->fd[0], &i);

	return err ? err : op(q->s->proc, &i, &q->msg, &q->rep);
}

static int watch_too(struct tas_request *q, int r, uint32_t flags)
{
	struct tas_sock_base *s = !r && (flags & TAS_BIND_WATCH) ? tas__sock(q->rep.u.sock.id, q->rep.u.sock.gen) : NULL;

	if (s)
		tas__watch_add(s, q->fd[0]);
	return r;
}

static int do_bind(struct tas_request *q)
{
	return with_ident(q, tas__op_bind);
}

static int do_listen(struct tas_request *q)
{
	return watch_too(q, with_ident(q, tas__op_listen), q->msg.u.listen.flags);
}

static int do_connect(struct tas_request *q)
{
	struct tas_ident i;
	int r = tas__ident_read(q->fd[0], &i);

	if (!r)
		r = tas__op_connect(q->s->proc, &i, &q->msg, &q->rep);
	if (!r && !(q->msg.u.connect.flags & TAS_BIND_WATCH))
		q->rep.u.sock.ident = tas__ident_keep(q->s->proc, &i);
	return watch_too(q, r, q->msg.u.connect.flags);
}

static int mail_end(struct tas_request *q)
{
	struct tas_proc *p = q->s->proc;

	p->mail_ended = true;
	memset(p->ident, 0, sizeof p->ident);
	tas__direct_shut_in(p);
	tas__epsets_mute(p);
	return 0;
}

static int unlisten(struct tas_request *q)
{
	return tas__op_unlisten(q->s->proc, &q->msg);
}

static int info(struct tas_request *q)
{
	return tas__op_info(q->s->proc, &q->msg, &q->rep);
}

/* More sites than there is room for are not told apart: the last one stands for them. */
static int raw_site(struct tas_request *q)
{
	struct tas_proc *p = q->s->proc;
	const char *object = q->msg.u.raw.object;
	uint32_t i = 0;

	q->silent = true;
	if (!memchr(object, 0, sizeof q->msg.u.raw.object))
		return -EINVAL;
	while (i < p->n_raw && (p->raw[i].offset != q->msg.u.raw.offset || strcmp(p->raw[i].object, object)))
		i++;
	if (i == TAS_RAW_SITES)
		i--;
	else if (i == p->n_raw)
		p->n_raw++;
	strcpy(p->raw[i].object, object);
	p->raw[i].offset = q->msg.u.raw.offset;
	p->raw[i].count = q->msg.u.raw.count;
	p->raw[i].nr = q->msg.u.raw.nr;
	p->raw[i].caught = q->msg.u.raw.caught;
	return 0;
}

/* ---- tasctl ---- */
static int admin(struct tas_request *q)
{
	uint32_t cursor = q->msg.u.admin.cursor;
	int len = tas__admin_text(q->msg.u.admin.what, &cursor, q->text, TAS_MSG_TEXT_MAX);

	if (len < 0)
		return len;
	q->text_len = (size_t)len;
	q->rep.u.admin.what = q->msg.u.admin.what;
	q->rep.u.admin.more = cursor;
	q->rep.u.admin.text_len = (uint32_t)len;
	return 0;
}

static int do_shutdown(struct tas_request *q)
{
	if (q->cred.uid && q->cred.uid != geteuid())
		return -EPERM;
	tas_info("asked to end by pid %d", (int)q->cred.pid);
	tas_loop_stop();
	return 0;
}

/* ---- table ---- */
enum {
	ATTACHED = 1, /* the sender must have attached */
	HINTS = 2,    /* what the sender did before (a close, say) comes first */
};

static const struct {
	int (*fn)(struct tas_request *q);
	uint8_t fds_min, fds_max, flags;
} ops[] = {
	[TAS_MSG_HELLO] = { hello, 0, 0, 0 },
	[TAS_MSG_FORK_PREPARE] = { fork_prepare, 1, 1, ATTACHED },
	[TAS_MSG_FORK_CHILD] = { fork_child, 0, 0, ATTACHED },
	[TAS_MSG_BIND] = { do_bind, 1, 1, ATTACHED | HINTS },
	[TAS_MSG_LISTEN] = { do_listen, 1, 1, ATTACHED | HINTS },
	[TAS_MSG_UNLISTEN] = { unlisten, 0, 0, ATTACHED },
	[TAS_MSG_CONNECT] = { do_connect, 1, 1, ATTACHED | HINTS },
	[TAS_MSG_RESOLVE] = { resolve, 1, 1, ATTACHED | HINTS },
	[TAS_MSG_WATCH] = { watch, 0, TAS_MSG_FDS_MAX, ATTACHED | HINTS },
	[TAS_MSG_CHUNK] = { chunk, 0, 0, ATTACHED },
	[TAS_MSG_WS_OPEN] = { ws_open, 1, 1, ATTACHED },
	[TAS_MSG_WS_CLOSE] = { ws_close, 0, 0, ATTACHED },
	[TAS_MSG_SUBSCRIBE] = { subscribe, 0, 0, ATTACHED },
	[TAS_MSG_UNSUBSCRIBE] = { unsubscribe, 0, 0, ATTACHED },
	[TAS_MSG_EXEC_BEGIN] = { exec_begin, 0, 0, ATTACHED | HINTS },
	[TAS_MSG_EXEC_FAILED] = { exec_failed, 0, 0, ATTACHED },
	[TAS_MSG_BRIDGE] = { bridge, 1, 1, 0 },
	[TAS_MSG_BRIDGE_CANCEL] = { bridge_cancel, 0, 0, 0 },
	[TAS_MSG_EP_OPEN] = { ep_open, 0, 1, ATTACHED },
	[TAS_MSG_EP_MADE] = { ep_made, 0, 0, ATTACHED },
	[TAS_MSG_EP_CLOSE] = { ep_close, 0, 0, ATTACHED },
	[TAS_MSG_EP_KEEP] = { ep_keep, 0, 0, ATTACHED },
	[TAS_MSG_EP_MEMBER] = { ep_member, 0, 0, ATTACHED },
	[TAS_MSG_INFO] = { info, 0, 0, ATTACHED | HINTS },
	[TAS_MSG_ADMIN] = { admin, 0, 0, 0 },
	[TAS_MSG_SHUTDOWN] = { do_shutdown, 0, 0, 0 },
	[TAS_MSG_MAIL_END] = { mail_end, 0, 0, ATTACHED },
	[TAS_MSG_ORDINARY] = { ordinary, 0, 0, ATTACHED },
	[TAS_MSG_LOCKS] = { locks, 0, 0, ATTACHED },
	[TAS_MSG_BELLS_END] = { bells_end, 0, 0, ATTACHED },
	[TAS_MSG_BELL] = { bell, 0, 0, ATTACHED },
	[TAS_MSG_BELLS_HEAR] = { bells_hear, 0, 0, ATTACHED },
	[TAS_MSG_RAW] = { raw_site, 0, 0, ATTACHED },
};

static int answer(struct tas_request *q)
{
	const unsigned op = q->msg.op;

	if (op >= sizeof ops / sizeof ops[0] || !ops[op].fn)
		return -EINVAL;
	/* An old or new program may have a shorter or longer message; it learns that in words. */
	if (q->truncated || (q->len != sizeof q->msg && op != TAS_MSG_HELLO))
		return -EINVAL;
	if (q->fds_lost)
		return -EMFILE;
	if (q->n_fds != q->msg.n_fds || q->n_fds < ops[op].fds_min || q->n_fds > ops[op].fds_max)
		return -EINVAL;
	if ((ops[op].flags & ATTACHED) && !q->s->proc)
		return -ENOTCONN;
	for (unsigned i = 0; (ops[op].flags & HINTS) && i < HINT_ROUNDS; i++)
		if (!tas__proc_hints_all(q->s->proc))
			break;
	return ops[op].fn(q);
}

bool tas__request(struct tas_request *q)
{
	struct tas_proc *p = q->s->proc;

	if (!q->has_cred || q->len < offsetof(struct tas_msg, u.hello.comm) || q->msg.magic != TAS_ABI_MAGIC)
		return false;
	/* A reply of ours that comes in as a request: somebody gave us both ends.  It would have our rights. */
	if (q->cred.pid == getpid() && q->s->maker != getpid())
		return false;
	if (p && !p->pid && q->cred.pid) { /* a forked child: its first words tell who it is */
		if (q->cred.uid != p->uid || q->cred.gid != p->gid || tas__proc_identify(p, q->cred.pid, q->s->io.fd))
			return false;
	}
	if (p && p->pid && p->pid == q->cred.pid) { /* it may have dropped privileges since it attached */
		p->uid = q->cred.uid;
		p->gid = q->cred.gid;
	}
	q->rep = (struct tas_msg){ .magic = TAS_ABI_MAGIC, .op = q->msg.op, .seq = q->msg.seq };
	q->rep.err = answer(q);
	q->rep.n_fds = (uint16_t)q->n_rep_fds;
	return true;
}
