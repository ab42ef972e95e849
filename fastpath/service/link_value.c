/* SPDX-License-Identifier: MIT */
/* --link=KIND[:REST]: each kind's REST has its own grammar. */
#include "service/link_value.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/values.h"

enum { MEMIF_MTU_MIN = 576, MEMIF_MTU_MAX = 9200 };

static const char forms[] = "tap[:NAME], af_packet:IF, af_xdp:IF, memif:PATH[,server][,id=N][,mtu=N][,no-checksums][,zero-copy], pci:BDF or none";

static const char *interface_name(struct tas_config *c, const char *name)
{
	if (!tas__value_ifname(name))
		return "an interface name of 1 to 15 characters without blank, slash, colon, comma, percent or equals";
	strcpy(c->link_name, name);
	return NULL;
}

static const char *value_tap(struct tas_config *c, const char *rest)
{
	return interface_name(c, rest ? rest : "tas0");
}

static const char *value_interface(struct tas_config *c, const char *rest)
{
	return rest ? interface_name(c, rest) : forms;
}

static const char *value_none(struct tas_config *c, const char *rest)
{
	c->link_name[0] = 0;
	return rest ? forms : NULL;
}

/* One word after memif's path. */
static bool memif_word(struct tas_config *c, const char *w)
{
	uint64_t n;

	if (!strcmp(w, "server"))
		c->memif_server = true;
	else if (!strcmp(w, "client"))
		c->memif_server = false;
	else if (!strcmp(w, "zero-copy"))
		c->memif_zero_copy = true;
	else if (!strcmp(w, "no-checksums"))
		c->link_no_checksums = true;
	else if (!strncmp(w, "id=", 3) && !tas__value_number(w + 3, false, 0, UINT32_MAX, &n))
		c->memif_id = (unsigned)n;
	else if (!strncmp(w, "mtu=", 4) && !tas__value_number(w + 4, false, MEMIF_MTU_MIN, MEMIF_MTU_MAX, &n))
		c->link_mtu = (uint16_t)n;
	else
		return false;
	return true;
}

static const char *value_memif(struct tas_config *c, const char *rest)
{
	static const char accepted[] = "memif:PATH[,server][,id=N][,mtu=576 to 9200][,no-checksums][,zero-copy], PATH without comma, "
				       "equals or blank";
	char words[256], *save, *w;

	if (!rest || strlen(rest) >= sizeof(words))
		return accepted;
	strcpy(words, rest);
	c->memif_server = c->memif_zero_copy = c->link_no_checksums = false;
	c->memif_id = 0;
	c->link_mtu = 0;
	w = strtok_r(words, ",", &save);
	if (!w || *rest == ',' || strlen(w) >= sizeof(c->link_name) || strpbrk(w, "= \t\n"))
		return accepted;
	strcpy(c->link_name, w);
	while ((w = strtok_r(NULL, ",", &save)))
		if (!memif_word(c, w))
			return accepted;
	return c->memif_zero_copy && c->memif_server ? "zero-copy at the client's end only: it is the client's memory" : NULL;
}

/* [domain:]bus:device.function in hexadecimal; the domain is filled in. */
static const char *value_pci(struct tas_config *c, const char *rest)
{
	unsigned domain = 0, bus, dev, fn;
	int end = 0;

	if (rest && sscanf(rest, "%4x:%2x:%2x.%1x%n", &domain, &bus, &dev, &fn, &end) != 4)
		end = domain = 0;
	if (rest && !end && sscanf(rest, "%2x:%2x.%1x%n", &bus, &dev, &fn, &end) != 3)
		end = 0;
	if (!rest || !end || rest[end] || dev > 31 || fn > 7)
		return "pci:[DOMAIN:]BUS:DEVICE.FUNCTION as lspci shows it, for example pci:0000:08:00.0";
	snprintf(c->link_name, sizeof(c->link_name), "%04x:%02x:%02x.%x", domain & 0xffff, bus & 0xff, dev, fn);
	return NULL;
}

static const struct {
	const char *name;
	enum tas_link_kind kind;
	const char *(*value)(struct tas_config *c, const char *rest); /* rest: what follows the colon, NULL: none */
} kinds[] = {
	{ "none", TAS_LINK_NONE, value_none },
	{ "tap", TAS_LINK_TAP, value_tap },
	{ "af_packet", TAS_LINK_AF_PACKET, value_interface },
	{ "af_xdp", TAS_LINK_AF_XDP, value_interface },
	{ "memif", TAS_LINK_MEMIF, value_memif },
	{ "pci", TAS_LINK_PCI, value_pci },
};

const char *tas__link_value(struct tas_config *c, const char *v)
{
	const char *colon = strchr(v, ':');
	size_t n = colon ? (size_t)(colon - v) : strlen(v), i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strlen(kinds[i].name) != n || strncmp(v, kinds[i].name, n))
			continue;
		c->link = kinds[i].kind;
		c->link_mtu = 0;
		c->link_no_checksums = false;
		return kinds[i].value(c, colon ? colon + 1 : NULL);
	}
	return forms;
}
