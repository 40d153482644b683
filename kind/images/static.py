"""Image ``nginx``: serves the files of /usr/share/nginx/html. Adapter.

Each file is read when it is asked for, because a mounted ConfigMap changes under the server.
"""

import os
import sys
from pathlib import Path
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kind.images import httpd

ROOT = "/usr/share/nginx/html"
WELCOME = b"<!DOCTYPE html><title>Welcome</title><p>This server has no content of its own.\n"
TYPES = {".html": "text/html", ".json": "application/json", ".txt": "text/plain"}


def answer(request: httpd.Request) -> httpd.Answer:
    """The file of a path, its index, or why not."""
    if request.method not in ("GET", "HEAD"):
        return httpd.Answer(405, "text/plain", b"only GET\n")
    name = os.path.normpath("/" + unquote(request.path.partition("?")[0]).lstrip("/"))
    place = ROOT + name.rstrip("/")
    if os.path.isdir(place):
        place += "/index.html"
    try:
        with open(place, "rb") as file:
            body = file.read()
    except OSError:
        if name == "/":
            return httpd.Answer(200, "text/html", WELCOME)
        return httpd.Answer(404, "text/plain", f"{name}: not found\n".encode())
    kind = TYPES.get(os.path.splitext(place)[1], "application/octet-stream")
    return httpd.Answer(200, kind, body)


if __name__ == "__main__":
    httpd.Server(httpd.port_argument(80), answer).serve()
