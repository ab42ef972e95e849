/* SPDX-License-Identifier: MIT */
/*
 * Receiving.  The order of Linux's tcp_recvmsg(): data first, then end of stream, then the pending error (once), then
 * "would block".  lock_rx is held for one copy at a time.
 */
#include <limits.h>
#include <string.h>

#include "abi/tas_extent.h"
#include "sockets/sock.h"

enum { MAX_RW = 0x7ffff000 }; /* MAX_RW_COUNT */

/* Where received bytes go: to memory, nowhere (MSG_TRUNC), or straight into a pipe (splice). */
struct sink {
	const struct iovec *iov;
	size_t n, at;
	bool discard, pipe;
	int fd;
};

int tas__iov_check(const struct iovec *iov, size_t n, size_t *total)
{
	size_t sum = 0;

	*total = 0;
	if (n > 1024)
		return -EMSGSIZE;
	if (n && tas__wild(iov))
		return -EFAULT;
	for (size_t i = 0; i < n; i++) {
		if ((ssize_t)iov[i].iov_len < 0)
			return -EINVAL;
		sum += iov[i].iov_len;
		if (sum > MAX_RW)
			sum = MAX_RW;
	}
	/* Linux: of a single one, what is beyond the most that a call moves is cut off first */
	for (size_t i = 0; i < n; i++)
		if (tas__beyond(iov[i].iov_base, n == 1 && iov[i].iov_len > MAX_RW ? MAX_RW : iov[i].iov_len))
			return -EFAULT;
	*total = sum;
	return 0;
}

static void sink_put(struct sink *s, const uint8_t *p, size_t n)
{
	if (s->discard)
		return;
	while (n) {
		size_t k = s->iov->iov_len - s->at;

		if (k > n)
			k = n;
		memcpy((uint8_t *)s->iov->iov_base + s->at, p, k);
		p += k;
		n -= k;
		s->at += k;
		if (s->at == s->iov->iov_len && n) {
			s->iov++;
			s->at = 0;
		} else if (s->at == s->iov->iov_len) {
			if (--s->n) {
				s->iov++;
				s->at = 0;
			}
			return;
		}
	}
}

/* Does the service want to know that bytes were consumed?  When a quarter of the ring (or of SO_RCVBUF, which the kernel
 * answers doubled) was crossed, or much was waiting. */
static bool worth_a_hint(const struct tas_block *b, uint64_t from, uint64_t to, uint64_t avail)
{
	uint64_t len = atomic_load_explicit(&b->a.rcvbuf, memory_order_relaxed) / 2, quarter;

	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		uint32_t l = atomic_load_explicit(&b->x.rx[i].len, memory_order_relaxed);

		if (atomic_load_explicit(&b->x.rx[i].gen, memory_order_relaxed) && (!len || l < len))
			len = l;
	}
	if (len < 4)
		return true;
	quarter = len / 4;
	return avail >= quarter || from / quarter != to / quarter;
}

/* SO_PEEK_OFF follows what is peeked, and what is taken away before it.  Under lock_rx. */
static void peek_moved(struct tas_block *b, uint64_t off, ssize_t by)
{
	off = by < 0 && off - 1 < (uint64_t)-by ? 1 : off + (uint64_t)by;
	atomic_store_explicit(&b->c.peek_off, off, memory_order_relaxed);
}

static void peek_forward(struct tas_obj *o, ssize_t n)
{
	struct tas_block *b = tas__block(o);
	uint64_t off;

	if (!atomic_load_explicit(&b->c.peek_off, memory_order_relaxed) || tas__obj_lock(o, false, &b) < 0)
		return;
	off = atomic_load_explicit(&b->c.peek_off, memory_order_relaxed);
	if (off)
		peek_moved(b, off, n);
	tas__unlock(&b->c.lock_rx);
}

void tas__peek_set(struct tas_obj *o, int fd)
{
	int v = -1;
	socklen_t len = sizeof v;
	struct tas_block *b;

	sys_getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &v, &len);
	if (tas__obj_lock(o, false, &b) < 0)
		return;
	atomic_store_explicit(&b->c.peek_off, v < 0 ? 0 : (uint64_t)v + 1, memory_order_relaxed);
	tas__unlock(&b->c.lock_rx);
}

