/* SPDX-License-Identifier: MIT */
/*
 * Control messages between applications (and tasctl) and the service, over a SOCK_SEQPACKET unix socket.
 *
 * One packet is one message: struct tas_msg, for TAS_MSG_ADMIN replies followed by text.  A request carries a sequence
 * number that the reply repeats.  The service answers every request at once, in order; nothing here waits for a network.
 * Descriptors travel as SCM_RIGHTS.  A descriptor of a kernel socket that a request carries is the proof that its sender
 * holds the socket: the service reads its cookie, inode and network namespace itself and closes it again.
 *
 * Errors: reply.err is 0, -errno, or TAS_FALLBACK.
 */
#ifndef TAS_MSG_H
#define TAS_MSG_H

#include "tas_abi.h"

/* Not an error: this socket belongs to the kernel; make the same call on the backing socket. */
#define TAS_FALLBACK 1

#define TAS_MSG_FDS_MAX 64

enum tas_msg_op {
	/* Attach.  req: hello.  rep: attached, fds: region memfd, doorbell eventfd.
	 * The service takes pid, uid, gid from SO_PEERCRED-like credentials of the message, never from the text.
	 * A process whose pid has a session that ended in TAS_MSG_EXEC_BEGIN continues in that memory set, with the claims
	 * that survived.  -EPROTO: ABI ranges do not meet; -EAGAIN: no process slot; -ENOMEM */
	TAS_MSG_HELLO = 1,
	/* Before fork, in the parent.  fds: the child's end of a new control socketpair.  rep: attached (the child's), fds:
	 * child's region memfd, child's doorbell eventfd.  The service copies the parent's claims at this moment. */
	TAS_MSG_FORK_PREPARE,
	/* First message of a forked child on its own control socket (credentials tell the pid).  No reply. */
	TAS_MSG_FORK_CHILD,
	/* May this address be bound as far as the service knows?  req: bind, fds: the backing socket.  rep.bind: flags.
	 * -EADDRINUSE: a live or TIME_WAIT connection or a listener of TAS stands against it. */
	TAS_MSG_BIND,
	/* Make a listener of the backing socket, or change the backlog of one.  req: listen, fds: the backing socket (bound).
	 * rep: sock.  TAS_FALLBACK: the address is none of TAS's. */
	TAS_MSG_LISTEN,
	/* The kernel's listen(2) on the backing socket failed after a granted TAS_MSG_LISTEN: undo.  req: sock.id, gen */
	TAS_MSG_UNLISTEN,
	/* Start a connection.  req: connect, fds: the backing socket.  rep: sock; the block is in SYN_SENT or already
	 * ESTABLISHED.  TAS_FALLBACK, -ECONNREFUSED, -ENETUNREACH, -EADDRINUSE, -EADDRNOTAVAIL, -ENOBUFS */
	TAS_MSG_CONNECT,
	/* Which TAS socket is this descriptor?  fds: it.  rep: sock (and the claim bit is set), or TAS_FALLBACK: none. */
	TAS_MSG_RESOLVE,
	/* These sockets leave the library's sight (exec, spawn, SCM_RIGHTS): remember their backing object, and take the
	 * kernel's last close of it (inotify IN_CLOSE) as the truth.  req: watch; fds: one per id, same order. */
	TAS_MSG_WATCH,
	/* req: chunk.index.  rep, fds: the memfd of that chunk of the caller's memory set. */
	TAS_MSG_CHUNK,
	/* Open a wait set.  req: ws.index; fds: its eventfd.  Close: no reply needed but one comes. */
	TAS_MSG_WS_OPEN,
	TAS_MSG_WS_CLOSE,
	/* Watch a socket whose tas_lock_line.subs are full.  req: subscribe. */
	TAS_MSG_SUBSCRIBE,
	TAS_MSG_UNSUBSCRIBE,
	/* exec follows: sockets that survive it have been announced by TAS_MSG_WATCH; the hang-up is not a death.  */
	TAS_MSG_EXEC_BEGIN,
	TAS_MSG_EXEC_FAILED,
	/* TCP_INFO.  req: sock.id, gen.  rep: info. */
	TAS_MSG_INFO,
	/* tasctl.  req: admin.  rep: admin, text (JSON) behind the struct; more != 0: ask again with that cursor. */
	TAS_MSG_ADMIN,
	/* End the service (same uid as the service, or root). */
	TAS_MSG_SHUTDOWN,
	/* System calls on TAS numbers that passed libc by come from here.  req: raw (the count is the total so far).  No
	 * reply. */
	TAS_MSG_RAW,
	/* A program that cannot have the library will be run with this connection.  fds: the backing socket.  rep fds: a stream to be
	 * put into its place.  From a session of its own, which need not attach: the service carries bytes once it hangs up
	 * (the program runs).  TAS_FALLBACK: no connection of TAS. */
	TAS_MSG_BRIDGE,
	TAS_MSG_BRIDGE_CANCEL, /* the exec failed: those that this session asked for are not */
	/* Forget the identities kept for this process, and take none and no mail from it any more: it is about to confine
	 * itself, or has changed its network namespace. */
	TAS_MSG_MAIL_END,
	/* The shared half of an epoll set.  req: ep; rep: ep.  token 0: a new one; fds: its eventfd; rep fds: its memory.  With
	 * TAS_EP_ALONE nobody else of the memory set makes one until TAS_MSG_EP_MADE (-EAGAIN: somebody is).  Else the one of that
	 * token (-ENOENT); rep fds: memory, eventfd. */
	TAS_MSG_EP_OPEN,
	TAS_MSG_EP_MADE,  /* req: ep.index: its token is in the kernel's set.  No reply */
	TAS_MSG_EP_CLOSE, /* req: ep.index.  No reply */
	TAS_MSG_EP_KEEP,  /* req: ep.index: its descriptor survives exec, or is passed: it stays as long as its memory sets do.  No reply */
	/* Let me see this member.  req: subscribe (ws: index of the set).  rep: sock: in memory that the asker reaches.  The socket names
	 * the set in its subscriptions: so said somebody who holds both. */
	TAS_MSG_EP_MEMBER,
	/* The sender cannot map the memory that a connection became direct in (no descriptor to be had, a filter): back with it into
	 * the sender's own set if it came from there and no other set's process has it, and ordinary for good.
	 * req: sock.id, gen.  rep: sock.  -EAGAIN: somebody is at its bytes at this moment. */
	TAS_MSG_ORDINARY,
	/* The sender has waited for one of the socket's locks for long: the far end of a direct connection may have made up who holds
	 * it.  req: sock.id, gen.  -EINVAL: that socket is closed. */
	TAS_MSG_LOCKS,
	/* The eventfd that wakes who sleeps behind a bell.  req: bell.at.  rep: bell, fds: it.  -ENOENT: no bell there, or of
	 * others; -EACCES: there is none for the sender (rep: bell). */
	TAS_MSG_BELL,
	TAS_MSG_BELLS_END, /* req: ep.index: the sender cannot map a bell of this set, which is to have none.  No reply */
	/* To be woken by the bells of an epoll set that lie in memory shared with other programs.  req: ep.index.  rep: hear, fds: an epoll set
	 * of the kernel's whose members, edge-triggered, are the eventfds of these bells.  -ENOENT: not the sender's set, or it has no
	 * such bell; -EMFILE: no descriptors */
	TAS_MSG_BELLS_HEAR,
};

