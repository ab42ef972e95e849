/* SPDX-License-Identifier: MIT */
/* The value of --link. */
#ifndef TAS_LINK_VALUE_H
#define TAS_LINK_VALUE_H

#include "fast/config.h"

/* v into the link fields of *c; NULL, or what is accepted (static text, to follow "not accepted, but"). */
const char *tas__link_value(struct tas_config *c, const char *v);

#endif
