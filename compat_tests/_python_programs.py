"""Programs of the Python world, each as a script that talks to itself over 127.0.0.1 and prints what it saw.

test_python_programs.py runs every one on the standard modules, after ``install()``, and by ``python -m tas_sockets``;
what it prints has to be the same.
"""

from __future__ import annotations

from dataclasses import dataclass

# Before every script.  PORT: a number that is free on the kernel and on TAS.
PRELUDE = """
import hashlib, os, socket, sys, threading, time
BODY = bytes(range(256)) * 2000
def sha(b): return hashlib.sha256(b).hexdigest()[:12]
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s: return s.getsockname()[1]
def wait_for(port):
    for _ in range(600):
        try:
            return socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nobody listens")
def child(code, *argv):
    import subprocess
    return subprocess.Popen([sys.executable, "-c", INSTALL + code, *map(str, argv)], stdout=subprocess.DEVNULL)
def end(process):
    process.terminate()
    try:
        process.wait(20)
    except Exception:
        process.kill()
        raise
def http_server(tls=None):
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        def do_GET(self):
            self.send_response(200); self.send_header("Content-Length", str(len(BODY))); self.end_headers()
            self.wfile.write(BODY)
        def do_POST(self):
            answer = sha(self.rfile.read(int(self.headers["Content-Length"]))).encode()
            self.send_response(200); self.send_header("Content-Length", str(len(answer))); self.end_headers()
            self.wfile.write(answer)
        def log_message(self, *a): pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        import ssl
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.server_address[1]
"""


@dataclass(frozen=True)
class Program:
    """``install``, ``module``: connections that TAS carries at least; None: not a way for it (docs/python.md)."""

    name: str
    script: str
    install: int | None = 1
    module: int | None = 1
    needs: str = ""  # a server that the test provides: "redis", "postgres"


REQUESTS = """
import requests
server, port = http_server()
with requests.Session() as s:
    print([sha(s.get(f"http://127.0.0.1:{port}/{i}", timeout=20).content) for i in range(20)])
print([requests.post(f"http://127.0.0.1:{port}/", data=BODY * n, timeout=20).text for n in (1, 5)])
tls, tls_port = http_server(CERTIFICATE)
with requests.Session() as s:
    s.trust_env, s.verify = False, CERTIFICATE
    print([sha(s.get(f"https://localhost:{tls_port}/", timeout=20).content) for _ in range(5)])
try:
    requests.get(f"http://127.0.0.1:{free_port()}/", timeout=5)
except requests.ConnectionError as e:
    print("refused", "Connection refused" in str(e))
server.shutdown(); tls.shutdown()
"""

URLLIB3 = """
import urllib3
from concurrent.futures import ThreadPoolExecutor
server, port = http_server()
pool = urllib3.PoolManager(maxsize=8, block=True)
with ThreadPoolExecutor(8) as threads:
    url = f"http://127.0.0.1:{port}/"
    print(set(threads.map(lambda i: sha(pool.request("GET", url, timeout=20).data), range(80))))
server.shutdown()
"""

HTTPX = """
import asyncio, httpx
server, port = http_server()
url = f"http://127.0.0.1:{port}/"
with httpx.Client(timeout=20) as c:
    print([sha(c.get(url).content) for _ in range(10)], c.post(url, content=BODY).text)
async def main():
    async with httpx.AsyncClient(timeout=20) as c:
        print(set(sha(r.content) for r in await asyncio.gather(*(c.get(url) for _ in range(40)))))
asyncio.run(main())
server.shutdown()
"""

AIOHTTP = """
import asyncio, aiohttp
from aiohttp import web
async def page(request): return web.Response(body=BODY)
async def upload(request): return web.json_response({"sha": sha(await request.read())})
async def talk(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for m in ws: await ws.send_str(m.data.upper())
    return ws
async def main():
    app = web.Application(client_max_size=1 << 26)
    app.add_routes([web.get("/", page), web.post("/", upload), web.get("/ws", talk)])
    runner = web.AppRunner(app); await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0); await site.start()
    url = "http://127.0.0.1:%d/" % site._server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as s:
        async def get():
            async with s.get(url) as r: return sha(await r.read())
        print(set(await asyncio.gather(*(get() for _ in range(100)))))
        async with s.post(url, data=BODY * 10) as r: print(await r.json())
        async with s.ws_connect(url + "ws") as ws:
            for word in ("one", "two"):
                await ws.send_str(word); print((await ws.receive()).data)
    await runner.cleanup()
asyncio.run(main())
"""

