"""Ruby: threads under one lock that wait in ppoll, IO.select, WEBrick, Net::HTTP, a fork per connection."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web

ECHO = r"""
require 'socket'
server = TCPServer.new('0.0.0.0', 7001)
server.listen(200)
forked = TCPServer.new('0.0.0.0', 7002)
Thread.new do
  loop do
    s = forked.accept
    pid = fork { forked.close; while (line = s.gets) do s.write("child: #{line}") end; s.close; exit! }
    s.close
    Process.detach(pid)
  end
end
loop do
  Thread.new(server.accept) do |s|
    begin
      while (data = s.readpartial(65536)) do s.write(data) end
    rescue EOFError, Errno::ECONNRESET
    ensure s.close
    end
  end
end
"""

CLIENT_RB = r"""
require 'socket'
require 'timeout'
host = ARGV[0]
right = 50.times.map do |n|
  Thread.new do
    s = TCPSocket.new(host, 7001)
    blob = "thread #{n} " * 10_000
    writer = Thread.new { s.write(blob); s.close_write }
    got = s.read
    writer.join
    s.close
    got == blob
  end
end.map(&:value)
puts "50 threads: #{right.count(true)}"
s = TCPSocket.new(host, 7002)
s.puts 'one', 'two'
puts "child: #{[s.gets, s.gets].inspect}"
s.close_write
puts "end: #{s.gets.inspect}"
begin TCPSocket.new(host, 1) rescue puts "refused: #{$!.class}" end
s = TCPSocket.new(host, 7001)
puts "nothing: #{s.read_nonblock(10, exception: false).inspect} #{IO.select([s], [s], nil, 0).map(&:size).inspect}"
begin Timeout.timeout(0.2) { s.read(1) } rescue puts "timeout: #{$!.class}" end
t = Thread.new { begin s.read(1) rescue $!.class end }
sleep 0.2
s.close
puts "closed by another thread: #{t.value}"
s = Socket.tcp(host, 7001, connect_timeout: 5)
s.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
puts "option: #{s.getsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY).int}"
s.send('peeked', 0)
IO.select([s])
puts "peek: #{s.recv(3, Socket::MSG_PEEK)} #{s.recv(6, Socket::MSG_WAITALL)}"
File.open(ARGV[1]) { |f| puts "copied: #{IO.copy_stream(f, s, 100_000)}" }
puts "back: #{s.read(100_000) == File.binread(ARGV[1], 100_000)}"
"""

WEBRICK = r"""
require 'digest'
require 'webrick'
server = WEBrick::HTTPServer.new(BindAddress: '0.0.0.0', Port: 8000, DocumentRoot: ARGV[0], AccessLog: [],
                                 Logger: WEBrick::Log.new(File::NULL))
server.mount_proc('/digest') { |req, res| res.body = Digest::SHA256.hexdigest(req.body) }
trap('TERM') { server.shutdown }
server.start
"""

HTTP = r"""
require 'net/http'
require 'digest'
uri = URI("http://#{ARGV[0]}:8000")
Net::HTTP.start(uri.host, uri.port) do |http|
  puts 100.times.sum { |n| http.get("/many/#{n}").body.size }
  puts Digest::SHA256.hexdigest(http.get('/big.bin').body)[0, 16]
  puts http.post('/digest', 'x' * 1_000_000).body
  puts http.get('/none').code
end
begin Net::HTTP.start(uri.host, 1) rescue puts $!.class end
slow = Net::HTTP.new(uri.host, 7001)
slow.read_timeout = 0.2
slow.max_retries = 0
begin slow.get('/') rescue puts $!.class end
"""


@recipe(
    "ruby-sockets",
    exercises="50 threads, a fork per connection, IO.select, close under a blocked thread, IO.copy_stream",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("ruby",),
)
def sockets(r: Run) -> None:
    r.server("ruby", r.file("echo.rb", ECHO), port=7002)
    data = r.file("data", web.data(200_000))
    r.see("client", r.client("ruby", r.file("client.rb", CLIENT_RB), r.addr, data).ok(40).splitlines())
    r.carried(connections=53, bytes=10_000_000)


@recipe(
    "ruby-http",
    exercises="WEBrick (a thread per connection) and Net::HTTP with a kept connection and time-outs",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("ruby", "ruby-webrick", "curl"),
)
def http(r: Run) -> None:
    server = r.server("ruby", r.file("server.rb", WEBRICK), web.root(r), port=8000)
    silent = "require 'socket'; s = TCPServer.new('0.0.0.0', 7001); loop { (@kept ||= []) << s.accept }"
    r.server("ruby", "-e", silent, port=7001)
    r.see("Net::HTTP", r.client("ruby", r.file("client.rb", HTTP), r.addr).ok(40).splitlines())
    web.fetch(r, "curl", f"http://{r.addr}:8000")
    r.see("ended", server.end())
    r.carried(connections=8, bytes=14_000_000)
