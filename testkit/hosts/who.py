"""Says who answers and who asked, over HTTP and UDP on one port, IPv4 and IPv6: `who.py PORT [SECONDS]`.

Runs in a container. The UDP socket is not connected: its answers leave by the address that the kernel chooses. With
SECONDS, an answer to `/slow` is sent over that long; on SIGTERM nothing new is taken, and what is under way is finished.
"""
import http.server
import os
import signal
import socket
import socketserver
import sys
import threading
import time

PORT, SECONDS = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0
NAME = os.environ.get("WHO", socket.gethostname())


def plain(ip):
    return ip.removeprefix("::ffff:")


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = f"{NAME} {plain(self.client_address[0])} {self.client_address[1]}\n".encode()
        pieces = 50 if self.path == "/slow" else 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(text) * pieces))
        self.end_headers()
        for _ in range(pieces):
            self.wfile.write(text)
            time.sleep(SECONDS / pieces if pieces > 1 else 0)

    def log_message(self, *_):
        print(*self.client_address[:2], flush=True)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    address_family, request_queue_size, daemon_threads = socket.AF_INET6, 1024, False


def udp():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listener:
        listener.bind(("::", PORT))
        while True:
            _, client = listener.recvfrom(2048)
            listener.sendto(f"{NAME} {plain(client[0])} {client[1]}".encode(), client)


threading.Thread(target=udp, daemon=True).start()
server = Server(("::", PORT), Answer)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.05)
