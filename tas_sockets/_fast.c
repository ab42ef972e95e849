// SPDX-License-Identifier: MIT
/*
 * tas_sockets._fast: the calls that a program makes most, as one C function each.
 *
 * cffi gives up the interpreter's lock (GIL) around every call.  That is right for a call that may wait; but in a
 * program with several busy threads whoever gives the lock up waits for it afterwards, up to a switch interval.  So
 * these functions look first: when a short message is there to be taken, or fits into the ring, they move it with the
 * lock held, which takes less than a microsecond.  Anything else, copies of more than SHORT bytes included, happens
 * without it.
 *
 * recv() makes the bytes object in the size that it will have.  When nothing is there it waits with a scratch buffer,
 * taken for that call only: other threads, and signal handlers between two waits, receive as well.
 *
 * The first argument is the socket object, for its number may change while a signal's handlers run, or a mere number;
 * the second its timeout in nanoseconds, -1: none.  An argument that the standard method would refuse raises Refused,
 * and the caller calls that method for the exact error.
 */
#include <Python.h> /* before all others, as Python asks */

#include "_glue.h"

#include <errno.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "sockets/sock.h"

enum {
	SHORT = 16 << 10, /* bytes that are copied with the interpreter's lock held */
	SCRATCH = 256 << 10,
	POOL = 16, /* scratch buffers kept */
	PARTS_MAX = 1024, /* of a message: UIO_MAXIOV */
	PARTS_HERE = 64, /* without an allocation */
	EVENTS_HERE = 128,
	CLOSING_NS = 5 * 1000 * 1000,
};

static PyObject *Refused, *get_number;
static void *pool[POOL];
static int pooled;

/* ---- arguments and results ---- */
/* The object's present number; -2: an exception is set.  -1: closed, as the calls will say. */
static int number_of(PyObject *self)
{
	PyObject *n;
	long fd;

	if (PyLong_Check(self)) { /* of os.read() and the like */
		Py_ssize_t v = PyLong_AsSsize_t(self);

		return v < 0 || v > INT_MAX ? -1 : (int)v;
	}
	n = PyObject_CallOneArg(get_number, self);
	if (!n)
		return -2;
	fd = PyLong_AsLong(n);
	Py_DECREF(n);
	return fd == -1 && PyErr_Occurred() ? -2 : (int)fd;
}

static bool as_number(PyObject *o, Py_ssize_t low, Py_ssize_t high, Py_ssize_t *out)
{
	PyObject *i = PyLong_CheckExact(o) ? Py_NewRef(o) : PyNumber_Index(o);
	Py_ssize_t v;

	if (!i)
		return false;
	v = PyLong_AsSsize_t(i);
	Py_DECREF(i);
	if ((v == -1 && PyErr_Occurred()) || v < low || v > high) {
		PyErr_SetNone(Refused);
		return false;
	}
	*out = v;
	return true;
}

static bool as_buffer(PyObject *o, Py_buffer *b, int how)
{
	if (PyObject_GetBuffer(o, b, how) == 0)
		return true;
	PyErr_SetNone(Refused);
	return false;
}

/* What all these calls begin with. */
struct call {
	PyObject *self;
	int fd, flags;
	int64_t ns, deadline; /* deadline 0: not known yet */
};

/* False, with Refused where nothing else was raised. */
static bool refuse(void)
{
	if (!PyErr_Occurred())
		PyErr_SetNone(Refused);
	return false;
}

static bool begin(struct call *c, PyObject *const *a, PyObject *flags)
{
	Py_ssize_t ns, f;

	if (!as_number(a[1], PY_SSIZE_T_MIN, PY_SSIZE_T_MAX, &ns) || !as_number(flags, INT_MIN, INT_MAX, &f))
		return false;
	*c = (struct call){.self = a[0], .fd = number_of(a[0]), .flags = (int)f, .ns = ns};
	return c->fd != -2;
}

static int64_t deadline_of(struct call *c)
{
	if (c->ns < 0)
		return -1;
	if (!c->deadline)
		c->deadline = (int64_t)tas__now() + c->ns;
	return c->deadline;
}

/* r of a wait that is over.  True: a signal came, its handlers have run, and the call is begun again. */
static bool once_more(struct call *c, Py_ssize_t *r)
{
	if (*r != -EINTR)
		return false;
	if (PyErr_CheckSignals() == 0 && (c->fd = number_of(c->self)) != -2)
		return true;
	*r = -EINTR; /* with an exception */
	return false;
}

