// SPDX-License-Identifier: MIT
/* stdio on sockets. */
#include "say.h"

static void lines(void)
{
	char buf[64];
	int s[2];
	FILE *f, *g;

	tcp_pair(s);
	f = fdopen(s[0], "r+");
	g = fdopen(s[1], "r");
	printf("fileno %d %d\n", fileno(f) == s[0], fileno(g) == s[1]);
	SAY(fprintf(f, "line %d\n", 1));
	SAY(fflush(f));
	SAY(fgets(buf, sizeof buf, g) != NULL);
	SAY_TEXT(buf, strlen(buf));
	SAY(setvbuf(f, NULL, _IOLBF, 4096));
	SAY(fputs("a\nb\n", f));
	SAY(fgetc(g));
	SAY(ungetc('A', g));
	SAY(fgets(buf, sizeof buf, g) != NULL);
	SAY_TEXT(buf, strlen(buf));
	SAY(fseek(g, 0, SEEK_SET));
	SAY(ftell(f));
	SAY(fputc('x', g));
	clearerr(g);
	SAY(dprintf(s[1], "number %s\n", "seven"));
	SAY(fgets(buf, sizeof buf, f) != NULL);
	SAY_TEXT(buf, strlen(buf));
	SAY(fputs("unflushed", f));
	SAY(fclose(f));
	SAY(fcntl(s[0], F_GETFD));
	SAY(fread(buf, 1, 64, g));
	SAY_TEXT(buf, 2);
	SAY(feof(g));
	SAY(fclose(g));
	SAY(fcntl(s[1], F_GETFD));
}

static void two_streams(void)
{
	char big[70000];
	int s[2];
	FILE *r, *w;
	size_t n;

	tcp_pair(s);
	w = fdopen(dup(s[0]), "w");
	r = fdopen(s[0], "r");
	memset(big, 'b', sizeof big);
	if (!fork()) {
		SAY(fwrite(big, 1, sizeof big, w));
		SAY(fclose(w));
		exit(0);
	}
	fclose(w);
	for (n = 0; n < sizeof big;) {
		ssize_t k = read(s[1], big, sizeof big);

		if (k <= 0)
			break;
		n += (size_t)k;
	}
	wait(NULL);
	printf("got %zu\n", n);
	SAY(write(s[1], "end", 3));
	SAY(close(s[1]));
	SAY(fread(big, 1, 100, r));
	SAY(fclose(r));
}

static void reopened(void)
{
	char buf[64];
	int s[2];
	FILE *f, *g;

	tcp_pair(s);
	f = fdopen(s[0], "w");
	SAY(fputs("before", f));
	g = freopen("/dev/zero", "r", f);
	printf("same %d number %d\n", f == g, fileno(g) == s[0]);
	SAY(read(s[1], buf, sizeof buf));
	SAY(read(s[1], buf, sizeof buf));
	SAY(fread(buf, 1, 4, g));
	SAY(fputc('x', g));
	SAY(fclose(g));
	SAY(fdopen(s[1], "q") != NULL);
	SAY(fdopen(999, "r") != NULL);
	SAY(close(s[1]));
}

/* printf goes where number 1 goes, with what was not yet written. */
static void standard(void)
{
	char buf[64];
	int s[2], saved = dup(1);

	tcp_pair(s);
	fflush(stdout);
	setvbuf(stdout, NULL, _IOFBF, 4096);
	printf("before ");
	dup2(s[0], 1);
	printf("after %d", fileno(stdout));
	fflush(stdout);
	dup2(saved, 1);
	printf("restored\n");
	fflush(stdout);
	SAY(close(s[0]));
	SAY(recv(s[1], buf, sizeof buf, MSG_WAITALL));
	SAY_TEXT(buf, 14);
	close(s[1]);
	close(saved);
}

int main(void)
{
	alarm(30);
	setvbuf(stdout, NULL, _IOLBF, 4096);
	lines();
	two_streams();
	reopened();
	standard();
	return 0;
}
