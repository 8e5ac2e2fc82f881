"""An issuer of bad tokens, and what the warehouse says to each.

    python rejects.py COMMAND-OF-THE-WAREHOUSE..

Prints what went wrong, and nothing when all is as it should be.
"""

import base64
import http.server
import json
import socket
import subprocess
import sys
import threading
import time

import grpc
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stock.v1 import stock_pb2, stock_pb2_grpc

OURS, THEIRS = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
LEEWAY_SECONDS = 30
ALL = "stock:read stock:write"
REMOVED = object()


def public_jwk(key):
    raw = key.public_key().public_bytes_raw()
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "ours", "use": "sig", "alg": "EdDSA"}


class KeySet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"keys": [public_jwk(OURS)]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/jwk-set+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Issuer:
    """Serves its keys, until it is shut down."""

    def __init__(self):
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), KeySet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def shut_down(self):
        self._server.shutdown()
        self._server.server_close()

    def mint(self, *, key=OURS, alg="EdDSA", header=(), **changes):
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "picker",
            "client_id": "picker",
            "aud": "stock",
            "scope": ALL,
            "iat": now,
            "exp": now + 60,
            "jti": "any",
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not REMOVED}
        headers = {"kid": "ours", "typ": "at+jwt", **dict(header)}
        headers = {name: value for name, value in headers.items() if value is not REMOVED}
        return encode(claims, headers, key, alg)


