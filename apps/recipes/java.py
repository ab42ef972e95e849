"""OpenJDK: java.nio and java.net; threads that are blocked in a call when another thread closes their socket."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web

JDK = ("openjdk-17-jdk-headless", "curl")
JAVA = ("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true")

HTTP_SERVER = """
import com.sun.net.httpserver.*;
import java.net.*;
import java.nio.file.*;
import java.util.concurrent.*;

public class Server {
    public static void main(String[] args) throws Exception {
        var server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[0])), 200);
        var root = Path.of(args[1]);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.createContext("/file/", x -> {
            var file = root.resolve(x.getRequestURI().getPath().substring(6));
            if (!Files.exists(file)) { x.sendResponseHeaders(404, -1); x.close(); return; }
            x.sendResponseHeaders(200, Files.size(file));
            try (var out = x.getResponseBody()) { Files.copy(file, out); }
        });
        server.createContext("/echo", x -> {
            x.sendResponseHeaders(200, 0);
            try (var in = x.getRequestBody(); var out = x.getResponseBody()) { in.transferTo(out); }
        });
        server.createContext("/digest", x -> {
            try (var in = x.getRequestBody()) {
                var sum = java.security.MessageDigest.getInstance("SHA-256");
                var part = new byte[16384];
                for (int n; (n = in.read(part)) >= 0; ) sum.update(part, 0, n);
                var answer = new java.math.BigInteger(1, sum.digest()).toString(16).getBytes();
                x.sendResponseHeaders(200, answer.length);
                x.getResponseBody().write(answer);
            } catch (java.security.NoSuchAlgorithmException e) { throw new RuntimeException(e); }
            x.close();
        });
        server.createContext("/slow", x -> {
            try { Thread.sleep(500); } catch (InterruptedException e) { throw new RuntimeException(e); }
            x.sendResponseHeaders(204, -1);
            x.close();
        });
        server.start();
    }
}
"""

HTTP_CLIENT = """
import java.net.*;
import java.net.http.*;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

public class Client {
    static HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();
    static HttpRequest.Builder to(String base, String path) {
        return HttpRequest.newBuilder(URI.create(base + path)).version(HttpClient.Version.HTTP_1_1);
    }
    public static void main(String[] args) throws Exception {
        var base = args[0];
        var data = Files.readAllBytes(Path.of(args[1]));
        var bytes = HttpResponse.BodyHandlers.ofByteArray();
        var many = IntStream.range(0, 100).mapToObj(n ->
            client.sendAsync(to(base, "/file/many/" + n).build(), bytes)).collect(Collectors.toList());
        long size = 0;
        for (var f : many) size += f.get(30, TimeUnit.SECONDS).body().length;
        System.out.println("100 at once " + size);
        var big = client.send(to(base, "/file/big.bin").build(), bytes).body();
        System.out.println("big " + Arrays.equals(big, data));
        var some = Arrays.copyOf(data, 50000);
        var echoed = client.send(to(base, "/echo").POST(HttpRequest.BodyPublishers.ofByteArray(some)).build(), bytes);
        System.out.println("echo " + Arrays.equals(echoed.body(), some));
        var sum = client.send(to(base, "/digest").POST(HttpRequest.BodyPublishers.ofByteArray(data)).build(), bytes);
        System.out.println("digest " + new String(sum.body()));
        System.out.println("missing " + client.send(to(base, "/file/none").build(), bytes).statusCode());
        try {
            client.send(to(base, "/slow").timeout(Duration.ofMillis(100)).build(), bytes);
        } catch (HttpTimeoutException e) { System.out.println("late " + e.getMessage()); }
        try {
            client.send(to(base.replaceAll(":[0-9]+$", ":1"), "/").build(), bytes);
        } catch (ConnectException e) { System.out.println("refused " + e); }
        var c = (HttpURLConnection) new URL(base + "/digest").openConnection(); // java.net's own client, blocking
        c.setDoOutput(true);
        c.setChunkedStreamingMode(8192);
        try (var out = c.getOutputStream()) { out.write(data); }
        System.out.println("HttpURLConnection " + new String(c.getInputStream().readAllBytes()));
        System.exit(0);
    }
}
"""


def compiled(r: Run, name: str, source: str) -> tuple[str, ...]:
    """Command line, to be continued, of a program whose class is ``name``."""
    r.lab.start(r.server_ns, "javac", "-d", r.tmp / "classes", r.file(f"{name}.java", source)).ok(60)
    return (*JAVA, "-cp", str(r.tmp / "classes"), name)


@recipe(
    "java-http",
    exercises="com.sun.net.httpserver (nio selectors, a pool of threads), java.net.http.HttpClient, HttpURLConnection",
    modes=(SERVER, CLIENT, LOCAL),
    debian=JDK,
    limit=120,
)
def http(r: Run) -> None:
    root = web.root(r)
    r.server(*compiled(r, "Server", HTTP_SERVER), "8000", root, port=8000)
    base = f"http://{r.addr}:8000"
    r.see("client", r.client(*compiled(r, "Client", HTTP_CLIENT), base, root / "big.bin").ok(60).splitlines())
    web.fetch(r, "curl", f"{base}/file")
    r.carried(connections=20, bytes=20_000_000)


NIO = """
import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;

