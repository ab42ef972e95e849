"""PgBouncer before PostgreSQL: one libevent loop; a new process takes all sockets from the old one."""

from __future__ import annotations

from _lab import until

from recipes import LOCAL, SERVER, Run, recipe
from recipes.postgresql import AS_POSTGRES, serve, stop

CONFIG = """
[databases]
postgres = host=127.0.0.1 port=5432 user=postgres pool_size=5
[pgbouncer]
listen_addr = 0.0.0.0
listen_port = 6432
listen_backlog = 200
unix_socket_dir = {folder}
auth_type = any
admin_users = postgres
pool_mode = transaction
max_client_conn = 300
logfile = {folder}/log{n}
pidfile = {folder}/pid{n}
"""

SESSION = r"""
import sys, threading, psycopg2
def connect():
    c = psycopg2.connect(f"host={sys.argv[1]} port=6432 dbname=postgres user=postgres")
    return c
kept = connect()
kept.autocommit = True
q = kept.cursor()
q.execute("create table if not exists t (n int)")
def client(n):
    own = connect()
    for i in range(5):
        c = own.cursor()
        c.execute("insert into t values (%s)", (n * 10 + i,))
        c.execute("select repeat(%s, 20000)", (str(n % 10),))
        done.append(c.fetchone()[0] == str(n % 10) * 20000)
        own.commit()
    own.close()
done = []
threads = [threading.Thread(target=client, args=(n,)) for n in range(60)]
for t in threads: t.start()
for t in threads: t.join()
q.execute("select count(*), sum(n) from t")
print("60 clients over 5 connections:", done.count(True), q.fetchone(), flush=True)
sys.stdin.readline() # the old process is gone
q.execute("select count(*) from t")
print("the kept connection:", q.fetchone(), flush=True)
new = connect().cursor()
new.execute("select 'through the new process'")
print(*new.fetchone())
"""


@recipe(
    "pgbouncer",
    exercises="60 clients over 5 server connections; take-over: connections in use passed to a new process",
    modes=(SERVER, LOCAL),
    debian=("postgresql", "pgbouncer", "python3-psycopg2"),
    limit=90,
)
def pgbouncer(r: Run) -> None:
    ctl, data = serve(r)
    configs = [r.file(f"bouncer{n}.ini", CONFIG.format(folder=data, n=n)) for n in range(2)]
    old = r.server(*AS_POSTGRES, "pgbouncer", configs[0], port=6432)
    go = r.tmp / "go"
    go.mkdir()
    wait = f"while ! [ -e {go}/on ]; do sleep 0.1; done; echo"
    script = r.file("session.py", SESSION)
    session = r.client("sh", "-c", f"({wait}) | /usr/bin/python3 {script} {r.addr}")
    session.line("60 clients")
    new = r.server(*AS_POSTGRES, "pgbouncer", "-R", configs[1])
    until("the old process has ended", lambda: not old.alive, 20)
    r.see("old one ended", old.popen.returncode)
    (go / "on").touch()
    r.see("session", session.ok(40).splitlines())
    r.see("ended", new.end())
    stop(r, ctl, data)
    r.carried(connections=60, bytes=5_000_000)
