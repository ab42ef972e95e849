/* SPDX-License-Identifier: MIT */
/* clang-format off */
/*
 * Every option and ioctl of socket(7), ip(7), ipv6(7) and tcp(7), once: what it does on a TAS socket.  The client's handling
 * (sockets/option.c), what `tasctl conns` shows, and the table in the documentation are made from this list.
 *
 * The backing socket, a kernel TCP socket of the same family, checks, stores and answers every option.
 *
 *   O(level, name, length, effect, accept, text)
 *     length  of the value that accept copies (0: not copied); DOUBLED: the kernel answers with twice what was set
 *     effect  ACTS    TAS does what it says
 *             GIVES   TAS answers it (the kernel could not know)
 *             SAME    the kernel's answer is all there is to it, or TCP of Linux does not act on it either
 *             STORED  the kernel stores it, TAS does not act on it: counted in the socket's `unacted`
 *             REFUSED on a TAS socket, as Linux refuses an option that it does not have: it would break the connection
 *     accept  INHERITED: an accepted socket has the listener's
 *
 * TAS_OPTIONS_MARKED are those that are inherited or STORED: their place in this list is their bit in tas_obj.touched and in
 * tas_app_line.unacted, so the service, which shows them by name, and its clients have the same list (new ones at the end).
 */
#ifndef TAS_OPTIONS_H
#define TAS_OPTIONS_H