public class Echo { // one thread, one selector
    public static void main(String[] args) throws Exception {
        var selector = Selector.open();
        var listener = ServerSocketChannel.open().bind(new InetSocketAddress("0.0.0.0", 7001), 300);
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            for (var key : selector.selectedKeys()) {
                try {
                    if (key.isAcceptable()) {
                        var c = listener.accept();
                        if (c == null) continue;
                        c.configureBlocking(false);
                        c.register(selector, SelectionKey.OP_READ, ByteBuffer.allocateDirect(30000));
                        continue;
                    }
                    var c = (SocketChannel) key.channel();
                    var buffer = (ByteBuffer) key.attachment();
                    if (key.isReadable() && c.read(buffer) < 0) { c.close(); continue; }
                    buffer.flip();
                    c.write(buffer);
                    key.interestOps(buffer.hasRemaining() ? SelectionKey.OP_WRITE : SelectionKey.OP_READ);
                    buffer.compact();
                } catch (IOException e) { key.channel().close(); }
            }
            selector.selectedKeys().clear();
        }
    }
}
"""

SOCKETS = """
import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;

public class Sockets {
    static String host;
    static InetSocketAddress echo() { return new InetSocketAddress(host, 7001); }
    interface Act { Object run() throws Exception; }
    interface OnThread { void on(Thread t) throws Exception; }
    static void say(String name, Object value) { System.out.println(name + ": " + value); }

    /** What a blocked call ends with when another thread does something to it a little later. */
    static String ending(Act blocked, long later, OnThread then) throws Exception {
        var outcome = new CompletableFuture<String>();
        var t = new Thread(() -> {
            try {
                outcome.complete("returned " + blocked.run());
            } catch (Throwable e) { outcome.complete(e.toString()); }
        });
        t.start();
        Thread.sleep(later);
        then.on(t);
        var said = outcome.get(10, TimeUnit.SECONDS);
        t.join();
        return said;
    }

    static String closing(Closeable what, Act blocked) throws Exception {
        return ending(blocked, 400, t -> what.close());
    }

    static String interrupting(Act blocked) throws Exception {
        return ending(blocked, 150, Thread::interrupt);
    }

    static byte[] pattern(int n) { var b = new byte[n]; new Random(n).nextBytes(b); return b; }

