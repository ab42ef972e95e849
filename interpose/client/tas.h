/* SPDX-License-Identifier: MIT */
/*
 * libtas, the low-level client of the TAS service: attach to it and see what one is attached to.  Sockets with POSIX
 * semantics are libtas_sockets (tas_sockets.h), which is built on this.
 */
#ifndef TAS_H
#define TAS_H

#include <stdbool.h>
#include <stdint.h>

#define TAS_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

struct tas_status {
	bool attached; /* a session exists and its service lives */
	uint32_t abi; /* of the session; fields from here on are 0 without one */
	uint32_t proc_slot; /* this process in the service's table */
	uint32_t set_id; /* memory set */
	uint32_t n_cores; /* fast-path cores */
	uint64_t instance; /* random number of the service run */
	uint32_t chunks; /* chunks of shared memory that are mapped here */
	uint32_t wait_sets; /* wait sets opened */
};

/* Attaches if that has not happened.  0; -ENOENT, -ECONNREFUSED: no service; -EPROTO: it speaks another ABI; -EACCES;
 * -ENOMEM, -EAGAIN: limits.  After a failure the next try is made a second later at the earliest. */
TAS_API int tas_attach(void);
/* Fills st; never attaches. */
TAS_API void tas_get_status(struct tas_status *st);
/* Path of the control socket: $TAS_SOCKET or the default. */
TAS_API const char *tas_socket_path(void);

#ifdef __cplusplus
}
#endif
#endif
