// SPDX-License-Identifier: MIT
/* Calls that libc builds of its own read, write and bind, which no wrapper sees: built again of ours.  For other descriptors
 * they are libc's. */
#include <unistd.h>

#include "preload.h"

int tas__w_eventfd_read(int fd, eventfd_t *value)
{
	if (likely(tas__kernel(fd)))
		return tas__real.eventfd_read(fd, value);
	return tas__w_read(fd, value, sizeof *value) == sizeof *value ? 0 : -1;
}

int tas__w_eventfd_write(int fd, eventfd_t value)
{
	if (likely(tas__kernel(fd)))
		return tas__real.eventfd_write(fd, value);
	return tas__w_write(fd, &value, sizeof value) == sizeof value ? 0 : -1;
}

/* A free port below 1024: first 600 to 1023, beginning anywhere, then down to 512. */
int tas__w_bindresvport(int fd, struct sockaddr_in *sin)
{
	enum { FIRST = 600, END = 1024, LOWEST = 512 };
	struct sockaddr_in any = {.sin_family = AF_INET};
	unsigned start = (unsigned)getpid() % (END - FIRST);

	if (likely(tas__kernel(fd)) || !tas__is_ours(fd))
		return tas__real.bindresvport(fd, sin);
	if (!sin)
		sin = &any;
	if (sin->sin_family != AF_INET) {
		errno = EPFNOSUPPORT;
		return -1;
	}
	for (unsigned i = 0; i < END - LOWEST; i++) {
		unsigned port = i < END - FIRST ? FIRST + (start + i) % (END - FIRST) : FIRST - 1 - (i - (END - FIRST));

		sin->sin_port = htons((uint16_t)port);
		if (tas__w_bind(fd, (struct sockaddr *)sin, sizeof *sin) == 0)
			return 0;
		if (errno != EADDRINUSE)
			return -1;
	}
	return -1;
}
