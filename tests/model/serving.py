"""A small data set in place of MNIST, and a server of its files on this machine."""

import gzip
import hashlib
import http.server
import struct
import threading

import numpy as np

from nin.model import image_files


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def small() -> tuple[dict[str, bytes], dict[str, str]]:
    """The four files, packed, by name, and their hashes by part."""
    random, files, hashes = np.random.default_rng(0), {}, {}
    for part, name in image_files.FILES.items():
        content = idx(random.integers(0, 10, (40, 4, 4) if part.startswith("x") else (40,), dtype=np.uint8))
        files[name], hashes[part] = gzip.compress(content), hashlib.sha256(content).hexdigest()
    return files, hashes


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends files by name, as `server.send` does it."""

    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files[self.path.strip("/").removesuffix(".gz")]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.server.send(self.wfile, content)

    def log_message(self, *_):
        pass


def serving(files: dict[str, bytes]) -> http.server.ThreadingHTTPServer:
    """A server that runs; `asked` counts, and what replaces `send` decides what it sends."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.asked, server.files = True, [], files
    server.send = lambda file, content: file.write(content)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