/*
 * Before a call that may wait.  The interpreter looks for signals between two instructions; one that comes after that
 * and before the wait has begun would be slept over.  So: count, look, and ask without the lock whether the count
 * still stands.
 */
static bool none_pending(uint32_t *count)
{
	*count = atomic_load_explicit(&tas__sigs.intr, memory_order_relaxed);
	return PyErr_CheckSignals() == 0;
}

static bool since(uint32_t count)
{
	return atomic_load_explicit(&tas__sigs.intr, memory_order_relaxed) != count;
}

static PyObject *failed(Py_ssize_t r)
{
	if (PyErr_Occurred())
		return NULL;
	if (r == GLUE_TIMEOUT) {
		PyErr_SetString(PyExc_TimeoutError, "timed out");
		return NULL;
	}
	errno = (int)-r;
	return PyErr_SetFromErrno(PyExc_OSError);
}

/* ---- what can be done at once ---- */
/* Bytes that a plain recv() would find; 0: none, or nobody knows. */
static uint64_t there(int fd, int flags)
{
	struct tas_obj *o;
	uint64_t n = 0;

	if (flags || tas__state(fd) != TAS_FD_TAS)
		return 0;
	tas__owned = true;
	o = tas__conn_get(fd);
	tas__owned = false;
	if (!o)
		return 0;
	if (atomic_load_explicit(&o->b->a.rcvlowat, memory_order_relaxed) <= 1 &&
	    !atomic_load_explicit(&o->b->c.lock_rx, memory_order_relaxed) && tas__urg_mark(o->b) == UINT64_MAX)
		n = tas__rx_avail(o->b);
	tas__obj_put(o);
	return n;
}

/* Is there room for n bytes? */
static bool fits(int fd, uint64_t n)
{
	struct tas_obj *o;
	uint32_t len;
	bool yes;

	if (tas__state(fd) != TAS_FD_TAS)
		return false;
	tas__owned = true;
	o = tas__conn_get(fd);
	tas__owned = false;
	if (!o)
		return false;
	yes = !atomic_load_explicit(&o->b->c.lock_tx, memory_order_relaxed) && tas__tx_room(o, &len) >= n;
	tas__obj_put(o);
	return yes;
}

/* ---- moving ---- */
typedef Py_ssize_t moving(int fd, void *what, size_t n, int flags, int64_t deadline);

/* at_once: it need not wait, and is short: tried with the interpreter's lock held. */
static Py_ssize_t move(struct call *c, moving *f, void *what, Py_ssize_t n, bool at_once)
{
	Py_ssize_t r;

	if (at_once) {
		r = f(c->fd, what, (size_t)n, c->flags | MSG_DONTWAIT, -1);
		if (r != -EAGAIN)
			return r;
	}
	do {
		int64_t deadline = deadline_of(c);
		uint32_t count;

		if (!none_pending(&count))
			return -EINTR;
		Py_BEGIN_ALLOW_THREADS
		r = since(count) ? -EINTR : f(c->fd, what, (size_t)n, c->flags, deadline);
		Py_END_ALLOW_THREADS
	} while (once_more(c, &r));
	return r;
}

/* ---- receive ---- */
static Py_ssize_t receive(struct call *c, void *buf, Py_ssize_t n)
{
	return move(c, glue_recv, buf, n, n <= SHORT && there(c->fd, c->flags));
}

/* Into a bytes object of n bytes, which may become shorter. */
static PyObject *receive_bytes(struct call *c, Py_ssize_t n)
{
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, n);
	Py_ssize_t r;

	if (!bytes)
		return NULL;
	r = receive(c, PyBytes_AS_STRING(bytes), n);
	if (r < 0) {
		Py_DECREF(bytes);
		return failed(r);
	}
	if (r < n)
		_PyBytes_Resize(&bytes, r);
	return bytes;
}

