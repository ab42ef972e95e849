"""CPython's own servers: http.server, asyncio, socketserver, and multiprocessing that hands sockets to its workers."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web

PYTHON = "/usr/bin/python3"
WEB_TOOLS = ("curl",)


# ---- http.server ----
@recipe(
    "cpython-http.server",
    exercises="a thread per connection, sendfile-less copies, keep-alive, 20 transfers at once",
    modes=(SERVER, CLIENT, LOCAL),
    debian=WEB_TOOLS,
)
def http_server(r: Run) -> None:
    server = (PYTHON, "-m", "http.server", "8000", "-b", "0.0.0.0", "-d", web.root(r), "--protocol", "HTTP/1.1")
    r.server(*server, port=8000)
    base = f"http://{r.addr}:8000"
    web.fetch(r, "http.server", base)
    out = r.tmp / "many"
    options = (
        "-Z",
        "--no-progress-meter",
        "--parallel-max",
        "20",
        "--create-dirs",
        "-o",
        f"{out}/#1",
        "-w",
        "%{http_code} ",
    )
    r.see("parallel", web.curl(r, *options, f"{base}/many/[0-99]"))
    r.see("content", [web.sha((out / str(n)).read_bytes()) for n in range(100)])
    r.carried(connections=12, bytes=9_000_000)


# ---- asyncio ----
ASYNCIO_SERVER = """
import asyncio, hashlib

async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionResetError:
        print("reset", flush=True)
    finally:
        writer.close()

class Upper(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=4096)
    def data_received(self, data):
        self.transport.write(data.upper())
    def pause_writing(self): self.transport.pause_reading()
    def resume_writing(self): self.transport.resume_reading()
    def eof_received(self):
        self.transport.write(b"bye")

async def digest(reader, writer):
    writer.write(hashlib.sha256(await reader.read(-1)).hexdigest().encode())
    writer.close()

async def main():
    digests = await asyncio.start_server(digest, "0.0.0.0", 7003)
    streams = await asyncio.start_server(echo, "0.0.0.0", 7001, backlog=200)
    protocol = await asyncio.get_running_loop().create_server(Upper, "0.0.0.0", 7002)
    async with digests, streams, protocol:
        await asyncio.gather(digests.serve_forever(), streams.serve_forever(), protocol.serve_forever())

asyncio.run(main())
"""

ASYNCIO_CLIENT = """
import asyncio, errno, sys

HOST = sys.argv[1]

async def stream(n):
    reader, writer = await asyncio.open_connection(HOST, 7001)
    blob = n.to_bytes(2, "big") * 200_000
    async def send():
        for at in range(0, len(blob), 50_000):
            writer.write(blob[at:at + 50_000])
            await writer.drain()
        writer.write_eof()
    sender = asyncio.create_task(send())
    got = await reader.read(-1)
    await sender
    writer.close()
    await writer.wait_closed()
    return got == blob

async def main():
    print("streams", (await asyncio.gather(*(stream(n) for n in range(100)))).count(True))

    reader, writer = await asyncio.open_connection(HOST, 7002)
    writer.write(b"some words, " * 100_000)
    writer.write_eof()
    got = await reader.read(-1)
    print("protocol", len(got), got == b"SOME WORDS, " * 100_000 + b"bye")

    try:
        await asyncio.open_connection(HOST, 1)
    except OSError as e:
        print("refused", errno.errorcode[e.errno])
    reader, writer = await asyncio.open_connection(HOST, 7001)
    try:
        await asyncio.wait_for(reader.read(1), 0.1)
    except TimeoutError:
        print("timeout")
    writer.write(b"still there")
    print(await reader.readexactly(11))
    task = asyncio.create_task(reader.read(1))
    await asyncio.sleep(0)
    task.cancel()
    print("cancelled", (await asyncio.gather(task, return_exceptions=True))[0].__class__.__name__)
    writer.transport.abort()

    loop = asyncio.get_running_loop()
    import socket
    with socket.socket() as s:
        s.setblocking(False)
        await loop.sock_connect(s, (HOST, 7002))
        await loop.sock_sendall(s, b"x" * 1_000_000)
        s.shutdown(socket.SHUT_WR)
        total, buffer = 0, bytearray(70_000)
        while n := await loop.sock_recv_into(s, buffer):
            total += n
        print("sock_*", total)
    with open(sys.argv[2], "rb") as file:
        reader, writer = await asyncio.open_connection(HOST, 7003)
        print("sendfile", await loop.sendfile(writer.transport, file))
        writer.write_eof()
        print((await reader.read(-1)).decode())
        writer.close()

