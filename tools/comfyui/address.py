"""The address of a server as users type it. Standard library only, so that a typo is reported before any download."""

import re
from urllib.parse import urlsplit

PORT = 8188  # ComfyUI's own


def parse_address(text):
    """`host:port` of `host`, `host:port` or `http://host:port/`. Raises ValueError with what is wrong."""
    if "://" in text and not text.startswith("http://"):
        raise ValueError("only http:// can be reached. Give HOST:PORT, such as 127.0.0.1:8188")
    rest = text.removeprefix("http://").removesuffix("/")
    if not re.fullmatch(r"[^\s/?#@\\%]+", rest):
        raise ValueError("this is no address. Give HOST:PORT, such as 127.0.0.1:8188")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, PORT if parts.port is None else parts.port
    except ValueError as error:
        raise ValueError(f"{error}. Give HOST:PORT, such as 127.0.0.1:8188") from error
    if not host or not port:
        raise ValueError("the host or the port is missing. Give HOST:PORT, such as 127.0.0.1:8188")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
