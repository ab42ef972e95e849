/* SPDX-License-Identifier: MIT */
/*
 * DPDK's environment, started only when there is a link: one lcore, no PCI scan, nothing shared with other processes, no
 * files but an empty runtime directory that is named after our pid, so that a later run can tell whose it was.
 *
 * EAL pins the calling thread to its lcore's CPU; we give it its CPUs back, because placement is the scheduler's business
 * while service and applications share processors.
 */
#include <dirent.h>
#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/edge.h"
#include "service/link_drivers.h"

enum { ARGS = TAS_EAL_ARGS_MAX + 16, ORDINARY_MB = 96, THREAD_MB = 24 /* for each but the first */, HUGE_MB = 64 };

static bool running, lacked_huge;
static char runtime_dir[256];

/* Free huge pages of all sizes, MiB. */
static unsigned long huge_mb(void)
{
	DIR *d = opendir("/sys/kernel/mm/hugepages");
	unsigned long kb, n, sum = 0;
	struct dirent *e;
	char path[384];
	FILE *f;

	if (!d)
		return 0;
	while ((e = readdir(d))) {
		if (sscanf(e->d_name, "hugepages-%lukB", &kb) != 1)
			continue;
		snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/%s/free_hugepages", e->d_name);
		f = fopen(path, "re");
		if (f && fscanf(f, "%lu", &n) == 1)
			sum += n * kb / 1024;
		if (f)
			fclose(f);
	}
	closedir(d);
	return sum;
}

static void remove_dir(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[640];

	if (!d)
		return;
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		unlink(path);
	}
	closedir(d);
	rmdir(dir);
}

/* Directories of instances of ours that were killed; somebody else's are not touched. */
static void remove_leftovers(void)
{
	char parent[256], path[600], *slash;
	struct dirent *e;
	int pid, end;
	DIR *d;

	strcpy(parent, runtime_dir);
	slash = strrchr(parent, '/');
	if (!slash)
		return;
	*slash = 0;
	d = opendir(parent);
	if (!d)
		return;
	while ((e = readdir(d))) {
		end = 0;
		if (sscanf(e->d_name, "tas-%d%n", &pid, &end) != 1 || e->d_name[end] || pid <= 0)
			continue;
		if (kill(pid, 0) && errno == ESRCH) {
			snprintf(path, sizeof(path), "%s/%s", parent, e->d_name);
			remove_dir(path);
		}
	}
	closedir(d);
}

static int first_cpu(const cpu_set_t *cpus)
{
	int i;

	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, cpus))
			return i;
	return 0;
}

int tas__eal_init(const struct tas_eal_device *d)
{
	char prefix[48], lcores[32], megs[16];
	char *args[ARGS];
	bool huge = !tas_config.fp_no_hugepages && huge_mb() >= HUGE_MB;
	cpu_set_t cpus;
	unsigned i;
	int n = 0;

	if (d->needs_huge && !huge) {
		tas_warn("this link needs %d MiB of free huge pages%s (echo 64 > /proc/sys/vm/nr_hugepages)", HUGE_MB,
			 tas_config.fp_no_hugepages ? " and no --fp-no-hugepages" : "");
		return -ENOMEM;
	}
	CPU_ZERO(&cpus);
	sched_getaffinity(0, sizeof(cpus), &cpus);
	snprintf(prefix, sizeof(prefix), "--file-prefix=tas-%d", (int)getpid());
	snprintf(lcores, sizeof(lcores), "--lcores=0@%d", first_cpu(&cpus));
	args[n++] = (char *)"tas";
	args[n++] = (char *)"--log-level=*:emergency";
	args[n++] = (char *)"--no-telemetry";
	if (!d->pci)
		args[n++] = (char *)"--no-pci";
	args[n++] = prefix;
	args[n++] = lcores;
	args[n++] = (char *)d->arg;
	if (huge) {
		args[n++] = (char *)"--in-memory";
		if (d->single_file)
			args[n++] = (char *)"--single-file-segments";
	} else {
		snprintf(megs, sizeof(megs), "-m%u", ORDINARY_MB + (tas_n_cores - 1) * THREAD_MB);
		args[n++] = (char *)"--no-huge";
		args[n++] = (char *)"--no-shconf";
		args[n++] = megs;
	}
	for (i = 0; i < tas_config.n_dpdk_extra; i++)
		args[n++] = (char *)tas_config.dpdk_extra[i];
	args[n] = NULL;
	if (rte_eal_init(n, args) < 0) {
		/* Where it failed early there is nothing to clean; the directory may exist all the same. */
		snprintf(runtime_dir, sizeof(runtime_dir), "%s", rte_eal_get_runtime_dir() ? rte_eal_get_runtime_dir() : "");
		if (strstr(runtime_dir, "/tas-"))
			remove_dir(runtime_dir);
		lacked_huge = huge && !d->needs_huge;
		return rte_errno > 0 ? -rte_errno : -EIO;
	}
	running = true;
	snprintf(runtime_dir, sizeof(runtime_dir), "%s", rte_eal_get_runtime_dir());
	sched_setaffinity(0, sizeof(cpus), &cpus);
	if (!huge && !tas_config.fp_no_hugepages)
		tas_info("no free huge pages: packets lie in ordinary memory");
	remove_leftovers();
	return 0;
}

bool tas__eal_lacked_huge(void)
{
	return lacked_huge;
}

void tas__eal_exit(bool cleanup)
{
	char *slash;

	if (!running)
		return;
	running = false;
	if (cleanup)
		rte_eal_cleanup();
	if (!strstr(runtime_dir, "/tas-")) /* --dpdk-extra=--file-prefix: not ours to remove */
		return;
	remove_dir(runtime_dir);
	slash = strrchr(runtime_dir, '/');
	if (slash) {
		*slash = 0;
		rmdir(runtime_dir); /* only if it is empty */
	}
}
