"""A static Go program: no libc, nothing to preload into.  What the documentation says of such programs is seen here."""

from __future__ import annotations

import os
import subprocess

from recipes import LOCAL, SERVER, Run, _web, nginx, recipe
from tas_sockets._control import What

SOURCE = """package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
)

func sum(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, _ := io.Copy(h, r.Body)
	fmt.Fprintf(w, "%s %d %x\\n", r.URL.Path, n, h.Sum(nil))
}

func main() {
	if len(os.Args) > 1 {
		http.HandleFunc("/", sum)
		panic(http.ListenAndServe(os.Args[1], nil))
	}
	in := bufio.NewScanner(os.Stdin)
	for n := 1; in.Scan(); n++ {
		fmt.Printf("%d %s\\n", n, in.Text())
	}
	fmt.Println("end")
}
"""


def built(r: Run) -> str:
    source, program = r.file("main.go", SOURCE), str(r.tmp / "program")
    env = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(r.tmp / "cache"),
        "GOFLAGS": "-mod=mod",
        "GO111MODULE": "off",
    }
    subprocess.run(["go", "build", "-o", program, str(source)], check=True, env=env, timeout=60)
    return program


@recipe(
    "go-static",
    exercises="documented limits: a static server on the kernel's TCP, behind nginx; an inherited connection (inetd)",
    modes=(SERVER, LOCAL),
    debian=("golang-go", "nginx", "curl", "socat"),
    limit=120,
    kernel_opens=200,  # nginx to the static server: what this is about
)
def go_static(r: Run) -> None:
    program = built(r)
    server = r.server(program, "127.0.0.1:7000", port=7000)
    nginx.bare(r, "listen 8080; client_max_body_size 0; location / { proxy_pass http://127.0.0.1:7000; }", workers=1)
    data = r.file("data", _web.data(_web.BIG))
    for n in range(20):
        answer = r.client("curl", "-sS", "--max-time", "20", "-T", data, f"http://{r.addr}:8080/{n}")
        r.see(f"put {n}", answer.ok(30))
    if r.on_tas and r.lab.service:
        assert server.pid not in [p["pid"] for p in r.lab.service.ask(What.PROCS)], "a static program is on TAS"
    r.server("socat", "TCP-LISTEN:7100,fork,reuseaddr", f"EXEC:{program},nofork", port=7100)
    lines = "".join(f"line {n}\n" for n in range(5000))
    for n in range(5):
        r.see(
            f"inherited {n}",
            _web.sha(r.client("socat", "-t10", "-", f"TCP:{r.addr}:7100", stdin=lines).ok(30).encode()),
        )
    r.see("ended", server.end())
    r.carried(connections=25, bytes=20 * _web.BIG)