/* tas_msg.ep.flags */
enum { TAS_EP_ALONE = 1u << 0 };

enum tas_admin_what { TAS_ADMIN_STATUS = 1, TAS_ADMIN_CONNS = 2, TAS_ADMIN_STATS = 3, TAS_ADMIN_PROCS = 4,
		      TAS_ADMIN_RAW = 5 };

/* tas_msg.bind.flags */
enum {
	TAS_BIND_REUSEADDR = 1u << 0,
	TAS_BIND_REUSEPORT = 1u << 1,
	TAS_BIND_V6ONLY = 1u << 2,
	TAS_BIND_FREEBIND = 1u << 3, /* reply: the address is TAS's alone; bind the backing socket with IP_FREEBIND */
	TAS_BIND_BOUND = 1u << 4,    /* connect: local is the program's choice, not 0 */
	TAS_BIND_WATCH = 1u << 5,    /* listen, connect: as TAS_WATCH_TOO */
};

/* tas_msg.watch.flags */
enum {
	TAS_WATCH_TOO = 1u << 0,    /* the last claim closes as well, whichever comes first: the program may close descriptors unseen */
	TAS_WATCH_NOT = 1u << 1,    /* no longer, as far as TAS_WATCH_TOO goes; no descriptors */
	TAS_WATCH_SILENT = 1u << 2, /* no reply */
};

enum { TAS_PORT_RANGES = 32 };