/* recv(self, ns, bufsize, flags) */
static PyObject *fast_recv(PyObject *module, PyObject *const *a, Py_ssize_t n_args)
{
	Py_ssize_t n, r;
	PyObject *bytes;
	struct call c;
	uint64_t avail;
	void *buf;

	(void)module;
	if (n_args != 4 || !as_number(a[2], 0, PY_SSIZE_T_MAX, &n) || !begin(&c, a, a[3]))
		return refuse(), NULL;
	if (!n)
		return PyBytes_FromStringAndSize(NULL, 0);
	avail = there(c.fd, c.flags);
	if (avail)
		return receive_bytes(&c, (uint64_t)n > avail ? (Py_ssize_t)avail : n);
	if (n > SCRATCH)
		return receive_bytes(&c, n);
	buf = pooled ? pool[--pooled] : PyMem_RawMalloc(SCRATCH);
	if (!buf)
		return PyErr_NoMemory();
	r = receive(&c, buf, n);
	bytes = r < 0 ? failed(r) : PyBytes_FromStringAndSize(buf, r);
	if (pooled < POOL)
		pool[pooled++] = buf;
	else
		PyMem_RawFree(buf);
	return bytes;
}

/* recv_into(self, ns, buffer, nbytes, flags) */
static PyObject *fast_recv_into(PyObject *module, PyObject *const *a, Py_ssize_t n_args)
{
	Py_ssize_t n, r;
	struct call c;
	Py_buffer b;

	(void)module;
	if (n_args != 5 || !as_number(a[3], 0, PY_SSIZE_T_MAX, &n) || !begin(&c, a, a[4]))
		return refuse(), NULL;
	if (!as_buffer(a[2], &b, PyBUF_WRITABLE))
		return NULL;
	if (n > b.len) {
		PyErr_SetNone(Refused);
		PyBuffer_Release(&b);
		return NULL;
	}
	if (!n)
		n = b.len;
	r = n ? receive(&c, b.buf, n) : 0;
	PyBuffer_Release(&b);
	return r < 0 ? failed(r) : PyLong_FromSsize_t(r);
}

/* ---- send ---- */
static Py_ssize_t out(int fd, void *what, size_t n, int flags, int64_t deadline)
{
	return glue_send(fd, what, n, flags, deadline);
}

static Py_ssize_t transmit(struct call *c, char *buf, Py_ssize_t n)
{
	return move(c, out, buf, n, n && n <= SHORT && fits(c->fd, (uint64_t)n));
}

/* send(self, ns, data, flags) */
static PyObject *fast_send(PyObject *module, PyObject *const *a, Py_ssize_t n_args)
{
	struct call c;
	Py_buffer b;
	Py_ssize_t r;

	(void)module;
	if (n_args != 4 || !begin(&c, a, a[3]))
		return refuse(), NULL;
	if (!as_buffer(a[2], &b, PyBUF_SIMPLE))
		return NULL;
	r = transmit(&c, b.buf, b.len);
	PyBuffer_Release(&b);
	return r < 0 ? failed(r) : PyLong_FromSsize_t(r);
}

/* sendall(self, ns, data, flags) */
static PyObject *fast_sendall(PyObject *module, PyObject *const *a, Py_ssize_t n_args)
{
	Py_ssize_t r = 0, sent = 0;
	struct call c;
	Py_buffer b;

	(void)module;
	if (n_args != 4 || !begin(&c, a, a[3]))
		return refuse(), NULL;
	if (!as_buffer(a[2], &b, PyBUF_SIMPLE))
		return NULL;
	do { /* an empty one is sent, too: it tells whether the connection is there */
		r = transmit(&c, (char *)b.buf + sent, b.len - sent);
		if (r < 0)
			break;
		sent += r;
		if (sent < b.len && PyErr_CheckSignals()) /* progress does not keep signals waiting */
			r = -EINTR;
	} while (r >= 0 && sent < b.len);
	PyBuffer_Release(&b);
	if (r < 0)
		return failed(r);
	Py_RETURN_NONE;
}

struct parts {
	Py_ssize_t n;
	uint64_t sum;
	Py_buffer *b, b_here[PARTS_HERE];
	struct iovec *iov, iov_here[PARTS_HERE];
};

static void parts_release(struct parts *p)
{
	while (p->n > 0)
		PyBuffer_Release(&p->b[--p->n]);
	if (p->b != p->b_here)
		PyMem_Free(p->b);
	if (p->iov != p->iov_here)
		PyMem_Free(p->iov);
}

