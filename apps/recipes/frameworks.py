"""Python's web servers and frameworks: gunicorn's workers, uvicorn, Flask, aiohttp, Tornado, Twisted."""

from __future__ import annotations

import signal
from pathlib import Path

from _lab import Proc, until

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web
from recipes.cpython import LINES_CLIENT

TOOLS = ("curl", "wrk")

FLASK = """
import hashlib, os, time
from flask import Flask, Response, abort, jsonify, request, send_from_directory

app = Flask(__name__)

@app.get("/")
def index():
    return "small"

@app.post("/digest")
def digest():
    return hashlib.sha256(request.get_data()).hexdigest()

@app.post("/sum")
def total():
    return jsonify(sum=sum(request.get_json()["numbers"]))

@app.get("/stream")
def stream():
    return Response((f"part {n} " * 1000 for n in range(100)), mimetype="text/plain")

@app.get("/files/<path:name>")
def files(name):
    return send_from_directory(os.environ["ROOT"], name)

@app.get("/slow")
def slow():
    time.sleep(0.3)
    return "slow"

@app.get("/pid")
def pid():
    return str(os.getpid())

@app.get("/fail")
def fail():
    abort(418)
"""

ASGI = """
import asyncio, hashlib, os

async def body_of(receive):
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        return
    path, status, parts = scope["path"], 200, [b"small"]
    if path == "/digest":
        parts = [hashlib.sha256(await body_of(receive)).hexdigest().encode()]
    elif path == "/sum":
        import json
        parts = [json.dumps({"sum": sum(json.loads(await body_of(receive))["numbers"])}).encode()]
    elif path == "/stream":
        parts = [f"part {n} ".encode() * 1000 for n in range(100)]
    elif path == "/slow":
        await asyncio.sleep(0.3)
        parts = [b"slow"]
    elif path == "/pid":
        parts = [str(os.getpid()).encode()]
    elif path == "/fail":
        status = 418
    elif path != "/":
        status = 404
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
"""


def numbers(r: Run) -> Path:
    return r.file("numbers.json", '{"numbers": [' + ",".join(map(str, range(100_000))) + "]}")


def application(r: Run, base: str, name: str = "") -> None:
    """Sees what the applications above answer."""
    body = r.file("upload", web.data(2_000_000))
    r.see(f"{name}digest", web.curl(r, "--data-binary", f"@{body}", f"{base}/digest"))
    r.see(f"{name}sum", web.curl(r, "--json", f"@{numbers(r)}", f"{base}/sum").replace(" ", "").strip())
    r.see(f"{name}stream", web.sha(web.curl(r, f"{base}/stream").encode()))
    r.see(f"{name}fail", web.curl(r, "-o", "/dev/null", "-w", "%{http_code}", f"{base}/fail"))
    r.see(f"{name}kept", web.curl(r, "-w", " %{num_connects}\n", f"{base}/?[1-5]"))
    slow = (
        "-Z",
        "--no-progress-meter",
        "--parallel-max",
        "20",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_download}\n",
    )
    r.see(f"{name}slow", web.curl(r, *slow, f"{base}/slow?[1-20]"))
    r.see(f"{name}load", web.wrk(r, f"{base}/", seconds=1, connections=16))


def workers(r: Run, master: Proc) -> set[str]:
    return set(r.server_ns.run("pgrep", "-P", str(master.pid), check=False).split())


def gunicorn(r: Run, kind: str, app: str, *options: str) -> None:
    """gunicorn with such workers: the application; a worker that hangs, one that is killed; reload; graceful end."""
    r.file("application.py", FLASK if app == "flask" else ASGI)
    name = "application:app"
    master = r.server(
        r.python, "-m", "gunicorn", "-k", kind, "-w", "2", "-b", "0.0.0.0:8000", "--chdir", r.tmp, "--timeout", "5",
        "--worker-tmp-dir", r.tmp, "--keep-alive", "5", *options, name, env={"ROOT": str(web.root(r))}, port=8000,
    )  # fmt: skip
    base = f"http://{r.addr}:8000"
    application(r, base)
    if app == "flask":
        web.fetch(r, "files", f"{base}/files")
    before = until("two workers", lambda: len(w := workers(r, master)) == 2 and w)
    victim = web.curl(r, f"{base}/pid")
    r.see("victim is a worker", victim in before)
    r.server_ns.run("kill", "-KILL", victim)
    until("it has a successor", lambda: len(w := workers(r, master)) == 2 and victim not in w)
    r.see("after the death", web.curl(r, "-w", " %{http_code}\n", f"{base}/?[1-5]"))
    old = workers(r, master)
    master.signal(signal.SIGHUP)
    until("new workers", lambda: len(w := workers(r, master)) == 2 and not w & old, 20)
    r.see("after the reload", web.curl(r, "-w", " %{http_code}\n", f"{base}/?[1-5]"))
    r.see("ended", master.end())
    r.carried(connections=40, bytes=2_500_000)


