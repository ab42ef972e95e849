/* SPDX-License-Identifier: MIT */
/*
 * The command line.  Everything about an option stands in one row of one table: name, form of its argument, help, where
 * its value goes, what values it takes, and, for an option of the TAS manual that this service does not have, the reason
 * with which it is refused.  Parsing, --help and the error messages are made from that table.
 *
 * Names and units are those of the TAS manual; "here" in the help says what differs.
 */
#include "service/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "service/link_value.h"
#include "service/values.h"
#include "tcp/tcp.h"

struct tas_config tas_config;

enum kind {
	K_FLAG,   /* bool at offset */
	K_NUMBER, /* number at offset, times scale, within [min, max] */
	K_CUSTOM, /* function */
	K_REFUSE, /* why says the reason */
};

struct parse;

struct option {
	const char *name;
	const char *arg;  /* form of the argument, NULL: none */
	const char *help; /* one line; "\n" starts another */
	const char *why;  /* K_REFUSE */
	enum kind kind;
	unsigned char size; /* of the number, bytes */
	bool suffixes;
	size_t offset;
	uint64_t scale, min, max;
	const char *(*set)(struct parse *p, const char *value); /* K_CUSTOM: NULL, or what is accepted */
};

struct parse {
	struct tas_config *c;
	FILE *out, *err;
	bool socket_set;
	char message[256];
};

/* ---- setters ---- */
static const char *six_or(int r, const char *form)
{
	return r == -EAFNOSUPPORT ? "an IPv4 address (this version speaks no IPv6)" : form;
}

/* A host address that can be ours or a neighbour's: not 0/8, 127/8, multicast, broadcast. */
static bool is_host(const struct tas_addr *a)
{
	return a->ip[0] != 0 && a->ip[0] != 127 && a->ip[0] < 224;
}

static const char *set_ip_addr(struct parse *p, const char *v)
{
	struct tas_config *c = p->c;
	struct tas_prefix x;
	unsigned i;
	int r = tas__value_prefix(v, 24, &x);

	if (r)
		return six_or(r, "ADDR[/PREFIX], for example 10.0.0.1/24");
	if (!is_host(&x.addr))
		return "the address of a host: not loopback, multicast or broadcast";
	if (!x.bits)
		return "a prefix of 1 to 32 bits";
	for (i = 0; i < c->n_addr; i++)
		if (!memcmp(c->addr[i].addr.ip, x.addr.ip, 4))
			return "each address once";
	if (c->n_addr == TAS_ADDRS_MAX)
		return "at most 16 addresses";
	c->addr[c->n_addr++] = x;
	return NULL;
}

static const char *set_ip_route(struct parse *p, const char *v)
{
	struct tas_config *c = p->c;
	struct tas_prefix dst;
	struct tas_addr hop;
	int r = tas__value_route(v, &dst, &hop);

	if (r)
		return six_or(r, "DEST[/PREFIX],NEXTHOP, for example 0.0.0.0/0,10.0.0.254");
	if (!is_host(&hop))
		return "a next hop that is a host: not loopback, multicast or broadcast";
	if (c->n_route == TAS_ROUTES_MAX)
		return "at most 64 routes";
	c->route[c->n_route].dst = dst;
	c->route[c->n_route++].nexthop = hop;
	return NULL;
}

static const char *set_link(struct parse *p, const char *v)
{
	return tas__link_value(p->c, v);
}

static const char *set_cc(struct parse *p, const char *v)
{
	if (!strcmp(v, "reno"))
		p->c->cc = TCP_CC_RENO;
	else if (!strcmp(v, "cubic"))
		p->c->cc = TCP_CC_CUBIC;
	else if (!strcmp(v, "dctcp-rate") || !strcmp(v, "dctcp-win") || !strcmp(v, "timely") || !strcmp(v, "const-rate"))
		return "reno or cubic (this version has no dctcp-rate, dctcp-win, timely and const-rate)";
	else
		return "reno or cubic";
	return NULL;
}

static const char *set_socket(struct parse *p, const char *v)
{
	if (!*v || strlen(v) >= sizeof(p->c->socket_path))
		return "a path of 1 to 107 characters";
	strcpy(p->c->socket_path, v);
	p->socket_set = true;
	return NULL;
}

