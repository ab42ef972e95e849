/* SPDX-License-Identifier: MIT */
/* One message from an application on its way through the service.  Private to slow/. */
#ifndef TAS_REQUEST_H
#define TAS_REQUEST_H

#include <sys/socket.h>

#include "slow/stack.h"

enum { TAS_SESSION_BRIDGES = 64 };

struct tas_session {
	struct tas_pollable io; /* first */
	struct tas_proc *proc;  /* NULL: has not attached (tasctl never does) */
	uid_t uid;              /* of who connected, for limits */
	pid_t maker;            /* who made the connection or the pair */
	struct tas_bridge *bridge[TAS_SESSION_BRIDGES]; /* to be started when this hangs up */
	unsigned n_bridges;
	struct tas_session *next, **pprev;
};

enum { TAS_REPLY_FDS_MAX = 2, TAS_REQUEST_FDS_ROOM = 253 /* SCM_MAX_FD of Linux */ };

struct tas_request {
	struct tas_session *s;
	struct tas_msg msg;
	size_t len;
	struct ucred cred; /* of the sender, from the kernel */
	bool has_cred;
	bool truncated;
	bool fds_lost; /* no free number here */
	int fd[TAS_REQUEST_FDS_ROOM]; /* closed after the answer; -1: a handler kept it */
	unsigned n_fds;

	struct tas_msg rep;
	int rep_fd[TAS_REPLY_FDS_MAX];
	bool rep_fd_close[TAS_REPLY_FDS_MAX];
	unsigned n_rep_fds;
	char *text; /* room for TAS_MSG_TEXT_MAX */
	size_t text_len;
	bool silent; /* no reply */
};

/* Answers q: fills rep and what belongs to it.  False: nonsense that ends the session. */
bool tas__request(struct tas_request *q);

/* A session on fd, which it owns from now on, also on failure.  NULL: no memory. */
struct tas_session *tas__session_new(int fd, struct tas_proc *p);

#endif