/*
 * One copy of at most max bytes.  Returns how many, 0: nothing there, -errno.  Linux: a read stops before the urgent
 * byte (*mark); one that begins at it leaves it out, unless SO_OOBINLINE is set.  *blinded: of a direct connection, memory cannot be had here.
 */
static ssize_t take_once(struct tas_obj *o, struct sink *s, size_t max, bool peek, bool *mark, bool *blinded)
{
	struct tas_block *b;
	uint64_t from, at, end, avail, urg, off;
	struct tas_block *peer;
	tas_off_t learn = 0;
	bool tell = false, blind = false;
	ssize_t done = 0;
	int r = tas__obj_lock(o, false, &b);

	*blinded = false;
	if (r == -EDEADLK)
		return -EAGAIN;
	if (r < 0)
		return 0; /* the service is dead, perhaps with the lock's owner: the caller will see it */
	from = atomic_load_explicit(&b->a.rx_consumed, memory_order_relaxed);
	at = tas__rx_from(b);
	end = atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire);
	avail = end > at ? end - at : 0;
	if (avail && max && !s->discard && !s->pipe &&
	    tas__wild(s->iov->iov_base)) { /* only what is cheap to see; Linux finds every bad address */
		tas__unlock(&b->c.lock_rx);
		return -EFAULT;
	}
	urg = tas__urg_mark(b);
	if (at < end && urg == at && *mark) {
		end = at; /* the call has bytes from before */
	} else if (s->pipe && urg == at) {
		end = at;
	} else if (urg == at) {
		at += at < end && max && !tas__urg_inline(b);
		*mark = false;
	} else {
		end = urg < end ? urg : end;
		*mark = false;
	}
	off = atomic_load_explicit(&b->c.peek_off, memory_order_relaxed);
	if (off && peek)
		at += off - 1;
	while (at < end && (size_t)done < max) {
		uint64_t to = end - at > max - (size_t)done ? at + (max - (size_t)done) : end;
		struct tas_span p = tas_rx_span(b->x.rx, at, to);
		uint8_t *mem = p.len ? tas__obj_mem(o, p.off, p.len) : NULL;
		ssize_t n = (ssize_t)p.len;

		if (!mem) {
			blind = p.len && atomic_load_explicit(&b->s.direct, memory_order_relaxed);
			if (!done)
				done = p.len && tas__alive(o->ss) ? -ENOMEM : -ECONNRESET;
			break;
		}
		if (__builtin_expect(s->pipe, 0))
			n = tas__pipe_io(SYS_pwritev2, s->fd, mem, p.len);
		else
			sink_put(s, mem, p.len);
		if (n <= 0) {
			done = done ? done : n;
			break;
		}
		at += (uint64_t)n;
		done += n;
		if (n < (ssize_t)p.len)
			break;
	}
	if (at != from && !peek) {
		/* seq_cst: before the look at direct and at want_room; release would do for the service */
		atomic_store_explicit(&b->a.rx_consumed, at, memory_order_seq_cst);
		peer = tas__direct(o, b);
		blind |= tas__direct_blind(b, peer);
		tell = peer ? tas__direct_room(o, b, peer, &learn) : worth_a_hint(b, from, at, avail);
	}
	if (off && !peek && done > 0)
		peek_moved(b, off, -done);
	*mark |= done > 0 && at == urg;
	tas__unlock(&b->c.lock_rx);
	if (tell)
		tas__hint(o->ss, b, o->id);
	tas__direct_told(o, learn);
	if (done > 0)
		atomic_store_explicit(&o->active, tas__tsc(), memory_order_relaxed);
	*blinded = blind;
	return done;
}

static inline ssize_t take(struct tas_obj *o, struct sink *s, size_t max, bool peek, bool *mark)
{
	bool blind;
	ssize_t r = take_once(o, s, max, peek, mark, &blind);

	/* if it stays so it is a peer's nonsense, which the service does not know of */
	for (int i = 0; __builtin_expect(blind, 0) && i < TAS_ORDINARY_MAX && tas__ordinary(o) && r < 0; i++)
		r = take_once(o, s, max, peek, mark, &blind);
	return r;
}

