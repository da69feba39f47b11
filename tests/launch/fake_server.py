"""`python fake_server.py PORT [late=S] [dies=S]`: answers GET /health as vLLM does."""

import http.server
import os
import sys
import threading
import time


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words):
        pass


def main():
    options = {name: float(value) for name, value in (word.split("=") for word in sys.argv[2:])}
    if "dies" in options:
        threading.Timer(options["dies"], die).start()
    time.sleep(options.get("late", 0))
    print("listening", flush=True)
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()


def die():
    print("out of memory", flush=True)
    os._exit(9)


if __name__ == "__main__":
    main()