struct tas_msg_sock {
	uint32_t id;
	uint32_t gen;
	tas_off_t block;
	/* Reply to CONNECT: name of the backing socket's identity, which the service keeps for this process; 0: none.  With it the
	 * next connect of that very backing socket needs no descriptor (tas_mail). */
	uint32_t ident;
	/* Reply to RESOLVE: memory set that the block lies in.  Not the set known so far: the process was moved there (it
	 * held no socket), and chunks that it has mapped belong to nobody it talks to. */
	uint32_t set_id;
};

/* As in struct tcp_info; times of the past in milliseconds. */
struct tas_msg_info {
	uint32_t rtt_us, rttvar_us, snd_mss, rcv_mss, snd_cwnd, snd_ssthresh, rto_us, ato_us, retransmits;
	uint32_t total_retrans, unacked, sacked, lost, retrans, rcv_space, rcv_ssthresh, snd_wnd, rcv_wnd;
	uint32_t options; /* TCPI_OPT_* */
	uint32_t state, ca_state, backoff, probes, snd_wscale, rcv_wscale;
	uint32_t pmtu, advmss, reordering, min_rtt_us;
	uint32_t last_data_sent, last_data_recv, last_ack_recv;
	uint32_t segs_out, segs_in, data_segs_out, data_segs_in, notsent, delivered;
	uint64_t bytes_acked, bytes_received, bytes_sent, bytes_retrans;
};

struct tas_msg {
	uint32_t magic; /* TAS_ABI_MAGIC */
	uint16_t op;    /* enum tas_msg_op */
	uint16_t n_fds; /* descriptors that come with this message */
	uint32_t seq;
	int32_t err;
	union {
		struct {
			uint32_t abi_min, abi_max;
			uint32_t flags; /* 0 */
			char comm[20];  /* for listings */
		} hello;
		struct {
			uint32_t abi;
			uint32_t proc_slot;
			uint64_t region_size;
			uint64_t instance;
			uint32_t set_id;
			uint32_t reserved;
		} attached;
		struct {
			struct tas_addr local;
			uint32_t flags; /* TAS_BIND_* */
			uint32_t reserved;
		} bind;
		struct {
			struct tas_addr local;
			uint32_t flags;   /* TAS_BIND_* */
			uint32_t backlog; /* as given to listen(2), already clamped to net.core.somaxconn */
			uint32_t opts;    /* TAS_O_*, inherited by accepted connections */
			uint32_t reserved;
		} listen;
		struct {
			struct tas_addr local, peer;
			uint32_t flags; /* TAS_BIND_* */
			uint32_t opts;  /* TAS_O_* */
			uint32_t rcvbuf, sndbuf; /* as in tas_app_line */
			uint32_t ip, maxseg, syncnt; /* as in tas_lock_line */
			uint32_t n_ports; /* ranges to take a port from; 0: the service's own */
			struct tas_port_range port[TAS_PORT_RANGES];
		} connect;
		struct tas_msg_sock sock;
		struct {
			uint32_t n;
			uint32_t id[TAS_MSG_FDS_MAX];
			uint32_t flags; /* TAS_WATCH_* */
		} watch;
		struct {
			uint32_t index;
		} chunk, ws;
		struct {
			uint32_t id, gen, ws;
			uint32_t flags; /* TAS_SUB_EXCLUSIVE, TAS_SUB_EPOLL */
		} subscribe;
		struct {
			uint64_t token;
			uint32_t index, flags;
		} ep;
		struct {
			uint32_t what;   /* enum tas_admin_what */
			uint32_t cursor; /* 0: from the start */
			uint32_t more;   /* reply: next cursor, 0: complete */
			uint32_t text_len;
		} admin;
		struct tas_msg_info info;
		struct {
			uint64_t offset; /* of the instruction in its object */
			uint64_t count;
			uint32_t nr;
			uint32_t caught; /* 1: it was made to work, 0: it went to the backing socket */
			char object[64]; /* file name, 0-terminated */
		} raw;
		struct {
			tas_off_t at;
			uint64_t key;
		} bell;
		struct {
			uint64_t places; /* a bit for each bell, as in tas_ep_head.bell */
			uint32_t seq;	 /* of that moment: tas_ep_head.bell_seq */
			uint32_t reserved;
		} hear;
		uint64_t room[38];
	} u;
};

_Static_assert(sizeof(struct tas_msg) == 16 + 38 * 8, "struct tas_msg changed size: raise TAS_ABI_MAX");

#define TAS_MSG_TEXT_MAX 49152 /* text behind a reply to TAS_MSG_ADMIN */
#define TAS_SOCKET_DEFAULT "/run/tas/tas.sock"

#endif
