/* SPDX-License-Identifier: MIT */
/*
 * The tap link before EAL sees it: is the name free, which Ethernet addresses, and why creating it failed.
 *
 * The driver attaches to whatever multi-queue tap has the name, a running service's included: both would then get a part of
 * the packets.  So the kernel is asked first who uses it.  A persistent tap that nobody uses is taken as it is (and stays).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/edge.h"

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

int tas__tap_prepare(char *arg, size_t size)
{
	const char *name = tas_config.link_name;
	unsigned index = if_nametoindex(name);
	struct tun_info t = { .is_tun = false };
	uint8_t m[6];

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
