"""A small OpenAI-compatible server that misbehaves on demand."""

import contextlib
import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer(ThreadingHTTPServer):
    """Answers with the last message of the prompt; `script` is what the next requests meet instead."""

    daemon_threads = True

    request_queue_size = 1024

    def __init__(self, script=(), slow=0.0, answer=None, context=4096, port=0, model="m"):
        super().__init__(("127.0.0.1", port), Handler)
        self.script, self.slow, self.context, self.model = list(script), slow, context, model
        self.answer = answer or (lambda question: f"re: {question}")
        self.open, self.connections = set(), 0
        self.bodies, self.headers = [], []
        self.under_way = self.most = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def process_request(self, request, address):
        self.open.add(request)
        self.connections += 1
        super().process_request(request, address)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, address):
        pass  # clients that hang up, and deaths, are what it is for

    def die(self):
        """Takes no more connections and breaks those that there are."""
        threading.Thread(target=self.shutdown).start()
        self.socket.close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.reply(200, {"data": [{"id": self.server.model, "max_model_len": self.server.context}]})

    def do_POST(self):
        self.body = body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            return self.reply(200, {"count": sum(len(m["content"].split()) for m in body["messages"])})
        with self.server.lock:
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            fault = self.server.script.pop(0) if self.server.script else None
        time.sleep(self.server.slow)
        with self.server.lock:
            self.server.under_way -= 1
        if callable(fault):
            return fault(self)
        if body.get("stream"):
            return self.stream()
        if "messages" in body:
            message = {"content": self.server.answer(body["messages"][-1]["content"])}
            choice = {"message": message, "finish_reason": "stop"}
        else:
            choice = {"text": f"{len(body['prompt'])} tokens", "finish_reason": "length"}
        return self.reply(200, {"choices": [choice] * body.get("n", 1), "usage": {"completion_tokens": 7}})

    def stream(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for delta in ({"reasoning_content": "hm"}, {"content": "4"}, {"content": "2"}):
            self.wfile.write(b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")


def status(code, **headers):
    return lambda handler: handler.reply(code, {"error": {"message": f"no {code}"}}, headers.items())


def broken_json(handler):
    handler.reply(200, b'{"choices": [')


def hang_up(handler):
    handler.close_connection = True
    handler.connection.close()


@contextmanager
def fake_server(*script, **options):
    """A server while the block runs."""
    server = FakeServer(script, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.die()
        thread.join()
