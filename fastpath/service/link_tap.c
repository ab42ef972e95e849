/* SPDX-License-Identifier: MIT */
/*
 * The tap link: is the name free, its interface and queues, which Ethernet addresses, and why creating it failed.  How packets go in and
 * out: link_tap_io.c.
 *
 * Any multi-queue tap of the name can be attached to, a running service's included: both would then get a part of the packets.  So the
 * kernel is asked first who uses it.  A persistent tap that nobody uses is taken as it is (and stays).
 *
 * Frames carry the virtio header (vnet.c), in which both ends say of each what they left out: checksums, and segments of up to GSO_MAX
 * bytes.  There is a queue for each thread of the service; one without its thread is detached, and gets no packets.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/link_drivers.h"

/* What the kernel leaves whole: with all headers it fits a buffer (link.c).  And its default. */
enum { GSO_MAX = 64000, GSO_DEFAULT = 65536 };

static bool stays; /* a tap that was there before and will be after us */
static bool set_up; /* it was down before */

struct tun_info {
	bool is_tun, is_tap, persist, multi_queue;
	uint32_t queues; /* attached and detached */
};

static uint32_t attr_number(const struct rtattr *a)
{
	uint32_t n = 0;

	memcpy(&n, RTA_DATA(a), RTA_PAYLOAD(a) < sizeof(n) ? RTA_PAYLOAD(a) : sizeof(n)); /* u8 or u32, little endian */
	return n;
}

static void read_tun(struct rtattr *a, unsigned len, struct tun_info *t)
{
	for (; RTA_OK(a, len); a = RTA_NEXT(a, len)) {
		switch (a->rta_type & NLA_TYPE_MASK) {
		case IFLA_TUN_TYPE:
			t->is_tap = attr_number(a) == IFF_TAP;
			break;
		case IFLA_TUN_PERSIST:
			t->persist = attr_number(a);
			break;
		case IFLA_TUN_MULTI_QUEUE:
			t->multi_queue = attr_number(a);
			break;
		case IFLA_TUN_NUM_QUEUES:
		case IFLA_TUN_NUM_DISABLED_QUEUES:
			t->queues += attr_number(a);
			break;
		}
	}
}

static void read_linkinfo(struct rtattr *a, unsigned len, struct tun_info *t)
{
	for (; RTA_OK(a, len); a = RTA_NEXT(a, len)) {
		if ((a->rta_type & NLA_TYPE_MASK) == IFLA_INFO_KIND)
			t->is_tun = !strncmp(RTA_DATA(a), "tun", RTA_PAYLOAD(a));
		else if ((a->rta_type & NLA_TYPE_MASK) == IFLA_INFO_DATA)
			read_tun(RTA_DATA(a), RTA_PAYLOAD(a), t);
	}
}

/* What the kernel says of interface index. */
static int ask_kernel(unsigned index, struct tun_info *t)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} req = {
		.h = { .nlmsg_len = sizeof(req), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST },
		.i = { .ifi_index = (int)index },
	};
	static _Alignas(8) char buf[16384];
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	struct rtattr *a;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), r = -EIO;
	ssize_t n;
	unsigned len;

	if (fd < 0)
		return -errno;
	memset(t, 0, sizeof(*t));
	if (send(fd, &req, sizeof(req), 0) != sizeof(req))
		goto out;
	n = recv(fd, buf, sizeof(buf), 0);
	if (n < (ssize_t)sizeof(req) || h->nlmsg_type != RTM_NEWLINK || h->nlmsg_len > n)
		goto out;
	a = IFLA_RTA(NLMSG_DATA(h));
	len = (unsigned)IFLA_PAYLOAD(h);
	for (; RTA_OK(a, len); a = RTA_NEXT(a, len))
		if ((a->rta_type & NLA_TYPE_MASK) == IFLA_LINKINFO)
			read_linkinfo(RTA_DATA(a), RTA_PAYLOAD(a), t);
	r = 0;
out:
	close(fd);
	return r;
}

void tas__link_mac(uint8_t mac[6], unsigned side)
{
	uint64_t h = 14695981039346656037ull + side;
	char text[160] = "";
	struct stat ns = { .st_ino = 0 };
	ssize_t n;
	size_t i;
	int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);

	n = fd >= 0 ? read(fd, text, 64) : -1;
	if (n <= 0)
		gethostname(text, 64);
	if (fd >= 0)
		close(fd);
	stat("/proc/self/ns/net", &ns);
	i = strlen(text);
	snprintf(text + i, sizeof(text) - i, "%llu %s", (unsigned long long)ns.st_ino, tas_config.link_name);
	for (i = 0; text[i]; i++)
		h = (h ^ (uint8_t)text[i]) * 1099511628211ull;
	mac[0] = 0x02; /* locally administered, one station */
	mac[1] = side ? 0x54 : 0x74;
	for (i = 2; i < 6; i++)
		mac[i] = (uint8_t)(h >> (8 * i));
}

/* ---- the virtio header ---- */
static int limit_segments(unsigned index, uint32_t max)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
		struct rtattr a;
		uint32_t max;
	} req = {
		.h = { .nlmsg_len = sizeof(req), .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
		.i = { .ifi_index = (int)index },
		.a = { .rta_len = RTA_LENGTH(sizeof(max)), .rta_type = IFLA_GSO_MAX_SIZE },
		.max = max,
	};
	struct {
		struct nlmsghdr h;
		struct nlmsgerr e;
		char rest[512];
	} rep = { .e.error = -EIO };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), r = -EIO;

	if (fd < 0)
		return -errno;
	if (send(fd, &req, sizeof(req), 0) == sizeof(req) &&
	    recv(fd, &rep, sizeof(rep), 0) >= (ssize_t)(sizeof(rep.h) + sizeof(rep.e)) && rep.h.nlmsg_type == NLMSG_ERROR)
		r = rep.e.error;
	close(fd);
	return r;
}

