"""tasctl: starts, ends and inspects the TAS service, and runs programs on it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from tas_sockets import __version__, _doctor, _paths, _raw_sites, _service, _top
from tas_sockets._control import Control, ServiceError, What
from tas_sockets._exec import exec_program


def _ask(args: argparse.Namespace, what: What) -> Any:
    with Control(args.socket) as control:
        return control.ask(what)


def _table(rows: Sequence[Sequence[object]], right: frozenset[int] = frozenset()) -> None:
    """Prints rows in aligned columns; those numbered in ``right`` to the right."""
    text = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    for row in text:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())


def _show(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_show(v)}" for k, v in value.items())
    if isinstance(value, list):
        return "; ".join(_show(v) for v in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


def up(args: argparse.Namespace) -> int:
    path = _service.option(args.options, "socket") or args.socket
    if _service.running(path):
        print(f"tasctl: a service is running at {path} already", file=sys.stderr)
        return 1
    pid = _service.start(args.options, path)
    print(f"tas is up: process {pid}, socket {path}, log {_service.log_path(path)}")
    return 0


def down(args: argparse.Namespace) -> int:
    _service.stop(args.socket)
    print("tas is down")
    return 0


def status(args: argparse.Namespace) -> int:
    found = _ask(args, What.STATUS)
    if args.json:
        print(json.dumps(found))
        return 0
    _table([(key.replace("_", " "), _show(value)) for key, value in found.items()])
    return 0


def conns(args: argparse.Namespace) -> int:
    found = _ask(args, What.CONNS)
    if args.json:
        print(json.dumps(found))
        return 0
    listed = [c for c in found if args.all or c.get("kind") != "listener" or args.listening]
    if args.listening:
        listed = [c for c in listed if c.get("kind") == "listener"]
    rows: list[list[object]] = [["State", "Recv-Q", "Send-Q", "Local", "Peer", "Kind", "Processes"]]
    if any(c.get("unacted") for c in listed):  # options that programs set and TAS does not act on
        rows[0].append("Unacted")
    for c in listed:
        pids = c.get("pids", c.get("pid", []))
        rows.append(
            [
                c.get("state", "?"),
                c.get("rx_queue", 0),
                c.get("tx_queue", 0),
                c.get("local", "?"),
                c.get("peer", "*") if c.get("kind") != "listener" else "*",
                c.get("kind", "?"),
                ",".join(map(str, pids)) if isinstance(pids, list) else pids,
                *([",".join(c.get("unacted", []))] if "Unacted" in rows[0] else []),
            ]
        )
    _table(rows, right=frozenset({1, 2}))
    return 0


SYSTEM_CALLS = {
    0: "read", 1: "write", 3: "close", 16: "ioctl", 19: "readv", 20: "writev", 32: "dup", 33: "dup2", 40: "sendfile",
    42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 48: "shutdown", 49: "bind",
    50: "listen", 51: "getsockname", 52: "getpeername", 54: "setsockopt", 55: "getsockopt", 72: "fcntl",
    233: "epoll_ctl", 275: "splice", 288: "accept4", 292: "dup3", 299: "recvmmsg", 307: "sendmmsg", 327: "preadv2",
    328: "pwritev2",
}  # fmt: skip


def _raw_look(args: argparse.Namespace) -> int:
    found = []
    for process in _ask(args, What.PROCS):
        try:
            found += [{"comm": process["comm"], **f} for f in _raw_sites.of_process(process["pid"])]
        except OSError:
            print(f"tasctl: process {process['pid']} cannot be looked at", file=sys.stderr)
    if args.json:
        print(json.dumps(found))
        return 0
    rows: list[list[object]] = [["Program", "Process", "Object", "Calls", "Made by"]]
    rows += [[f["comm"], f["pid"], f["object"], f["sites"], "Go" if f["go"] else ""] for f in found]
    _table(rows, right=frozenset({3}))
    return 0


def raw(args: argparse.Namespace) -> int:
    if args.look:
        return _raw_look(args)
    found = _ask(args, What.RAW)
    if args.json:
        print(json.dumps(found))
        return 0
    rows: list[list[object]] = [["Program", "Process", "Site", "Call", "Count", "Result"]]
    for s in sorted(found, key=lambda s: -s["count"]):
        call = SYSTEM_CALLS.get(s["nr"], str(s["nr"]))
        result = "emulated" if s["caught"] else "went to the unconnected kernel socket"
        rows.append([s["comm"], s["pid"], f"{s['object']}+{s['offset']:#x}", call, s["count"], result])
    _table(rows, right=frozenset({4}))
    return 0


def stats(args: argparse.Namespace) -> int:
    found = _ask(args, What.STATS)
    if args.json:
        print(json.dumps(found))
        return 0
    for title in ("counters", "gauges"):
        values = {k: v for k, v in found.get(title, {}).items() if v or args.all or title == "gauges"}
        print(f"{title}:" if values else f"{title}: all 0")
        if values:
            _table([("", name, value) for name, value in values.items()], right=frozenset({2}))
    return 0


def top(args: argparse.Namespace) -> int:
    with Control(args.socket) as control:
        _top.run(control, interval=args.interval, once=args.once, as_json=args.json)
    return 0


def doctor(_: argparse.Namespace) -> int:
    worst = 0
    for level, what, fix in _doctor.findings():
        print(f"{level:4}  {what}")
        if fix:
            print(f"      fix: {fix}")
        worst = max(worst, level == _doctor.BAD)
    print("Something does not work." if worst else "TAS works here.")
    return int(worst)


def execute(args: argparse.Namespace) -> int:
    try:
        exec_program(args.options, args.command)
    except OSError as e:
        print(f"tasctl: {args.command[0]}: {e.strerror}", file=sys.stderr)
        return 127 if isinstance(e, FileNotFoundError) else 126


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tasctl", description=__doc__)
    parser.add_argument("--version", action="version", version=f"tasctl {__version__}")
    parser.add_argument(
        "-s", "--socket", default=_paths.default_socket(), help="control socket ($TAS_SOCKET, %(default)s)"
    )
    commands = parser.add_subparsers(dest="command_name", metavar="COMMAND", required=True)

    def add(name: str, function: Any, text: str, usage: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, usage=usage)
        sub.set_defaults(run=function)
        return sub

    add("up", up, "start the service; options are those of `tas --help`", "tasctl up [service options]")
    add("down", down, "end the service")
    for name, function, text in (
        ("status", status, "what is running"),
        ("conns", conns, "sockets of TAS"),
        ("raw", raw, "system calls on TAS sockets that passed libc by (programs run with TAS_RAW=report or catch)"),
        ("stats", stats, "counters and gauges"),
    ):
        sub = add(name, function, text)
        sub.add_argument("-j", "--json", action="store_true", help="as JSON")
        if name == "conns":
            sub.add_argument("-l", "--listening", action="store_true", help="listeners only")
        if name == "raw":
            sub.add_argument(
                "--look", action="store_true", help="which programs on TAS have `syscall` instructions besides libc's"
            )
        if name in ("conns", "stats"):
            sub.add_argument(
                "-a", "--all", action="store_true", help="listeners too" if name == "conns" else "zeros too"
            )
    sub = add("top", top, "where the service's time goes: cores, rates, processes; until interrupted")
    sub.add_argument("-1", "--once", action="store_true", help="one report about one interval")
    sub.add_argument("-j", "--json", action="store_true", help="as JSON, one line per report")
    sub.add_argument("-i", "--interval", type=_top.seconds, default=1.0, help="seconds between reports [%(default)s]")
    add("doctor", doctor, "what is missing on this machine, and how to fix it")
    add(
        "exec",
        execute,
        "run a program on TAS; without a running service, one for local connections is started (`tas --help`: options)",
        "tasctl exec [service options] -- CMD [ARG...]",
    )
    return parser


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments; those of `up` and those of `exec` before `--` belong to the service and pass as they are."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv[: _command_end(argv)])
    rest = [*rest, *argv[_command_end(argv) :]]
    if args.command_name == "up":
        args.options = [r for r in rest if r != "--"]
    elif args.command_name == "exec":
        at = rest.index("--") if "--" in rest else 0 if rest and not rest[0].startswith("-") else len(rest)
        args.options = rest[:at]
        args.command = rest[at + 1 :] if "--" in rest else rest[at:]
        if not args.command:
            parser.error("exec: no command; usage: tasctl exec [service options] -- CMD [ARG...]")
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _command_end(argv: Sequence[str]) -> int:
    """Where the words for `up` and `exec` begin, which argparse must not touch (--help excepted)."""
    skip = False
    for i, word in enumerate(argv):
        if skip:
            skip = False
        elif word in ("-s", "--socket"):
            skip = True
        elif word in ("up", "exec"):
            return i + 2 if argv[i + 1 : i + 2] in (["-h"], ["--help"]) else i + 1
        elif not word.startswith("-"):
            break
    return len(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(sys.argv[1:] if argv is None else argv)
    try:
        return int(args.run(args))
    except (_service.StartError, _paths.NotFoundError, ServiceError) as e:
        print(f"tasctl: {e}", file=sys.stderr)
    except (FileNotFoundError, ConnectionRefusedError):
        print(f"tasctl: no service at {args.socket}  (tasctl up, or tasctl exec -- CMD)", file=sys.stderr)
    except PermissionError:
        print(f"tasctl: no permission for {args.socket}", file=sys.stderr)
    except BrokenPipeError:
        sys.stderr.close()
    return 1


if __name__ == "__main__":
    sys.exit(main())
