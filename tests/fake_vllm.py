"""A stand-in for `vllm serve` in dev mode: it writes made-up tokens, and takes weights as the real one does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import torch

from open_r1.engine.vllm.tokens import ROUTE, TokenOutput, pack
from open_r1.engine.vllm.weights import WeightReceiver

SHAPE = [8, 2, 128]


class Receiver(WeightReceiver):
    """The worker extension, on a model that only keeps what it is given."""

    def __init__(self, **described):
        self.rank, self.device = 0, torch.device("cpu")
        self.weights = {}
        self.described = described
        self.model_runner = SimpleNamespace(get_model=lambda: self)

    def describe_weights(self):
        return {
            "version": self.weights_version,
            "dtype": "float32",
            "device": "cpu",
            "logprobs_mode": "processed_logprobs",
            "max_model_len": 64,
            "shape": SHAPE,
        } | self.described

    def load_weights(self, weights):
        self.weights.update((name, tensor.clone()) for name, tensor in weights)

    def parameters(self):
        return self.weights.values()

    def begin_weights(self):
        self._rearranged = False


class FakeVLLM:
    """`faults` are functions of the handler, used up one a request; `slow` seconds pass before each completion."""

    def __init__(self, *faults, extension=True, route=True, slow=0.0, port=0, **described):
        self.receiver = Receiver(**described) if extension else None
        self.faults, self.bodies, self.resets, self.slow, self.route = list(faults), [], 0, slow, route
        self.gone, self.hung = threading.Event(), threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def reply(self, value, status=200):
                content = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                if fake.left_the_caller():
                    self.close_connection = True
                    return None
                if self.path == f"/{ROUTE}" and not fake.route:
                    return self.reply({"detail": "Not Found"}, 404)
                return self.reply({"data": [{"id": "m", "max_model_len": 64}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if fake.left_the_caller():
                    self.close_connection = True
                elif self.path == "/collective_rpc":
                    self.call(body)
                elif self.path == "/reset_prefix_cache":
                    fake.resets += 1
                    self.reply({})
                else:
                    assert self.path == f"/{ROUTE}"
                    self.complete(body)

            def call(self, body):
                if fake.receiver is None:
                    return self.reply({"detail": "Not Found"}, 404)
                result = getattr(fake.receiver, body["method"])(*body["args"])
                return self.reply({"results": [result]})

            def complete(self, body):
                fake.bodies.append(body)
                if fake.faults:
                    return fake.faults.pop(0)(self)
                if fake.gone.wait(fake.slow) or fake.left_the_caller():
                    self.close_connection = True
                    return None
                asked = body["sampling"]["logprobs"] is not None
                experts = [7, -8] if fake.receiver and fake.receiver.described.get("experts") else None
                written = TokenOutput([len(body["prompt"]), 2], [-0.5, -0.25] if asked else None, "stop", experts)
                return self.reply(pack([written] * body["sampling"]["n"]))

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def left_the_caller(self):
        """Whether it is gone; if it hangs, only once the test is over."""
        return (self.hung.is_set() and self.gone.wait(60)) or self.gone.is_set()

    def hang(self):
        """Keeps all connections, and answers nothing more."""
        self.hung.set()

    def die(self):
        """Breaks off what is under way and answers nothing more."""
        self.gone.set()
        self.server.shutdown()
        self.server.server_close()


def busy(handler):
    """Fault: too many requests."""
    handler.reply({"error": {"message": "busy"}}, 503)


def refused(handler):
    """Fault: a request that the server does not take."""
    handler.reply({"error": {"message": "no such thing"}}, 400)


def garbage(handler):
    """Fault: something else than completions."""
    handler.send_response(200)
    handler.send_header("Content-Length", "5")
    handler.end_headers()
    handler.wfile.write(b"<htm>")


def without_logprobs(handler):
    """Fault: completions whose logprobs are missing."""
    handler.reply(pack([TokenOutput([5], None, "stop")]))


def cut_off(handler):
    """Fault: a reply without its last bytes."""
    handler.reply(pack([TokenOutput([5], [-1.0], "stop")])[:-3])


def aborted(handler):
    """Fault: completions that were not finished."""
    handler.reply(pack([TokenOutput([5], [-1.0], "abort")]))
