"""PHP: the command line's web server, streams and ext-sockets, and PHP-FPM behind nginx (FastCGI over TCP)."""

from __future__ import annotations

import signal
from pathlib import Path

from _lab import until

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web

APPLICATION = r"""<?php
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if (preg_match('#^/files/#', $path)) return false; // the built-in server sends the file
if ($path == '/sum') {
    header('Content-Type: text/plain');
    echo strlen(file_get_contents('php://input')), ' ', hash('sha256', file_get_contents('php://input'));
} elseif ($path == '/large') {
    for ($i = 0; $i < 2000; $i++) { echo str_repeat(chr(65 + $i % 26), 1000); if ($i % 100 == 0) flush(); }
} elseif ($path == '/redirect') {
    header('Location: /sum', true, 303);
} elseif ($path == '/who') {
    echo $_SERVER['REMOTE_ADDR'] == $_GET['expect'] ? 'as expected' : $_SERVER['REMOTE_ADDR'];
} else {
    http_response_code(404);
    echo 'nothing at ', $path;
}
"""

CLIENT_PHP = r"""<?php
$host = $argv[1];
function say($name, $value) { echo $name, ': ', json_encode($value), "\n"; }
$all = [];
for ($n = 0; $n < 50; $n++) {
    $s = stream_socket_client("tcp://$host:7001", $code, $text, 10);
    stream_set_blocking($s, false);
    $all[$n] = [$s, str_repeat("stream $n ", 5000), ''];
}
$open = $all; $send = $all;
while ($open) {
    $r = array_map(fn($a) => $a[0], $open); $w = array_map(fn($a) => $a[0], array_filter($send)); $e = null;
    if (!stream_select($r, $w, $e, 20)) die("stuck\n");
    foreach ($w as $n => $s) {
        $sent = fwrite($s, $send[$n][1]);
        $send[$n][1] = substr($send[$n][1], $sent);
        if ($send[$n][1] === '') { stream_socket_shutdown($s, STREAM_SHUT_WR); unset($send[$n]); }
    }
    foreach ($r as $n => $s) {
        $all[$n][2] .= fread($s, 65536);
        if (feof($s)) { unset($open[$n]); fclose($s); }
    }
}
say('50 streams', count(array_filter($all, fn($a) => $a[1] === $a[2])));
say('refused', [@stream_socket_client("tcp://$host:1", $code, $text, 5), $code, $text]);
$s = fsockopen($host, 7001);
stream_set_timeout($s, 0, 100000);
say('timed out', [fread($s, 10), stream_get_meta_data($s)['timed_out']]);
fwrite($s, "a line\nanother\n");
stream_set_timeout($s, 10);
say('lines', [fgets($s), fgets($s)]);
$t = socket_create(AF_INET, SOCK_STREAM, SOL_TCP);
socket_set_option($t, SOL_SOCKET, SO_RCVTIMEO, ['sec' => 0, 'usec' => 100000]);
socket_connect($t, $host, 7001);
say('recv', [@socket_recv($t, $b, 10, 0), socket_strerror(socket_last_error($t))]);
socket_write($t, 'through ext-sockets');
say('MSG_WAITALL', [socket_recv($t, $b, 19, MSG_WAITALL), $b]);
socket_shutdown($t, 1);
say('end', socket_recv($t, $b, 10, 0));
"""

ECHO_PHP = r"""<?php
$listener = stream_socket_server('tcp://0.0.0.0:7001', $code, $text, STREAM_SERVER_BIND | STREAM_SERVER_LISTEN,
    stream_context_create(['socket' => ['backlog' => 100]]));
$clients = [];
while (true) {
    $r = [$listener, ...array_values($clients)]; $w = $e = null;
    stream_select($r, $w, $e, null);
    foreach ($r as $s) {
        if ($s === $listener) { $c = stream_socket_accept($s, 0); $clients[(int)$c] = $c; continue; }
        $data = fread($s, 65536);
        if ($data !== '' && $data !== false) fwrite($s, $data);
        if (feof($s)) { unset($clients[(int)$s]); fclose($s); }
    }
}
"""

FPM_CONF = """
[global]
error_log = {tmp}/fpm.log
daemonize = no
[pool]
user = www-data
group = www-data
listen = 127.0.0.1:9000
pm = static
pm.max_children = 12
pm.max_requests = 40
catch_workers_output = yes
clear_env = no
"""

