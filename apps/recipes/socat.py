"""socat: select between two descriptors of any kind; fork per connection, EXEC, inetd style."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, _web, recipe

DEBIAN = ("socat",)
ASK = """
import hashlib, socket, sys, threading
def ask(n):
    data = b"".join(b"%d %d\\n" % (n, i) for i in range(20000))
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    def send():
        s.sendall(data)
        if len(sys.argv) == 4:
            s.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=send)
    t.start()
    got = b""
    while len(got) < len(data) or len(sys.argv) == 4:
        more = s.recv(65536)
        if not more:
            break
        got += more
    t.join()
    s.close()
    answers[n] = (len(got), hashlib.sha256(got).hexdigest()[:16])
answers = {}
threads = [threading.Thread(target=ask, args=(n,)) for n in range(int(sys.argv[3]))]
for t in threads: t.start()
for t in threads: t.join()
assert len(answers) == len(threads), answers
print(sorted(answers.items()))
"""


def ask(r: Run, port: int, clients: int = 8, whole: bool = False) -> str:
    """Clients that send 149 kB each, half close, and read all; or, for servers that cannot do that, read as much."""
    script = r.tmp / "ask.py"
    if not script.exists():
        r.file("ask.py", ASK)
    r.carried(connections=clients, bytes=clients * 120_000)
    return r.client("/usr/bin/python3", script, r.addr, str(port), str(clients), *["whole"] * whole).ok(60)


@recipe(
    "socat-exec",
    exercises="fork per connection, dup2 onto 0 and 1, exec of a program that knows nothing of sockets (inetd style)",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=DEBIAN,
)
def socat_exec(r: Run) -> None:
    r.server("socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:/bin/cat,nofork", port=7000)
    r.see("nofork: the connection is 0 and 1", ask(r, 7000))
    r.server("socat", "TCP-LISTEN:7001,fork,reuseaddr", "EXEC:/bin/cat", port=7001)
    r.see("by a socket pair", ask(r, 7001))
    r.server("socat", "TCP-LISTEN:7002,fork,reuseaddr", "EXEC:/usr/bin/sort,pipes", port=7002)
    r.see("by pipes", ask(r, 7002))
    r.server(
        "socat", "TCP-LISTEN:7003,fork,reuseaddr", "SYSTEM:'while read a b; do echo $b $a; done',nofork", port=7003
    )
    r.see("a shell with the connection as 0 and 1", ask(r, 7003, 3))


@recipe(
    "socat-relay",
    exercises="one process copies between two connections, fork per connection, half close both ways",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=DEBIAN,
)
def socat_relay(r: Run) -> None:
    r.server("socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:/bin/cat,nofork", port=7000)
    r.server("socat", "TCP-LISTEN:7001,fork,reuseaddr", "TCP:127.0.0.1:7000", port=7001)
    r.see("through", ask(r, 7001))
    r.server("socat", "-b", "100", "TCP-LISTEN:7002,fork,reuseaddr,nodelay", "TCP:127.0.0.1:7001,nodelay", port=7002)
    r.see("through both, in small pieces", ask(r, 7002, 4))


@recipe(
    "socat-client",
    exercises="files, pipes and pseudo-terminals to a connection; options of sockets by name",
    modes=(CLIENT, LOCAL),
    debian=DEBIAN,
)
def socat_client(r: Run) -> None:
    data = _web.data(2_000_000)
    r.file("data", data)
    r.server("socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:/bin/cat,nofork", port=7000)
    options = "nodelay,keepalive,keepidle=10,keepintvl=5,keepcnt=3,rcvbuf=100000,sndbuf=100000,linger=5,mss=1000"
    back = r.client("sh", "-c", f"socat -t 10 - TCP:{r.addr}:7000,{options} <{r.tmp}/data >{r.tmp}/back")
    r.see("there and back", [back.wait(20), back.err, _web.sha((r.tmp / "back").read_bytes())])
    bound = r.client(
        "socat", "-t", "5", "-", f"TCP:{r.addr}:7000,bind={r.client_addr}:7777,reuseaddr", stdin="a line\n"
    )
    r.see("bound", [bound.wait(10), bound.out, bound.err])
    none = r.client("socat", "-", f"TCP:{r.addr}:7009,connect-timeout=3", stdin="")
    r.see("nobody", [none.wait(10), none.err.split(" E ")[-1]])
    r.carried(connections=2, bytes=2 * len(data))
