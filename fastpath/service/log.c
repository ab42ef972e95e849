/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>

#include "fast/core.h"

static void say(const char *fmt, va_list ap)
{
	char line[512];
	int n = snprintf(line, sizeof(line), "tas: ");

	vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
	fprintf(stderr, "%s\n", line); /* one write: lines of several instances do not mix */
}

void tas_info(const char *fmt, ...)
{
	va_list ap;

	if (tas_config.quiet)
		return;
	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

void tas_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}
