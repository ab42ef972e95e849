/* SPDX-License-Identifier: MIT */
/* What the application says while the connection lives. */
#include "tcp/tcp_conn.h"

void tcp_app_written(struct tcp_conn *c, uint64_t written)
{
	if (written > c->written && !(c->flags & TCP__FIN_QUEUED) && c->state != TCP_S_CLOSE)
		c->written = written;
}

void tcp_app_window(struct tcp_conn *c, uint64_t rcv_limit)
{
	if (rcv_limit > c->rcv_limit)
		c->rcv_limit = rcv_limit;
}

void tcp_app_urgent(struct tcp_conn *c, uint64_t off)
{
	if (off <= c->snd_una || (c->flags & TCP__URG_SND && off <= c->snd_urg))
		return;
	c->snd_urg = off;
	c->flags |= TCP__URG_SND;
}

void tcp_app_more(struct tcp_conn *c, uint64_t from)
{
	c->more_from = from;
	if (from == UINT64_MAX)
		c->flags &= ~TCP__MORE;
	else
		c->flags |= TCP__MORE;
}

static void set_flag(struct tcp_conn *c, uint32_t flag, bool on)
{
	c->flags = on ? c->flags | flag : c->flags & ~flag;
}

void tcp_app_options(struct tcp_conn *c, const struct tcp_opts *o, uint64_t now)
{
	uint32_t idle = o->keep_idle ? o->keep_idle : 7200;

	/* Linux: asking for quick acknowledgements lets a pending one go. */
	if (o->quickack && !(c->flags & TCP__QUICKACK) && c->delack_at != TCP__NEVER)
		c->flags |= TCP__ACK_NOW;
	/* Linux: both push what waits. */
	if ((o->nodelay && !(c->flags & TCP__NODELAY)) || (!o->cork && c->flags & TCP__CORK))
		c->flags &= ~TCP__MORE;
	set_flag(c, TCP__NODELAY, o->nodelay);
	set_flag(c, TCP__CORK, o->cork);
	set_flag(c, TCP__QUICKACK, o->quickack);
	c->keep_intvl = o->keep_intvl ? o->keep_intvl : 75;
	c->keep_cnt = (uint8_t)(!o->keep_cnt ? 9 : o->keep_cnt > 127 ? 127 : o->keep_cnt);
	c->user_timeout = o->user_timeout;
	c->linger2 = o->linger2;
	if (o->keepalive != !!(c->flags & TCP__KEEPALIVE) || idle != c->keep_idle) {
		c->keep_idle = idle;
		set_flag(c, TCP__KEEPALIVE, o->keepalive);
		tcp__keepalive_restart(c, o->keepalive ? c->last_rcv : now);
	}
}
