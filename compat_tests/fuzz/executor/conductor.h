/* SPDX-License-Identifier: MIT */
#ifndef FUZZ_CONDUCTOR_H
#define FUZZ_CONDUCTOR_H

#include "program.h"

enum { PROGRAMS_PER_PROCESS = 48, RESULT_MS = 3000, STUCK_MS = 20000, MUCH_MS = 1500 /* patience of programs marked + */ };
enum outcome { DONE, ASLEEP, LOST, AGAIN /* after exec */ };

extern struct config {
	const char *preload, *service, *peer_ns;
	char shm[64];
	int control; /* the service's control socket; -1: the subject is the kernel */
} config;

/* processes.c */
extern pid_t process_a, process_p;
extern bool waiting[N_SLOTS]; /* its call sleeps */
extern int programs_run;      /* in process_a */

long now_ms(void);
bool ready_within(int n, long ms);
void end_process(pid_t pid);
bool wait_gone(pid_t pid);
void end_children(void);
void begin_subject(void);
void begin_peer(void);
int process_of(int n); /* the slot of its main thread */
bool gone(int n);
void barrier(int rounds);
bool is_done(int n);
bool is_asleep(int n);
void ask(int n);
enum outcome await(int n, long patience);
bool order(int n, const char *name, int n_args, const long *arg);

/* step.c */
void steps_begin(long settle, bool twice);
bool run_step(const struct step *s, int index, const char *expect, bool looks, char *line);

#endif
