/* SPDX-License-Identifier: MIT */
#ifndef TAS_IDENTITY_H
#define TAS_IDENTITY_H

#include "slow/stack.h"

/* What kernel socket is fd?  0; -ENOTSOCK; -EOPNOTSUPP: not a TCP socket; -errno. */
int tas__ident_read(int fd, struct tas_ident *i);

#endif