GUNICORN = """
import urllib.request
port = free_port()
for workers in (["-k", "sync", "-w", "2"], ["-k", "gthread", "--threads", "4", "-w", "2"]):
    where = os.path.dirname(FLASK_APP)
    code = f"import sys; sys.path.insert(0, {where!r}); from gunicorn.app.wsgiapp import run; run()"
    p = child(code, "-b", f"127.0.0.1:{port}", "--log-level", "error", *workers, "flask_app:app")
    wait_for(port)
    got = [urllib.request.urlopen(f"http://127.0.0.1:{port}/hello/{i}", timeout=20).read() for i in range(30)]
    print(got[0], got[-1], len(set(got)))
    big = urllib.request.Request(f"http://127.0.0.1:{port}/sha", data=BODY * 4)
    print(urllib.request.urlopen(big, timeout=20).read())
    end(p); print(p.returncode)
"""

FLASK_APP = """
import hashlib
from flask import Flask, request
app = Flask(__name__)
@app.get("/hello/<name>")
def hello(name): return f"hello {name}"
@app.post("/sha")
def sha(): return hashlib.sha256(request.get_data()).hexdigest()
"""

UVICORN = """
import asyncio, uvicorn, urllib.request
async def app(scope, receive, send):
    if scope["type"] != "http": return
    body = b""
    while True:
        m = await receive(); body += m.get("body", b"")
        if not m.get("more_body"): break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": sha(body or BODY).encode()})
port = free_port()
server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, loop=LOOP, http="h11", log_level="error"))
t = threading.Thread(target=server.run); t.start()
wait_for(port)
print([urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read() for _ in range(20)])
print(urllib.request.urlopen(f"http://127.0.0.1:{port}/", data=BODY * 6, timeout=20).read())
server.should_exit = True; t.join(20); print(t.is_alive())
"""

DJANGO = """
import urllib.request
CODE = '''
import sys
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", USE_TZ=True)
def hello(request, n): return HttpResponse("hello %d" % n)
urlpatterns = [path("hello/<int:n>", hello)]
from django.core.management import execute_from_command_line
execute_from_command_line(["manage", "runserver", "--noreload", "--skip-checks", "127.0.0.1:" + sys.argv[1]])
'''
port = free_port()
p = child(CODE, port)
wait_for(port)
print([urllib.request.urlopen(f"http://127.0.0.1:{port}/hello/{n}", timeout=20).read() for n in range(20)])
end(p)
"""

REDIS = """
import redis
r = redis.Redis(port=SERVER_PORT, socket_timeout=20)
r.flushall()
for i in range(200): r.set(f"k{i}", BODY[:i * 50])
print(sum(len(r.get(f"k{i}")) for i in range(200)))
with r.pipeline() as p:
    for _ in range(500): p.incr("n")
    print(p.execute()[-1])
s = r.pubsub(); s.subscribe("c"); s.get_message(timeout=5)
r.publish("c", "news"); print(s.get_message(timeout=5)["data"])
import asyncio, redis.asyncio
async def main():
    a = redis.asyncio.Redis(port=SERVER_PORT)
    print(sum(await asyncio.gather(*(a.incr("m") for _ in range(50)))))
    await a.aclose()
asyncio.run(main())
"""

PSYCOPG = """
import psycopg
with psycopg.connect(host="127.0.0.1", port=SERVER_PORT, user="postgres", dbname="postgres", connect_timeout=20) as c:
    c.execute("create temp table t (n int, b bytea)")
    with c.cursor() as cursor:
        with cursor.copy("copy t from stdin") as copy:
            for n in range(2000): copy.write_row((n, BODY[:n]))
        print(cursor.execute("select count(*), sum(n), sum(length(b)) from t").fetchone())
import asyncio
async def main():
    kw = dict(host="127.0.0.1", port=SERVER_PORT, user="postgres", dbname="postgres")
    async with await psycopg.AsyncConnection.connect(**kw) as c:
        print(await (await c.execute("select 40 + 2")).fetchone())
asyncio.run(main())
"""