/* Why there is nothing to read: 0 end of stream, 1 nothing yet, -errno. */
static int why_empty(struct tas_obj *o, uint32_t flags, uint32_t shut, bool got_some)
{
	int err;

	if (flags & TAS_F_RX_EOF)
		return 0;
	if (got_some && ((flags & TAS_F_RESET) || tas__obj_error(o, false)))
		return 0; /* the error waits for the next call */
	err = tas__obj_error(o, true);
	if (err)
		return -err;
	if ((flags & TAS_F_RESET) || (shut & TAS_SHUT_RD) || !tas__obj_live(o))
		return 0;
	return atomic_load(&tas__block(o)->s.state) == TAS_S_CLOSE ? -ENOTCONN : 1;
}

static ssize_t receive_into(struct tas_obj *o, int fd, const struct sink *to, size_t total, int flags)
{
	struct tas_block *b = tas__block(o);
	bool settled = false, peek = flags & MSG_PEEK, mark, nonblock = (flags & MSG_DONTWAIT) || tas__nonblock(o);
	uint32_t lowat = atomic_load_explicit(&b->a.rcvlowat, memory_order_relaxed);
	size_t target = (flags & MSG_WAITALL) || (lowat && lowat > total) ? total : lowat ? lowat : 1, got = 0;
	struct tas_wait w = {.sig = tas__sig_mark()};
	struct sink s = *to;

	if (!target)
		target = 1;
	for (;; b = tas__block(o)) {
		uint32_t seen = atomic_load_explicit(&b->s.ev_in, memory_order_acquire);
		uint32_t shut = atomic_load_explicit(&b->a.shut, memory_order_acquire);
		uint32_t f = atomic_load_explicit(&b->s.flags, memory_order_acquire);
		ssize_t r;
		int why;

		mark = got > 0;
		r = total > got ? take(o, &s, total - got, peek, &mark) : 0;

		if (r < 0)
			return got ? (ssize_t)got : r;
		got += (size_t)r;
		if (got == total && (total || tas__rx_avail(b)))
			return (ssize_t)got;
		if (got >= target || (got && mark))
			return (ssize_t)got;
		if (r && !peek)
			continue;
		if (s.pipe && tas__rx_avail(b) && tas__urg_mark(b) == tas__rx_from(b))
			return (ssize_t)got; /* Linux: splice does not get past the urgent byte, in line or not */
		why = why_empty(o, f, shut, got > 0);
		if (why <= 0)
			return got ? (ssize_t)got : why;
		if (nonblock && !settled && tas__obj_near(o) && tas__settle(o->ss)) {
			settled = true;
			if (!peek)
				continue;
			got = 0;
			s = *to;
			continue;
		}
		if (nonblock)
			return got ? (ssize_t)got : -EAGAIN;
		w.partial = got > 0;
		why = tas__obj_wait(o, fd, true, seen, shut, &w);
		if (why < 0)
			return got && why != -ECANCELED ? (ssize_t)got : why;
		if (!total)
			return 0; /* Linux: who reads nothing waits once, for whatever happens */
		if (peek) {
			got = 0;
			s = *to;
		}
	}
}

static ssize_t receive(struct tas_obj *o, int fd, const struct iovec *iov, size_t n_iov, size_t total, int flags)
{
	struct sink s = {.iov = iov, .n = n_iov, .discard = flags & MSG_TRUNC};

	while (s.n > 1 && !s.iov->iov_len) {
		s.iov++;
		s.n--;
	}
	return receive_into(o, fd, &s, total, flags);
}

ssize_t tas_to_pipe(int in, int out, size_t n, int flags)
{
	const struct sink s = {.pipe = true, .fd = out};
	struct tas_obj *o = tas__conn_get(in);
	ssize_t r = -EOPNOTSUPP;

	if (o) {
		r = receive_into(o, in, &s, n < MAX_RW ? n : MAX_RW, flags);
		tas__obj_put(o);
	}
	return r;
}

