"""Perl: PerlIO on sockets, IO::Select, a fork per connection with its listener inherited, HTTP::Daemon, HTTP::Tiny."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web

FORKING = r"""
use strict; use warnings; use IO::Socket::INET; use POSIX ':sys_wait_h';
$SIG{CHLD} = sub { 1 while waitpid(-1, WNOHANG) > 0 };
my $l = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 7001, Listen => 100, ReuseAddr => 1) or die;
while (1) {
    my $c = $l->accept or next; # EINTR
    my $pid = fork;
    if ($pid) { close $c; next }
    close $l;
    while (my $line = <$c>) {
        if ($line =~ /^exec/) { open STDIN, '<&', $c; open STDOUT, '>&', $c; close $c; exec 'tr', 'a-z', 'A-Z' }
        print $c scalar reverse $line;
        $c->flush;
    }
    exit;
}
"""

CLIENT_PL = r"""
use strict; use warnings; use IO::Socket::INET; use IO::Select; use Socket qw(SHUT_WR MSG_PEEK TCP_NODELAY IPPROTO_TCP);
my $host = shift;
sub to { IO::Socket::INET->new(PeerAddr => $host, PeerPort => shift // 7001, Timeout => 10) }
my @s = map { to() } 1 .. 30;
my $select = IO::Select->new(@s);
my %got;
for my $n (0 .. $#s) { print { $s[$n] } "line $n\n" x 20; $s[$n]->flush; shutdown $s[$n], SHUT_WR }
while ($select->count) {
    for my $s ($select->can_read(20)) {
        if (sysread $s, my $b, 4096) { $got{$s} .= $b } else { $select->remove($s); close $s }
    }
}
my %want = map { $_ => 1 } map { join '', (scalar reverse "line $_\n") x 20 } 0 .. 29;
print '30 at once: ', scalar(grep { $want{$_} } values %got), "\n";
my $y = to();
print $y "exec\n"; $y->flush;
select undef, undef, undef, 0.3;
print $y "in capitals\n"; $y->flush; shutdown $y, SHUT_WR;
print 'exec: ', <$y>;
print 'refused: ', (to(1) ? 'connected' : "$@"), "\n";
my $s = to();
$s->blocking(0);
my $r = sysread $s, my $b, 10;
print 'nothing: ', defined $r ? $r : "$!", "\n";
$s->blocking(1);
setsockopt $s, IPPROTO_TCP, TCP_NODELAY, 1;
print 'option: ', unpack('i', getsockopt $s, IPPROTO_TCP, TCP_NODELAY), "\n";
print $s "peek\n"; $s->flush;
recv $s, $b, 3, MSG_PEEK; print 'peek: ', length $b, "\n";
read $s, $b, 5; print "$b\n";
eval { local $SIG{ALRM} = sub { die "alarm\n" }; alarm 1; sysread $s, $b, 1; alarm 0; 1 } or print "interrupted: $@";
"""

DAEMON = r"""
use strict; use warnings; use HTTP::Daemon; use HTTP::Status; use Digest::SHA 'sha256_hex';
my $root = shift;
my $d = HTTP::Daemon->new(LocalAddr => '0.0.0.0', LocalPort => 8000, Listen => 50, ReuseAddr => 1) or die;
while (my $c = $d->accept or $!{EINTR}) {
    next unless ref $c;
    if (fork) { $c->close; next }
    while (my $q = $c->get_request) {
        my $path = $q->uri->path;
        if ($path eq '/digest') { $c->send_response(200, 'OK', undef, sha256_hex($q->content)) }
        elsif ($path !~ /\.\./ && -f "$root$path") { $c->send_file_response("$root$path") }
        else { $c->send_error(RC_NOT_FOUND) }
    }
    exit;
}
"""

TINY = r"""
use strict; use warnings; use HTTP::Tiny; use Digest::SHA 'sha256_hex';
my ($base, $refused) = @ARGV;
my $http = HTTP::Tiny->new(timeout => 10, keep_alive => 1);
my $size = 0;
$size += length $http->get("$base/many/$_")->{content} for 0 .. 49;
print "$size\n";
print substr(sha256_hex($http->get("$base/big.bin")->{content}), 0, 16), "\n";
print $http->post("$base/digest", { content => 'x' x 500_000 })->{content}, "\n";
print $http->get("$base/none")->{status}, "\n";
print $http->get($refused)->{content} =~ /Connection refused/ ? "refused\n" : "not refused\n";
"""


@recipe(
    "perl-sockets",
    exercises="PerlIO on sockets, fork per connection, accept interrupted by SIGCHLD, dup onto 0 and 1 and exec, alarm",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("perl",),
)
def sockets(r: Run) -> None:
    r.server("perl", r.file("server.pl", FORKING), port=7001)
    r.see("client", r.client("perl", r.file("client.pl", CLIENT_PL), r.addr).ok(40).splitlines())
    r.carried(connections=32)


@recipe(
    "perl-http",
    exercises="HTTP::Daemon that forks, HTTP::Tiny that keeps its connection",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("perl", "libhttp-daemon-perl", "curl"),
)
def http(r: Run) -> None:
    r.server("perl", r.file("server.pl", DAEMON), web.root(r), port=8000)
    base = f"http://{r.addr}:8000"
    said = r.client("perl", r.file("client.pl", TINY), base, f"http://{r.addr}:1/").ok(40)
    r.see("HTTP::Tiny", said.splitlines())
    web.fetch(r, "curl", base)
    r.carried(connections=7, bytes=9_000_000)
