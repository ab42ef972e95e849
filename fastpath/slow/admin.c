/* SPDX-License-Identifier: MIT */
/* What tasctl shows, as JSON.  Long lists come in pages, each an array of its own, continued by a cursor. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "slow/admin.h"
#include "slow/memory.h"
#include "slow/process.h"

enum { OBJECT_ROOM = 512 }; /* a process as JSON is never longer */

struct out {
	char *text;
	size_t len, room;
	bool full;
};

static time_t started;

static __attribute__((format(printf, 2, 3))) void put(struct out *o, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(o->text + o->len, o->room - o->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= o->room - o->len)
		o->full = true;
	else
		o->len += (size_t)n;
}

static void put_string(struct out *o, const char *s)
{
	put(o, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			put(o, "\\%c", *s);
		else if ((unsigned char)*s < ' ')
			put(o, "\\u%04x", (unsigned)(unsigned char)*s);
		else
			put(o, "%c", *s);
	}
	put(o, "\"");
}

static time_t uptime(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec - started;
}

static const char *link_text(char *buf, size_t room)
{
	static const char *const kinds[] = { [TAS_LINK_NONE] = "none", [TAS_LINK_TAP] = "tap",
					     [TAS_LINK_AF_PACKET] = "af_packet", [TAS_LINK_AF_XDP] = "af_xdp",
					     [TAS_LINK_MEMIF] = "memif", [TAS_LINK_PCI] = "pci" };
	const char *name = tas_config.link == TAS_LINK_NONE ? "" : tas_config.link_name;

	snprintf(buf, room, "%s%s%s", kinds[tas_config.link], name[0] ? ":" : "", name);
	return buf;
}

static void status(struct out *o)
{
	char buf[INET6_ADDRSTRLEN + 128];

	put(o, "{\"version\":\"" TAS_VERSION "\",\"abi\":%u,\"pid\":%d,\"instance\":\"%016llx\",\"uptime_s\":%lld,\"link\":",
	    TAS_ABI_MAX, (int)getpid(), (unsigned long long)tas__instance(), (long long)uptime());
	put_string(o, link_text(buf, sizeof buf));
	put(o, ",\"addresses\":[");
	for (unsigned i = 0; i < tas_config.n_addr; i++) {
		const struct tas_prefix *a = &tas_config.addr[i];

		if (!inet_ntop(a->addr.family, a->addr.ip, buf, sizeof buf))
			continue;
		put(o, "%s\"%s/%u\"", i ? "," : "", buf, a->bits);
	}
	put(o, "],\"socket\":");
	put_string(o, tas_config.socket_path[0] ? tas_config.socket_path : TAS_SOCKET_DEFAULT);
	put(o, ",\"hugepages\":%s,\"processes\":%u}", tas__mem_hugepages() ? "true" : "false", tas__proc_count());
}

static uint64_t descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	uint64_t n = 0;

	if (!d)
		return 0;
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n - 1; /* the one that looked */
}

static void gauges(struct out *o)
{
	struct {
#define G(name, text) uint64_t name;
		TAS_GAUGES(G)
#undef G
	} g = { .descriptors = descriptors() };
	struct tas_sock_gauges s = { 0 };
	char before = '{';

	tas__sock_gauges(&s);
	g.processes = tas__proc_count();
	g.memory_sets = tas__mem_sets();
	g.sockets = s.sockets;
	g.listeners = s.listeners;
	g.embryos = s.embryos;
	g.time_waits = s.time_waits;
	g.chunks = tas__mem_chunks();
	g.chunk_bytes_used = tas__mem_used();
	g.ports = s.ports;
	for (uint32_t i = 0; i < tas__n_procs; i++)
		g.wait_sets += tas__procs[i] ? tas__procs[i]->n_ws : 0;
	g.watches = tas__watch_count();
#define G(name, text) put(o, "%c\"" #name "\":%llu", before, (unsigned long long)g.name), before = ',';
	TAS_GAUGES(G)
#undef G
	put(o, "}");
}

