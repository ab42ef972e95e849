"""Erlang: schedulers and poll threads of their own, sets within sets, one-shot events; gen_tcp, ports, distribution."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web

ECHO = r"""
-module(echo).
-export([main/0]).

main() ->
    spawn(fun() -> lines(7002) end),
    {ok, L} = gen_tcp:listen(7001, [binary, {packet, raw}, {active, false}, {backlog, 300}, {reuseaddr, true}]),
    [spawn(fun() -> accept(L) end) || _ <- lists:seq(1, 4)],
    receive never -> ok end.

accept(L) ->
    {ok, S} = gen_tcp:accept(L),
    P = spawn(fun() -> receive go -> echo(S) end end),
    ok = gen_tcp:controlling_process(S, P),
    P ! go,
    accept(L).

echo(S) ->
    case gen_tcp:recv(S, 0) of
        {ok, D} -> ok = gen_tcp:send(S, D), echo(S);
        {error, closed} -> gen_tcp:close(S);
        {error, _} -> gen_tcp:close(S)
    end.

lines(Port) -> % active mode, lines
    {ok, L} = gen_tcp:listen(Port, [binary, {packet, line}, {active, true}, {reuseaddr, true}]),
    lines_accept(L).
lines_accept(L) ->
    {ok, S} = gen_tcp:accept(L),
    lines_loop(S),
    lines_accept(L).
lines_loop(S) ->
    receive
        {tcp, S, D} -> gen_tcp:send(S, string:uppercase(D)), lines_loop(S);
        {tcp_closed, S} -> ok
    end.
"""

CLIENT_ERL = r"""
-module(client).
-export([main/1]).

main([Host]) ->
    Self = self(),
    [spawn(fun() -> Self ! {done, talk(Host, N)} end) || N <- lists:seq(1, 100)],
    Right = [R || _ <- lists:seq(1, 100), R <- [receive {done, R} -> R after 30000 -> late end], R =:= true],
    io:format("100 processes: ~p~n", [length(Right)]),
    {ok, S} = gen_tcp:connect(Host, 7002, [binary, {packet, line}, {active, once}]),
    ok = gen_tcp:send(S, <<"one\ntwo\n">>),
    io:format("lines: ~p", [receive {tcp, S, A} -> A after 9000 -> late end]),
    inet:setopts(S, [{active, once}]),
    io:format(" ~p~n", [receive {tcp, S, B} -> B after 9000 -> late end]),
    gen_tcp:close(S),
    io:format("refused: ~p~n", [gen_tcp:connect(Host, 1, [], 5000)]),
    {ok, T} = gen_tcp:connect(Host, 7001, [binary, {active, false}]),
    io:format("timeout: ~p~n", [gen_tcp:recv(T, 1, 100)]),
    ok = gen_tcp:send(T, <<"exactly ten">>),
    io:format("exact: ~p~n", [gen_tcp:recv(T, 11, 9000)]),
    Pid = spawn_monitor(fun() -> exit({said, gen_tcp:recv(T, 1)}) end),
    timer:sleep(100),
    gen_tcp:close(T),
    io:format("closed by another: ~p~n", [receive {'DOWN', _, process, P, W} when P =:= element(1, Pid) -> W end]),
    {ok, U} = gen_tcp:connect(Host, 7001, [binary, {active, false}, {nodelay, true}, {linger, {true, 0}}]),
    io:format("options: ~p~n", [inet:getopts(U, [nodelay, linger, keepalive])]),
    gen_tcp:shutdown(U, write),
    io:format("end: ~p~n", [gen_tcp:recv(U, 0, 9000)]),
    new_api(Host),
    halt(0).

talk(Host, N) ->
    {ok, S} = gen_tcp:connect(Host, 7001, [binary, {active, true}]),
    Blob = binary:copy(<<"process ", (integer_to_binary(N))/binary, " ">>, 5000),
    spawn_link(fun() -> gen_tcp:send(S, Blob) end),
    Ok = collect(S, byte_size(Blob), []) =:= Blob,
    gen_tcp:close(S),
    Ok.
collect(_, 0, Acc) -> iolist_to_binary(lists:reverse(Acc));
collect(S, Left, Acc) ->
    receive {tcp, S, D} -> collect(S, Left - byte_size(D), [D | Acc]) after 20000 -> late end.

new_api(Host) -> % module socket: the calls as they are, select messages
    {ok, A} = inet:getaddr(Host, inet),
    {ok, S} = socket:open(inet, stream, tcp),
    ok = socket:connect(S, #{family => inet, addr => A, port => 7001}),
    ok = socket:send(S, <<"by module socket">>),
    io:format("socket: ~p~n", [socket:recv(S, 16, 9000)]),
    {select, {select_info, _, Ref}} = socket:recv(S, 4, nowait),
    ok = socket:send(S, <<"more">>),
    receive {'$socket', S, select, Ref} -> io:format("selected ~p~n", [socket:recv(S, 4, nowait)])
    after 9000 -> io:format("not selected~n") end,
    socket:close(S).
"""

HTTP_ERL = r"""
-module(http).
-export([main/1]).
main([Root]) ->
    application:ensure_all_started(inets),
    {ok, _} = inets:start(httpd, [{port, 8000}, {bind_address, {0, 0, 0, 0}}, {server_name, "erlang.test"},
        {server_root, Root}, {document_root, Root}, {mime_types, [{"txt", "text/plain"}]}, {server_tokens, none},
        {modules, [mod_alias, mod_dir, mod_get, mod_head]}]),
    receive never -> ok end.
"""


def compiled(r: Run, name: str, source: str) -> None:
    r.lab.start(r.server_ns, "erlc", "-o", r.tmp, r.file(f"{name}.erl", source)).ok(40)


def erl(r: Run, call: str) -> tuple[str, ...]:
    return ("erl", "-noshell", "-pa", str(r.tmp), "-eval", call)


@recipe(
    "erlang",
    exercises="processes over schedulers and poll threads (epoll in epoll, one-shot), active mode, module socket",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("erlang-base",),
    limit=90,
)
def erlang(r: Run) -> None:
    compiled(r, "echo", ECHO)
    compiled(r, "client", CLIENT_ERL)
    r.server(*erl(r, "echo:main()."), port=7002)
    r.listening(7001)
    r.see("client", r.client(*erl(r, f'client:main(["{r.addr}"]).')).ok(60).splitlines())
    r.carried(connections=104, bytes=10_000_000)


@recipe(
    "erlang-http",
    exercises="inets' httpd: a process per connection, files",
    modes=(SERVER, LOCAL),
    debian=("erlang-base", "erlang-inets", "curl", "wrk"),
)
def http(r: Run) -> None:
    compiled(r, "http", HTTP_ERL)
    r.server(*erl(r, f'http:main(["{web.root(r)}"]).'), port=8000)
    base = f"http://{r.addr}:8000"
    web.fetch(r, "httpd", base)
    r.see("load", web.wrk(r, f"{base}/small.txt", seconds=1))
    r.carried(connections=38, bytes=4_300_000)
