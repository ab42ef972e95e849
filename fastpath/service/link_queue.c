/* SPDX-License-Identifier: MIT */
/*
 * No queue of the kernel's in front of a tap that is ours alone.
 *
 * A tap has a ring of --nic-rx-len packets, from which we read; when that is full, the kernel drops.  The queueing discipline in front
 * of it, which the kernel attaches when the interface comes up (mq, with a pfifo_fast per queue), therefore never holds
 * anything, but costs each packet its locks.  A veth has none, and neither has a tap that we made.
 *
 * A discipline is set while the interface is down only: nothing is lost on the way.  It is kept from then on, unless the interface
 * moves into another namespace, where the kernel begins anew.  That is how taps are used, so we hear of it from rtnetlink and follow: the
 * tap's descriptor knows its namespace.  Who wants a discipline (tc) sets it as on any interface.  None of this can fail the
 * service: without the rights for it, or when the interface was up sooner, the queue stays.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "service/edge.h"

static struct tas_pollable news = { .fd = -1 }; /* rtnetlink: interfaces of our namespace */
static int tap = -1, home; /* its descriptor; its index in our namespace */

/* Its index; its name may be another by now. */
static int find_interface(bool *up)
{
	struct ifreq r = { .ifr_flags = 0 };
	int fd, i = 0;

	if (ioctl(tap, TUNGETIFF, &r))
		return 0;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	*up = ioctl(fd, SIOCGIFFLAGS, &r) || r.ifr_flags & IFF_UP;
	if (!ioctl(fd, SIOCGIFINDEX, &r))
		i = r.ifr_ifindex;
	close(fd);
	return i;
}

static void set_noqueue(int fd, int interface)
{
	struct {
		struct nlmsghdr h;
		struct tcmsg t;
		struct rtattr a;
		char kind[8];
	} req = {
		.h = { .nlmsg_len = sizeof(req), .nlmsg_type = RTM_NEWQDISC,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE },
		.t = { .tcm_family = AF_UNSPEC, .tcm_ifindex = interface, .tcm_parent = TC_H_ROOT },
		.a = { .rta_len = RTA_LENGTH(sizeof(req.kind)), .rta_type = TCA_KIND },
		.kind = "noqueue",
	};

	if (send(fd, &req, sizeof(req), 0) != sizeof(req))
		tas_info("link %s: keeps its queueing discipline: %s", tas_config.link_name, strerror(errno));
}

/* In the interface's namespace.  Returns the interface. */
static int without_queue(int fd)
{
	bool up = true;
	int interface = find_interface(&up);

	if (interface && !up)
		set_noqueue(fd, interface);
	return interface;
}

/* A thread of its own: the others stay where they are.  And nothing of ours stays in that namespace, which may end before us. */
static void *set_there(void *arg)
{
	int fd;

	if (setns(*(int *)arg, CLONE_NEWNET))
		return NULL;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return NULL;
	without_queue(fd);
	close(fd);
	return NULL;
}

static void follow(void)
{
	int there = ioctl(tap, TUNGETDEVNETNS);
	pthread_t t;

	if (there < 0)
		return; /* it was deleted, or we may not */
	if (!pthread_create(&t, NULL, set_there, &there))
		pthread_join(t, NULL);
	close(there);
}

static bool has_gone(const struct nlmsghdr *h, ssize_t len, int interface)
{
	for (; NLMSG_OK(h, (unsigned)len); h = NLMSG_NEXT(h, len))
		if (h->nlmsg_type == RTM_DELLINK && ((const struct ifinfomsg *)NLMSG_DATA(h))->ifi_index == interface)
			return true;
	return false;
}

static void on_news(struct tas_pollable *p, uint32_t ev)
{
	static _Alignas(8) char buf[32768];
	const int group = RTNLGRP_LINK;
	bool gone = false;
	ssize_t n;

	(void)ev;
	while ((n = recv(p->fd, buf, sizeof(buf), 0)) > 0 || (n < 0 && errno == ENOBUFS))
		gone |= n < 0 || has_gone((const struct nlmsghdr *)buf, n, home); /* more news than fits: look */
	if (!gone)
		return;
	tas_loop_del(p); /* closed at the end: how many descriptors we have does not depend on where the tap is */
	setsockopt(p->fd, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof(group));
	follow();
}

void tas__queue_none(int fd)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };

	tap = fd;
	news.fn = on_news;
	news.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (news.fd >= 0 && !bind(news.fd, (struct sockaddr *)&a, sizeof(a))) {
		home = without_queue(news.fd);
		return;
	}
	if (news.fd >= 0)
		close(news.fd);
	news.fd = -1;
}

void tas__queue_watch(void)
{
	if (news.fd >= 0 && tas_loop_add(&news, EPOLLIN))
		tas__queue_forget();
}

void tas__queue_forget(void)
{
	if (news.fd < 0)
		return;
	tas_loop_del(&news); /* nothing, if it is no member */
	close(news.fd);
	news.fd = -1;
}
