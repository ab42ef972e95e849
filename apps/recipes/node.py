"""Node.js: libuv's epoll loop with http, net, and the cluster module, whose workers get sockets or listeners."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web

NODE = ("nodejs", "curl")

HTTP_SERVER = """
const crypto = require('crypto'), fs = require('fs'), http = require('http');
const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://host');
  if (url.pathname === '/echo') return void req.pipe(res);
  if (url.pathname === '/digest') {
    const sum = crypto.createHash('sha256');
    req.on('data', d => sum.update(d)).on('end', () => res.end(sum.digest('hex')));
    return;
  }
  if (url.pathname === '/slow') return void setTimeout(() => res.end('slow'), 300);
  if (url.pathname === '/never') return;
  if (url.pathname === '/cut') { res.write('part'); return void setTimeout(() => req.socket.resetAndDestroy(), 50); }
  if (url.pathname === '/file') return void fs.createReadStream(process.argv[2]).pipe(res);
  if (url.pathname === '/upgrade') return void res.writeHead(426).end('upgrade');
  res.end('small');
});
server.on('upgrade', (req, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: echo\\r\\nConnection: Upgrade\\r\\n\\r\\n');
  socket.pipe(socket);
});
server.on('clientError', (e, socket) => socket.writable && socket.end('HTTP/1.1 400 Bad Request\\r\\n\\r\\n'));
server.listen(8000, '0.0.0.0');
"""

HTTP_CLIENT = """
const crypto = require('crypto'), http = require('http'), net = require('net');
const host = process.argv[2];
const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
const sha = data => crypto.createHash('sha256').update(data).digest('hex').slice(0, 16);
function ask(path, body, options = {}) {
  return new Promise((good, bad) => {
    const req = http.request({ host, port: 8000, path, agent, method: body ? 'POST' : 'GET', ...options }, res => {
      const parts = [];
      res.on('data', d => parts.push(d));
      res.on('end', () => good({ status: res.statusCode, body: Buffer.concat(parts) }));
      res.on('error', e => bad(e));
    });
    req.on('error', bad);
    if (options.timeout) req.on('timeout', () => req.destroy(Object.assign(new Error('late'), { code: 'LATE' })));
    req.end(body);
  });
}
(async () => {
  const small = await Promise.all(Array.from({ length: 200 }, () => ask('/')));
  console.log('200 at once', small.filter(a => a.body == 'small').length);
  const big = crypto.createHash('shake256', { outputLength: 5_000_000 }).update('seed').digest();
  const echoed = await ask('/echo', big);
  console.log('echo', echoed.body.length, sha(echoed.body) == sha(big));
  console.log('digest', (await ask('/digest', big)).body.toString().slice(0, 16) == sha(big));
  const file = await ask('/file');
  console.log('file', file.body.length, sha(file.body));
  console.log('slow', (await ask('/slow')).body.toString());
  console.log('late', await ask('/never', null, { timeout: 200, agent: false }).catch(e => e.code));
  console.log('cut', await ask('/cut').catch(e => e.code));
  console.log('refused', await ask('/', null, { port: 1 }).catch(e => [e.code, e.syscall]));
  await new Promise(done => {
    const req = http.request({ host, port: 8000, headers: { Connection: 'Upgrade', Upgrade: 'echo' } });
    req.on('upgrade', (res, socket) => {
      socket.end('through the upgraded connection');
      let got = '';
      socket.on('data', d => got += d).on('end', () => { console.log('upgraded', got); done(); });
    });
    req.end();
  });
  await new Promise(done => {
    const s = net.connect(8000, host, () => s.write('no http\\r\\n\\r\\n'));
    let got = '';
    s.on('data', d => got += d).on('close', () => { console.log('bad request', got.split('\\r\\n')[0]); done(); });
  });
  agent.destroy();
})();
"""


@recipe(
    "node-http",
    exercises="keep-alive agents, streams with back pressure, upgrade, time-outs, reset by the server",
    modes=(SERVER, CLIENT, LOCAL),
    quick=(SERVER,),
    debian=NODE,
)
def http(r: Run) -> None:
    data = r.file("data", web.data(3_000_000))
    r.server("node", r.file("server.js", HTTP_SERVER), data, port=8000)
    said = r.client("node", r.file("client.js", HTTP_CLIENT), r.addr).ok(40)
    r.see("client", said.splitlines())
    r.see("curl", web.curl(r, "-w", " %{http_code} %{num_connects}\n", f"http://{r.addr}:8000/[1-3]"))
    r.carried(connections=12, bytes=18_000_000)


NET_SERVER = """
const net = require('net');
net.createServer({ allowHalfOpen: true }, s => {
  s.setNoDelay(true); s.setKeepAlive(true, 1000);
  s.on('error', e => console.log(e.code));
  s.pipe(s);
}).listen({ port: 7001, host: '0.0.0.0', backlog: 300 });
const paused = net.createServer({ pauseOnConnect: true }, s => setTimeout(() => { s.resume(); s.pipe(s); }, 100));
paused.listen(7002, '0.0.0.0');
"""

NET_CLIENT = """
const net = require('net'), host = process.argv[2];
function echo(port, n, size) {
  return new Promise((good, bad) => {
    const blob = Buffer.alloc(size, `client ${n} `), parts = [];
    const s = net.connect({ port, host, highWaterMark: 16384 }, () => s.end(blob));
    s.on('data', d => parts.push(d)).on('error', bad);
    s.on('close', hadError => good(!hadError && Buffer.concat(parts).equals(blob)));
  });
}
(async () => {
  const all = await Promise.all(Array.from({ length: 200 }, (_, n) => echo(7001, n, 100_000)));
  console.log('200 echoes', all.filter(Boolean).length);
  console.log('paused', await echo(7002, 1, 500_000));
  const s = net.connect(7001, host);
  await new Promise(done => s.on('connect', done));
  console.log(s.remoteAddress == host, s.remotePort, s.localPort > 0, s.remoteFamily);
  s.setTimeout(100);
  console.log(await new Promise(done => s.on('timeout', () => done('idle'))));
  s.destroy();
  console.log(await new Promise(done => s.on('close', e => done(`closed ${e}`))), s.bytesRead);
  const controller = new AbortController();
  const t = net.connect({ port: 7001, host, signal: controller.signal });
  t.on('connect', () => controller.abort());
  console.log(await new Promise(done => t.on('error', e => done(e.code))));
})();
"""


@recipe(
    "node-net",
    exercises="200 connections at once, half close, paused reading, idle time-out, destroy",
    modes=(SERVER, CLIENT, LOCAL),
    debian=NODE,
)
def net(r: Run) -> None:
    r.server("node", r.file("server.js", NET_SERVER), port=7002)
    said = r.client("node", r.file("client.js", NET_CLIENT), r.addr).ok(40)
    r.see("client", said.splitlines())
    r.carried(connections=203, bytes=40_000_000)


CLUSTER = """
const cluster = require('cluster'), http = require('http');
cluster.schedulingPolicy = process.argv[2] === 'shared' ? cluster.SCHED_NONE : cluster.SCHED_RR;
if (cluster.isPrimary) {
  cluster.fork(); cluster.fork();
  process.on('SIGTERM', () => {
    for (const id in cluster.workers) cluster.workers[id].process.kill();
    process.exit(0);
  });
  cluster.on('exit', (w, code) => { console.log('worker ended', code); cluster.fork(); });
} else {
  http.createServer((req, res) => {
    if (req.url === '/die') { res.end('dying'); return void setTimeout(() => process.exit(3), 20); }
    res.setHeader('Connection', 'close');
    res.end(req.url.startsWith('/who') ? String(cluster.worker.id) : 'x'.repeat(20000));
  }).listen(8000, '0.0.0.0', () => console.log('worker listens'));
}
"""

FORKED = """
const { fork } = require('child_process'), net = require('net');
if (process.argv[2] === 'child') {
  process.on('message', (what, socket) => {
    if (what === 'socket') socket.on('data', d => socket.write(d)).on('end', () => socket.end(' from the child'));
    else socket.on('connection', c => c.end('accepted by the child'));
  });
} else {
  const child = fork(__filename, ['child']);
  process.on('SIGTERM', () => { child.kill(); process.exit(0); });
  net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, s => child.send('socket', s)).listen(7001, '0.0.0.0');
  const given = net.createServer();
  given.listen(7002, '0.0.0.0', () => child.send('server', given, () => { given.close(); console.log('given'); }));
}
"""


@recipe(
    "node-cluster",
    exercises="two workers: sockets handed out by the first process, a listener shared; a worker that dies",
    modes=(SERVER, LOCAL),
    debian=NODE,
)
def cluster(r: Run) -> None:
    for way in ("round-robin", "shared"):
        server = r.server("node", r.file("cluster.js", CLUSTER), way, port=8000)
        server.line(r"(?s)worker listens.*worker listens")
        base = f"http://{r.addr}:8000"
        r.see(f"{way}: 60 requests", web.curl(r, "-Z", "--no-progress-meter", "-w", "%{http_code} %{size_download}\n", "-o", "/dev/null", f"{base}/[1-60]"))  # fmt: skip  # noqa: E501
        who = set(web.curl(r, "-w", "\n", f"{base}/who?[1-40]").split())
        r.see(f"{way}: workers", sorted(who) if way == "round-robin" else who <= {"1", "2"})
        r.see(f"{way}: die", web.curl(r, f"{base}/die"))
        server.line(r"(?s)worker ended 3.*worker listens")
        r.see(f"{way}: after", web.curl(r, "-w", "%{http_code} ", "-o", "/dev/null", f"{base}/[1-20]"))
        r.see(f"{way}: end", server.end())
    r.carried(connections=200, bytes=2_500_000)


@recipe(
    "node-fork",
    exercises="child_process.send of a connection and of a listener",
    modes=(SERVER, LOCAL),
    debian=NODE,
)
def forked(r: Run) -> None:
    r.server("node", r.file("forked.js", FORKED), port=7002).line("given")
    talk = (
        "import socket,sys\nfor port in (7001, 7002):\n for n in range(5):\n"
        "  s = socket.create_connection((sys.argv[1], port), 20); s.sendall(b'hello %d' % n) if port == 7001 else 0\n"
        "  s.shutdown(1); print(s.makefile('rb').read())\n"
    )
    r.see("answers", r.client("/usr/bin/python3", r.file("talk.py", talk), r.addr).ok(30).splitlines())
    r.carried(connections=10)


EXPRESS = """
const express = require('express'), app = express();
app.use(express.json({ limit: '5mb' }));
app.get('/', (req, res) => res.type('text').send('small'));
app.post('/sum', (req, res) => res.json({ sum: req.body.numbers.reduce((a, b) => a + b, 0) }));
app.use('/static', express.static(process.argv[2]));
app.get('/stream', async (req, res) => {
  for (let i = 0; i < 50; i++) { res.write(`chunk ${i} `.repeat(1000)); await new Promise(setImmediate); }
  res.end();
});
app.get('/fail', () => { throw Object.assign(new Error('on purpose'), { status: 418, expose: true }); });
app.listen(8000, '0.0.0.0');
"""


@recipe(
    "node-express",
    exercises="the express framework: static files (with ranges), JSON bodies, chunked answers, errors",
    modes=(SERVER, LOCAL),
    debian=(*NODE, "wrk"),
    npm=("express",),
)
def express(r: Run) -> None:
    r.server("node", r.file("app.js", EXPRESS), web.root(r), port=8000, env={"NODE_ENV": "production"})
    base = f"http://{r.addr}:8000"
    web.fetch(r, "static", f"{base}/static")
    numbers = r.file("numbers.json", '{"numbers": [' + ",".join(str(n) for n in range(200_000)) + "]}")
    r.see("json", web.curl(r, "--json", f"@{numbers}", f"{base}/sum"))
    r.see("stream", web.sha(web.curl(r, f"{base}/stream").encode()))
    r.see("fail", web.curl(r, "-w", "%{http_code}", f"{base}/fail"))
    r.see("load", web.wrk(r, f"{base}/"))
    r.carried(connections=40, bytes=5_500_000)