@recipe(
    "gunicorn-sync",
    exercises="prefork: workers that select and accept on one inherited listener; a killed worker, reload",
    modes=(SERVER, LOCAL),
    debian=TOOLS,
    pip=("gunicorn", "flask"),
)
def gunicorn_sync(r: Run) -> None:
    gunicorn(r, "sync", "flask")


@recipe(
    "gunicorn-gthread",
    exercises="prefork with threads and a selector for kept connections",
    modes=(SERVER, LOCAL),
    debian=TOOLS,
    pip=("gunicorn", "flask"),
)
def gunicorn_gthread(r: Run) -> None:
    gunicorn(r, "gthread", "flask", "--threads", "8")


@recipe(
    "gunicorn-uvicorn",
    exercises="prefork with asyncio workers (uvloop, httptools)",
    modes=(SERVER, LOCAL),
    debian=TOOLS,
    pip=("gunicorn", "uvicorn", "uvicorn-worker", "uvloop", "httptools"),
)
def gunicorn_uvicorn(r: Run) -> None:
    gunicorn(r, "uvicorn_worker.UvicornWorker", "asgi")


WEBSOCKET = """
import asyncio, sys, websockets

async def talk(n):
    async with websockets.connect(f"ws://{sys.argv[1]}:8000/socket", max_size=None) as ws:
        for i in range(20):
            await ws.send(f"message {i} of {n} " * 100)
            assert await ws.recv() == f"MESSAGE {i} OF {n} " * 100
        await ws.send("x" * 1_000_000)
        return len(await ws.recv())

async def main():
    print(await asyncio.gather(*(talk(n) for n in range(10))))

asyncio.run(main())
"""


@recipe(
    "uvicorn",
    exercises="uvloop and plain asyncio, workers by spawn that share the listener, WebSockets",
    modes=(SERVER, CLIENT, LOCAL),
    debian=TOOLS,
    pip=("uvicorn", "uvloop", "httptools", "websockets"),
    limit=90,
)
def uvicorn(r: Run) -> None:
    r.file("application.py", ASGI)
    base = f"http://{r.addr}:8000"
    for name, options in (
        ("uvloop", ("--loop", "uvloop")),
        ("asyncio, 2 workers", ("--loop", "asyncio", "--workers", "2")),
    ):
        server = r.server(
            r.python, "-m", "uvicorn", "--host", "0.0.0.0", "--port", "8000", "--app-dir", r.tmp, *options,
            "--log-level", "warning", "application:app", port=8000,
        )  # fmt: skip
        until("it answers", lambda: "small" in web.curl(r, "--retry", "50", "--retry-connrefused", f"{base}/"))
        application(r, base, f"{name}: ")
        if r.mode is not CLIENT:
            websockets = r.client(r.python, r.file("websocket.py", WEBSOCKET), r.addr).ok(30)
            r.see(f"{name}: WebSockets", websockets)
        r.see(f"{name}: ended", server.end())
    r.carried(connections=60, bytes=6_000_000)


@recipe(
    "flask",
    exercises="werkzeug's own server: a thread per connection",
    modes=(SERVER, LOCAL),
    debian=TOOLS,
    pip=("flask",),
)
def flask(r: Run) -> None:
    r.file("application.py", FLASK)
    r.server(
        r.python, "-m", "flask", "--app", r.tmp / "application.py", "run", "-h", "0.0.0.0", "-p", "8000",
        env={"ROOT": str(web.root(r))}, port=8000,
    )  # fmt: skip
    application(r, f"http://{r.addr}:8000")
    web.fetch(r, "files", f"http://{r.addr}:8000/files")
    r.carried(connections=40, bytes=6_000_000)


AIOHTTP_SERVER = """
import asyncio, hashlib, sys
from aiohttp import web

async def digest(request):
    sum = hashlib.sha256()
    async for part in request.content.iter_chunked(16384):
        sum.update(part)
    return web.Response(text=sum.hexdigest())

async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for n in range(200):
        await response.write(f"part {n} ".encode() * 1000)
    return response

async def socket(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data[::-1])
    return ws

async def cut(request):
    request.transport.abort()
    return web.Response()

app = web.Application()
app.add_routes([web.post("/digest", digest), web.get("/stream", stream), web.get("/socket", socket),
                web.get("/cut", cut),
                web.get("/", lambda r: asyncio.sleep(0, web.Response(text="small"))),
                web.get("/never", lambda r: asyncio.sleep(30)), web.static("/files", sys.argv[1])])
web.run_app(app, host="0.0.0.0", port=8000, print=None, reuse_port=True)
"""