NGINX_CONF = """
user root;
worker_processes 1;
daemon off;
pid {tmp}/nginx.pid;
events {{ worker_connections 512; }}
http {{
	access_log off;
	client_body_temp_path {tmp}/body;
	proxy_temp_path {tmp}/proxy;
	fastcgi_temp_path {tmp}/fastcgi;
	uwsgi_temp_path {tmp}/uwsgi;
	scgi_temp_path {tmp}/scgi;
	client_max_body_size 20m;
	upstream php {{ server 127.0.0.1:9000; {keep} }}
	server {{
		listen 8080 backlog=200;
		location / {{
			fastcgi_pass php;
			fastcgi_keep_conn {on_off};
			fastcgi_buffering off;
			include /etc/nginx/fastcgi_params;
			fastcgi_param SCRIPT_FILENAME {tmp}/www/index.php;
		}}
	}}
}}
"""


def application(r: Run, base: str, name: str = "") -> None:
    """Sees what the application answers."""
    body = r.file("upload", web.data(3_000_000))
    r.see(f"{name}sum", web.curl(r, "--data-binary", f"@{body}", f"{base}/sum"))
    r.see(f"{name}large", web.sha(web.curl(r, f"{base}/large").encode()))
    r.see(f"{name}redirect", web.curl(r, "-L", "-w", " %{num_redirects} %{http_code}", f"{base}/redirect"))
    r.see(f"{name}missing", web.curl(r, "-w", " %{http_code}", f"{base}/none"))
    r.see(f"{name}who", web.curl(r, f"{base}/who?expect={r.client_addr}"))
    r.see(
        f"{name}parallel",
        web.curl(
            r,
            "-Z",
            "--no-progress-meter",
            "--parallel-max",
            "10",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{size_download}\n",
            f"{base}/large?[1-30]",
        ),
    )


@recipe(
    "php-server",
    exercises="php -S with 3 worker processes that accept on one listener (poll), uploads, static files",
    modes=(SERVER, LOCAL),
    debian=("php-cli", "curl"),
)
def server(r: Run) -> None:
    root = web.root(r)
    root.rename(r.tmp / "files")
    (r.tmp / "www").mkdir()
    (r.tmp / "files").rename(r.tmp / "www" / "files")
    router = r.file("router.php", APPLICATION)
    r.server("php", "-S", "0.0.0.0:8000", "-t", r.tmp / "www", router, port=8000, env={"PHP_CLI_SERVER_WORKERS": "3"})
    base = f"http://{r.addr}:8000"
    application(r, base)
    web.fetch(r, "files", f"{base}/files")
    r.carried(connections=40, bytes=65_000_000)


@recipe(
    "php-streams",
    exercises="stream_select over 50 streams, fsockopen, time-outs, ext-sockets",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("php-cli",),
)
def streams(r: Run) -> None:
    r.server("php", r.file("echo.php", ECHO_PHP), port=7001)
    r.see("client", r.client("php", r.file("client.php", CLIENT_PHP), r.addr).ok(40).splitlines())
    r.carried(connections=52, bytes=4_000_000)


@recipe(
    "php-fpm",
    exercises="workers with other credentials that accept on an inherited listener, FastCGI from nginx, recycling",
    modes=(SERVER, LOCAL),
    debian=("php-fpm", "nginx", "curl"),
    limit=90,
)
def fpm(r: Run) -> None:
    r.file("www/index.php", APPLICATION)
    program = max(Path("/usr/sbin").glob("php-fpm*"))
    conf, log = r.file("fpm.conf", FPM_CONF.format(tmp=r.tmp)), r.tmp / "fpm.log"
    master = r.server(program, "-F", "-y", conf, port=9000)
    base = f"http://{r.addr}:8080"
    for way, keep, on_off in (("fresh", "", "off"), ("kept", "keepalive 3;", "on")):
        text = NGINX_CONF.format(tmp=r.tmp, keep=keep, on_off=on_off)
        nginx = r.server("nginx", "-c", r.file("nginx.conf", text), "-e", "stderr", "-p", r.tmp, port=8080)
        application(r, base, f"{way}: ")
        many = web.curl(r, "-o", "/dev/null", "-w", "%{http_code} ", f"{base}/sum?[1-150]")
        r.see(f"{way}: workers recycled meanwhile", many)
        if way == "kept":
            master.signal(signal.SIGUSR2)  # executes itself again; the listener stays open
            until("it is back", lambda: log.read_text().count("ready to handle connections") == 2)
            r.see("after the reload", web.curl(r, "-w", " %{http_code}", f"{base}/who?expect={r.client_addr}"))
        r.see(f"{way}: nginx ended", nginx.end())
    r.see("php-fpm ended", master.end())
    r.carried(connections=24, bytes=110_000_000)
