"""Lua with LuaSocket: a small C library over select and non-blocking sockets."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, recipe

SERVER_LUA = r"""
local socket = require 'socket'
local listener = assert(socket.bind('0.0.0.0', 7001, 100))
listener:settimeout(0)
local open, out = { listener }, {}
while true do
  local writers = {}
  for s in pairs(out) do writers[#writers + 1] = s end
  local readable, writable = socket.select(open, writers)
  for _, s in ipairs(readable) do
    if s == listener then
      local c = s:accept()
      if c then c:settimeout(0); open[#open + 1] = c end
    else
      local line, why, part = s:receive('*l')
      if line then out[s] = (out[s] or '') .. line:upper() .. '\n'
      elseif why == 'closed' then
        for n, o in ipairs(open) do if o == s then table.remove(open, n) end end
        out[s] = nil
        s:close()
      elseif part ~= '' then error('lines come whole here') end
    end
  end
  for _, s in ipairs(writable) do
    if out[s] then
      local last, why, partial = s:send(out[s])
      local sent = last or partial
      out[s] = sent < #out[s] and out[s]:sub(sent + 1) or nil
    end
  end
end
"""

CLIENT_LUA = r"""
local socket = require 'socket'
local host = arg[1]
local clients, right = {}, 0
for n = 1, 50 do clients[n] = assert(socket.connect(host, 7001)); clients[n]:settimeout(20) end
for round = 1, 20 do
  for n, c in ipairs(clients) do assert(c:send(('client %d round %d\n'):format(n, round))) end
  for n, c in ipairs(clients) do
    if c:receive('*l') == ('CLIENT %d ROUND %d'):format(n, round) then right = right + 1 end
  end
end
print('lines', right)
clients[1]:settimeout(0.1)
print('timeout', clients[1]:receive('*l'))
print('refused', socket.connect(host, 1))
print('peer', clients[1]:getpeername())
clients[2]:shutdown('send')
print('end', clients[2]:receive('*a'))
print('option', clients[3]:setoption('tcp-nodelay', true), clients[3]:getoption('tcp-nodelay'))
"""


@recipe(
    "lua-socket",
    exercises="select in server and clients, 50 connections, time-outs",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("lua5.4", "lua-socket"),
)
def lua(r: Run) -> None:
    r.server("lua5.4", r.file("server.lua", SERVER_LUA), port=7001)
    r.see("client", r.client("lua5.4", r.file("client.lua", CLIENT_LUA), r.addr).ok(40).splitlines())
    r.carried(connections=50, bytes=30_000)
