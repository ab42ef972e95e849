/* SPDX-License-Identifier: MIT */
/* The operations of a program: each makes its call and writes what is to be seen of it. */
#ifndef FUZZ_OPS_H
#define FUZZ_OPS_H

#include "fuzz.h"

/* name, arguments at least */
#define OPS(X) \
	X(socket, 2) X(socketpair, 1) X(pipe, 0) X(eventfd, 1) X(bind, 2) X(listen, 2) X(connect, 2) \
	X(dissolve, 1) X(accept, 2) X(getsockname, 1) X(getpeername, 1) X(send, 3) X(write, 2) X(notify, 1) \
	X(recv, 3) X(read, 2) X(writev, 2) X(readv, 2) X(sendmsg, 3) X(recvmsg, 3) X(fill, 1) X(sendmmsg, 3) \
	X(recvmmsg, 3) X(sendfile, 2) X(splice, 3) X(close_range, 2) X(drain, 1) X(shutdown, 2) X(close, 1) \
	X(dup, 1) X(dup2, 2) X(dup3, 2) X(dupfd, 2) X(setfl, 2) X(getfl, 1) X(setfd, 2) X(getfd, 1) \
	X(fionbio, 2) X(fionread, 1) X(sockatmark, 1) X(setopt, 3) X(getopt, 2) X(poll, 1) X(select, 1) \
	X(epoll, 0) X(ctl, 4) X(ewait, 3) X(sendfd, 2) X(recvfd, 1) X(fork, 0) X(exec, 0) X(exit, 0) \
	X(handler, 2) X(thread, 1) X(reset, 0) X(look, 0)

#define DECLARE(name, n_args) void op_##name(struct slot *s);
OPS(DECLARE)
#undef DECLARE

void say(struct slot *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void say_address(struct slot *s, const struct sockaddr_storage *a, socklen_t len);
void result(struct slot *s, long ret);
void made(struct slot *s, long ret);

#endif