static bool parts_take(struct parts *p, PyObject *seq, int how)
{
	Py_ssize_t n = PySequence_Fast_GET_SIZE(seq);

	p->n = 0;
	p->sum = 0;
	p->b = n > PARTS_HERE ? PyMem_New(Py_buffer, n) : p->b_here;
	p->iov = n > PARTS_HERE ? PyMem_New(struct iovec, n) : p->iov_here;
	if (!p->b || !p->iov) {
		PyErr_NoMemory();
		goto fail;
	}
	for (Py_ssize_t i = 0; i < n; i++) {
		/* a buffer's own code may have changed the list */
		if (i >= PySequence_Fast_GET_SIZE(seq) || !as_buffer(PySequence_Fast_GET_ITEM(seq, i), &p->b[i], how))
			goto fail;
		p->n = i + 1;
		p->iov[i] = (struct iovec){.iov_base = p->b[i].buf, .iov_len = (size_t)p->b[i].len};
		p->sum += (uint64_t)p->b[i].len;
	}
	return true;
fail:
	parts_release(p);
	return refuse();
}

static Py_ssize_t out_parts(int fd, void *what, size_t n, int flags, int64_t deadline)
{
	(void)n;
	return glue_sendmsg(fd, what, flags, deadline);
}

static Py_ssize_t in_parts(int fd, void *what, size_t n, int flags, int64_t deadline)
{
	(void)n;
	return glue_recvmsg(fd, what, flags, deadline);
}

static Py_ssize_t move_parts(struct call *c, struct parts *p, bool send)
{
	struct msghdr m = {.msg_iov = p->iov, .msg_iovlen = (size_t)p->n};
	bool now = p->sum && p->sum <= SHORT && (send ? fits(c->fd, p->sum) : there(c->fd, c->flags) > 0);
	Py_ssize_t r = move(c, send ? out_parts : in_parts, &m, 0, now);

	c->flags = m.msg_flags;
	return r;
}

/* What sendmsg(self, ns, buffers, flags) and recvmsg_into() of the same arguments share. */
static bool with_parts(PyObject *const *a, Py_ssize_t n_args, bool send, struct call *c, Py_ssize_t *r)
{
	PyObject *seq;
	struct parts p;

	if (n_args != 4 || !begin(c, a, a[3]))
		return refuse();
	seq = PySequence_Fast(a[2], "");
	if (!seq || PySequence_Fast_GET_SIZE(seq) > PARTS_MAX || !parts_take(&p, seq, send ? PyBUF_SIMPLE : PyBUF_WRITABLE)) {
		if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError))
			PyErr_SetNone(Refused);
		Py_XDECREF(seq);
		return false;
	}
	if (!send || PyLong_Check(c->self) || PySys_Audit("socket.sendmsg", "OO", c->self, Py_None) == 0)
		*r = move_parts(c, &p, send);
	else
		*r = -EINTR; /* with an exception */
	parts_release(&p);
	Py_DECREF(seq);
	if (*r >= 0)
		return true;
	failed(*r);
	return false;
}

static PyObject *fast_sendmsg(PyObject *module, PyObject *const *a, Py_ssize_t n_args)
{
	struct call c;
	Py_ssize_t r;

	(void)module;
	return with_parts(a, n_args, true, &c, &r) ? PyLong_FromSsize_t(r) : NULL;
}

/* (number of bytes, flags) */
static PyObject *fast_recvmsg_into(PyObject *module, PyObject *const *a, Py_ssize_t n_args)
{
	struct call c;
	Py_ssize_t r;

	(void)module;
	return with_parts(a, n_args, false, &c, &r) ? Py_BuildValue("(ni)", r, c.flags) : NULL;
}