asyncio.run(main())
"""


@recipe(
    "cpython-asyncio",
    exercises="epoll event loop at both ends, 100 streams, half close, flow control, cancel, sendfile, abort",
    modes=(SERVER, CLIENT, LOCAL),
    quick=(SERVER,),
    limit=90,
)
def asyncio(r: Run) -> None:
    r.server(PYTHON, "-u", r.file("server.py", ASYNCIO_SERVER), port=7002)
    data = r.file("data", web.data(3_000_000))
    out = r.client(PYTHON, r.file("client.py", ASYNCIO_CLIENT), r.addr, data).ok(60)
    r.see("client", out.splitlines())
    r.carried(connections=104, bytes=80_000_000)


# ---- socketserver ----
SOCKETSERVER = """
import socketserver, sys

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())

kind = {
    "thread": socketserver.ThreadingTCPServer, "fork": socketserver.ForkingTCPServer, "plain": socketserver.TCPServer
}[sys.argv[1]]
kind.allow_reuse_address, kind.request_queue_size = True, 50
with kind(("0.0.0.0", int(sys.argv[2])), Handler) as server:
    server.serve_forever(0.05)
"""

LINES_CLIENT = """
import socket, sys, threading

right = []
def talk(n):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as s:
        f = s.makefile("rwb")
        for i in range(50):
            f.write(b"line %d of client %d\\n" % (i, n))
            f.flush()
            right.append(f.readline() == b"LINE %d OF CLIENT %d\\n" % (i, n))
        s.shutdown(socket.SHUT_WR)
        right.append(f.read() == b"")
threads = [threading.Thread(target=talk, args=(n,)) for n in range(20)]
for t in threads: t.start()
for t in threads: t.join()
print(right.count(True))
"""


@recipe(
    "cpython-socketserver",
    exercises="selectors in front of accept; a thread, a forked process, or nobody new for a connection",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
)
def socketserver(r: Run) -> None:
    for port, kind in enumerate(("thread", "fork", "plain"), 7101):
        r.server(PYTHON, r.file("server.py", SOCKETSERVER), kind, str(port), port=port)
        r.see(kind, r.client(PYTHON, r.file("client.py", LINES_CLIENT), r.addr, str(port)).ok(40))
    r.carried(connections=60, bytes=100_000)


# ---- multiprocessing ----
MULTIPROCESSING = """
import multiprocessing, os, socket, sys
from multiprocessing import reduction
from multiprocessing.connection import Client, Listener

def serve(pipe, queue):
    while (s := pipe.recv()) is not None:
        s.settimeout(20)
        with s:
            while data := s.recv(4096):
                s.sendall(data[::-1])
        queue.put(os.getpid())

def accept(listener, queue):
    for _ in range(3):
        c, _ = listener.accept()
        with c:
            c.sendall(b"accepted by a child: " + c.recv(4096))
    queue.put("done")

def calculate(port, queue):
    with Listener(("127.0.0.1", port), authkey=b"key") as listener:
        queue.put("listening")
        with listener.accept() as c:
            while (numbers := c.recv()) is not None:
                c.send(sum(numbers))

def main(method, port):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    pipes = [context.Pipe() for _ in range(3)]
    workers = [context.Process(target=serve, args=(theirs, queue)) for _, theirs in pipes]
    for w in workers: w.start()
    listener = socket.create_server(("0.0.0.0", port))
    for n in range(12): # sockets through pipes
        c, _ = listener.accept()
        pipes[n % 3][0].send(c)
        c.close()
    print("workers that served", len({queue.get(timeout=20) for _ in range(12)}))
    for ours, _ in pipes: ours.send(None)
    print([w.join(20) or w.exitcode for w in workers])

    acceptors = [context.Process(target=accept, args=(listener, queue)) for _ in range(2)]
    for p in acceptors: p.start()
    listener.close()
    print([queue.get(timeout=30) for _ in range(2)], [p.join(20) or p.exitcode for p in acceptors])

    calculator = context.Process(target=calculate, args=(port + 1, queue))
    calculator.start()
    print(queue.get(timeout=20))
    with Client(("127.0.0.1", port + 1), authkey=b"key") as c:
        c.send(list(range(100_000)))
        print(c.recv())
        c.send(None)
    calculator.join(20)
    print(calculator.exitcode)

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
"""

MULTIPROCESSING_CLIENT = """
import socket, sys

for n in range(18):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as s:
        s.sendall(b"hello %d" % n)
        s.shutdown(socket.SHUT_WR)
        print(s.makefile("rb").read())
"""


@recipe(
    "cpython-multiprocessing",
    exercises="sockets through pipes (SCM_RIGHTS) to workers made by fork, spawn, forkserver; listeners as arguments",
    modes=(SERVER, LOCAL),
)
def multiprocessing(r: Run) -> None:
    script, client = r.file("server.py", MULTIPROCESSING), r.file("client.py", MULTIPROCESSING_CLIENT)
    for port, method in ((7201, "fork"), (7203, "spawn"), (7205, "forkserver")):
        server = r.server(PYTHON, "-u", script, method, str(port), port=port)
        r.see(f"{method}: answers", r.client(PYTHON, client, r.addr, str(port)).ok(40).splitlines())
        r.see(f"{method}: server", server.ok(30).splitlines())
    r.carried(connections=54)