/* What frames look like and what this end can do: the interface's, so the first queue says it. */
static int switch_header_on(int fd)
{
	unsigned offloads = TUN_F_CSUM | TUN_F_TSO4;
	int size = TAS_VNET_HEADER;

	if (ioctl(fd, TUNSETVNETHDRSZ, &size))
		return -errno;
	if (limit_segments(if_nametoindex(tas_config.link_name), GSO_MAX)) /* they might not fit */
		offloads = TUN_F_CSUM;
	return ioctl(fd, TUNSETOFFLOAD, offloads) ? -errno : 0;
}

int tas__tap_queue(int fd, bool on)
{
	struct ifreq r = { .ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };

	return ioctl(fd, TUNSETQUEUE, &r) ? -errno : 0;
}

/* ---- the interface ---- */
/* The Ethernet address of the kernel's end, of a tap that we made: the same after a restart. */
static int set_address(int control)
{
	struct ifreq r = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", tas_config.link_name);
	tas__link_mac((uint8_t *)r.ifr_hwaddr.sa_data, 0);
	return ioctl(control, SIOCSIFHWADDR, &r) ? -errno : 0;
}

/* Up or down; *changed: it was not. */
static int switch_interface(int control, bool up, bool *changed)
{
	struct ifreq r = { .ifr_flags = 0 };

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", tas_config.link_name);
	if (ioctl(control, SIOCGIFFLAGS, &r))
		return -errno;
	*changed = !(r.ifr_flags & IFF_UP) == up;
	r.ifr_flags = (short)(up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
	return *changed && ioctl(control, SIOCSIFFLAGS, &r) ? -errno : 0;
}

/* A tap that stays is left as it was. */
static void leave(const struct tas_net *n)
{
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool changed;

	if (ioctl(n->fd, TUNSETOFFLOAD, 0) || limit_segments(if_nametoindex(tas_config.link_name), GSO_DEFAULT))
		tas_info("link %s: its offloads stay as they are", tas_config.link_name);
	if (control < 0)
		return;
	if (set_up && switch_interface(control, false, &changed))
		tas_info("link %s: it stays up", tas_config.link_name);
	close(control);
}

static void tap_close(struct tas_net *n)
{
	if (stays && n->fd >= 0)
		leave(n);
	for (unsigned q = 0; q < n->n_queues; q++) {
		if (n->queue_fd[q] >= 0)
			close(n->queue_fd[q]);
		n->queue_fd[q] = -1;
	}
	n->fd = -1;
	tas__tap_forget();
	tas__freed_close();
}

static int open_queue(struct tas_net *n, unsigned q)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	n->queue_fd[q] = fd;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", tas_config.link_name);
	if (ioctl(fd, TUNSETIFF, &r))
		return -errno;
	return q ? tas__tap_queue(fd, false) : switch_header_on(fd);
}

static int set_up_interface(struct tas_net *n, int control)
{
	int r = stays ? 0 : set_address(control);

	if (r)
		return r;
	if (!stays)
		tas__queue_none(n->fd); /* while it is down */
	return switch_interface(control, true, &set_up);
}

static int tap_open(struct tas_net *n)
{
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r = control < 0 ? -errno : 0;

	for (unsigned q = 0; q < n->n_queues; q++)
		n->queue_fd[q] = -1;
	for (unsigned q = 0; !r && q < n->n_queues; q++)
		r = open_queue(n, q);
	n->fd = n->queue_fd[0];
	if (!r)
		r = set_up_interface(n, control);
	if (control >= 0)
		close(control);
	tas__link_mac(n->mac, 1);
	if (!r)
		tas__freed_open(n);
	else
		tap_close(n);
	return r;
}

const struct tas_own_queue tas__tap_own = { tap_open, tap_close, tas__tap_receive, tas__tap_send, NULL, NULL };

int tas__tap_prepare(void)
{
	const char *name = tas_config.link_name;
	unsigned index = if_nametoindex(name);
	struct tun_info t = { .is_tun = false };

	if (index && ask_kernel(index, &t))
		memset(&t, 0, sizeof(t));
	if (index && (!t.is_tun || !t.is_tap)) {
		tas_warn("--link=tap:%s: an interface of that name exists and is not a tap", name);
		return -EEXIST;
	}
	if (index && (t.queues || !t.persist)) {
		tas_warn("--link=tap:%s: in use by another program (another tas?); --link=tap:NAME takes another name", name);
		return -EBUSY;
	}
	if (index && !t.multi_queue) {
		tas_warn("--link=tap:%s: made without multi_queue (ip tuntap add %s mode tap multi_queue)", name, name);
		return -EINVAL;
	}
	stays = t.persist;
	return 0;
}

void tas__tap_explain(void)
{
	const char *name = tas_config.link_name;
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_MULTI_QUEUE };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), e;

	if (fd < 0) {
		e = errno;
		tas_warn("cannot create tap %s: /dev/net/tun: %s%s", name, strerror(e),
			 e == ENOENT || e == ENODEV ? " (modprobe tun)" : " (needs root)");
		return;
	}
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", name);
	if (ioctl(fd, TUNSETIFF, &r)) {
		e = errno;
		tas_warn("cannot create tap %s: %s%s", name, strerror(e), e == EPERM ? " (needs root or CAP_NET_ADMIN)" : "");
	} else {
		tas_warn("cannot set up tap %s (needs root or CAP_NET_ADMIN; --dpdk-extra=--log-level=debug says more)", name);
	}
	close(fd);
}
