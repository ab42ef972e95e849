/* SPDX-License-Identifier: MIT */
#ifndef FUZZ_PROGRAM_H
#define FUZZ_PROGRAM_H

#include <stdbool.h>

#include "fuzz.h"

enum { N_STEPS = 512, LINE = 4096, ADDR_TEXT = 32 };

/* A line of a program: [ACTOR:] [VAR [VAR] =] OPERATION ARGUMENT...  (docs/conformance.md) */
struct step {
	int actor, op, n_args;
	int to, to_second; /* variables that the result goes to, or -1 */
	struct {
		enum { ARG_NUMBER, ARG_VAR, ARG_SLOT } kind;
		long value;
	} arg[N_ARGS];
	char addr[ADDR_TEXT]; /* "lo:0", "any:@a", "@a" ... or empty */
};

struct program {
	char name[64];
	int n_steps, n_expect;
	struct step step[N_STEPS];
	char *expect[N_STEPS];
	bool uses[N_SLOTS];
};

/* 1: a program; 0: end of input; -1: not understood (said on stderr) */
int program_read(struct program *p);
int slot_find(const char *text, size_t len);
extern const char *const slot_names[];

#endif
