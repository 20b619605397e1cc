"""An S3 server of this machine, and a proxy before it that fails or waits."""

import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "bucket"


def environment(address):
    """Variables by which any S3 client finds a server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def server():
    """Start moto's server as a process with an empty bucket; give its address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = "import sys; from moto.server import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with closing(socket.socket()) as asked:
                if not asked.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        made = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
        urllib.request.urlopen(made).close()
        yield address
    finally:
        process.kill()
        process.wait()


class _Handler(BaseHTTPRequestHandler):
    """Hand on a request; of some the answer is an error, or lost."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def answer(self):
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(proxy.delay)
        fate = proxy.fate()
        proxy.asked.append((self.command, self.path, fate))
        if fate == "refused":  # before it is done
            self.reply(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        inner = HTTPConnection(*proxy.inner)
        inner.request(self.command, self.path, body, dict(self.headers))
        found = inner.getresponse()
        content, headers = found.read(), dict(found.getheaders())
        inner.close()
        if fate == "lost":  # it is done, but nobody is told
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fate == "failed":
            self.reply(500, {}, b"<Error><Code>InternalError</Code></Error>")
        else:
            self.reply(found.status, headers, content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

    def reply(self, status, headers, content):
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", len(content))
        self.send_header("Content-Length", length if self.command == "HEAD" else len(content))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Proxy(ThreadingHTTPServer):
    """A server before another one, of which a share of requests fails and each takes a delay."""

    daemon_threads = True

    def __init__(self, address, share=0.0, delay=0.0, seed=0):
        super().__init__(("127.0.0.1", 0), _Handler)
        host, port = address.removeprefix("http://").split(":")
        self.inner, self.share, self.delay = (host, int(port)), share, delay
        self.draw, self.lock, self.asked = random.Random(seed), threading.Lock(), []

    def fate(self):
        with self.lock:
            fails = self.draw.random() < self.share
            return self.draw.choice(["refused", "failed", "lost"]) if fails else ""

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *args):
        pass

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()
