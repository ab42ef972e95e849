/* SPDX-License-Identifier: MIT */
/*
 * The tap link before EAL sees it: is the name free, which Ethernet addresses, and why creating it failed.
 *
 * The driver attaches to whatever multi-queue tap has the name, a running service's included: both would then get a part of
 * the packets.  So the kernel is asked first who uses it.  A persistent tap that nobody uses is taken as it is (and stays).
 *
 * The first to attach decides whether frames carry the virtio header (vnet.c).  So we attach first, with a queue that is
 * detached at once and takes no packets, and say what this end can do: checksums left out, segments of up to GSO_MAX bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/edge.h"

/* What the kernel leaves whole: with all headers it fits a buffer (link.c).  And its default. */
enum { GSO_MAX = 64000, GSO_DEFAULT = 65536 };

static int header_queue = -1;
static bool stays;   /* a tap that was there before and will be after us */
static int mtu_kept; /* its MTU: the driver sets 1,500 */

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

static int switch_header_on(const char *name)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_VNET_HDR | IFF_MULTI_QUEUE };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), size = sizeof(struct virtio_net_hdr), e;
	unsigned offloads = TUN_F_CSUM | TUN_F_TSO4;

	if (fd < 0)
		return -errno;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", name);
	if (ioctl(fd, TUNSETIFF, &r) || ioctl(fd, TUNSETVNETHDRSZ, &size))
		goto failed;
	if (limit_segments(if_nametoindex(name), GSO_MAX)) /* they might not fit */
		offloads = TUN_F_CSUM;
	if (ioctl(fd, TUNSETOFFLOAD, offloads))
		goto failed;
	r.ifr_flags = IFF_DETACH_QUEUE;
	if (ioctl(fd, TUNSETQUEUE, &r))
		goto failed;
	header_queue = fd;
	return 0;
failed:
	e = errno;
	close(fd);
	return -e;
}

/* The interface's MTU: asked for (0), or set. */
static int interface_mtu(const char *name, int set)
{
	struct ifreq r = { .ifr_mtu = set };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), e;

	if (fd < 0)
		return -errno;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", name);
	e = ioctl(fd, set ? SIOCSIFMTU : SIOCGIFMTU, &r) ? -errno : r.ifr_mtu;
	close(fd);
	return e;
}

bool tas__tap_ours(void)
{
	return header_queue >= 0 && !stays;
}

void tas__tap_attached(void)
{
	if (stays && mtu_kept > 0 && interface_mtu(tas_config.link_name, mtu_kept) < 0)
		tas_info("link %s: its MTU of %d was lost", tas_config.link_name, mtu_kept);
}

int tas__tap_queue(int fd, bool on)
{
	struct ifreq r = { .ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };

	return ioctl(fd, TUNSETQUEUE, &r) ? -errno : 0;
}

void tas__tap_release(void)
{
	if (header_queue < 0)
		return;
	if (stays && (ioctl(header_queue, TUNSETOFFLOAD, 0) || limit_segments(if_nametoindex(tas_config.link_name), GSO_DEFAULT)))
		tas_info("link %s: its offloads stay as they are", tas_config.link_name);
	close(header_queue);
	header_queue = -1;
}

int tas__tap_prepare(char *arg, size_t size)
{
	const char *name = tas_config.link_name;
	unsigned index = if_nametoindex(name);
	struct tun_info t = { .is_tun = false };
	uint8_t m[6];
	int r;

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
	mtu_kept = stays ? interface_mtu(name, 0) : 0;
	r = switch_header_on(name);
	if (r) {
		tas__tap_explain();
		return r;
	}
	tas__link_mac(m, 0);
	snprintf(arg, size, "--vdev=net_tap0,iface=%s,mac=%02x:%02x:%02x:%02x:%02x:%02x", name, m[0], m[1], m[2], m[3], m[4], m[5]);
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
