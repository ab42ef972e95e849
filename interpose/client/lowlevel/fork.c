/* SPDX-License-Identifier: MIT */
/*
 * fork.  The parent asks for a place for its child first (TAS_MSG_FORK_PREPARE: the service copies the claims at that
 * moment; nobody can change them, because every lock is held).  The child maps its own region over the parent's at the
 * same address, and speaks on its own control socket.  Chunks stay mapped: parent and child are one memory set.  The
 * service takes a hang-up of the child's control socket before its first word for its death, so a failed fork cleans
 * itself up.
 */
#include <string.h>

#include "lowlevel/private.h"

static struct tas_session *forking; /* between prepare and parent/child; every lock is held */

void tas__fork_prepare(void)
{
	struct tas_session *ss = tas__session_get();
	struct tas_msg m = {.op = TAS_MSG_FORK_PREPARE};
	int pair[2], in[2];
	unsigned n = 2;

	tas__mutex_lock(&tas__attach_lock);
	forking = ss;
	if (!ss)
		return;
	tas__mutex_lock(&ss->ws_lock);
	ss->child.ctl = ss->child.door = ss->child.region = -1;
	if (sys4(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, SYS_P(pair)) == 0) {
		int r = tas__rpc(ss, &m, &pair[1], 1, in, &n);

		sys_close(pair[1]);
		if (r == 0 && m.err == 0 && n == 2 && m.u.attached.region_size <= ss->size) {
			ss->child.ctl = pair[0];
			ss->child.region = in[0];
			ss->child.door = in[1];
		} else {
			sys_close(pair[0]);
			while (r == 0 && n)
				sys_close(in[--n]);
		}
	}
	ss->child.size = m.u.attached.region_size;
	tas__mutex_lock(&ss->rpc);
}

void tas__fork_parent(void)
{
	struct tas_session *ss = forking;

	tas__mutex_unlock(&tas__attach_lock);
	if (!ss)
		return;
	if (ss->child.ctl >= 0) {
		sys_close(ss->child.ctl);
		sys_close(ss->child.region);
		sys_close(ss->child.door);
	}
	tas__mutex_unlock(&ss->rpc);
	tas__mutex_unlock(&ss->ws_lock);
	tas__session_put(ss);
}

static void drop_parents(struct tas_session *ss)
{
	tas__internal_close(atomic_exchange(&ss->ctl, -1));
	tas__internal_close(atomic_exchange(&ss->door, -1));
	for (unsigned i = 0; i < TAS_WS_MAX; i++)
		if (ss->ws_open[i / 64] & 1ull << (i % 64))
			tas__internal_close(ss->ws_fd[i]);
	memset(ss->ws_open, 0, sizeof ss->ws_open);
	memset(ss->ws_busy, 0, sizeof ss->ws_busy);
}

void tas__fork_child(void)
{
	struct tas_session *ss = forking;
	struct tas_msg m = {0};
	void *r = NULL;

	tas__tid_changed();
	atomic_store(&tas__attach_lock.w, 0);
	if (!ss)
		return;
	drop_parents(ss);
	if (ss->child.ctl >= 0)
		r = sys_mmap(ss->r, ss->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
			     ss->child.region);
	if (ss->child.ctl >= 0)
		sys_close(ss->child.region);
	if (r) {
		ss->slot = ss->r->h.proc_slot;
		atomic_store(&ss->ctl, tas__internal_fd(ss->child.ctl));
		atomic_store(&ss->door, tas__internal_fd(ss->child.door));
		tas__tell(atomic_load(&ss->ctl), &m, TAS_MSG_FORK_CHILD);
	} else if (ss->child.ctl >= 0) {
		sys_close(ss->child.ctl);
		sys_close(ss->child.door);
	}
	atomic_store(&ss->rpc.w, 0);
	atomic_store(&ss->ws_lock.w, 0);
	/* without a place of its own the child must not touch the parent's region: what it inherited is gone for it */
	if (!r)
		tas__session_died(ss);
	tas__session_put(ss);
}