/* MSG_OOB, Linux's tcp_recv_urg(): one byte, never waits. */
static ssize_t receive_urgent(struct tas_obj *o, const struct iovec *iov, size_t n_iov, size_t total, int flags)
{
	struct tas_block *b = tas__block(o);
	struct sink s = {.iov = iov, .n = n_iov, .discard = flags & MSG_TRUNC};
	ssize_t r = -EINVAL;
	struct tas_span p;
	uint8_t *mem;
	uint64_t u;

	if (tas__urg_mark(b) == UINT64_MAX && tas__obj_near(o))
		tas__settle(o->ss);
	if (tas__obj_lock(o, false, &b) < 0)
		return -EINVAL;
	u = tas__urg_mark(b);
	if (u == UINT64_MAX || tas__urg_inline(b) || atomic_load(&b->a.urg_read) == u + 1)
		goto out;
	r = -ENOTCONN; /* Linux: after a reset, though not after a FIN */
	if (atomic_load(&b->s.state) == TAS_S_CLOSE && !(atomic_load(&b->s.flags) & TAS_F_RX_EOF))
		goto out;
	r = -EAGAIN;
	if (u >= atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire)) {
		if (atomic_load(&b->s.state) == TAS_S_CLOSE || (atomic_load(&b->a.shut) & TAS_SHUT_RD))
			r = 0;
		goto out;
	}
	r = 0;
	if (!(flags & MSG_PEEK))
		atomic_store(&b->a.urg_read, u + 1);
	if (!total)
		goto out;
	while (s.n > 1 && !s.iov->iov_len) {
		s.iov++;
		s.n--;
	}
	p = tas_rx_span(b->x.rx, u, u + 1);
	mem = p.len ? tas__obj_mem(o, p.off, 1) : NULL;
	if (mem)
		sink_put(&s, mem, 1);
	r = mem ? 1 : -ECONNRESET;
out:
	tas__unlock(&b->c.lock_rx);
	return r;
}

static ssize_t receive_flags(struct tas_obj *o, int fd, const struct iovec *iov, size_t n_iov, size_t total, int flags)
{
	ssize_t r;

	if (__builtin_expect(!(flags & (MSG_ERRQUEUE | MSG_OOB | MSG_PEEK)), 1))
		return receive(o, fd, iov, n_iov, total, flags);
	if (flags & MSG_ERRQUEUE)
		return tas__errqueue_recv(o, NULL);
	if (flags & MSG_OOB)
		return receive_urgent(o, iov, n_iov, total, flags);
	r = receive(o, fd, iov, n_iov, total, flags);
	if (r > 0)
		peek_forward(o, r);
	return r;
}

/* After ENOTCONN of the backing socket of a PLAIN number: has another process connected it? */
static bool again(int fd, ssize_t r)
{
	return r == -ENOTCONN && tas__plain_recheck(fd);
}

ssize_t tas_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len)
{
	struct tas_obj *o;
	struct iovec v = {.iov_base = buf, .iov_len = n > INT_MAX ? INT_MAX : n};
	ssize_t r = !addr && tas__direct_plain(flags) ? tas__direct_recv(fd, buf, n) : 0;

	if (r)
		return r;
	do {
		o = tas__conn_get(fd);
		if (!o)
			r = tas__sleep6(SYS_recvfrom, tas__raw(fd), SYS_P(buf), (long)n, flags, SYS_P(addr), SYS_P(len));
	} while (!o && again(fd, r));
	if (!o)
		return tas__plain_result(fd, r);
	r = tas__beyond(buf, v.iov_len) ? -EFAULT : receive_flags(o, fd, &v, 1, v.iov_len, flags);
	if (r >= 0 && addr) {
		if (tas__wild(len))
			r = -EFAULT;
		else if ((int)*len < 0)
			r = -EINVAL;
		else
			*len = 0; /* Linux: TCP names no sender */
	}
	tas__obj_put(o);
	return r;
}

enum { FLAG_COMPAT = INT32_MIN }; /* the kernel's own flag, which no program may give */

ssize_t tas_recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct tas_obj *o;
	size_t total;
	ssize_t r;

	do {
		o = tas__conn_get(fd);
		if (!o)
			r = tas__sleep3(SYS_recvmsg, tas__raw(fd), SYS_P(msg), flags);
	} while (!o && again(fd, r));
	if (!o) {
		if (r >= 0 && msg->msg_controllen)
			tas__note_received(msg);
		return tas__plain_result(fd, r);
	}
	if (flags & FLAG_COMPAT) {
		r = -EINVAL;
	} else if (tas__wild(msg)) {
		r = -EFAULT;
	} else {
		r = tas__iov_check(msg->msg_iov, msg->msg_iovlen, &total);
		if (r == 0 && (flags & MSG_ERRQUEUE)) {
			r = tas__errqueue_recv(o, msg);
			tas__obj_put(o);
			return r;
		}
		if (r == 0)
			r = receive_flags(o, fd, msg->msg_iov, msg->msg_iovlen, total, flags);
		if (r >= 0) {
			msg->msg_namelen = 0;
			msg->msg_controllen = 0;
			msg->msg_flags = flags & (MSG_OOB | MSG_CMSG_CLOEXEC); /* Linux: says what came */
		}
	}
	tas__obj_put(o);
	return r;
}