static void stats(struct out *o)
{
	static const char *const names[] = {
#define C(name, text) #name,
		TAS_COUNTERS(C)
#undef C
	};

	put(o, "{\"counters\":{");
	for (unsigned n = 0; n < TAS_CTR_N; n++) {
		uint64_t sum = 0;

		for (unsigned c = 0; c < tas_n_cores; c++)
			sum += tas_cores[c].counters[n];
		put(o, "%s\"%s\":%llu", n ? "," : "", names[n], (unsigned long long)sum);
	}
	put(o, "},\"gauges\":");
	gauges(o);
	put(o, ",\"cores\":[");
	for (unsigned c = 0; c < tas_n_cores; c++) {
		const uint64_t *n = tas_cores[c].counters;

		put(o, "%s{\"rounds\":%llu,\"work_ns\":%llu,\"poll_ns\":%llu,\"sleep_ns\":%llu,\"segments\":%llu,\"received\":%llu,"
		       "\"steered\":%llu,\"steer_dropped\":%llu,\"flows\":%u,\"running\":%s}",
		    c ? "," : "", (unsigned long long)n[TAS_CTR_rounds], (unsigned long long)n[TAS_CTR_work_ns],
		    (unsigned long long)n[TAS_CTR_poll_ns], (unsigned long long)n[TAS_CTR_sleep_ns],
		    (unsigned long long)n[TAS_CTR_tcp_in], (unsigned long long)n[TAS_CTR_rx_packets],
		    (unsigned long long)n[TAS_CTR_rx_steered], (unsigned long long)n[TAS_CTR_rx_steer_dropped],
		    tas_core_flows(&tas_cores[c]),
		    !c || tas_cores[c].running ? "true" : "false");
	}
	put(o, "]");
	put(o, "}");
}

static void conns(struct out *o, uint32_t *cursor)
{
	put(o, "[");
	for (;;) {
		uint32_t here = *cursor;
		size_t comma = o->len > 1;
		/* room for the comma before and the bracket behind */
		int n = o->room - o->len > 3 ?
				tas__sock_json(cursor, o->text + o->len + comma, o->room - o->len - comma - 2) : -ENOSPC;

		if (n <= 0) {
			*cursor = n < 0 ? here : 0;
			break;
		}
		if (comma)
			o->text[o->len] = ',';
		o->len += (size_t)n + comma;
	}
	put(o, "]");
}

static void processes(struct out *o, uint32_t *cursor)
{
	uint32_t i = *cursor;

	*cursor = 0;
	put(o, "[");
	for (; i < tas__n_procs; i++) {
		const struct tas_proc *p = tas__procs[i];

		if (!p)
			continue;
		if (o->room - o->len < OBJECT_ROOM) {
			*cursor = i;
			break;
		}
		put(o, "%s{\"slot\":%u,\"pid\":%d,\"comm\":", o->len > 1 ? "," : "", p->slot, (int)p->pid);
		put_string(o, p->comm);
		put(o, ",\"uid\":%u,\"set\":%u,\"claims\":%u,\"wait_sets\":%u,\"between\":%s", p->uid, p->set->id,
		    tas__proc_claims(p), p->n_ws, p->between ? "true" : "false");
		uint64_t hints = 0;

		for (unsigned c = 0; c < tas_n_cores; c++)
			hints += p->lane[c].hints;
		put(o, ",\"hints\":%llu,\"mails\":%llu}", (unsigned long long)hints, (unsigned long long)p->mails);
	}
	put(o, "]");
}

/* One object per site; the cursor counts them over all processes. */
static void raw_sites(struct out *o, uint32_t *cursor)
{
	uint32_t at = 0, from = *cursor;

	*cursor = 0;
	put(o, "[");
	for (uint32_t i = 0; i < tas__n_procs; i++) {
		const struct tas_proc *p = tas__procs[i];

		for (uint32_t k = 0; p && k < p->n_raw; k++, at++) {
			const struct tas_raw_site *s = &p->raw[k];

			if (at < from)
				continue;
			if (o->room - o->len < OBJECT_ROOM + sizeof s->object * 6) {
				*cursor = at;
				goto out;
			}
			put(o, "%s{\"pid\":%d,\"comm\":", o->len > 1 ? "," : "", (int)p->pid);
			put_string(o, p->comm);
			put(o, ",\"object\":");
			put_string(o, s->object);
			put(o, ",\"offset\":%llu,\"nr\":%u,\"count\":%llu,\"caught\":%s}",
			    (unsigned long long)s->offset, s->nr, (unsigned long long)s->count,
			    s->caught ? "true" : "false");
		}
	}
out:
	put(o, "]");
}

int tas__admin_text(uint32_t what, uint32_t *cursor, char *text, size_t room)
{
	struct out o = { text, 0, room, false };

	switch (what) {
	case TAS_ADMIN_STATUS:
		*cursor = 0;
		status(&o);
		break;
	case TAS_ADMIN_CONNS:
		conns(&o, cursor);
		break;
	case TAS_ADMIN_STATS:
		*cursor = 0;
		stats(&o);
		break;
	case TAS_ADMIN_PROCS:
		processes(&o, cursor);
		break;
	case TAS_ADMIN_RAW:
		raw_sites(&o, cursor);
		break;
	default:
		return -EINVAL;
	}
	return o.full ? -ENOSPC : (int)o.len;
}

void tas__admin_init(void)
{
	started = 0;
	started = uptime();
}
