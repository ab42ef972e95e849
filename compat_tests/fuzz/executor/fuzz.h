/* SPDX-License-Identifier: MIT */
/*
 * Executor of the differential fuzzer: a conductor that reads programs, and actors that make the calls.
 *
 * The conductor is never under the interposer.  It starts the process "A" (the subject) and "P" (always on the kernel, at
 * the other end of the link); threads T1..T3 of A and forked children C1..C3 come up when a program asks for them.  Orders
 * and results travel through shared memory with futexes, so that actors own no descriptors and the numbers which calls give
 * are those that any small program would get.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum { N_ARGS = 20, N_VARS = 26, TEXT = 1024, DATA_MAX = 1 << 18, MANY = 30000 };

enum slot_name { SLOT_A, SLOT_T1, SLOT_T2, SLOT_T3, SLOT_C1, SLOT_C2, SLOT_C3, SLOT_P, N_SLOTS };

enum slot_state { SLOT_NONE, SLOT_IDLE, SLOT_ASKED, SLOT_RUNNING, SLOT_DONE };

struct slot {
	_Atomic uint32_t state; /* enum slot_state; the actor sleeps on it */
	_Atomic int pid, tid;   /* of whoever serves this slot */
	int op, n_args;
	long arg[N_ARGS];
	int8_t var[N_ARGS]; /* the variable that the argument came from, or -1 */
	struct sockaddr_storage addr;
	socklen_t addr_len;
	long ret;
	int error, port;   /* port: of the socket after bind or listen, else 0 */
	int second;        /* what else the call made (the other end of a pair), or -1 */
	char text[TEXT];
	/* What to look at, alone or right after the call; looked: what was seen. */
	int n_look, look[N_ARGS];
	int8_t look_var[N_ARGS];
	char looked[TEXT];
};

struct shared {
	_Atomic uint32_t done; /* counts results; the conductor sleeps on it */
	int conductor;
	char lie[16]; /* how results of A are falsified, to prove that it is noticed */
	struct slot slot[N_SLOTS];
};

struct op {
	const char *name;
	void (*run)(struct slot *s);
	int n_args; /* at least */
};

/* Not compared, each with the reason: the only place.  `executor --allowed` prints the list. */
#define ALLOWED(X) \
	X(order, "order of events of one epoll_wait: sorted by the user's data") \
	X(choice, "which members a full epoll_wait reports when more are ready: only how many (and such programs use no ET, no ONESHOT)") \
	X(ports, "port numbers: p1, p2, ... in the order in which the trace shows them") \
	X(fill, "how much a socket takes until it would block: the operation fill says only that it did, and more than " \
		"30000 bytes to read are many") \
	X(drain, "in which pieces a full stream comes: the operation drain says only how it ended") \
	X(delay, "when something happens at a distance: up to the limit of settle(), until the trace is the expected one") \
	X(several, "what a poll, select or epoll_wait that slept reports: only that it was woken, for its thread may run between two " \
		   "of several events of one step") \
	X(nagle, "delays of small segments: every socket is given TCP_NODELAY")

extern const struct op ops[];
extern const struct option {
	const char *name;
	int level, option, size;
} options[];
extern const size_t n_options;
extern struct shared *shared;

int op_find(const char *name);
int constant_find(const char *text, size_t len, long *value);
void events_text(char *to, size_t room, unsigned int ev);

void actor_loop(int slot) __attribute__((noreturn));
int actor_main(int slot, const char *shm);
void futex_wait(_Atomic uint32_t *word, uint32_t value, long ns);
void futex_wake(_Atomic uint32_t *word);

#endif
