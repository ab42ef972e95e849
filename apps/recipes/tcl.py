"""Tcl: channels that a notifier thread watches for the interpreter (epoll), fileevent, fcopy, a socket for a child."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, recipe

SERVER_TCL = r"""
proc accept {s host port} {
    fconfigure $s -blocking 0 -buffering line
    fileevent $s readable [list line $s]
}
proc line {s} {
    if {[gets $s text] >= 0} { puts $s [string toupper $text] } elseif {[eof $s]} { close $s }
}
proc copy {s host port} {
    fconfigure $s -translation binary -blocking 0
    fcopy $s $s -command [list copied $s]
}
proc copied {s n args} { close $s }
proc child {s host port} {
    exec tr a-z A-Z <@ $s >@ $s &
    close $s
}
socket -server accept -myaddr 0.0.0.0 7001
socket -server copy -myaddr 0.0.0.0 7002
socket -server child -myaddr 0.0.0.0 7003
vwait forever
"""

CLIENT_TCL = r"""
set host [lindex $argv 0]
set right 0
set open 50
proc answer {s n} {
    if {[gets $s text] < 0} { return }
    if {$text eq "CLIENT $n"} { incr ::right }
    close $s
    if {[incr ::open -1] == 0} { set ::done 1 }
}
for {set n 0} {$n < 50} {incr n} {
    set s [socket -async $host 7001]
    fconfigure $s -blocking 0 -buffering line
    fileevent $s writable [list apply {{s n} {
        fileevent $s writable {}
        puts $s "client $n"
        fileevent $s readable [list answer $s $n]
    }} $s $n]
}
after 20000 { set done late }
vwait done
puts "lines $right"
set s [socket $host 7002]
fconfigure $s -translation binary
puts -nonewline $s [string repeat copied 20000]
flush $s
close $s write
puts "copied [expr {[read $s] eq [string repeat copied 20000]}]"
set s [socket $host 7003]
puts $s "by a child"
flush $s
close $s write
puts "child [string trim [read $s]]"
puts "refused [catch {socket $host 1} why] $why"
set s [socket $host 7001]
puts "peer [lindex [fconfigure $s -peername] 2] [fconfigure $s -error]"
"""


@recipe(
    "tcl",
    exercises="a notifier thread, connect without waiting, fcopy, half close, a socket as 0 and 1 of a child",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("tcl",),
)
def tcl(r: Run) -> None:
    r.server("tclsh", r.file("server.tcl", SERVER_TCL), port=7003)
    r.see("client", r.client("tclsh", r.file("client.tcl", CLIENT_TCL), r.addr).ok(40).splitlines())
    r.carried(connections=53, bytes=240_000)