#define TAS_OPTIONS_MARKED(O) \
	O(SOL_SOCKET, SO_LINGER, 8, ACTS, INHERITED, "close waits for acknowledgement, or resets") \
	O(SOL_SOCKET, SO_KEEPALIVE, 4, ACTS, INHERITED, "probes of an idle connection") \
	O(SOL_SOCKET, SO_RCVBUF, 4 | DOUBLED, ACTS, INHERITED, "bounds the receive ring and the window offered") \
	O(SOL_SOCKET, SO_SNDBUF, 4 | DOUBLED, ACTS, INHERITED, "bounds what is written and not acknowledged") \
	O(SOL_SOCKET, SO_RCVLOWAT, 4, ACTS, INHERITED, "readable from so many bytes on") \
	O(SOL_SOCKET, SO_RCVTIMEO, 16, ACTS, INHERITED, "recv, accept and the like end after it") \
	O(SOL_SOCKET, SO_SNDTIMEO, 16, ACTS, INHERITED, "send and connect end after it") \
	O(SOL_SOCKET, SO_REUSEADDR, 4, ACTS, INHERITED, "bind, by the kernel and by TAS") \
	O(SOL_SOCKET, SO_REUSEPORT, 4, ACTS, INHERITED, "bind, by the kernel and by TAS") \
	O(SOL_SOCKET, SO_OOBINLINE, 4, ACTS, INHERITED, "urgent data stays in the stream") \
	O(SOL_SOCKET, SO_MARK, 4, STORED, INHERITED, "packets of TAS carry no mark") \
	O(IPPROTO_TCP, TCP_NODELAY, 4, ACTS, INHERITED, "no Nagle") \
	O(IPPROTO_TCP, TCP_CORK, 4, ACTS, INHERITED, "full segments only") \
	O(IPPROTO_TCP, TCP_KEEPIDLE, 4, ACTS, INHERITED, "idle time before probes") \
	O(IPPROTO_TCP, TCP_KEEPINTVL, 4, ACTS, INHERITED, "time between probes") \
	O(IPPROTO_TCP, TCP_KEEPCNT, 4, ACTS, INHERITED, "probes before the connection is given up") \
	O(IPPROTO_TCP, TCP_USER_TIMEOUT, 4, ACTS, INHERITED, "time for unacknowledged data before the connection is given up") \
	O(IPPROTO_TCP, TCP_QUICKACK, 0, ACTS, NOT, "acknowledgements at once") \
	O(IPPROTO_TCP, TCP_MAXSEG, 4, ACTS, INHERITED, "before connect or listen: bounds what both sides send; get: the segment size in use") \
	O(IPPROTO_TCP, TCP_LINGER2, 4, ACTS, INHERITED, "how long FIN_WAIT2 lasts after close") \
	O(IPPROTO_TCP, TCP_WINDOW_CLAMP, 4, STORED, INHERITED, "see SO_RCVBUF") \
	O(IPPROTO_IP, IP_TOS, 4, ACTS, INHERITED, "in packets over the link") \
	O(IPPROTO_IP, IP_TTL, 4, ACTS, INHERITED, "in packets over the link") \
	O(IPPROTO_IP, IP_MTU_DISCOVER, 4, ACTS, INHERITED, "packets may be fragmented on their way unless it is WANT or DO") \
	O(IPPROTO_IPV6, IPV6_V6ONLY, 4, ACTS, INHERITED, "bind and listen, by the kernel and by TAS") \
	O(IPPROTO_IPV6, IPV6_TCLASS, 4, SAME, INHERITED, "of IPv6 packets; those of a mapped address obey IP_TOS") \
	O(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 4, SAME, INHERITED, "of IPv6 packets; those of a mapped address obey IP_TTL") \
	O(SOL_SOCKET, SO_DEBUG, 4, SAME, INHERITED, "") \
	O(SOL_SOCKET, SO_DONTROUTE, 4, STORED, INHERITED, "TAS has its own routes") \
	O(SOL_SOCKET, SO_BROADCAST, 4, SAME, INHERITED, "") \
	O(SOL_SOCKET, SO_NO_CHECK, 4, SAME, INHERITED, "") \
	O(SOL_SOCKET, SO_TIMESTAMP, 4, STORED, INHERITED, "no time stamps with data") \
	O(SOL_SOCKET, SO_TIMESTAMPNS, 4, STORED, INHERITED, "no time stamps with data") \
	O(SOL_SOCKET, SO_TIMESTAMPING, 4, STORED, INHERITED, "no time stamps with data") \
	O(SOL_SOCKET, SO_RXQ_OVFL, 4, SAME, INHERITED, "") \
	O(SOL_SOCKET, SO_WIFI_STATUS, 4, SAME, INHERITED, "") \
	O(SOL_SOCKET, SO_PEEK_OFF, 4, ACTS, INHERITED, "where MSG_PEEK begins") \
	O(SOL_SOCKET, SO_NOFCS, 4, SAME, INHERITED, "") \
	O(SOL_SOCKET, SO_SELECT_ERR_QUEUE, 4, SAME, INHERITED, "") \
	O(SOL_SOCKET, SO_BUSY_POLL, 4, STORED, INHERITED, "TAS polls as its own options say") \
	O(SOL_SOCKET, SO_MAX_PACING_RATE, 4, STORED, INHERITED, "no pacing") \
	O(SOL_SOCKET, SO_ZEROCOPY, 4, ACTS, INHERITED, "MSG_ZEROCOPY copies, and the error queue says so") \
	O(SOL_SOCKET, SO_PREFER_BUSY_POLL, 4, STORED, INHERITED, "as SO_BUSY_POLL") \
	O(SOL_SOCKET, SO_BUF_LOCK, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_RECVOPTS, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_PKTINFO, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_RECVERR, 4, ACTS, INHERITED, "errors of the network end a call in progress; as on Linux there is no queue of them") \
	O(IPPROTO_IP, IP_RECVTTL, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_RECVTOS, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_FREEBIND, 4, ACTS, INHERITED, "bind, by the kernel") \
	O(IPPROTO_IP, IP_TRANSPARENT, 4, ACTS, INHERITED, "bind, by the kernel") \
	O(IPPROTO_IP, IP_MINTTL, 4, STORED, INHERITED, "packets with any TTL are taken") \
	O(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 4, ACTS, INHERITED, "connect chooses the port") \
	O(IPPROTO_IP, IP_LOCAL_PORT_RANGE, 4, ACTS, INHERITED, "bind to port 0 and connect without bind take a port from it") \
	O(IPPROTO_TCP, TCP_SYNCNT, 4, ACTS, INHERITED, "how often the SYN is repeated") \
	O(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 4, STORED, INHERITED, "") \
	O(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4, STORED, INHERITED, "writable while the ring has room") \
	O(IPPROTO_TCP, TCP_SAVE_SYN, 4, STORED, INHERITED, "no SYN is saved") \
	O(IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 4, STORED, INHERITED, "no data in a SYN") \
	O(IPPROTO_TCP, TCP_INQ, 4, STORED, INHERITED, "no message with the bytes left") \
	O(IPPROTO_TCP, TCP_TX_DELAY, 4, STORED, INHERITED, "no delay") \
	O(IPPROTO_TCP, TCP_CONGESTION, 16, STORED, INHERITED, "the service has one for all (--cc)") \
	O(SOL_SOCKET, SO_PRIORITY, 0, STORED, NOT, "packets of TAS carry no priority") \
	O(SOL_SOCKET, SO_BINDTODEVICE, 16, ACTS, INHERITED, "a socket bound to a device is the kernel's") \
	O(SOL_SOCKET, SO_ATTACH_FILTER, 0, STORED, NOT, "no filter") \
	O(SOL_SOCKET, SO_ATTACH_BPF, 0, STORED, NOT, "no filter") \
	O(SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, 0, STORED, NOT, "connections of TAS are dealt out by hash") \
	O(SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, 0, STORED, NOT, "connections of TAS are dealt out by hash") \
	O(SOL_SOCKET, SO_INCOMING_CPU, 0, STORED, NOT, "") \
	O(SOL_SOCKET, SO_TXTIME, 0, STORED, NOT, "sent at once") \
	O(SOL_SOCKET, SO_BUSY_POLL_BUDGET, 0, STORED, NOT, "as SO_BUSY_POLL") \
	O(SOL_SOCKET, SO_RESERVE_MEM, 0, STORED, NOT, "") \
	O(SOL_SOCKET, SO_TXREHASH, 0, STORED, NOT, "") \
	O(IPPROTO_IP, IP_OPTIONS, 0, STORED, NOT, "packets of TAS carry none") \
	O(IPPROTO_TCP, TCP_DEFER_ACCEPT, 4, ACTS, INHERITED, "over the link: accept returns when there is data, or after that time") \
	O(IPPROTO_TCP, TCP_THIN_DUPACK, 0, STORED, NOT, "") \
	O(IPPROTO_TCP, TCP_FASTOPEN, 0, SAME, NOT, "no data in a SYN, as by default on Linux (tcp_fastopen = 1 asks for the client's side only)") \
	O(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0, SAME, NOT, "connect begins at once, as on Linux towards a peer whose cookie it does not have") \
	O(IPPROTO_TCP, TCP_FASTOPEN_KEY, 0, STORED, NOT, "no data in a SYN") \
	O(IPPROTO_TCP, TCP_TIMESTAMP, 0, STORED, NOT, "") \
	O(IPPROTO_TCP, TCP_MD5SIG, 0, STORED, NOT, "segments are not signed") \
	O(IPPROTO_TCP, TCP_MD5SIG_EXT, 0, STORED, NOT, "segments are not signed") \
	O(IPPROTO_IPV6, IPV6_MTU_DISCOVER, 4, SAME, INHERITED, "of IPv6 packets") \
	O(IPPROTO_IPV6, IPV6_RECVERR, 4, SAME, INHERITED, "of IPv6 packets") \
	O(IPPROTO_IPV6, IPV6_DONTFRAG, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 4, STORED, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_RECVPKTINFO, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_RECVTCLASS, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_FREEBIND, 4, ACTS, INHERITED, "bind, by the kernel") \
	O(IPPROTO_IPV6, IPV6_TRANSPARENT, 4, ACTS, INHERITED, "bind, by the kernel") \
	O(IPPROTO_IPV6, IPV6_MINHOPCOUNT, 4, STORED, INHERITED, "as IP_MINTTL") \
	O(IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 4, STORED, INHERITED, "no flow labels") \
	O(IPPROTO_IPV6, IPV6_FLOWINFO, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_RECVRTHDR, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_RECVDSTOPTS, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_RECVHOPOPTS, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_RECVPATHMTU, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_RECVFRAGSIZE, 4, SAME, INHERITED, "") \
	O(IPPROTO_IPV6, IPV6_ROUTER_ALERT_ISOLATE, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_RETOPTS, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_PASSSEC, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_RECVORIGDSTADDR, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_CHECKSUM, 4, SAME, INHERITED, "") \
	O(IPPROTO_IP, IP_RECVERR_RFC4884, 4, STORED, INHERITED, "the error queue is empty") \
	O(SOL_SOCKET, SO_RCVMARK, 4, SAME, INHERITED, "") \
	O(SOL_SOCKET, SO_TIMESTAMP_NEW, 4, STORED, INHERITED, "no time stamps with data") \
	O(SOL_SOCKET, SO_TIMESTAMPNS_NEW, 4, STORED, INHERITED, "no time stamps with data") \
	O(SOL_SOCKET, SO_TIMESTAMPING_NEW, 4, STORED, INHERITED, "no time stamps with data") \
	O(IPPROTO_TCP, TCP_RTO_MAX_MS, 4, STORED, INHERITED, "as the service says")

