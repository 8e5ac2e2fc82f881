"""Attaches to each outgoing call a token for just what its method demands.

Tokens are fetched at the start and refreshed in the background: no call waits for one. While the
token service is down, calls go on with the tokens at hand for as long as these are good.
"""

import logging
import random
import threading
import time
from collections import namedtuple

import grpc
from channels import open_channel
from countersign.v1 import token_pb2, token_pb2_grpc
from credentials import CredentialsError

LONGEST_WAIT_SECONDS = 10
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30


class NoToken(grpc.RpcError):
    """The last token has expired, and the token service gives no new one."""

    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def details(self):
        return "there is no token for this call"


class TokenSource:
    """A token for one audience and set of scopes that keeps itself fresh."""

    def __init__(self, stub, credentials, audience, scopes):
        self._stub = stub
        self._credentials = credentials
        self._audience = audience
        self._scopes = sorted(scopes)
        # One assignment, so that no reader sees a token with the expiry of another.
        self._current, refresh_in = self._fetch_first()
        threading.Thread(target=self._keep_fresh, args=(refresh_in,), daemon=True).start()

    def token(self):
        """The token, without waiting."""
        token, expires = self._current
        if time.monotonic() >= expires:
            raise NoToken
        return token

    def _fetch_first(self):
        """Waits for a token service that is not ready. One that refuses, it believes at once."""
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while True:
            try:
                return self._fetch()
            except grpc.RpcError as error:
                is_over = time.monotonic() >= deadline
                if is_over or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            time.sleep(FIRST_PAUSE_SECONDS)

    def _fetch(self):
        request = token_pb2.IssueTokenRequest(
            client_id=self._credentials.client_id,
            audience=self._audience,
            scopes=self._scopes,
            **self._credentials.proof(),
        )
        # By our own clock, from before we asked: the issuer's may be set differently.
        asked = time.monotonic()
        answer = self._stub.IssueToken(request, timeout=LONGEST_WAIT_SECONDS, wait_for_ready=True)
        expires = asked + answer.expires_in.ToTimedelta().total_seconds()
        return (answer.access_token, expires), answer.refresh_in.ToTimedelta().total_seconds()

    def _keep_fresh(self, pause):
        failures = 0
        while True:
            time.sleep(pause)
            try:
                self._current, pause = self._fetch()
                failures = 0
            except (grpc.RpcError, CredentialsError) as error:
                why = error.details() if isinstance(error, grpc.RpcError) else error
                logging.warning("no new token: %s", why)
                pause = random.uniform(0.5, 1) * min(2**failures, LONGEST_PAUSE_SECONDS)
                failures += 1


# What grpcio hands to interceptors, with metadata of our own.
_Details = namedtuple("_Details", "method timeout metadata credentials wait_for_ready compression")


class _CallDetails(_Details, grpc.ClientCallDetails):
    pass


class Authenticated(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Attaches tokens to the calls of a channel: `grpc.intercept_channel(channel, Authenticated(..))`."""

    def __init__(self, credentials, rules):
        """Fetches a token for all that the rules ask for. Raises `grpc.RpcError` when refused."""
        stub = token_pb2_grpc.TokenServiceStub(open_channel(credentials.url))
        self._sources = {}
        demands = {path: (rule.audience, rule.scopes) for path, rule in rules.items() if not rule.public}
        sources = {demand: TokenSource(stub, credentials, *demand) for demand in set(demands.values())}
        self._sources = {path: sources[demand] for path, demand in demands.items()}

    def _attach(self, details):
        source = self._sources.get(details.method)
        # Public, or not a method that these tokens are for.
        if source is None:
            return details
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {source.token()}")]
        return _CallDetails(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(self._attach(details), request)

    def intercept_unary_stream(self, continuation, details, request):
        return continuation(self._attach(details), request)

    def intercept_stream_unary(self, continuation, details, requests):
        return continuation(self._attach(details), requests)

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(self._attach(details), requests)
