"""git: smart http by CGI, plain http, git daemon; clone, fetch and push."""

from __future__ import annotations

import subprocess
from pathlib import Path

from recipes import CLIENT, LOCAL, SERVER, Run, _web, nginx, recipe

LIGHTTPD = """
server.modules = ("mod_cgi", "mod_setenv", "mod_alias")
server.document-root = "{tmp}/www"
server.port = 8080
server.bind = "0.0.0.0"
server.errorlog = "{tmp}/error.log"
setenv.add-environment = ("GIT_PROJECT_ROOT" => "{tmp}/www", "GIT_HTTP_EXPORT_ALL" => "1", "REMOTE_USER" => "test",
	"GIT_CONFIG_COUNT" => "1", "GIT_CONFIG_KEY_0" => "safe.directory", "GIT_CONFIG_VALUE_0" => "*")
alias.url = ("/git" => "/usr/lib/git-core/git-http-backend")
$HTTP["url"] =~ "^/git" {{ cgi.assign = ("" => "") }}
"""
WHO = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@test", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@test",
    "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", "HOME": "/nonexistent",
    "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
}  # fmt: skip


def local(r: Run, *argv: str | Path) -> str:
    """git without a network."""
    run = subprocess.run(
        ["git", *argv], env={"PATH": "/usr/bin:/bin", **WHO}, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def repository(r: Run) -> Path:
    """A repository of 20 commits with 2 MB that do not compress."""
    work, bare = r.tmp / "work", r.tmp / "www/repo.git"
    local(r, "init", "-q", "-b", "main", work)
    for n in range(20):
        r.file(f"work/file{n % 10}", _web.data(100_000, n))
        local(r, "-C", work, "add", ".")
        local(r, "-C", work, "commit", "-q", "-m", f"commit {n}")
    local(r, "clone", "-q", "--bare", work, bare)
    local(r, "-C", bare, "config", "http.receivepack", "true")
    local(r, "-C", bare, "config", "receive.denyCurrentBranch", "ignore")
    (bare / "git-daemon-export-ok").touch()
    local(r, "-C", bare, "update-server-info")
    return bare


def git(r: Run, *argv: str | Path) -> list[object]:
    p = r.client("git", *argv, env=WHO)
    return [p.wait(40), p.out]


def clone(r: Run, name: str, url: str, *options: str) -> Path:
    to = r.tmp / name
    r.see(f"{name}: clone", git(r, "clone", "-q", *options, url, to))
    r.see(f"{name}: head", local(r, "-C", to, "rev-parse", "HEAD"))
    r.see(f"{name}: files", {f.name: _web.sha(f.read_bytes()) for f in sorted(to.iterdir()) if f.is_file()})
    local(r, "-C", to, "fsck", "--full")
    return to


def push(r: Run, bare: Path, to: Path) -> None:
    (to / "new").write_bytes(_web.data(3_000_000, 99))
    local(r, "-C", to, "add", ".")
    local(r, "-C", to, "commit", "-q", "-m", "new")
    r.see("push", git(r, "-C", to, "push", "-q", "origin", "HEAD:main"))
    r.see("pushed", local(r, "-C", bare, "rev-parse", "main"))


@recipe(
    "git-http",
    exercises="libcurl in git, lighttpd with git's CGI program, chunked uploads, protocol 2",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("git", "lighttpd"),
)
def git_http(r: Run) -> None:
    bare = repository(r)
    r.server("lighttpd", "-D", "-f", r.file("lighttpd.conf", LIGHTTPD.format(tmp=r.tmp)), port=8080)
    base = f"http://{r.addr}:8080/git/repo.git"
    to = clone(r, "whole", base)
    clone(r, "shallow", base, "--depth", "3")
    push(r, bare, to)
    r.see("fetch", git(r, "-C", r.tmp / "shallow", "fetch", "-q", "--unshallow"))
    r.see("refs", git(r, "ls-remote", base))
    r.carried(connections=5, bytes=6_000_000)


@recipe(
    "git-plain",
    exercises="git's walker over plain files: many requests in parallel with libcurl's multi interface",
    modes=(CLIENT, LOCAL),
    debian=("git", "nginx"),
)
def git_plain(r: Run) -> None:
    repository(r)
    nginx.serve(r)
    clone(r, "whole", f"{nginx.url(r)}/repo.git")
    r.carried(connections=1, bytes=2_000_000)


@recipe(
    "git-daemon",
    exercises="a process per connection with it as 0 and 1, upload-pack by exec, progress over a side band",
    modes=(SERVER, CLIENT, LOCAL),
    quick=(SERVER,),
    debian=("git",),
)
def git_daemon(r: Run) -> None:
    bare = repository(r)
    r.server(
        "git", "daemon", f"--base-path={r.tmp}/www", "--listen=0.0.0.0", "--port=9418",
        "--enable=receive-pack", "--reuseaddr", f"--pid-file={r.tmp}/git.pid", "--timeout=20", env=WHO,
        port=9418,
    )  # fmt: skip
    base = f"git://{r.addr}/repo.git"
    to = clone(r, "whole", base)
    clone(r, "shallow", base, "--depth", "3")
    push(r, bare, to)
    r.see("fetch", git(r, "-C", r.tmp / "shallow", "fetch", "-q", "--unshallow"))
    many = [r.client("git", "clone", "-q", base, r.tmp / f"parallel{n}", env=WHO) for n in range(4)]
    r.see("four at a time", [p.wait(40) for p in many])
    r.carried(connections=8, bytes=6 * 2_000_000)
