/* SPDX-License-Identifier: MIT */
#ifndef TAS_OPTIONS_H
#define TAS_OPTIONS_H

#include <stdio.h>

#include "fast/config.h"

enum { TAS_OPTIONS_RUN = 0, TAS_OPTIONS_DONE = 1, TAS_OPTIONS_BAD = 2 };

/* Fills *c with defaults and the command line.  DONE: --help or --version was answered on out.  BAD: the reason is on err. */
int tas__options(int argc, char **argv, struct tas_config *c, FILE *out, FILE *err);

#endif
