"""PostgreSQL: a process for each connection, forked by the server; latches over epoll and signals; psql and psycopg."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from _lab import until

from recipes import LOCAL, SERVER, Run, recipe

PACKAGES = ("postgresql", "python3-psycopg2")
AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")
SETTINGS = """
listen_addresses = '*'
unix_socket_directories = '{data}'
max_connections = 150
fsync = off
"""

SESSION = r"""
import hashlib, io, select, sys, threading, time
import psycopg2, psycopg2.extensions as ex

def connect(**more):
    return psycopg2.connect(f"host={sys.argv[1]} dbname=postgres user=postgres", **more)

def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]

main = connect()
main.autocommit = True
cursor = main.cursor()

cursor.execute("create table t (n int primary key, data bytea)")
together, done = threading.Barrier(100), []
def client(n):
    own = connect()
    together.wait(60)
    q = own.cursor()
    for i in range(3):
        q.execute("insert into t values (%s, %s)", (n * 10 + i, bytes([n]) * (1000 * (i + 1))))
    own.commit()
    q.execute("select data from t where n = %s", (n * 10 + 2,))
    done.append(bytes(q.fetchone()[0]) == bytes([n]) * 3000)
    own.close()
threads = [threading.Thread(target=client, args=(n,)) for n in range(100)]
for t in threads: t.start()
for t in threads: t.join()
cursor.execute("select count(*), sum(length(data)) from t")
print("100 clients:", done.count(True), cursor.fetchall())

cursor.execute("select string_agg(md5(g::text), '') from generate_series(1, 200000) g")
large = cursor.fetchone()[0]
print("large result:", len(large), sha(large))

cursor.execute("create table u (a int, b text)")
cursor.copy_expert("copy u from stdin", io.StringIO("".join(f"{i}\trow {i}\n" for i in range(200000))))
out = io.StringIO()
cursor.copy_expert("copy u to stdout", out)
print("copy:", len(out.getvalue()), sha(out.getvalue()))
cursor.execute("drop table t; drop table u")

busy = connect()
threading.Timer(0.5, busy.cancel).start()
begin = time.monotonic()
try:
    busy.cursor().execute("select pg_sleep(60)")
except ex.QueryCanceledError as e:
    print("cancel:", e.pgcode, time.monotonic() - begin < 10)
busy.rollback()

victim = connect()
q = victim.cursor()
q.execute("select pg_backend_pid()")
cursor.execute("select pg_terminate_backend(%s, 10000)", q.fetchone())
try:
    q.execute("select 1")
except psycopg2.Error as e:
    print("terminated:", type(e).__name__, str(e).split("\n")[:3], victim.closed)

listener = connect()
listener.autocommit = True
listener.cursor().execute("listen news")
print("quiet:", select.select([listener], [], [], 0.2)[0])
cursor.execute("notify news, 'hello'")
print("notified:", select.select([listener], [], [], 20)[0] == [listener])
listener.poll()
print([(n.channel, n.payload) for n in listener.notifies])

def wait(c):
    while (state := c.poll()) != ex.POLL_OK:
        select.select(*(([c], [], []) if state == ex.POLL_READ else ([], [c], [])))
own = connect(async_=True)
wait(own)
q = own.cursor()
q.execute("select 41 + 1")
wait(own)
print("asynchronous:", q.fetchone())
"""

PSQL = r"""
\set ON_ERROR_STOP on
create table p (n int, t text);
\copy p from stdin
1	one
2	two
\.
select * from p order by n;
begin; insert into p values (3, 'three'); rollback;
select count(*), inet_server_port() from p;
do $$ begin raise notice 'a notice'; end $$;
\copy (select n from p) to stdout
drop table p;
select repeat('x', 300000) as wide \gset
select length(:'wide');
"""


def serve(r: Run) -> tuple[str, Path]:
    """Starts a server as user postgres in a new data folder; (path of pg_ctl, the folder)."""
    ctl = str(max(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda p: float(p.parts[-3])))
    data = r.tmp / "data"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    data.chmod(0o700)
    initdb = ctl.replace("pg_ctl", "initdb")
    r.server(
        *AS_POSTGRES, initdb, "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C.UTF-8"
    ).ok(60)  # fmt: skip
    with open(data / "postgresql.conf", "a") as f:
        f.write(SETTINGS.format(data=data))
    with open(data / "pg_hba.conf", "a") as f:
        f.write("host all all 0.0.0.0/0 trust\n")
    r.server(*AS_POSTGRES, ctl, "-D", data, "-l", data / "log", "-w", "start").ok(60)
    return ctl, data


def ask(r: Run, query: str) -> str:
    return r.client("psql", "-X", "-h", r.addr, "-U", "postgres", "-Atc", query, "postgres").ok(20).strip()


def stop(r: Run, ctl: str, data: Path) -> None:
    """A fast shutdown, which ends the connections that there are; then what the log has about crashes."""
    r.server(*AS_POSTGRES, ctl, "-D", data, "-m", "fast", "-w", "stop").ok(60)
    r.see("crashes", re.findall(r"PANIC.*|.*(?:terminated by signal|crash).*", (data / "log").read_text()))


@recipe(
    "postgresql",
    exercises="fork per connection, 100 clients, COPY, cancel, LISTEN/NOTIFY, SIGTERM to a backend; psycopg, psql",
    modes=(SERVER, LOCAL),
    debian=PACKAGES,
    limit=120,
)
def postgresql(r: Run) -> None:
    ctl, data = serve(r)
    said = r.client("/usr/bin/python3", r.file("session.py", SESSION), r.addr).ok(90)
    r.see("psycopg", said.splitlines())
    psql = r.client("psql", "-X", "-h", r.addr, "-U", "postgres", "-f", r.file("session.sql", PSQL), "postgres")
    code = psql.wait(30)
    r.see("psql", [code, psql.out, psql.err.replace(str(r.tmp), "TMP")])
    idle = r.client("psql", "-X", "-h", r.addr, "-U", "postgres", "-c", "select pg_sleep(60)", "postgres")
    asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    until("the query sleeps", lambda: ask(r, asleep) == "1")
    stop(r, ctl, data)
    code = idle.wait(20)
    r.see("psql at the shutdown", [code, idle.err])
    r.carried(connections=105, bytes=15_000_000)


@recipe(
    "postgresql-pgbench",
    exercises="transactions of 20 clients, a connection per transaction, prepared statements and pipelines",
    modes=(SERVER, LOCAL),
    debian=PACKAGES,
    limit=120,
)
def pgbench(r: Run) -> None:
    ctl, data = serve(r)

    def bench(name: str, *options: str) -> None:
        out = r.client("pgbench", "-h", r.addr, "-U", "postgres", *options, "postgres").ok(60)
        r.see(name, re.findall(r"actually processed: (\S+)|failed transactions: (\d+)", out))

    bench("fill", "-i", "-s", "1", "-q")
    bench("20 clients", "-c", "20", "-j", "2", "-t", "50")
    bench("prepared", "-c", "10", "-j", "2", "-t", "100", "-M", "prepared", "-S")
    bench("a connection each", "-c", "5", "-C", "-S", "-t", "20")
    check = "select sum(abalance) = (select sum(tbalance) from pgbench_tellers), count(*) from pgbench_accounts"
    r.see("balance", ask(r, check))
    stop(r, ctl, data)
    r.carried(connections=130, bytes=500_000)
