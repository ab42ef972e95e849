/* SPDX-License-Identifier: MIT */
/* Reads programs: "program NAME", lines, perhaps "expect" and the lines of a trace, "end". */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

const char *const slot_names[] = { "A", "T1", "T2", "T3", "C1", "C2", "C3", "P" };

int slot_find(const char *text, size_t len)
{
	for (int i = 0; i < N_SLOTS; i++)
		if (strlen(slot_names[i]) == len && !strncmp(slot_names[i], text, len))
			return i;
	return -1;
}

static bool is_var(const char *t)
{
	return t[0] >= 'a' && t[0] <= 'z' && !t[1];
}

static int argument(struct step *s, char *t)
{
	long value, sum = 0;
	char *end, *save;
	int i = s->n_args;

	if (strpbrk(t, "@:")) {
		snprintf(s->addr, sizeof(s->addr), "%s", t);
		if (s->n_args)
			return 0;
		return -1;
	}
	if (i == N_ARGS)
		return -1;
	s->n_args++;
	s->arg[i].kind = ARG_NUMBER;
	if (is_var(t)) {
		s->arg[i].kind = ARG_VAR;
		s->arg[i].value = t[0] - 'a';
		return 0;
	}
	if (slot_find(t, strlen(t)) >= 0) {
		s->arg[i].kind = ARG_SLOT;
		s->arg[i].value = slot_find(t, strlen(t));
		return 0;
	}
	s->arg[i].value = strtol(t, &end, 0);
	if (end != t && !*end)
		return 0;
	for (t = strtok_r(t, "|", &save); t; t = strtok_r(NULL, "|", &save)) {
		if (!constant_find(t, strlen(t), &value))
			return -1;
		sum |= value;
	}
	s->arg[i].value = sum;
	return 0;
}

static int step_read(struct program *p, char *line)
{
	struct step *s = &p->step[p->n_steps];
	char *save, *t = strtok_r(line, " \t\n", &save);
	char *result = NULL;

	if (!t || *t == '#')
		return 0;
	if (p->n_steps == N_STEPS)
		return -1;
	memset(s, 0, sizeof(*s));
	s->to = s->to_second = -1;
	if (t[strlen(t) - 1] == ':') {
		s->actor = slot_find(t, strlen(t) - 1);
		if (s->actor < 0)
			return -1;
		t = strtok_r(NULL, " \t\n", &save);
	}
	p->uses[s->actor] = true;
	while (t && (is_var(t) || slot_find(t, strlen(t)) >= 0 || !strcmp(t, "="))) {
		if (is_var(t) && s->to < 0)
			s->to = t[0] - 'a';
		else if (is_var(t))
			s->to_second = t[0] - 'a';
		else if (*t != '=')
			result = t; /* C1 = fork */
		t = strtok_r(NULL, " \t\n", &save);
	}
	s->op = t ? op_find(t) : -1;
	if (s->op < 0)
		return -1;
	if (result && argument(s, result))
		return -1;
	while ((t = strtok_r(NULL, " \t\n", &save)))
		if (argument(s, t))
			return -1;
	if (s->n_args + (*s->addr != 0) < ops[s->op].n_args)
		return -1;
	p->n_steps++;
	return 0;
}

int program_read(struct program *p)
{
	static char line[LINE], copy[LINE];
	bool expect = false;

	for (int i = 0; i < p->n_expect; i++)
		free(p->expect[i]);
	memset(p, 0, sizeof(*p));
	do {
		if (!fgets(line, sizeof(line), stdin))
			return 0;
	} while (sscanf(line, "program %63s", p->name) != 1);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strcmp(line, "end"))
			return 1;
		if (!strcmp(line, "expect")) {
			expect = true;
		} else if (expect) {
			if (p->n_expect < N_STEPS)
				p->expect[p->n_expect++] = strdup(line);
		} else {
			snprintf(copy, sizeof(copy), "%s", line);
			if (step_read(p, line)) {
				fprintf(stderr, "%s: not understood: %s\n", p->name, copy);
				return -1;
			}
		}
	}
	return 0;
}