AIOHTTP_CLIENT = """
import asyncio, hashlib, sys
import aiohttp

base = sys.argv[1]

async def main():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20)) as session:
        async def get(path, **more):
            async with session.get(base + path, **more) as answer:
                return answer.status, await answer.read()
        all = await asyncio.gather(*(get(f"/files/many/{n % 100}") for n in range(300)))
        print(sum(s == 200 for s, _ in all), sum(len(b) for _, b in all))
        print(hashlib.sha256((await get("/files/big.bin"))[1]).hexdigest()[:16])
        print(hashlib.sha256((await get("/stream"))[1]).hexdigest()[:16])
        async def parts():
            for n in range(100):
                yield bytes([n]) * 20_000
        async with session.post(base + "/digest", data=parts()) as answer:
            print(await answer.text())
        async with session.ws_connect(base + "/socket") as ws:
            await ws.send_str("abc" * 100_000)
            print((await ws.receive_str()) == "cba" * 100_000)
        for path, more in (("/cut", {}), ("/never", {"timeout": aiohttp.ClientTimeout(total=0.2)})):
            try:
                print(await get(path, **more))
            except Exception as e:
                print(type(e).__name__)
        try:
            await session.get("http://" + base.split("/")[2].split(":")[0] + ":1/")
        except aiohttp.ClientConnectorError as e:
            print(e.os_error.errno)

asyncio.run(main())
"""


@recipe(
    "aiohttp",
    exercises="server and client: sendfile, streaming both ways, WebSockets, abort, time-outs, SO_REUSEPORT",
    modes=(SERVER, CLIENT, LOCAL),
    debian=TOOLS,
    pip=("aiohttp",),
)
def aiohttp(r: Run) -> None:
    r.server(r.python, r.file("server.py", AIOHTTP_SERVER), web.root(r), port=8000)
    base = f"http://{r.addr}:8000"
    r.see("client", r.client(r.python, r.file("client.py", AIOHTTP_CLIENT), base).ok(40).splitlines())
    web.fetch(r, "curl", f"{base}/files")
    r.see("load", web.wrk(r, f"{base}/", seconds=1))
    r.carried(connections=40, bytes=25_000_000)


TORNADO = """
import asyncio, hashlib, os, sys
import tornado.httpserver, tornado.netutil, tornado.process, tornado.tcpserver, tornado.web, tornado.iostream

class Digest(tornado.web.RequestHandler):
    def post(self):
        self.write(hashlib.sha256(self.request.body).hexdigest())

class Lines(tornado.tcpserver.TCPServer):
    async def handle_stream(self, stream, address):
        try:
            while True:
                stream.write((await stream.read_until(b"\\n")).upper())
        except tornado.iostream.StreamClosedError:
            pass

listeners = tornado.netutil.bind_sockets(8000, "0.0.0.0"), tornado.netutil.bind_sockets(7001, "0.0.0.0")
tornado.process.fork_processes(2)

async def main():
    files = (r"/files/(.*)", tornado.web.StaticFileHandler, {"path": sys.argv[1]})
    app = tornado.web.Application([(r"/digest", Digest), files])
    tornado.httpserver.HTTPServer(app).add_sockets(listeners[0])
    Lines().add_sockets(listeners[1])
    await asyncio.Event().wait()

asyncio.run(main())
"""

TWISTED = """
import sys
from twisted.internet import protocol, reactor
from twisted.protocols.basic import LineReceiver
from twisted.web import resource, server, static
import hashlib

class Lines(LineReceiver):
    delimiter = b"\\n"
    def lineReceived(self, line):
        self.sendLine(line.upper())

class Digest(resource.Resource):
    isLeaf = True
    def render_POST(self, request):
        return hashlib.sha256(request.content.read()).hexdigest().encode()

root = resource.Resource()
root.putChild(b"files", static.File(sys.argv[1]))
root.putChild(b"digest", Digest())
factory = protocol.Factory()
factory.protocol = Lines
reactor.listenTCP(7001, factory, backlog=100)
reactor.listenTCP(8000, server.Site(root), backlog=100)
reactor.run()
"""


def lines_and_files(r: Run) -> None:
    """A server of lines on 7001, and of files and digests on 8000."""
    r.listening(7001)
    base = f"http://{r.addr}:8000"
    r.see("lines", r.client("/usr/bin/python3", r.file("client.py", LINES_CLIENT), r.addr, "7001").ok(40))
    web.fetch(r, "files", f"{base}/files")
    body = r.file("upload", web.data(2_000_000))
    r.see("digest", web.curl(r, "--data-binary", f"@{body}", f"{base}/digest"))
    r.see("load", web.wrk(r, f"{base}/files/small.txt", seconds=1))
    r.carried(connections=55, bytes=6_000_000)


@recipe(
    "tornado",
    exercises="listeners made before fork_processes(2), each process with an epoll loop of its own",
    modes=(SERVER, LOCAL),
    debian=TOOLS,
    pip=("tornado",),
)
def tornado(r: Run) -> None:
    server = r.server(r.python, r.file("server.py", TORNADO), web.root(r), port=8000)
    lines_and_files(r)
    r.see("ended", server.end())


@recipe(
    "twisted",
    exercises="the reactor over epoll, LineReceiver, twisted.web",
    modes=(SERVER, LOCAL),
    debian=TOOLS,
    pip=("twisted",),
)
def twisted(r: Run) -> None:
    server = r.server(r.python, r.file("server.py", TWISTED), web.root(r), port=8000)
    lines_and_files(r)
    r.see("ended", server.end())