def encode(claims, headers, key, alg):
    """By hand: libraries refuse to make some of what is needed here."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    signed = b".".join(part(json.dumps(value).encode()) for value in ({"alg": alg, **headers}, claims))
    if alg == "none":
        signature = b""
    elif alg == "HS256":
        signature = jwt.get_algorithm_by_name("HS256").sign(signed, key)
    else:
        signature = key.sign(signed)
    return (signed + b"." + part(signature)).decode()


class Warehouse:
    """The server that is tested."""

    def __init__(self, command, issuer, jwks_url):
        flags = ["--issuer", issuer, "--jwks-url", jwks_url, "--audience", "stock"]
        self.process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        address = line.removeprefix("listening on http://").strip()
        self.channel = grpc.insecure_channel(address)
        self.stub = stock_pb2_grpc.StockServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()
        self.process.terminate()
        self.process.wait()

    def code(self, method, *authorizations):
        """What a call ends with."""
        metadata = [("authorization", value) for value in authorizations]
        call = {
            "CheckStock": lambda: self.stub.CheckStock(
                stock_pb2.CheckStockRequest(), metadata=metadata, timeout=10
            ),
            "ListStock": lambda: list(
                self.stub.ListStock(stock_pb2.ListStockRequest(), metadata=metadata, timeout=10)
            ),
            "Deliver": lambda: self.stub.Deliver(
                iter([stock_pb2.DeliverRequest()]), metadata=metadata, timeout=10
            ),
            "Pick": lambda: list(
                self.stub.Pick(iter([stock_pb2.PickRequest()]), metadata=metadata, timeout=10)
            ),
            "ListItems": lambda: self.stub.ListItems(
                stock_pb2.ListItemsRequest(), metadata=metadata, timeout=10
            ),
        }[method]
        try:
            call()
            return "OK"
        except grpc.RpcError as error:
            return error.code().name


def tokens(issuer):
    """Each token with what it is let through with."""
    now = int(time.time())
    public_pem = OURS.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    good = issuer.mint()
    header, payload, signature = good.split(".")
    forged = base64.urlsafe_b64encode(b'{"iss":"x"}').rstrip(b"=").decode()
    yes, no = "OK", "UNAUTHENTICATED"
    yield "a good one", good, yes
    yield "just expired", issuer.mint(iat=now - 65, exp=now - 5), yes
    yield "expired", issuer.mint(iat=now - 95, exp=now - LEEWAY_SECONDS - 5), no
    yield "without expiry", issuer.mint(exp=REMOVED), no
    yield "from the future", issuer.mint(iat=now + 300, exp=now + 600), no
    yield "not yet good", issuer.mint(nbf=now + 300, exp=now + 600), no
    yield "for another audience", issuer.mint(aud="payment"), no
    yield "for two audiences", issuer.mint(aud=["stock", "payment"]), no
    yield "for no audience", issuer.mint(aud=REMOVED), no
    yield "of another issuer", issuer.mint(iss="https://elsewhere.example"), no
    yield "of no issuer", issuer.mint(iss=REMOVED), no
    yield "of a user", issuer.mint(sub="alice"), no
    yield "that lives a day", issuer.mint(exp=now + 86_400 - 1), yes
    yield "that lives longer", issuer.mint(iat=now, exp=now + 86_401), no
    yield "that lives for ever", issuer.mint(exp=now * 1000), no
    yield "that never lived", issuer.mint(iat=now + 5, exp=now + 5), no
    yield "with more in its header", issuer.mint(header={"zip": "DEF"}), no
    yield "of nobody", issuer.mint(client_id=REMOVED), no
    yield "of a number", issuer.mint(client_id=7), no
    yield "with a list of scopes", issuer.mint(scope=ALL.split()), no
    yield "another kind of JWT", issuer.mint(header={"typ": "JWT"}), no
    yield "without a kind", issuer.mint(header={"typ": REMOVED}), no
    yield "not signed", issuer.mint(alg="none"), no
    yield "signed with what all know", issuer.mint(alg="HS256", key=public_pem), no
    yield "signed by someone else", issuer.mint(key=THEIRS), no
    brought = {"jwk": public_jwk(THEIRS)}
    yield "bringing its own key", issuer.mint(key=THEIRS, header=brought), no
    yield "with a key that is unknown", issuer.mint(header={"kid": "nobody's"}), no
    yield "without a key", issuer.mint(header={"kid": REMOVED}), no
    yield "with what must be understood", issuer.mint(header={"crit": ["exp"]}), no
    yield "changed", f"{header}.{forged}.{signature}", no
    yield "cut", f"{header}.{payload}", no
    yield "no token at all", "csec_x", no
    # Not so long that gRPC itself refuses it, which it does at random from 8 KiB on.
    yield "too long", issuer.mint(more="x" * 3000), no


def told(warehouse, issuer):
    """What is not as it should be."""

    def expect(what, found, wanted):
        if found != wanted:
            yield f"{what}: {found}, not {wanted}"

    demanded = {"CheckStock": "stock:read", "ListStock": "stock:read", "Deliver": "stock:write", "Pick": ALL}
    for method, scopes in demanded.items():
        yield from expect(f"{method} without a token", warehouse.code(method), "UNAUTHENTICATED")
        enough = f"Bearer {issuer.mint(scope=scopes)}"
        yield from expect(f"{method} with {scopes}", warehouse.code(method, enough), "OK")
        for scope in (
            {"stock:read": "stock:write", "stock:write": "stock:read", ALL: "stock:read"}[scopes],
            "",
        ):
            lacking = f"Bearer {issuer.mint(scope=scope)}"
            yield from expect(
                f"{method} with {scope!r}", warehouse.code(method, lacking), "PERMISSION_DENIED"
            )

    good = issuer.mint()
    yield from expect("ListItems without a token", warehouse.code("ListItems"), "OK")
    yield from expect("ListItems with a bad one", warehouse.code("ListItems", "Bearer x"), "OK")
    yield from expect("in lower case", warehouse.code("CheckStock", f"bearer {good}"), "OK")
    for authorization in ("Bearer", f"Basic {good}", good):
        found = warehouse.code("CheckStock", authorization)
        yield from expect(authorization[:10], found, "UNAUTHENTICATED")
    twice = warehouse.code("CheckStock", "Bearer x", f"Bearer {good}")
    yield from expect("two tokens", twice, "UNAUTHENTICATED")

    for name, token, wanted in tokens(issuer):
        yield from expect(f"a token {name}", warehouse.code("CheckStock", f"Bearer {token}"), wanted)
    yield from stream(warehouse, issuer)

    issuer.shut_down()
    found = warehouse.code("CheckStock", f"Bearer {issuer.mint()}")
    yield from expect("while the issuer is down", found, "OK")


def stream(warehouse, issuer):
    """A stream ends with its token."""
    expires = int(time.time()) - LEEWAY_SECONDS + 2
    metadata = [("authorization", f"Bearer {issuer.mint(iat=expires - 60, exp=expires)}")]

    def requests():
        yield stock_pb2.PickRequest()
        time.sleep(max(0, expires + LEEWAY_SECONDS - time.time()) + 0.1)
        yield stock_pb2.PickRequest()

    answers = warehouse.stub.Pick(requests(), metadata=metadata, timeout=10)
    next(answers)
    try:
        next(answers)
        yield "a stream goes on after its token"
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            yield f"a stream ends with {error.code().name}"


def main():
    command = sys.argv[1:]
    issuer = Issuer()
    with Warehouse(command, issuer.url, issuer.url) as warehouse:
        problems = list(told(warehouse, issuer))
    # Nobody listens there, and nobody else can.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with Warehouse(command, issuer.url, nowhere) as warehouse:
            found = warehouse.code("CheckStock", f"Bearer {issuer.mint()}")
    if found != "UNAVAILABLE":
        problems.append(f"without any keys: {found}, not UNAVAILABLE")
    print("\n".join(problems))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
