"""mosquitto: a broker with epoll; publishers and subscribers with select."""

from __future__ import annotations

from _lab import Proc

from recipes import CLIENT, LOCAL, SERVER, Run, _web, recipe

CONF = """
listener 1883 0.0.0.0
allow_anonymous true
persistence false
user root
max_queued_messages 0
max_inflight_messages 100
set_tcp_nodelay true
"""


def sub(r: Run, topic: str, count: int, qos: int) -> Proc:
    p = r.client(
        "stdbuf", "-oL", "mosquitto_sub", "-d", "-h", r.addr, "-t", topic, "-C", str(count), "-q", str(qos),
        "-W", "30", "-F", "got %t %q %x",
    )  # fmt: skip
    p.line("Subscribed")
    return p


def received(p: Proc) -> str:
    p.ok(30)
    return _web.sha("\n".join(sorted(line for line in p.out.splitlines() if line.startswith("got "))).encode())


@recipe(
    "mosquitto",
    exercises="a broker of one epoll loop, 30 subscribers, three qualities of service, keep-alive, last wills",
    modes=(SERVER, CLIENT, LOCAL),
    quick=(SERVER,),
    debian=("mosquitto", "mosquitto-clients"),
)
def mosquitto(r: Run) -> None:
    server = r.server("/usr/sbin/mosquitto", "-c", r.file("mosquitto.conf", CONF), port=1883)
    publish = ["mosquitto_pub", "-h", r.addr]
    for qos in (0, 1, 2):
        subs = [sub(r, f"lines/{qos}/#", 1000, qos) for _ in range(10)]
        lines = "".join(f"{n} {'x' * (n % 300)}\n" for n in range(1000))
        r.client(*publish, "-t", f"lines/{qos}/a", "-q", str(qos), "-l", stdin=lines).ok(30)
        r.see(f"quality {qos}", [received(p) for p in subs])
    big = sub(r, "big", 1, 1)
    r.client(*publish, "-t", "big", "-q", "1", "-f", r.file("big", _web.data(1_000_000))).ok(20)
    r.see("a big one", received(big))
    r.client(*publish, "-t", "kept/a", "-r", "-m", "kept").ok(20)
    r.see("retained", received(sub(r, "kept/#", 1, 0)))
    will = sub(r, "will", 1, 0)
    mortal = r.client(
        "stdbuf", "-oL", "mosquitto_sub", "-d", "-h", r.addr, "-t", "none", "--will-topic", "will",
        "--will-payload", "x",
    )  # fmt: skip
    mortal.line("Subscribed")
    mortal.kill()
    r.see("last will of one that was killed", received(will))
    r.see("status", server.end())
    r.carried(connections=30 + 3 + 5, bytes=30 * 150_000 + 2_000_000)