ssize_t tas_read(int fd, void *buf, size_t n)
{
	struct tas_obj *o;
	struct iovec v = {.iov_base = buf, .iov_len = n > 0x7ffff000 ? 0x7ffff000 : n};
	ssize_t r = tas__direct_recv(fd, buf, n);

	if (r)
		return r;
	do {
		o = tas__conn_get(fd);
		if (!o)
			r = tas__sleep3(SYS_read, tas__raw(fd), SYS_P(buf), n);
	} while (!o && again(fd, r));
	if (!o)
		return tas__plain_result(fd, r);
	r = tas__beyond(buf, n) ? -EFAULT : !n ? 0 : receive(o, fd, &v, 1, v.iov_len, 0); /* Linux: reading nothing never waits */
	tas__obj_put(o);
	return r;
}

ssize_t tas_readv(int fd, const struct iovec *iov, int n)
{
	struct tas_obj *o;
	size_t total;
	ssize_t r;

	do {
		o = tas__conn_get(fd);
		if (!o)
			r = tas__sleep3(SYS_readv, tas__raw(fd), SYS_P(iov), n);
	} while (!o && again(fd, r));
	if (!o)
		return tas__plain_result(fd, r);
	r = n < 0 || n > 1024 ? -EINVAL : tas__iov_check(iov, (size_t)n, &total);
	if (r == 0 && total)
		r = receive(o, fd, iov, (size_t)n, total, 0);
	tas__obj_put(o);
	return r;
}

/* What is left of recvmmsg's timeout, which is looked at after each message only; false: nothing. */
static bool time_left(struct timespec *timeout, uint64_t end)
{
	uint64_t now = tas__now(), left = end > now ? end - now : 0;

	timeout->tv_sec = (time_t)(left / 1000000000u);
	timeout->tv_nsec = (long)(left % 1000000000u);
	return left != 0;
}

static int recvmmsg_check(const struct timespec *timeout, int flags)
{
	if (flags & FLAG_COMPAT)
		return -EINVAL;
	if (!timeout)
		return 0;
	if (tas__wild(timeout))
		return -EFAULT;
	return timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000 ? -EINVAL : 0;
}

static int receive_many(int fd, struct mmsghdr *vec, unsigned n, int flags, struct timespec *timeout, ssize_t *r)
{
	uint64_t end = tas__deadline(timeout);
	unsigned i = 0;

	while (i < n && i < 1024) {
		*r = tas__wild(vec) ? -EFAULT : tas_recvmsg(fd, &vec[i].msg_hdr, flags & ~MSG_WAITFORONE);
		if (*r < 0)
			break;
		vec[i++].msg_len = (unsigned)*r;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		if (timeout && !time_left(timeout, end))
			break;
	}
	return (int)i;
}

int tas_recvmmsg(int fd, struct mmsghdr *vec, unsigned n, int flags, struct timespec *timeout)
{
	struct tas_obj *o = tas__conn_get(fd);
	ssize_t r = 0;
	int done;

	if (!o) {
		r = tas__sleep5(SYS_recvmmsg, tas__raw(fd), SYS_P(vec), n, flags, SYS_P(timeout));
		for (int i = 0; i < r; i++)
			if (vec[i].msg_hdr.msg_controllen)
				tas__note_received(&vec[i].msg_hdr);
		return (int)tas__plain_result(fd, r);
	}
	r = recvmmsg_check(timeout, flags);
	if (r == 0)
		r = -tas__obj_error(o, true); /* Linux: before anything is received */
	done = r < 0 ? 0 : receive_many(fd, vec, n, flags, timeout, &r);
	if (done && r < 0 && r != -EAGAIN && r != -ECANCELED)
		atomic_store(&o->so_error, (int)-r); /* Linux: the next call says it */
	tas__obj_put(o);
	return done && r != -ECANCELED ? done : (int)r;
}
