"""The Python example's tokens while time passes, against a token service that does as it is told."""

import itertools
import threading
import time
from concurrent import futures

import grpc
from countersign.v1 import token_pb2, token_pb2_grpc
from credentials import Credentials
from tokens import NoToken, TokenSource

LIFE_SECONDS, REFRESH_SECONDS = 0.6, 0.1


class TokenService(token_pb2_grpc.TokenServiceServicer):
    def __init__(self):
        self.numbers = itertools.count(1)
        self.is_down = threading.Event()

    def IssueToken(self, request, context):
        if self.is_down.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        answer = token_pb2.IssueTokenResponse(access_token=f"token {next(self.numbers)}")
        answer.expires_in.FromMilliseconds(int(LIFE_SECONDS * 1000))
        answer.refresh_in.FromMilliseconds(int(REFRESH_SECONDS * 1000))
        return answer


def until(condition):
    """Waits until it holds; how long that took is nobody's business."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never happens"
        time.sleep(0.005)


service = TokenService()
server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
token_pb2_grpc.add_TokenServiceServicer_to_server(service, server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
channel = grpc.insecure_channel(f"127.0.0.1:{port}")
credentials = Credentials(f"http://127.0.0.1:{port}", "picker", "csec_hush")
assert "hush" not in repr(credentials)

source = TokenSource(token_pb2_grpc.TokenServiceStub(channel), credentials, "stock", {"stock:read"})
first = source.token()
until(lambda: source.token() != first)

service.is_down.set()
last = source.token()


def has_none():
    try:
        source.token()
        return False
    except NoToken as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return True


until(has_none)
service.is_down.clear()
until(lambda: not has_none())
assert source.token() != last
server.stop(0)