/* accept does not copy them, and nothing is to be told of them. */
#define TAS_OPTIONS_PLAIN(O) \
	O(SOL_SOCKET, SO_TYPE, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_DOMAIN, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_PROTOCOL, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_ACCEPTCONN, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_ERROR, 0, GIVES, NOT, "the connection's") \
	O(SOL_SOCKET, SO_PEERNAME, 0, GIVES, NOT, "the connection's") \
	O(SOL_SOCKET, SO_PEERCRED, 0, SAME, NOT, "unknown, as for every TCP socket") \
	O(SOL_SOCKET, SO_PEERSEC, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_PEERGROUPS, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_PASSCRED, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_PASSSEC, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_SNDLOWAT, 0, SAME, NOT, "cannot be set") \
	O(SOL_SOCKET, SO_SNDBUFFORCE, 0, ACTS, NOT, "as SO_SNDBUF") \
	O(SOL_SOCKET, SO_RCVBUFFORCE, 0, ACTS, NOT, "as SO_RCVBUF") \
	O(SOL_SOCKET, SO_BSDCOMPAT, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_DETACH_FILTER, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_LOCK_FILTER, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_BPF_EXTENSIONS, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_CNX_ADVICE, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_COOKIE, 0, SAME, NOT, "the backing socket's: unique on the machine") \
	O(SOL_SOCKET, SO_NETNS_COOKIE, 0, SAME, NOT, "") \
	O(SOL_SOCKET, SO_INCOMING_NAPI_ID, 0, SAME, NOT, "0") \
	O(SOL_SOCKET, SO_MEMINFO, 0, SAME, NOT, "of the backing socket: nothing in use") \
	O(IPPROTO_IP, IP_MTU, 0, GIVES, NOT, "segment size and headers") \
	O(IPPROTO_IP, IP_HDRINCL, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_NODEFRAG, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_ROUTER_ALERT, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_RECVFRAGSIZE, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_UNICAST_IF, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_MULTICAST_IF, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_MULTICAST_TTL, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_MULTICAST_LOOP, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_MULTICAST_ALL, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_ADD_MEMBERSHIP, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_DROP_MEMBERSHIP, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_BLOCK_SOURCE, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_UNBLOCK_SOURCE, 0, SAME, NOT, "") \
	O(IPPROTO_IP, IP_MSFILTER, 0, SAME, NOT, "") \
	O(IPPROTO_TCP, TCP_INFO, 0, GIVES, NOT, "the connection's") \
	O(IPPROTO_TCP, TCP_CC_INFO, 0, SAME, NOT, "") \
	O(IPPROTO_TCP, TCP_SAVED_SYN, 0, SAME, NOT, "empty") \
	O(IPPROTO_TCP, TCP_ULP, 0, REFUSED, NOT, "ENOENT on a TAS socket: no kernel TLS") \
	O(IPPROTO_TCP, TCP_REPAIR, 0, REFUSED, NOT, "EPERM on a TAS socket") \
	O(IPPROTO_TCP, TCP_REPAIR_QUEUE, 0, SAME, NOT, "EPERM outside of TCP_REPAIR") \
	O(IPPROTO_TCP, TCP_QUEUE_SEQ, 0, SAME, NOT, "") \
	O(IPPROTO_TCP, TCP_REPAIR_OPTIONS, 0, SAME, NOT, "") \
	O(IPPROTO_TCP, TCP_REPAIR_WINDOW, 0, SAME, NOT, "") \
	O(IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, 0, SAME, NOT, "nothing to map") \
	O(IPPROTO_TCP, TCP_CM_INQ, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_MTU, 0, GIVES, NOT, "segment size and headers") \
	O(IPPROTO_IPV6, IPV6_ADDRFORM, 0, SAME, NOT, "ENOTCONN: cannot be changed") \
	O(IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_MULTICAST_IF, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_JOIN_ANYCAST, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_LEAVE_ANYCAST, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_CHECKSUM, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_ROUTER_ALERT, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_RTHDR, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_AUTHHDR, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_DSTOPTS, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_HOPOPTS, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_PKTINFO, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_HOPLIMIT, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, 0, SAME, NOT, "") \
	O(IPPROTO_IPV6, IPV6_UNICAST_IF, 0, SAME, NOT, "")

