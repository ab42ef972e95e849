"""memcached: threads with an event loop each; connections accepted by one are used by another."""

from __future__ import annotations

from recipes import LOCAL, SERVER, Run, recipe

CLIENT = """
import hashlib, random, socket, sys, threading
sums = {}
def run(n):
    s = socket.create_connection((sys.argv[1], 11211), 20)
    f = s.makefile("rb")
    r = random.Random(n)
    got = hashlib.sha256()
    for i in range(300):
        value = r.randbytes(r.randrange(1, 6000)) if i % 50 else r.randbytes(900000)
        key = b"k%d.%d" % (n, i % 10)
        s.sendall(b"set %b 0 0 %d\\r\\n%b\\r\\nget %b\\r\\n" % (key, len(value), value, key))
        got.update(f.readline() + f.readline())
        got.update(f.read(len(value) + 2) + f.readline())
    s.sendall(b"gets k%d.1 k%d.2 nothing\\r\\nincr number%d 1\\r\\nnonsense\\r\\nquit\\r\\n" % (n, n, n))
    got.update(f.readline().rsplit(b" ", 1)[0])
    got.update(str(len(f.read())).encode())
    sums[n] = got.hexdigest()[:16]
threads = [threading.Thread(target=run, args=(n,)) for n in range(16)]
for t in threads: t.start()
for t in threads: t.join()
for n in range(16): print(sums[n])
"""


@recipe(
    "memcached",
    exercises="four threads with libevent, connections handed between threads, pipelining, values of 900 kB",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=("memcached",),
)
def memcached(r: Run) -> None:
    server = r.server("memcached", "-u", "root", "-t", "4", "-p", "11211", "-U", "0", "-l", "0.0.0.0", port=11211)
    r.see("sums", r.client("/usr/bin/python3", r.file("client.py", CLIENT), r.addr).ok(50).split())
    r.see("status", server.end())
    r.carried(connections=16, bytes=16 * 6 * 900000 * 2)
