// SPDX-License-Identifier: MIT
/*
 * Calls before any constructor has run: a malloc that reads a file when it is first used, as jemalloc does, and a
 * constructor that uses sockets.  Built twice: as the library (EARLY_LIBRARY) that does this, and as the program linked
 * to it.
 */
#include "say.h"

#ifdef EARLY_LIBRARY

void *__libc_malloc(size_t n);
void *malloc(size_t n);
int early_result(int which);

static int reads, sockets;

void *malloc(size_t n)
{
	static int first = 1;
	char c;

	if (first) {
		int fd = open("/dev/zero", O_RDONLY);

		first = 0;
		reads = read(fd, &c, 1) == 1;
		close(fd);
	}
	return __libc_malloc(n);
}

__attribute__((constructor(101))) static void before_all(void)
{
	void *volatile first = malloc(1);
	int s[2];
	char c;

	free(first);
	tcp_pair(s);
	sockets = write(s[0], "x", 1) == 1 && read(s[1], &c, 1) == 1;
	close(s[0]);
	close(s[1]);
}

/* For a program that loads this library late. */
int early_pair(int s[2]);
int early_pair(int s[2])
{
	tcp_pair(s);
	return 0;
}

int early_result(int which)
{
	return which ? sockets : reads;
}

#else

int early_result(int which);

int main(void)
{
	printf("reads %d sockets %d\n", early_result(0), early_result(1));
	return 0;
}

#endif
