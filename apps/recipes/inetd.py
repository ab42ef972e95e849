"""Super-servers: programs that find a connection, or the listener, as their standard input."""

from __future__ import annotations

from recipes import LOCAL, SERVER, Run, recipe
from recipes.socat import ask

CONF = """
defaults
{{
	log_type = FILE {tmp}/xinetd.log
	instances = 100
	cps = 1000 1
}}
service cat
{{
	type = UNLISTED
	socket_type = stream
	protocol = tcp
	port = 7000
	wait = no
	user = nobody
	server = /bin/cat
}}
service sort
{{
	type = UNLISTED
	socket_type = stream
	protocol = tcp
	port = 7001
	wait = no
	user = nobody
	server = /usr/bin/sort
}}
service listener
{{
	type = UNLISTED
	socket_type = stream
	protocol = tcp
	port = 7002
	wait = yes
	user = nobody
	server = /usr/bin/python3
	server_args = {tmp}/accepts.py
}}
service echo
{{
	id = echo-stream
	type = INTERNAL UNLISTED
	socket_type = stream
	protocol = tcp
	port = 7003
	wait = no
	user = root
}}
service redirected
{{
	type = UNLISTED
	socket_type = stream
	protocol = tcp
	port = 7004
	wait = no
	user = nobody
	redirect = 127.0.0.1 7000
}}
service stdio
{{
	type = UNLISTED
	socket_type = stream
	protocol = tcp
	port = 7005
	wait = no
	user = nobody
	server = /usr/bin/perl
	server_args = -e $|=1;while(<STDIN>){{print(reverse(split(/(?=[[:blank:]])/)))}}
}}
"""
ACCEPTS = """
import socket
listener = socket.socket(fileno=0)
for n in range(3):
    s, _ = listener.accept()
    while data := s.recv(10000):
        s.sendall(data)
    s.close()
"""


@recipe(
    "xinetd",
    exercises="connection or listener as 0, 1, 2 of a program without sockets, setuid before exec, stdio, redirection",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=("xinetd",),
)
def xinetd(r: Run) -> None:
    r.file("accepts.py", ACCEPTS)
    conf = r.file("xinetd.conf", CONF.format(tmp=r.tmp))
    r.server("/usr/sbin/xinetd", "-dontfork", "-f", conf, "-pidfile", r.tmp / "xinetd.pid", port=7005)
    r.see("cat", ask(r, 7000))
    r.see("sort", ask(r, 7001))
    r.see("wait: the program accepts", [ask(r, 7002, 3), ask(r, 7002, 3)])
    r.see("inside", ask(r, 7003))
    r.see("redirected", ask(r, 7004, whole=True))
    r.see("perl", ask(r, 7005, 3))