/* I(name, effect, text) */
#define TAS_IOCTLS(I) \
	I(FIONREAD, GIVES, "= SIOCINQ: bytes to be read, up to the urgent one") \
	I(SIOCOUTQ, GIVES, "= TIOCOUTQ: bytes not acknowledged") \
	I(SIOCOUTQNSD, GIVES, "bytes not acknowledged: TAS does not tell sent from unsent") \
	I(SIOCATMARK, GIVES, "at the urgent byte?") \
	I(FIONBIO, ACTS, "O_NONBLOCK") \
	I(FIOASYNC, ACTS, "O_ASYNC") \
	I(FIOSETOWN, ACTS, "= SIOCSPGRP: who gets SIGIO") \
	I(FIOGETOWN, SAME, "= SIOCGPGRP") \
	I(FIOCLEX, SAME, "") \
	I(FIONCLEX, SAME, "") \
	I(SIOCGSTAMP, SAME, "ENOTTY or ENOENT: no time stamps") \
	I(SIOCGSTAMPNS, SAME, "as SIOCGSTAMP") \
	I(SIOCGIFCONF, SAME, "interfaces of the kernel") \
	I(SIOCGIFADDR, SAME, "interfaces of the kernel")
/* clang-format on */

#define TAS_OPTION_BIT(level, name, length, effect, accept, text) TAS_BIT_##name,
enum tas_option_bit { TAS_OPTIONS_MARKED(TAS_OPTION_BIT) TAS_OPTION_BITS };
#undef TAS_OPTION_BIT
enum { TAS_OPTION_WORDS = 2 };
_Static_assert(TAS_OPTION_BITS <= TAS_OPTION_WORDS * 64, "more options than bits");

#endif
