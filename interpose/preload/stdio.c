// SPDX-License-Identifier: MIT
/*
 * FILE on sockets.  libc's streams call read and write inside libc, where no wrapper stands.  So fdopen() on a TAS
 * socket makes a cookie stream whose functions are our wrappers, and gives it the number: glibc's cookie streams keep
 * no number of their own (fileno() fails), but fileno() answers what _fileno says, and nothing else in such a stream
 * reads it.
 *
 * The standard streams are replaced likewise when their numbers become TAS sockets.
 *
 * fclose() of any other stream may drop a TAS number (0, 1, 2 after dup2), which the client library is told before.
 */
#include <limits.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload.h"

/* glibc's flags of a stream that may not be read, written */
enum { NO_READS = 4, NO_WRITES = 8 };

static ssize_t cookie_read(void *cookie, char *buf, size_t n)
{
	return tas__w_read((int)(intptr_t)cookie, buf, n);
}

/* The stream calls everything short an error, where libc's own function goes on writing. */
static ssize_t cookie_write(void *cookie, const char *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = tas__w_write((int)(intptr_t)cookie, buf + done, n - done);

		if (r < 0)
			break;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

static int cookie_seek(void *cookie, off64_t *off, int whence)
{
	off64_t r = lseek64((int)(intptr_t)cookie, *off, whence);

	if (r < 0)
		return -1;
	*off = r;
	return 0;
}

static int cookie_close(void *cookie)
{
	return tas__w_close((int)(intptr_t)cookie);
}

static FILE *cookie_stream(int fd, const char *mode)
{
	static const cookie_io_functions_t functions = {cookie_read, cookie_write, cookie_seek, cookie_close};
	FILE *f = fopencookie((void *)(intptr_t)fd, mode, functions);

	if (f)
		f->_fileno = fd;
	return f;
}

FILE *tas__w_fdopen(int fd, const char *mode)
{
	if (likely(tas__kernel(fd)) || !tas__is_ours(fd))
		return tas__real.fdopen(fd, mode);
	return cookie_stream(fd, mode);
}
TAS_SAME(_IO_fdopen, fdopen);

/* The number of a stream, or -1; errno stays. */
static int number(FILE *f)
{
	int err = errno;
	int fd = fileno(f);

	errno = err;
	return fd;
}

/* Is f one of our cookie streams?  They are the only ones with a number whose vtable is the one that a fresh cookie
 * stream has; it lies behind the FILE (struct _IO_FILE_plus). */
static bool is_cookie(FILE *f)
{
	static const void *table;
	const void *const *vtable = (const void *const *)(f + 1);

	if (!__atomic_load_n(&table, __ATOMIC_RELAXED)) {
		cookie_io_functions_t none = {NULL, NULL, NULL, NULL};
		FILE *sample = fopencookie(NULL, "r", none);

		if (!sample)
			return false;
		__atomic_store_n(&table, *(const void *const *)(sample + 1), __ATOMIC_RELAXED);
		tas__real.fclose(sample);
	}
	return *vtable == table;
}

/*
 * Number fd, 0 to 2, has become a socket of TAS: the program started with it (inetd), or dup2 put it there.  libc's
 * functions look at the variables stdin, stdout, stderr, so those get a cookie stream; what the old stream still had to
 * write goes along, as it does when a number changes under a stream.
 */
void tas__standard_stream(int fd)
{
	FILE **var = fd == 0 ? &stdin : fd == 1 ? &stdout : &stderr, *old = *var, *f;

	if (!tas__is_ours(fd) || number(old) != fd || is_cookie(old))
		return;
	f = cookie_stream(fd, fd == 0 ? "r" : "w");
	if (!f)
		return;
	if (fd == 2)
		setvbuf(f, NULL, _IONBF, 0);
	else if (__flbf(old))
		setvbuf(f, NULL, _IOLBF, BUFSIZ);
	if (__fpending(old))
		fwrite_unlocked(old->_IO_write_base, 1, __fpending(old), f);
	__fpurge(old);
	*var = f;
}

static void note_stream(FILE *f)
{
	int fd = number(f);

	if (fd >= 0 && !tas__kernel(fd) && !tas__passive() && !is_cookie(f))
		tas_note_close(fd);
}

int tas__w_fclose(FILE *f)
{
	note_stream(f);
	return tas__real.fclose(f);
}
TAS_SAME(_IO_fclose, fclose);

/* glibc cannot freopen a cookie stream (it dereferences wide data that such a stream has not): put the new file on the
 * stream's number instead; our functions go where the number goes. */
static FILE *reopen_cookie(const char *path, const char *mode, FILE *f)
{
	int fd = number(f);
	FILE *fresh;

	fflush(f);
	__fpurge(f);
	clearerr(f);
	errno = ENXIO; /* the same file again: sockets cannot be opened */
	fresh = path ? fopen(path, mode) : NULL;
	if (!fresh || tas__w_dup2(fileno(fresh), fd) < 0) {
		int err = errno;

		if (fresh)
			tas__real.fclose(fresh);
		tas__real.fclose(f);
		errno = err;
		return NULL;
	}
	tas__real.fclose(fresh);
	f->_flags &= ~(NO_READS | NO_WRITES);
	if (!strchr(mode, '+'))
		f->_flags |= mode[0] == 'r' ? NO_WRITES : NO_READS;
	return f;
}

FILE *tas__w_freopen(const char *path, const char *mode, FILE *f)
{
	int fd = number(f);

	if (fd >= 0 && !tas__kernel(fd) && !tas__passive() && is_cookie(f))
		return reopen_cookie(path, mode, f);
	note_stream(f);
	return tas__real.freopen(path, mode, f);
}

FILE *tas__w_freopen64(const char *path, const char *mode, FILE *f)
{
	int fd = number(f);

	if (fd >= 0 && !tas__kernel(fd) && !tas__passive() && is_cookie(f))
		return reopen_cookie(path, mode, f);
	note_stream(f);
	return tas__real.freopen64(path, mode, f);
}

/* dprintf to one of our sockets: format, then write all. */
static int print(int fd, const char *format, va_list ap)
{
	char *text;
	int n = vasprintf(&text, format, ap);

	for (int done = 0; done < n;) {
		ssize_t r = tas__w_write(fd, text + done, (size_t)(n - done));

		if (r < 0) {
			n = -1;
			break;
		}
		done += (int)r;
	}
	free(text);
	return n;
}

int tas__w_vdprintf(int fd, const char *format, va_list ap)
{
	if (likely(tas__kernel(fd)) || !tas__is_ours(fd))
		return tas__real.vdprintf(fd, format, ap);
	return print(fd, format, ap);
}

int tas__w___vdprintf_chk(int fd, int flag, const char *format, va_list ap)
{
	if (likely(tas__kernel(fd)) || !tas__is_ours(fd))
		return tas__real.__vdprintf_chk(fd, flag, format, ap);
	return print(fd, format, ap);
}

int tas__w_dprintf(int fd, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = tas__w_vdprintf(fd, format, ap);
	va_end(ap);
	return n;
}

int tas__w___dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = tas__w___vdprintf_chk(fd, flag, format, ap);
	va_end(ap);
	return n;
}