PYMONGO = """
import bson, socketserver, struct
from pymongo import MongoClient
class Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    def handle(self):
        while header := self.rfile.read(16):
            length, request, _, op = struct.unpack("<4i", header)
            body = self.rfile.read(length - 16)
            if op == 2013:
                command = bson.decode(body[5:])
            else:
                command = {"ismaster": 1}
            answer = {"ok": 1.0}
            name = next(iter(command))
            if name.lower() in ("hello", "ismaster"):
                answer |= {"isWritablePrimary": True, "ismaster": True, "maxBsonObjectSize": 16 << 20,
                           "maxWireVersion": 21, "maxMessageSizeBytes": 48000000,
                           "maxWriteBatchSize": 100000, "minWireVersion": 0,
                           "readOnly": False, "localTime": __import__("datetime").datetime.now()}
            elif name == "find":
                docs = [{"_id": i, "x": "y" * i} for i in range(300)]
                answer |= {"cursor": {"id": 0, "ns": "d.c", "firstBatch": docs}}
            doc = bson.encode(answer)
            if op == 2013:
                reply = struct.pack("<iB", 0, 0) + doc
                out = struct.pack("<4i", 16 + len(reply), 0, request, 2013) + reply
            else:
                reply = struct.pack("<iqii", 8, 0, 0, 1) + doc
                out = struct.pack("<4i", 16 + len(reply), 0, request, 1) + reply
            self.wfile.write(out)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = MongoClient("127.0.0.1", server.server_address[1], serverSelectionTimeoutMS=20000)
print(client.admin.command("ping")["ok"], sum(len(d["x"]) for d in client.d.c.find()))
client.close(); server.shutdown()
"""

GRPC = """
import grpc
from concurrent import futures
def echo(request, context): return request[::-1]
def many(request, context):
    for i in range(50): yield request[:i]
same = lambda b: b
method = grpc.unary_unary_rpc_method_handler(echo, same, same)
stream = grpc.unary_stream_rpc_method_handler(many, same, same)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.E", {"Echo": method, "Many": stream}),))
port = server.add_insecure_port("127.0.0.1:0"); server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as c:
    call = c.unary_unary("/t.E/Echo", same, same)
    print([call(b"abc%d" % i, timeout=20) for i in range(20)], sha(call(BODY, timeout=20)))
    print(sum(len(m) for m in c.unary_stream("/t.E/Many", same, same)(b"x" * 50, timeout=20)))
server.stop(None).wait()
"""

TWISTED = """
from twisted.internet import reactor, protocol, defer, endpoints
class Echo(protocol.Protocol):
    def dataReceived(self, data): self.transport.write(data)
class Client(protocol.Protocol):
    def connectionMade(self):
        self.got = b""; self.transport.write(BODY)
    def dataReceived(self, data):
        self.got += data
        if len(self.got) == len(BODY):
            self.factory.done.callback(sha(self.got)); self.transport.loseConnection()
@defer.inlineCallbacks
def main():
    f = protocol.ServerFactory(); f.protocol = Echo
    port = yield endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(f)
    for _ in range(20):
        c = protocol.ClientFactory(); c.protocol = Client; c.done = defer.Deferred()
        reactor.connectTCP("127.0.0.1", port.getHost().port, c)
        print((yield c.done))
    yield port.stopListening()
    reactor.stop()
reactor.callWhenRunning(main); reactor.callLater(60, os._exit, 3)
print(type(reactor).__name__); reactor.run()
"""

TORNADO = """
import asyncio, tornado.web, tornado.httpclient, tornado.httpserver, tornado.netutil
BINARY = {"Content-Type": "application/octet-stream"}
class Page(tornado.web.RequestHandler):
    def get(self): self.write(BODY)
    def post(self): self.write(sha(self.request.body))
async def main():
    server = tornado.httpserver.HTTPServer(tornado.web.Application([("/", Page)]))
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1"); server.add_sockets(sockets)
    url = "http://127.0.0.1:%d/" % sockets[0].getsockname()[1]
    client = tornado.httpclient.AsyncHTTPClient()
    print(set(sha(r.body) for r in await asyncio.gather(*(client.fetch(url) for _ in range(40)))))
    print((await client.fetch(url, method="POST", body=BODY * 3, headers=BINARY)).body)
    server.stop()
asyncio.run(main())
"""

