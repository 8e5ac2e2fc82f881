"""Off-the-shelf OAuth clients of PyPI against Countersign, each used as its own documentation says.

    python oauth.py URL-OF-COUNTERSIGN ISSUER CLIENT-ID PRIVATE-KEY < SECRET

The client may call `stock` with `stock:read`, and is it, too. The key is in a PEM file, and registered
like the secret. Says nothing when all is as it should be.
"""

import sys
import time
from functools import partial
from pathlib import Path

import jwt
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT, private_key_jwt_sign
from joserfc.jwk import OKPKey
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError
from oauthlib.oauth2.rfc6749.errors import InvalidScopeError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as RequestsOAuth2Session

URL, ISSUER, CLIENT_ID, PRIVATE_KEY = sys.argv[1:]
SECRET = sys.stdin.read().strip()
SCOPE = "stock:read"


def metadata_of_the_server():
    """RFC 8414, and what OpenID Connect's libraries look for."""
    server = requests.get(f"{URL}/.well-known/oauth-authorization-server", timeout=10).json()
    openid = requests.get(f"{URL}/.well-known/openid-configuration", timeout=10).json()
    assert server["issuer"] == openid["issuer"] == ISSUER
    for metadata in (server, openid):
        for endpoint in ("token_endpoint", "introspection_endpoint", "revocation_endpoint", "jwks_uri"):
            assert metadata[endpoint].startswith(ISSUER), endpoint
    return server


def authlib(metadata, method):
    """Gets a token, asks about it, revokes it."""
    assert method in metadata["token_endpoint_auth_methods_supported"]
    session = OAuth2Session(CLIENT_ID, SECRET, scope=SCOPE, token_endpoint_auth_method=method)
    token = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    check_answer(token)

    ask = lambda: session.introspect_token(
        metadata["introspection_endpoint"], token=token["access_token"]
    ).json()
    answer = ask()
    assert answer["active"] is True, answer
    assert (answer["client_id"], answer["scope"], answer["aud"]) == (CLIENT_ID, SCOPE, "stock"), answer
    revoked = session.revoke_token(metadata["revocation_endpoint"], token=token["access_token"])
    assert revoked.status_code == 200, revoked.text
    assert ask() == {"active": False}

    liar = OAuth2Session(CLIENT_ID, "csec_wrong", token_endpoint_auth_method=method)
    refused(OAuthError, "invalid_client", liar, metadata)
    greedy = OAuth2Session(CLIENT_ID, SECRET, scope="stock:write", token_endpoint_auth_method=method)
    refused(OAuthError, "invalid_scope", greedy, metadata)


def refused(error, code, session, metadata):
    try:
        session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    except error as problem:
        assert problem.error == code, problem
    else:
        raise AssertionError(f"a token instead of {code}")


class ShortLived(PrivateKeyJWT):
    """Authlib's own assertions live for an hour, and it has no option for that."""

    def sign(self, auth, token_endpoint):
        return private_key_jwt_sign(
            auth.client_secret, auth.client_id, token_endpoint, alg=self.alg, expires_in=60
        )


def authlib_with_a_key(metadata):
    """RFC 7523: for as long as an assertion may live, and no longer."""
    endpoint = metadata["token_endpoint"]
    key = OKPKey.import_key(Path(PRIVATE_KEY).read_text())

    def session(method):
        session = OAuth2Session(CLIENT_ID, key, scope=SCOPE, token_endpoint_auth_method="private_key_jwt")
        session.register_client_auth_method(method)
        return session

    # RFC 8037's name of the algorithm, and RFC 9864's.
    for alg in ("EdDSA", "Ed25519"):
        short = session(ShortLived(endpoint, alg=alg))
        fetch = partial(short.fetch_token, endpoint, grant_type="client_credentials")
        check_answer(once_it_is_ready(fetch))
        check_answer(fetch())
    refused(OAuthError, "invalid_client", session(PrivateKeyJWT(endpoint, alg="EdDSA")), metadata)


def once_it_is_ready(fetch):
    """In its first seconds, a server cannot know which assertions the one before it has seen."""
    while True:
        try:
            return fetch()
        except requests.HTTPError as problem:
            if problem.response.status_code != 503:
                raise
            time.sleep(0.2)


def requests_oauthlib(metadata):
    """Its three ways to authenticate: an `auth`, a `client_secret` beside the id, and in the body."""
    endpoint = metadata["token_endpoint"]
    session = lambda scope=SCOPE: RequestsOAuth2Session(
        client=BackendApplicationClient(CLIENT_ID, scope=scope)
    )
    check_answer(session().fetch_token(endpoint, auth=HTTPBasicAuth(CLIENT_ID, SECRET)))
    check_answer(session().fetch_token(endpoint, client_id=CLIENT_ID, client_secret=SECRET))
    check_answer(session().fetch_token(endpoint, client_secret=SECRET, include_client_id=True))
    for error, options in (
        (InvalidClientError, {"client_secret": "csec_wrong"}),
        (InvalidScopeError, {"client_secret": SECRET, "scope": ["stock:write"]}),
    ):
        try:
            session(options.pop("scope", SCOPE)).fetch_token(endpoint, client_id=CLIENT_ID, **options)
        except error:
            pass
        else:
            raise AssertionError(f"a token instead of {error}")


def check_answer(token):
    assert token["token_type"] == "Bearer"
    assert 0 < token["expires_in"] <= 900, token["expires_in"]
    assert "refresh_token" not in token


def pyjwt(metadata):
    """Verifies as its documentation says, with what Countersign publishes."""
    answer = requests.post(
        metadata["token_endpoint"],
        data={"grant_type": "client_credentials"},
        auth=(CLIENT_ID, SECRET),
        timeout=10,
    ).json()
    token = answer["access_token"]
    key = jwt.PyJWKClient(metadata["jwks_uri"]).get_signing_key_from_jwt(token)
    claims = jwt.decode(token, key, algorithms=["EdDSA"], audience="stock", issuer=ISSUER)
    assert claims["sub"] == claims["client_id"] == CLIENT_ID, claims
    for wrong in (
        {"audience": "payment", "issuer": ISSUER},
        {"audience": "stock", "issuer": "https://elsewhere.example"},
    ):
        try:
            jwt.decode(token, key, algorithms=["EdDSA"], **wrong)
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            pass
        else:
            raise AssertionError(f"verified as {wrong}")


METADATA = metadata_of_the_server()
authlib(METADATA, "client_secret_basic")
authlib(METADATA, "client_secret_post")
authlib_with_a_key(METADATA)
requests_oauthlib(METADATA)
pyjwt(METADATA)