/* ---- epoll ---- */
/* epoll_wait(epfd, maxevents, ns): a list of (descriptor, events), or None: interrupted, and the handlers have run. */
static PyObject *fast_epoll_wait(PyObject *module, PyObject *const *a, Py_ssize_t n_args)
{
	struct epoll_event here[EVENTS_HERE], *ev = here;
	Py_ssize_t ep, max, ns;
	uint32_t count;
	PyObject *list = NULL;
	int n;

	(void)module;
	if (n_args != 3 || !as_number(a[0], INT_MIN, INT_MAX, &ep) || !as_number(a[1], 1, INT_MAX, &max) ||
	    !as_number(a[2], PY_SSIZE_T_MIN, PY_SSIZE_T_MAX, &ns))
		return refuse(), NULL;
	if (!none_pending(&count))
		return NULL;
	if (max > EVENTS_HERE && !(ev = PyMem_New(struct epoll_event, max)))
		return PyErr_NoMemory();
	Py_BEGIN_ALLOW_THREADS
	n = since(count) ? -EINTR : glue_epoll_wait((int)ep, ev, (int)max, ns);
	Py_END_ALLOW_THREADS
	if (n == -EINTR) {
		if (PyErr_CheckSignals() == 0)
			list = Py_NewRef(Py_None);
	} else if (n < 0) {
		failed(n);
	} else {
		list = PyList_New(n);
		for (int i = 0; list && i < n; i++) {
			PyObject *pair = Py_BuildValue("(iI)", ev[i].data.fd, ev[i].events);

			if (!pair)
				Py_CLEAR(list);
			else
				PyList_SET_ITEM(list, i, pair);
		}
	}
	if (ev != here)
		PyMem_Free(ev);
	return list;
}

/* ---- close ---- */
/*
 * closing(fd): before close() gives up the interpreter's lock.  What another thread of the program sends while it has
 * the lock comes after the close, as on Linux; what this program has sent before is waited for, a moment.
 */
static PyObject *fast_closing(PyObject *module, PyObject *arg)
{
	long fd = PyLong_AsLong(arg);
	struct tas_obj *o;

	(void)module;
	if (fd == -1 && PyErr_Occurred())
		return NULL;
	o = fd < 0 || fd > INT_MAX || tas__state((int)fd) != TAS_FD_TAS ? NULL : tas__conn_get((int)fd);
	if (o) {
		uint64_t end = tas__obj_near(o) ? tas__now() + CLOSING_NS : 0;

		while (end && !tas__settled(o->ss) && tas__now() < end)
			sched_yield();
		tas__note_unread(o);
		tas__obj_put(o);
	}
	Py_RETURN_NONE;
}

/* mode(fd, nonblocking): sets O_NONBLOCK, the lock held.  -errno or 0. */
static PyObject *fast_mode(PyObject *module, PyObject *const *a, Py_ssize_t n_args)
{
	Py_ssize_t fd, how;
	int on;

	(void)module;
	if (n_args != 2 || !as_number(a[0], INT_MIN, INT_MAX, &fd) || !as_number(a[1], 0, 1, &how))
		return refuse(), NULL;
	on = (int)how;
	return PyLong_FromLong(tas_ioctl((int)fd, FIONBIO, &on));
}

/* ---- numbers ---- */
/* state(fd): what the table says (enum tas_fd_state); what is no number of a descriptor is the kernel's affair. */
static PyObject *fast_state(PyObject *module, PyObject *arg)
{
	long fd;

	(void)module;
	if (!PyLong_CheckExact(arg))
		return PyLong_FromLong(TAS_FD_KERNEL);
	fd = PyLong_AsLong(arg);
	if (fd == -1 && PyErr_Occurred())
		PyErr_Clear();
	return PyLong_FromLong(fd < 0 || fd > INT_MAX ? TAS_FD_KERNEL : tas__state((int)fd));
}

/* ---- the module ---- */
#define FAST(name) {#name, (PyCFunction)(void (*)(void))fast_##name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
	FAST(recv), FAST(recv_into), FAST(send), FAST(sendall), FAST(sendmsg), FAST(recvmsg_into), FAST(epoll_wait),
	{"state", fast_state, METH_O, NULL}, FAST(mode), {"closing", fast_closing, METH_O, NULL}, {0},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, .m_name = "tas_sockets._fast", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC PyInit__fast(void); /* the loader looks it up by name */
PyMODINIT_FUNC PyInit__fast(void)
{
	PyObject *standard = PyImport_ImportModule("_socket"), *type = NULL, *m = NULL;

	if (standard)
		type = PyObject_GetAttrString(standard, "socket");
	if (type)
		get_number = PyObject_GetAttrString(type, "fileno");
	if (get_number)
		Refused = PyErr_NewException("tas_sockets._fast.Refused", NULL, NULL);
	if (Refused)
		m = PyModule_Create(&definition);
	if (m && PyModule_AddObjectRef(m, "Refused", Refused) < 0)
		Py_CLEAR(m);
	Py_XDECREF(type);
	Py_XDECREF(standard);
	return m;
}
