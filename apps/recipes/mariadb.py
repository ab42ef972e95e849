"""MariaDB: a thread per connection that blocks in poll and recv, killed connections, large rows, the client program."""

from __future__ import annotations

from recipes import LOCAL, SERVER, Run, recipe

SCHEMA = "create table t (n int primary key auto_increment, client int, text longtext, key (client)) engine=innodb"

MANY = r"""
for n in $(seq 50); do
  mariadb -h "$1" -P 3306 -u test --skip-ssl test -N -e "
    insert into t (client, text) values ($n, repeat('a', 1000)), ($n, repeat('b', 100000));
    start transaction; update t set text = concat(text, 'c') where client = $n; commit;
    select count(*), sum(length(text)) from t where client = $n;" &
done
wait
"""


@recipe(
    "mariadb",
    exercises="a thread per connection, 50 clients at once, a large result, KILL of a blocked query, time-outs, slap",
    modes=(SERVER, LOCAL),
    debian=("mariadb-server-core", "mariadb-client"),
    limit=120,
)
def mariadb(r: Run) -> None:
    data = r.tmp / "data"
    r.lab.start(
        r.server_ns, "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ).ok(60)  # fmt: skip
    server = r.server(
        "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={data}/sock", "--port=3306",
        "--bind-address=0.0.0.0", "--max-connections=200", "--innodb-flush-log-at-trx-commit=0",
        f"--pid-file={data}/pid", "--skip-name-resolve", "--innodb-buffer-pool-size=32M", port=3306,
    )  # fmt: skip

    def sql(query: str, *options: str, user: str = "test") -> tuple[int, str]:
        to = ("-h", r.addr, "-P", "3306", "-u", user, "--skip-ssl", "-N")
        p = r.client("mariadb", "--no-defaults", *to, *options, "-e", query, *(() if user == "root" else ("test",)))
        return p.wait(30), p.out + p.err

    grants = "create database test; create user test@'%'; grant all on *.* to test@'%'"
    here = ("mariadb", "--no-defaults", "-u", "root", f"--socket={data}/sock", "-e", grants)
    r.lab.start(r.server_ns, *here).ok(20)
    r.see("schema", sql(SCHEMA))
    r.see("50 clients", sorted(r.client("sh", "-c", MANY, "sh", r.addr).ok(60).split("\n")))
    r.see("rows", sql("select count(*), sum(length(text)) from t"))
    code, text = sql("select repeat('x', 8000000)", "--max-allowed-packet=32M")
    r.see("large result", [code, len(text), sorted(set(text))])
    sleeper = r.client(
        "mariadb", "--no-defaults", "-h", r.addr, "-u", "test", "--skip-ssl", "-N", "-e", "select sleep(60), 'marked'"
    )  # fmt: skip
    find = "select id from information_schema.processlist where info like '%marked%' and info not like '%processlist%'"
    found = ""
    while not found:
        found = sql(find)[1].strip()
    r.see("kill", sql(f"kill {found}"))
    r.see("killed", [sleeper.wait(20), "server has gone away" in sleeper.err or "Lost connection" in sleeper.err])
    idle = "set wait_timeout = 1; select sleep(0.1); system sleep 2.5; select 'still'"
    r.see("wait_timeout", sql(idle, "--skip-reconnect"))
    slap = r.client(
        "mariadb-slap", "--no-defaults", "-h", r.addr, "-u", "test", "--skip-ssl", "--concurrency=30", "--iterations=2",
        "--number-of-queries=600", "--auto-generate-sql", "--auto-generate-sql-load-type=mixed",
    )  # fmt: skip
    r.see("slap", "Average number of queries per client: 20" in slap.ok(60))
    r.see(
        "status",
        sql("select variable_value from information_schema.global_status where variable_name = 'aborted_connects'"),
    )
    r.see("ended", server.end(30))
    r.carried(connections=110, bytes=20_000_000)