static const char *set_socket_mode(struct parse *p, const char *v)
{
	return tas__value_mode(v, &p->c->socket_mode) ? "an octal mode, 0 to 0777" : NULL;
}

static const char *set_dpdk_extra(struct parse *p, const char *v)
{
	if (p->c->n_dpdk_extra == TAS_EAL_ARGS_MAX)
		return "at most 64 of them";
	p->c->dpdk_extra[p->c->n_dpdk_extra++] = v;
	return NULL;
}

static const char *set_low_latency(struct parse *p, const char *v)
{
	if (!strcmp(v, "off"))
		p->c->low_latency = TAS_LATENCY_OFF;
	else if (!strcmp(v, "auto"))
		p->c->low_latency = TAS_LATENCY_AUTO;
	else if (!strcmp(v, "on"))
		p->c->low_latency = TAS_LATENCY_ON;
	else
		return "auto, on or off";
	return NULL;
}

/* ---- the table ---- */
#define AT(field) .offset = offsetof(struct tas_config, field), .size = sizeof(((struct tas_config *)0)->field)
#define US 1000ull
#define NOT_RATE "belongs to rate-based congestion control, which this version does not have (see --cc)"
#define NOT_QUEUES "application queues do not exist here: bitmaps and counters take their place"

static const struct option options[] = {
	{ .help = "Network" },
	{ "ip-addr", "ADDR[/PREFIX]", "local address, required unless --link=none; repeatable; PREFIX 24 if left out",
	  .kind = K_CUSTOM, .set = set_ip_addr },
	{ "ip-route", "DEST[/PREFIX],NEXTHOP", "route over the link, repeatable", .kind = K_CUSTOM, .set = set_ip_route },
	{ "link", "LINK", "what carries packets [tap:tas0]\n"
			  "tap[:NAME]    a tap interface, the kernel of this machine at its other end\n"
			  "af_packet:IF  an interface, through a packet socket\n"
			  "af_xdp:IF     an interface, through an AF_XDP socket\n"
			  "memif:PATH[,server][,id=N][,mtu=N][,no-checksums][,zero-copy]  another process, through shared memory\n"
			  "pci:BDF       a device bound to vfio-pci, uio_pci_generic or igb_uio (dpdk-devbind.py)\n"
			  "none          local connections only, needs no rights and no DPDK",
	  .kind = K_CUSTOM, .set = set_link },
	{ "arp-timeout", "USEC", "first ARP retry, doubling [500]", .kind = K_NUMBER, AT(arp_timeout), .scale = US, .min = 1,
	  .max = 60000000 },
	{ "arp-timeout-max", "USEC", "last ARP retry [10000000]", .kind = K_NUMBER, AT(arp_timeout_max), .scale = US, .min = 1,
	  .max = 600000000 },
	{ "nic-rx-len", "N", "receive descriptors of the port [1024; TAS: 16384 entries of a slow-path queue]",
	  .kind = K_NUMBER, AT(nic_rx_len), .scale = 1, .min = 16, .max = 32768 },
	{ "nic-tx-len", "N", "transmit descriptors of the port [1024]", .kind = K_NUMBER, AT(nic_tx_len), .scale = 1,
	  .min = 16, .max = 32768 },

	{ .help = "TCP" },
	{ "tcp-rxbuf-len", "BYTES", "largest receive buffer of a connection, rounded up to a power of two [1M; TAS: 8192]\n"
				    "buffers start small and grow; suffixes k, M, G",
	  .kind = K_NUMBER, AT(tcp_rxbuf_len), .suffixes = true, .scale = 1, .min = 4096, .max = 8 << 20 },
	{ "tcp-txbuf-len", "BYTES", "the same for transmit [4M; TAS: 8192]", .kind = K_NUMBER, AT(tcp_txbuf_len),
	  .suffixes = true, .scale = 1, .min = 4096, .max = 8 << 20 },
	{ "direct-after", "N", "messages (or 16 KiB each) after which two programs of one user on this service go on without it\n"
			       "[32; 0: never]", .kind = K_NUMBER, AT(direct_after), .scale = 1, .min = 0, .max = 1000000 },
	{ "tcp-handshake-timeout", "USEC", "first retransmission of a SYN, doubling [1000000, as Linux; TAS: 10000]",
	  .kind = K_NUMBER, AT(tcp_handshake_timeout), .scale = US, .min = 1000, .max = 120000000 },
	{ "tcp-handshake-retries", "N", "retransmissions of a SYN [6, as Linux; TAS: 10]", .kind = K_NUMBER,
	  AT(tcp_handshake_retries), .scale = 1, .min = 0, .max = 127 },
	{ "tcp-rtt-init", "USEC", "first estimate of the round trip", NOT_RATE, .kind = K_REFUSE },
	{ "tcp-link-bw", "GBIT", "bandwidth of the link", NOT_RATE, .kind = K_REFUSE },

	{ .help = "Congestion control" },
	{ "cc", "NAME", "reno or cubic [cubic; TAS: dctcp-rate]", .kind = K_CUSTOM, .set = set_cc },
	{ "cc-control-interval", "RTTS", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-control-granularity", "USEC", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-rexmit-ints", "N", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-dctcp-weight", "W", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-dctcp-mimd", "F", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-dctcp-min", "KBIT", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-const-rate", "KBIT", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-timely-tlow", "USEC", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-timely-thigh", "USEC", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-timely-step", "KBIT", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-timely-init", "KBIT", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-timely-alpha", "F", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-timely-beta", "F", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-timely-minrtt", "USEC", "", NOT_RATE, .kind = K_REFUSE },
	{ "cc-timely-minrate", "KBIT", "", NOT_RATE, .kind = K_REFUSE },

	{ .help = "Fast path" },
	{ "fp-cores-max", "N", "fast-path threads at most [1]: more of them share connections over the link, while there is\n"
			       "work for them and a processor without", .kind = K_NUMBER, AT(fp_cores_max), .scale = 1,
	  .min = 1, .max = TAS_CORES_MAX },
	{ "fp-no-ints", NULL, "never sleep on the port, only poll", .kind = K_FLAG, AT(fp_no_ints) },
	{ "fp-no-xsumoffload", NULL, "checksums in software on transmit", .kind = K_FLAG, AT(fp_no_xsumoffload) },
	{ "fp-no-autoscale", NULL, "--fp-cores-max threads from the start to the end", .kind = K_FLAG, AT(fp_no_autoscale) },
	{ "fp-no-hugepages", NULL, "ordinary pages for memory shared with applications", .kind = K_FLAG, AT(fp_no_hugepages) },
	{ "fp-poll-interval-tas", "USEC", "how long the service polls before it sleeps [20; TAS: 10000]", .kind = K_NUMBER,
	  AT(poll_ns_tas), .scale = US, .min = 0, .max = 10000000 },
	{ "fp-poll-interval-app", "USEC", "how long an application polls before it sleeps [20; TAS: 10000]", .kind = K_NUMBER,
	  AT(poll_ns_app), .scale = US, .min = 0, .max = 10000000 },
	{ "fp-cycles", NULL, "count processor cycles by stage (tasctl stats, top); costs some 200 a round", .kind = K_FLAG,
	  AT(fp_cycles) },
	{ "low-latency", "auto|on|off", "hold idle processors awake (/dev/cpu_dma_latency): while traffic\n"
				      "flows, always, never [off]",
	  .kind = K_CUSTOM, .set = set_low_latency },
	{ "dpdk-extra", "ARG", "argument passed to EAL, repeatable", .kind = K_CUSTOM, .set = set_dpdk_extra },

	{ .help = "Service" },
	{ "socket", "PATH", "control socket [/run/tas/tas.sock; not root: $XDG_RUNTIME_DIR/tas/tas.sock]\n"
			    "$TAS_SOCKET takes the place of that default, here and in applications",
	  .kind = K_CUSTOM, .set = set_socket },
	{ "socket-mode", "OCTAL", "permissions of the control socket [0666]", .kind = K_CUSTOM, .set = set_socket_mode },
	{ "app-sockets", "N", "TAS sockets of a program (with what it forks) at most, then ENOBUFS [131072]", .kind = K_NUMBER,
	  AT(max_socks_per_set), .scale = 1, .min = 1, .max = 1 << 20 },
	{ "app-chunks", "N", "pieces of 16 MiB of shared memory of a program at most [256]", .kind = K_NUMBER,
	  AT(max_chunks_per_set), .scale = 1, .min = 1, .max = 256 },
	{ "ready-fd", "FD", "write a line to FD and close it when ready", .kind = K_NUMBER, AT(ready_fd), .scale = 1, .min = 0,
	  .max = 1 << 20 },
	{ "quiet", NULL, "warnings only", .kind = K_FLAG, AT(quiet) },
	{ "exit-when-unused", NULL, "end when the last session (program or tasctl) has gone", .kind = K_FLAG, AT(exit_idle) },
	{ "help", NULL, "this text", .kind = K_CUSTOM },
	{ "version", NULL, "the version", .kind = K_CUSTOM },

	{ .help = "Options of TAS that are refused" },
	{ "app-kin-len", "BYTES", "", NOT_QUEUES, .kind = K_REFUSE },
	{ "app-kout-len", "BYTES", "", NOT_QUEUES, .kind = K_REFUSE },
	{ "kni-name", "NAME", "", "this version gives the kernel no interface on the port", .kind = K_REFUSE },
};

enum { N_OPTIONS = sizeof(options) / sizeof(options[0]) };

/* ---- help, generated ---- */
static void help_row(FILE *out, const struct option *o)
{
	char left[64];
	const char *line = o->kind == K_REFUSE ? o->why : o->help, *nl;

	snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
	for (; line; line = nl ? nl + 1 : NULL) {
		nl = strchr(line, '\n');
		fprintf(out, "  %-32s  %.*s\n", left, nl ? (int)(nl - line) : (int)strlen(line), line);
		left[0] = 0;
	}
}

static void help(FILE *out)
{
	unsigned i;

	fprintf(out, "Usage: tas --ip-addr=ADDR[/PREFIX] [OPTION]...\n"
		     "Serves TCP to the applications that run under libtas_interpose.so or use libtas_sockets.\n");
	for (i = 0; i < N_OPTIONS; i++) {
		if (!options[i].name)
			fprintf(out, "\n%s\n", options[i].help);
		else if (options[i].kind == K_REFUSE && !strcmp(options[i].why, NOT_RATE))
			continue; /* a paragraph of its own */
		else
			help_row(out, &options[i]);
	}
	fprintf(out, "  These belong to rate-based congestion control, which this version does not have:\n ");
	for (i = 0; i < N_OPTIONS; i++)
		if (options[i].name && options[i].kind == K_REFUSE && !strcmp(options[i].why, NOT_RATE))
			fprintf(out, " --%s", options[i].name);
	fprintf(out, "\n");
}

/* ---- parsing ---- */
static const struct option *find(const char *name, size_t n)
{
	unsigned i;

	for (i = 0; i < N_OPTIONS; i++)
		if (options[i].name && !strncmp(options[i].name, name, n) && !options[i].name[n])
			return &options[i];
	return NULL;
}

static int bad(struct parse *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int bad(struct parse *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("tas: ", p->err);
	vfprintf(p->err, fmt, ap);
	fputc('\n', p->err);
	va_end(ap);
	return TAS_OPTIONS_BAD;
}

static const char *set_number(struct parse *p, const struct option *o, const char *v)
{
	uint8_t *at = (uint8_t *)p->c + o->offset;
	uint64_t n;
	uint32_t n32;

	if (tas__value_number(v, o->suffixes, o->min, o->max, &n)) {
		snprintf(p->message, sizeof(p->message), "%s from %llu to %llu%s", o->arg, (unsigned long long)o->min,
			 (unsigned long long)o->max, o->suffixes ? ", suffixes k, M, G" : "");
		return p->message;
	}
	n *= o->scale;
	n32 = (uint32_t)n;
	if (o->size == sizeof(n))
		memcpy(at, &n, sizeof(n));
	else
		memcpy(at, &n32, sizeof(n32));
	return NULL;
}

static int apply(struct parse *p, const struct option *o, const char *v)
{
	const char *accepted = NULL;

	if (o->kind == K_REFUSE)
		return bad(p, "--%s is refused: %s", o->name, o->why);
	if (!strcmp(o->name, "help")) {
		help(p->out);
		return TAS_OPTIONS_DONE;
	}
	if (!strcmp(o->name, "version")) {
		fprintf(p->out, "tas " TAS_VERSION " (ABI %u)\n", TAS_ABI_MAX);
		return TAS_OPTIONS_DONE;
	}
	if (o->kind == K_FLAG)
		*((bool *)p->c + o->offset) = true;
	else if (o->kind == K_NUMBER)
		accepted = set_number(p, o, v);
	else
		accepted = o->set(p, v);
	return accepted ? bad(p, "--%s: '%s' is not accepted, but %s", o->name, v, accepted) : TAS_OPTIONS_RUN;
}

static void defaults(struct tas_config *c)
{
	memset(c, 0, sizeof(*c));
	c->link = TAS_LINK_TAP;
	strcpy(c->link_name, "tas0");
	c->socket_mode = 0666;
	c->ready_fd = -1;
	c->fp_cores_max = 1;
	c->poll_ns_tas = 20 * US;
	c->poll_ns_app = 20 * US;
	c->tcp_rxbuf_len = 1 << 20;
	c->tcp_txbuf_len = 4 << 20;
	c->tcp_handshake_timeout = 1000000 * US;
	c->tcp_handshake_retries = 6;
	c->direct_after = 32;
	c->cc = TCP_CC_CUBIC;
	c->arp_timeout = 500 * US;
	c->arp_timeout_max = 10000000 * US;
	c->nic_rx_len = c->nic_tx_len = 1024;
}

static int default_socket(struct parse *p)
{
	const char *path = getenv("TAS_SOCKET"), *dir = getenv("XDG_RUNTIME_DIR");
	char *to = p->c->socket_path;
	size_t size = sizeof(p->c->socket_path);
	int n;

	if (path && *path)
		n = snprintf(to, size, "%s", path);
	else if (geteuid() == 0)
		n = snprintf(to, size, "/run/tas/tas.sock");
	else if (dir && *dir)
		n = snprintf(to, size, "%s/tas/tas.sock", dir);
	else
		return bad(p, "--socket=PATH is required: XDG_RUNTIME_DIR is not set");
	return n < (int)size ? TAS_OPTIONS_RUN : bad(p, "--socket=PATH is required: the default path is too long");
}

static int finish(struct parse *p)
{
	struct tas_config *c = p->c;

	if (c->link != TAS_LINK_NONE && !c->n_addr)
		return bad(p, "--ip-addr=ADDR[/PREFIX] is required (or --link=none for local connections only)");
	if (c->link == TAS_LINK_NONE && c->n_route)
		return bad(p, "--ip-route makes no sense with --link=none");
	if (c->arp_timeout > c->arp_timeout_max)
		return bad(p, "--arp-timeout is longer than --arp-timeout-max");
	c->tcp_rxbuf_len = tas__value_pow2_up(c->tcp_rxbuf_len);
	c->tcp_txbuf_len = tas__value_pow2_up(c->tcp_txbuf_len);
	return p->socket_set ? TAS_OPTIONS_RUN : default_socket(p);
}

int tas__options(int argc, char **argv, struct tas_config *c, FILE *out, FILE *err)
{
	struct parse p = { .c = c, .out = out, .err = err };
	int i, r;

	defaults(c);
	for (i = 1; i < argc; i++) {
		const char *name = argv[i] + 2, *value = strchr(argv[i], '=');
		size_t n = value ? (size_t)(value - name) : strlen(argv[i]) - 2;
		const struct option *o = NULL;

		if (!strncmp(argv[i], "--", 2) && argv[i][2])
			o = find(name, n);
		else if (!strcmp(argv[i], "-h"))
			o = find("help", 4);
		if (!o)
			return bad(&p, "'%s' is not an option (see --help)", argv[i]);
		if (value && !o->arg)
			return bad(&p, "--%s takes no value", o->name);
		if (value)
			value++;
		else if (o->arg && o->kind != K_REFUSE && !(value = argv[++i]))
			return bad(&p, "--%s needs a value: --%s=%s", o->name, o->name, o->arg);
		r = apply(&p, o, value);
		if (r)
			return r;
	}
	return finish(&p);
}
