/* SPDX-License-Identifier: MIT */
/* sendfile to a TAS socket: the file is read straight into the transmit ring. */
#include "sockets/sock.h"

static int check_input(int in, const off64_t *off, size_t n)
{
	struct stat st;
	int r = sys_fstat(in, &st), fl;

	if (off && tas__wild(off))
		return -EFAULT;
	if (r < 0)
		return r;
	fl = sys_fcntl(in, F_GETFL, 0);
	if (fl < 0 || (fl & O_ACCMODE) == O_WRONLY)
		return -EBADF;
	if ((off && *off < 0) || (ssize_t)n < 0)
		return -EINVAL;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return off ? -ESPIPE : -EINVAL;
	return 0;
}

ssize_t tas_sendfile(int out, int in, off64_t *off, size_t n)
{
	struct tas_obj *o = tas__conn_get(out);
	struct tas_source src = {.in_fd = in, .off = off};
	ssize_t r;

	if (!o)
		return sys4(SYS_sendfile, tas__raw(out), tas__raw(in), SYS_P(off), n);
	r = check_input(tas__raw(in), off, n);
	if (r == 0)
		r = tas__send(o, out, &src, n > 0x7ffff000 ? 0x7ffff000 : n, 0);
	tas__obj_put(o);
	return r;
}