TRIO = """
import trio
async def echo(stream):
    async for data in stream: await stream.send_all(data)
async def main():
    async with trio.open_nursery() as n:
        listeners = await n.start(trio.serve_tcp, echo, 0, )
        port = listeners[0].socket.getsockname()[1]
        async def one():
            async with await trio.open_tcp_stream("127.0.0.1", port) as s:
                got = b""
                async with trio.open_nursery() as inner:
                    inner.start_soon(s.send_all, BODY)
                    while len(got) < len(BODY): got += await s.receive_some()
                results.append(sha(got))
        results = []
        async with trio.open_nursery() as m:
            for _ in range(20): m.start_soon(one)
        print(set(results), len(results))
        n.cancel_scope.cancel()
trio.run(main)
"""

GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, gevent.pywsgi, urllib.request
def app(environ, start):
    start("200 OK", [("Content-Length", str(len(BODY)))])
    return [BODY]
server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), app, log=None); server.start()
url = f"http://127.0.0.1:{server.server_port}/"
jobs = [gevent.spawn(lambda: sha(urllib.request.urlopen(url, timeout=20).read())) for _ in range(30)]
gevent.joinall(jobs, timeout=60); print(set(j.value for j in jobs)); server.stop()
"""

UVLOOP = """
import asyncio, uvloop
async def echo(r, w):
    while data := await r.read(65536): w.write(data); await w.drain()
    w.close()
async def one(port):
    r, w = await asyncio.open_connection("127.0.0.1", port)
    w.write(BODY); got = await r.readexactly(len(BODY)); w.close(); await w.wait_closed()
    return sha(got)
async def main():
    s = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(type(asyncio.get_running_loop()).__module__)
    print(set(await asyncio.gather(*(one(s.sockets[0].getsockname()[1]) for _ in range(50)))))
    s.close()
uvloop.run(main())
"""

MULTIPROCESSING = """
import multiprocessing
def work(pipe, listener):
    with listener:
        a, _ = listener.accept()
        with a: a.sendall(b"from a child")
    while (s := pipe.recv()) is not None:
        with s: s.sendall(b"child " + s.recv(100))
    pipe.send("done")
def main():
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
            p = context.Process(target=work, args=(theirs, first)); p.start()
            with socket.create_connection(first.getsockname(), 20) as c: print(method, c.recv(100))
            for i in range(5):
                with socket.create_connection(second.getsockname(), 20) as c:
                    a, _ = second.accept(); ours.send(a); a.close()
                    c.sendall(b"hello %d" % i); print(c.recv(100), c.recv(100))
        ours.send(None); print(ours.recv()); p.join(20); print(p.exitcode)
if __name__ == "__main__": main()
"""

PROGRAMS = (
    Program("requests", REQUESTS, 4, 4),
    Program("urllib3", URLLIB3, 8, 8),
    Program("httpx", HTTPX, 10, 10),
    Program("aiohttp", AIOHTTP, 20, 20),
    Program("flask+gunicorn", GUNICORN, 60, 60),
    Program("uvicorn", "LOOP = 'asyncio'\n" + UVICORN, 20, 20),
    Program("uvicorn+uvloop", "LOOP = 'uvloop'\n" + UVICORN, None, 20),
    Program("django runserver", DJANGO, 20, 20),
    Program("redis-py", REDIS, 2, 2, "redis"),
    Program("psycopg", PSYCOPG, 0, 2, "postgres"),
    Program("pymongo", PYMONGO, 1, 1),
    Program("grpcio", GRPC, 0, 1),
    Program("twisted", TWISTED, 20, 20),
    Program("tornado", TORNADO, 10, 10),
    Program("trio", TRIO, 20, 20),
    Program("gevent", GEVENT, None, 30),
    Program("uvloop", UVLOOP, None, 50),
    Program("multiprocessing", MULTIPROCESSING, 15, 15),
)
