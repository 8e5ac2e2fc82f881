"""Refuses calls that come without a good token. Verifies offline: nobody is asked for each call."""

import contextvars
import logging
import threading
import time
from dataclasses import dataclass

import grpc
import jwt

LONGEST_LIFE_SECONDS = 86_400
LONGEST_TOKEN = 4096
# By how much the issuer's clock and ours may differ.
LEEWAY_SECONDS = 30
# Revoked keys leave the key set. Less than the minute for which the issuer lets it be cached.
REFRESH_SECONDS = 45
# How long calls go on while the issuer cannot be reached.
KEYS_GOOD_FOR_SECONDS = 3600

_caller = contextvars.ContextVar("caller")


@dataclass(frozen=True)
class Caller:
    """Who calls, as a verified token says."""

    client_id: str
    scopes: frozenset[str]
    expires: float


def caller():
    """Who made the call that is being handled. Not for public methods."""
    return _caller.get()


class Refused(Exception):
    """A call that is not let through."""

    def __init__(self, code, reason):
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Verifier:
    """Verifies the tokens of one issuer for one audience."""

    def __init__(self, issuer, jwks_url, audience):
        self._issuer = issuer
        self._audience = audience
        # The address is ours, never one from a token.
        self._keys = jwt.PyJWKClient(jwks_url, lifespan=KEYS_GOOD_FOR_SECONDS, cooldown_duration=5, timeout=5)
        threading.Thread(target=self._keep_fresh, daemon=True).start()

    def verify(self, token):
        """Who the token's bearer is.

        Raises `Refused` with UNAUTHENTICATED, or with UNAVAILABLE when there are no keys to tell by.
        """
        if len(token) > LONGEST_TOKEN:
            raise _unauthenticated("the token is invalid")
        try:
            header = jwt.get_unverified_header(token)
            # Other JWTs of the same issuer are not access tokens (RFC 9068 section 4).
            if header.get("typ") != "at+jwt":
                raise _unauthenticated("the token is not an access token")
            # The issuer writes nothing else.
            if header.keys() != {"alg", "kid", "typ"}:
                raise _unauthenticated("the token is invalid")
            claims = jwt.decode(
                token,
                self._keys.get_signing_key(header.get("kid")),
                # Ours, not the token's: PyJWT would otherwise believe the header.
                algorithms=["EdDSA"],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={
                    "require": ["iss", "sub", "client_id", "aud", "scope", "iat", "exp", "jti"],
                    # One audience: no other callee can use the token here.
                    "strict_aud": True,
                },
            )
        except jwt.PyJWKClientConnectionError:
            raise Refused(grpc.StatusCode.UNAVAILABLE, "the issuer's keys are not known yet") from None
        except jwt.ExpiredSignatureError:
            raise _unauthenticated("the token has expired") from None
        except jwt.InvalidAudienceError:
            raise _unauthenticated("the token is for another audience") from None
        except jwt.PyJWTError:
            # Says no more: the details of a bad token help only whoever forges one.
            raise _unauthenticated("the token is invalid") from None
        client_id, scope = claims["client_id"], claims["scope"]
        if not isinstance(client_id, str) or not isinstance(scope, str):
            raise _unauthenticated("the token is invalid")
        # There is never a user, and no token lives longer than a day.
        if claims["sub"] != client_id or not 0 < claims["exp"] - claims["iat"] <= LONGEST_LIFE_SECONDS:
            raise _unauthenticated("the token is invalid")
        return Caller(client_id, frozenset(scope.split(" ")), claims["exp"] + LEEWAY_SECONDS)

    def _keep_fresh(self):
        while True:
            try:
                self._keys.get_jwk_set(refresh=True)
            except jwt.PyJWTError as error:
                logging.warning("the keys stay as they are: %s", error)
            time.sleep(REFRESH_SECONDS)


class Guard(grpc.ServerInterceptor):
    """Lets a call through when its token carries what the `.proto` demands. Unlisted methods do not exist."""

    def __init__(self, verifier, rules):
        self._verifier = verifier
        self._rules = rules

    def intercept_service(self, continuation, call):
        rule = self._rules.get(call.method)
        if rule is None:
            return None
        handler = continuation(call)
        if handler is None or rule.public:
            return handler
        try:
            who = self._verifier.verify(_bearer(call.invocation_metadata))
            if not rule.scopes <= who.scopes:
                missing = " ".join(sorted(rule.scopes - who.scopes))
                raise Refused(grpc.StatusCode.PERMISSION_DENIED, f"the token lacks: {missing}")
        except Refused as refused:
            return _refusing(handler, refused)
        # grpcio runs the handler in the same context.
        _caller.set(who)
        return _ending_with_its_token(handler, who)


def _bearer(metadata):
    found = [value for key, value in metadata if key == "authorization"]
    if not found:
        raise _unauthenticated("there is no token")
    scheme, _, token = found[0].partition(" ")
    if len(found) > 1 or scheme.lower() != "bearer" or not token:
        raise _unauthenticated("the authorization is not one bearer token")
    return token


def _unauthenticated(reason):
    return Refused(grpc.StatusCode.UNAUTHENTICATED, reason)


def _ending_with_its_token(handler, who):
    """A stream can outlive the token that opened it: its next message, either way, is then refused."""
    serve = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if not handler.request_streaming and not handler.response_streaming:
        return handler

    def until_expiry(messages, context):
        for message in messages:
            if time.time() > who.expires:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has expired")
            yield message

    def guarded(request, context):
        if handler.request_streaming:
            request = until_expiry(request, context)
        response = serve(request, context)
        return until_expiry(response, context) if handler.response_streaming else response

    return _like(handler, guarded)


def _refusing(handler, refused):
    return _like(handler, lambda _, context: context.abort(refused.code, refused.reason))


def _like(handler, serve):
    """A handler of the same kind that does something else."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(serve, handler.request_deserializer, handler.response_serializer)
