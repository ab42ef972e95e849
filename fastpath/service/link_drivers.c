/* SPDX-License-Identifier: MIT */
/*
 * Kinds of links before EAL sees them.  Whatever can be found out beforehand is: EAL and the drivers report little, and nothing
 * that a user could act on.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "service/edge.h"
#include "service/link_drivers.h"

enum { FRAME_USUAL = 2048, FRAME_JUMBO = 10240, MTU_JUMBO = 9000, MTU_MEMIF = 9200 };
enum { SLOTS_USUAL = 9, SLOTS_JUMBO = 7 }; /* powers of two */
enum { MTU_XDP = 1500 /* a chunk of a page takes headroom and frame */ };

unsigned tas__link_frame_room(uint16_t mtu)
{
	return mtu <= TAS_MTU_USUAL ? FRAME_USUAL : FRAME_JUMBO;
}

static void say_failed(int error)
{
	tas_warn("cannot open link %s:%s: %s (--dpdk-extra=--log-level=debug says more)", tas__link_drivers[tas_config.link].name,
		 tas_config.link_name, strerror(error));
}

/* ---- interfaces of the kernel ---- */
/* May we open such a socket, and is there such an interface? */
static int check_interface(int family, const char *rights)
{
	const char *kind = tas__link_drivers[tas_config.link].name, *name = tas_config.link_name;
	int fd;

	if (!if_nametoindex(name)) {
		tas_warn("--link=%s:%s: there is no interface of that name", kind, name);
		return -ENODEV;
	}
	fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		tas_warn("--link=%s:%s: %s (needs root or %s)", kind, name, strerror(errno), rights);
		return -EPERM;
	}
	close(fd);
	return 0;
}

static int interface_mtu(void)
{
	struct ifreq r = { .ifr_mtu = 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), mtu = TAS_MTU_USUAL;

	if (fd < 0)
		return mtu;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", tas_config.link_name);
	if (!ioctl(fd, SIOCGIFMTU, &r))
		mtu = r.ifr_mtu;
	close(fd);
	return mtu;
}

/* Buffers are all that DPDK is needed for. */
static void no_device(struct tas_eal_device *d)
{
	snprintf(d->arg, sizeof(d->arg), "--no-pci");
}

static int packet_prepare(struct tas_eal_device *d)
{
	no_device(d);
	return check_interface(AF_PACKET, "CAP_NET_RAW");
}

/* Of the interface, those that the driver knows: for both directions. */
static unsigned interface_channels(void)
{
	struct ethtool_channels c = { .cmd = ETHTOOL_GCHANNELS };
	struct ifreq r = { .ifr_data = (void *)&c };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return 1;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", tas_config.link_name);
	err = ioctl(fd, SIOCETHTOOL, &r);
	close(fd);
	return err || !c.combined_count ? 1 : c.combined_count;
}

/* busy_budget=0: the socket is slept on, so the interface has to report packets by itself. */
static int xdp_prepare(struct tas_eal_device *d)
{
	int r = check_interface(AF_XDP, "CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF");

	if (r)
		return r;
	if (interface_mtu() > MTU_XDP)
		tas_info("link %s: AF_XDP carries frames of %d bytes at most: MTU %d is used", tas_config.link_name, MTU_XDP, MTU_XDP);
	snprintf(d->arg, sizeof(d->arg), "--vdev=net_af_xdp0,iface=%s,start_queue=0,queue_count=%u,busy_budget=0",
		 tas_config.link_name, interface_channels() >= tas_n_cores ? tas_n_cores : 1);
	return 0;
}

static int tap_prepare(struct tas_eal_device *d)
{
	no_device(d);
	return tas__tap_prepare();
}

static void tap_explain(int error)
{
	(void)error;
	tas__tap_explain();
}

/* ---- memif ---- */
/* A socket of a server that was killed would keep us from making ours; one that answers belongs to somebody. */
static int memif_free_path(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	int fd, e;

	if (stat(path, &st))
		return 0;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	e = connect(fd, (const struct sockaddr *)&a, sizeof(a)) ? errno : EADDRINUSE;
	close(fd);
	if (S_ISSOCK(st.st_mode) && e == ECONNREFUSED)
		return unlink(path) ? -errno : 0;
	tas_warn("--link=memif:%s,server: %s", path, S_ISSOCK(st.st_mode) ? "another server is there" : "exists and is not a socket");
	return -EADDRINUSE;
}

