"""An https:// server on loopback, with a certificate that its caller trusts."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Site:
    """content: path → bytes, a status, where it leads to, or what answers by itself; asked: (path, status) of each
    other call; url: its beginning."""

    def __init__(self) -> None:
        self.content: dict[str, bytes | int | str | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[tuple[str, int]] = []
        self.url = ""
        self.tags = True

    def took(self, status: int) -> int:
        return sum(found == status for _, found in self.asked)


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A server; its certificate is at `folder`/cert.pem."""
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = made.content.get(self.path.partition("?")[0], 404)
            if callable(found):
                found(self)
                return
            tag = f'"{hash(found)}"'
            if isinstance(found, int):
                status, body = found, b""
            elif isinstance(found, str):
                status, body = 302, b""
            else:
                same = made.tags and self.headers.get("If-None-Match") == tag
                status, body = (304, b"") if same else (200, found)
            made.asked.append((self.path, status))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", str(found))
            if made.tags and status in (200, 304):
                self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    made.url = f"https://localhost:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "cert.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
