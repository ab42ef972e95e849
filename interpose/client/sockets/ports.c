/* SPDX-License-Identifier: MIT */
/*
 * Settings of the program's network namespace that the service cannot see, because it lives in another: which ports a connection may
 * take (ip_local_port_range less ip_local_reserved_ports), how long a listener's queue may be (somaxconn), tcp_fastopen.
 *
 * /proc/sys/net shows the namespace of who reads.  Ports are read again when what is known is some milliseconds old; behind a seccomp
 * filter that forbids opening files, what was known before it counts.
 */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "sockets/sock.h"

enum { OLD = 20000000 /* tsc */, SOMAXCONN_NOW = 4096 };
#define RANGE "/proc/sys/net/ipv4/ip_local_port_range"
#define RESERVED "/proc/sys/net/ipv4/ip_local_reserved_ports"

struct ports {
	uint32_t n;
	struct tas_port_range r[TAS_PORT_RANGES];
};

/* Reads numbers one after the other, byte by byte from a buffer that is filled again. */
struct file {
	int fd;
	long at, n;
	char buf[512];
};

static bool file_open(struct file *f, const char *path)
{
	f->at = f->n = 0;
	f->fd = tas__may(TAS_MAY_FILES) ? (int)sys4(SYS_openat, AT_FDCWD, SYS_P(path), O_RDONLY | O_CLOEXEC, 0) : -EPERM;
	return f->fd >= 0;
}

/* The next number; *then: the byte behind it.  -1: the end. */
static long next_number(struct file *f, char *then)
{
	long v = -1;

	for (;;) {
		char c;

		if (f->at == f->n) {
			f->at = 0;
			f->n = sys_read(f->fd, f->buf, sizeof f->buf);
			if (f->n <= 0) {
				f->n = 0;
				*then = 0;
				return v;
			}
		}
		c = f->buf[f->at++];
		if (c >= '0' && c <= '9') {
			v = (v < 0 ? 0 : v) * 10 + (c - '0');
			if (v > INT32_MAX)
				v = INT32_MAX;
		} else if (v >= 0) {
			*then = c;
			return v;
		}
	}
}

/* More gaps between reserved ports than there is room for: the largest ones. */
static void add(struct ports *p, long from, long to)
{
	uint32_t least = 0;

	if (from > to)
		return;
	if (p->n < TAS_PORT_RANGES) {
		p->r[p->n++] = (struct tas_port_range){.from = (uint16_t)from, .to = (uint16_t)to};
		return;
	}
	for (uint32_t i = 1; i < p->n; i++)
		if (p->r[i].to - p->r[i].from < p->r[least].to - p->r[least].from)
			least = i;
	if (to - from > p->r[least].to - p->r[least].from)
		p->r[least] = (struct tas_port_range){.from = (uint16_t)from, .to = (uint16_t)to};
}

/* Leaves p as it is when there is no descriptor to be had. */
static void read_ports(struct ports *p)
{
	struct file f;
	long from, to, lo, hi;
	char then;

	if (!file_open(&f, RANGE))
		return;
	p->n = 0;
	from = next_number(&f, &then);
	to = next_number(&f, &then);
	sys_close(f.fd);
	if (from <= 0 || to < from || to > 65535)
		return;
	if (file_open(&f, RESERVED)) {
		while ((lo = next_number(&f, &then)) >= 0) { /* sorted, and apart */
			hi = then == '-' ? next_number(&f, &then) : lo;
			if (hi >= from && lo <= to) {
				add(p, from, lo - 1);
				from = hi + 1;
			}
		}
		sys_close(f.fd);
	}
	add(p, from, to);
}

/* IP_LOCAL_PORT_RANGE, as inet_sk_get_local_port_range() reads it. */
static void narrow(struct ports *p, uint32_t own)
{
	uint16_t lo = (uint16_t)own, hi = (uint16_t)(own >> 16), first = p->r[0].from, last = p->r[0].to;
	struct ports all = *p;

	for (uint32_t i = 1; i < all.n; i++) {
		first = all.r[i].from < first ? all.r[i].from : first;
		last = all.r[i].to > last ? all.r[i].to : last;
	}
	if (first <= lo && lo <= last)
		first = lo;
	if (first <= hi && hi <= last)
		last = hi;
	p->n = 0;
	for (uint32_t i = 0; i < all.n; i++)
		add(p, all.r[i].from > first ? all.r[i].from : first, all.r[i].to < last ? all.r[i].to : last);
}

uint32_t tas__ports(struct tas_port_range to[TAS_PORT_RANGES], uint32_t own)
{
	static struct ports known;
	static uint64_t known_at;
	uint64_t mask = tas__table_lock();
	struct ports p;

	if (!known_at || (tas__tsc() - known_at > OLD && tas__may(TAS_MAY_FILES))) {
		read_ports(&known);
		known_at = tas__tsc();
	}
	p = known;
	tas__table_unlock(mask);
	if (own && p.n)
		narrow(&p, own);
	memcpy(to, p.r, sizeof p.r);
	return p.n;
}

/* One number; as it was before while no file can be opened. */
static uint32_t setting(const char *path, _Atomic uint32_t *known)
{
	struct file f;
	char then;
	long v;

	if (file_open(&f, path)) {
		v = next_number(&f, &then);
		sys_close(f.fd);
		if (v >= 0)
			atomic_store(known, (uint32_t)v);
	}
	return atomic_load(known);
}

uint32_t tas__somaxconn(void)
{
	static _Atomic uint32_t known = SOMAXCONN_NOW;

	return setting("/proc/sys/net/core/somaxconn", &known);
}

uint32_t tas__fastopen_setting(void)
{
	static _Atomic uint32_t known = 1;

	return setting("/proc/sys/net/ipv4/tcp_fastopen", &known);
}