    public static void main(String[] args) throws Exception {
        host = args[0];
        var pool = Executors.newFixedThreadPool(50);
        var all = new ArrayList<Future<Boolean>>();
        for (int n = 0; n < 100; n++) {
            int size = 50000 + n;
            all.add(pool.submit(() -> {
                try (var s = new Socket(host, 7001)) {
                    s.setSoTimeout(20000);
                    var data = pattern(size);
                    var writer = new Thread(() -> {
                        try { s.getOutputStream().write(data); } catch (IOException e) { }
                    });
                    writer.start();
                    var ok = Arrays.equals(s.getInputStream().readNBytes(size), data);
                    writer.join();
                    return ok;
                }
            }));
        }
        int right = 0;
        for (var f : all) right += f.get() ? 1 : 0;
        say("100 blocking clients", right);

        try (var c = SocketChannel.open(echo()); var file = FileChannel.open(Path.of(args[1]))) {
            var got = new CompletableFuture<Boolean>();
            var data = Files.readAllBytes(Path.of(args[1]));
            new Thread(() -> {
                try {
                    var b = ByteBuffer.allocate(data.length);
                    while (b.hasRemaining() && c.read(b) >= 0) { }
                    got.complete(Arrays.equals(b.array(), data));
                } catch (IOException e) { got.completeExceptionally(e); }
            }).start();
            long at = 0;
            while (at < file.size()) at += file.transferTo(at, file.size() - at, c); // sendfile
            say("transferTo", at + " " + got.get(20, TimeUnit.SECONDS));
            var parts = new ByteBuffer[] { ByteBuffer.wrap("one ".getBytes()), ByteBuffer.wrap("two".getBytes()) };
            say("gathering write", c.write(parts));
            var back = new ByteBuffer[] { ByteBuffer.allocate(3), ByteBuffer.allocate(4) };
            while (back[1].hasRemaining()) c.read(back);
            say("scattering read", new String(back[0].array()) + "|" + new String(back[1].array()));
            c.shutdownOutput();
            say("end", c.read(ByteBuffer.allocate(1)));
        }

        try (var s = new Socket(host, 7001)) { say("close during read", closing(s, () -> s.getInputStream().read())); }
        try (var s = new Socket(host, 7001)) {
            s.setSoTimeout(60000);
            say("close during timed read", closing(s, () -> s.getInputStream().read()));
        }
        try (var l = new ServerSocket(0)) { say("close during accept", closing(l, l::accept)); }
        try (var l = new ServerSocket(0)) {
            l.setSoTimeout(100);
            try { l.accept(); } catch (SocketTimeoutException e) { say("accept", e); }
        }
        try (var s = new Socket(host, 7001)) {
            s.setSoTimeout(100);
            try { s.getInputStream().read(); } catch (SocketTimeoutException e) { say("read", e); }
            s.getOutputStream().write('x');
            say("read after the time-out", s.getInputStream().read());
        }
        { var c = SocketChannel.open(echo()); say("channel closed", closing(c, () -> c.read(ByteBuffer.allocate(1)))); }
        { var c = SocketChannel.open(echo()); say("interrupted", interrupting(() -> c.read(ByteBuffer.allocate(1)))); }
        { var l = ServerSocketChannel.open().bind(null); say("accept interrupted", interrupting(l::accept)); }
        { var l = ServerSocketChannel.open().bind(null); say("accept closed", closing(l, l::accept)); }
        {
            var c = SocketChannel.open(echo());
            var big = ByteBuffer.allocateDirect(1 << 25); // nobody reads the echo, so this blocks
            say("close during write", closing(c, () -> { while (big.hasRemaining()) c.write(big); return 0; }));
        }
        try (var selector = Selector.open(); var c = SocketChannel.open()) {
            c.configureBlocking(false);
            c.connect(echo());
            var key = c.register(selector, SelectionKey.OP_CONNECT);
            say("selected", selector.select(10000) + " " + key.isConnectable() + " " + c.finishConnect());
            key.interestOps(SelectionKey.OP_READ);
            say("nothing", selector.select(50));
            c.write(ByteBuffer.wrap("x".getBytes()));
            say("readable", selector.select(10000));
            var sleeper = new Thread(() -> {
                try { Thread.sleep(100); } catch (InterruptedException e) { }
                selector.wakeup();
            });
            c.read(ByteBuffer.allocate(1));
            selector.selectedKeys().clear();
            sleeper.start();
            say("woken", selector.select(10000));
            key.cancel();
            say("after cancel", selector.selectNow() + " " + selector.keys().size());
        }
        try { new Socket(host, 1); } catch (ConnectException e) { say("refused", e); }
        try (var s = new Socket()) {
            s.connect(echo(), 5000);
            s.setTcpNoDelay(true); s.setKeepAlive(true); s.setSoLinger(true, 0); s.setReceiveBufferSize(100000);
            say("flags", s.getTcpNoDelay() + " " + s.getKeepAlive());
            say("values", s.getSoLinger() + " " + s.getReceiveBufferSize());
        }
        try (var c = AsynchronousSocketChannel.open()) {
            c.connect(echo()).get(5, TimeUnit.SECONDS);
            say("asynchronous write", c.write(ByteBuffer.wrap("abc".getBytes())).get());
            var b = ByteBuffer.allocate(10);
            while (b.position() < 3) c.read(b).get(5, TimeUnit.SECONDS);
            say("asynchronous read", new String(b.array(), 0, 3));
            var late = new CompletableFuture<String>();
            c.read(b, 100, TimeUnit.MILLISECONDS, null, new CompletionHandler<Integer, Object>() {
                public void completed(Integer n, Object o) { late.complete("read " + n); }
                public void failed(Throwable e, Object o) { late.complete(e.toString()); }
            });
            say("asynchronous time-out", late.get(5, TimeUnit.SECONDS));
        }
        System.exit(0);
    }
}
"""


@recipe(
    "java-nio",
    exercises="a selector loop, blocked threads ended by close (dup2, a signal) or interrupt, transferTo, AIO channels",
    modes=(SERVER, CLIENT, LOCAL),
    debian=JDK,
    limit=120,
)
def nio(r: Run) -> None:
    r.server(*compiled(r, "Echo", NIO), port=7001)
    data = r.file("data", web.data(3_000_000))
    r.see("client", r.client(*compiled(r, "Sockets", SOCKETS), r.addr, data).ok(90).splitlines())
    r.carried(connections=109, bytes=16_000_000)