/*
 * One ring each way, however many threads there are: both ends would need the same number, and net_memif tells nobody how many the
 * other end has (a queue that it lacks would work on the first one's ring).
 *
 * A ring is walked through from end to end: one of about a mebibyte stays in a processor's cache, and what does not fit
 * waits (net.c).  With zero-copy the buffers of the packets themselves lie in the shared region, so that
 * the size of both must be one and memory must be files that the other end can map.
 */
static int memif_prepare(struct tas_eal_device *d)
{
	const char *path = tas_config.link_name;
	uint16_t mtu = tas_config.link_mtu ? tas_config.link_mtu : TAS_MTU_USUAL;
	uint8_t m[6];
	int r = tas_config.memif_server ? memif_free_path(path) : 0;

	if (r)
		return r;
	d->needs_huge = d->single_file = tas_config.memif_zero_copy;
	tas__link_mac(m, tas_config.memif_server);
	snprintf(d->arg, sizeof(d->arg),
		 "--vdev=net_memif0,role=%s,id=%u,bsize=%u,rsize=%u,socket=%s,socket-abstract=no,zero-copy=%s,"
		 "mac=%02x:%02x:%02x:%02x:%02x:%02x",
		 tas_config.memif_server ? "server" : "client", tas_config.memif_id, tas__link_frame_room(mtu),
		 mtu <= TAS_MTU_USUAL ? SLOTS_USUAL : SLOTS_JUMBO, path,
		 tas_config.memif_zero_copy ? "yes" : "no", m[0], m[1], m[2], m[3], m[4], m[5]);
	return 0;
}

/* ---- PCI ---- */
static int pci_driver(char *name, size_t size)
{
	char path[160], to[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", tas_config.link_name);
	if (access(path, F_OK)) {
		tas_warn("--link=pci:%s: there is no such device (lspci -D)", tas_config.link_name);
		return -ENODEV;
	}
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", tas_config.link_name);
	n = readlink(path, to, sizeof(to) - 1);
	to[n > 0 ? n : 0] = 0;
	snprintf(name, size, "%s", strrchr(to, '/') ? strrchr(to, '/') + 1 : "none");
	return 0;
}

static int pci_prepare(struct tas_eal_device *d)
{
	static const char *const good[] = { "vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core", "mlx5_core" };
	char driver[64];
	unsigned i;
	int r = pci_driver(driver, sizeof(driver));

	if (r)
		return r;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!strcmp(driver, good[i]))
			break;
	if (i == sizeof(good) / sizeof(good[0])) {
		tas_warn("--link=pci:%s: bound to %s; DPDK needs it bound to vfio-pci or uio_pci_generic: "
			 "dpdk-devbind.py -b vfio-pci %s", tas_config.link_name, driver, tas_config.link_name);
		return -EBUSY;
	}
	d->pci = true;
	d->needs_huge = true;
	snprintf(d->arg, sizeof(d->arg), "--allow=%s", tas_config.link_name);
	return 0;
}

const struct tas_link_driver tas__link_drivers[] = {
	[TAS_LINK_TAP] = { "tap", tap_prepare, tap_explain, MTU_JUMBO, .interface = true, .own = &tas__tap_own, .vnet = true, .copies = true,
			   .queues = TAS_QUEUE_SWITCHED },
	[TAS_LINK_AF_PACKET] = { "af_packet", packet_prepare, say_failed, MTU_JUMBO, .interface = true,
				 .own = &tas__packet_own, .vnet = true, .copies = true },
	[TAS_LINK_AF_XDP] = { "af_xdp", xdp_prepare, say_failed, MTU_XDP, .interface = true,
			      .descriptor = TAS_FD_OPENED_BY_QUEUE, .queues = TAS_QUEUE_FIXED },
	[TAS_LINK_MEMIF] = { "memif", memif_prepare, say_failed, MTU_MEMIF, .descriptor = TAS_FD_NONE, .copies = true },
	[TAS_LINK_PCI] = { "pci", pci_prepare, say_failed, MTU_JUMBO, .interrupts = true, .queues = TAS_QUEUE_SPREAD },
};
