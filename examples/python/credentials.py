"""Whom a program speaks as, found where the `countersign` command line finds it."""

import os
import secrets
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import jwt

SECRET = ("url", "client_id", "client_secret")
KEY = ("url", "client_id", "private_key_file", "issuer")
# RFC 7523: an assertion says who asks, for this long.
ASSERTION_SECONDS = 60


class CredentialsError(Exception):
    """There are no usable credentials. The message says why, and never what they are."""


@dataclass(frozen=True)
class Credentials:
    """A client's credentials and the server that knows them: a secret, or a key that signs for an issuer."""

    url: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    private_key_file: str | None = None
    issuer: str | None = None

    def proof(self):
        """What proves, in one request for a token, who asks. Each assertion is good once."""
        if self.client_secret is not None:
            return {"client_secret": self.client_secret}
        now = int(time.time())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.issuer,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
            "jti": secrets.token_urlsafe(16),
        }
        # Read again each time: a new key may have been rolled out.
        key = _read_private(Path(self.private_key_file))
        return {"client_assertion": jwt.encode(claims, key, algorithm="EdDSA")}

    @staticmethod
    def find(named=None):
        """From the file that was named, else from the environment, else from the configuration directory."""
        if named is not None:
            return _read(Path(named))
        found = {name: _variable_or_file(f"COUNTERSIGN_{name.upper()}") for name in SECRET}
        key_file = os.environ.get("COUNTERSIGN_CLIENT_KEY_FILE")
        if key_file and found["client_secret"]:
            raise CredentialsError("both COUNTERSIGN_CLIENT_SECRET and COUNTERSIGN_CLIENT_KEY_FILE are set")
        if key_file:
            del found["client_secret"]
            found["private_key_file"] = key_file
            found["issuer"] = os.environ.get("COUNTERSIGN_ISSUER")
        if any(found.values()):
            # All or none: the secret of one server must not go to another.
            missing = [f"COUNTERSIGN_{name.upper()}" for name, value in found.items() if not value]
            if missing:
                raise CredentialsError(f"the environment holds part of the credentials, but not {missing[0]}")
            return Credentials(**found)
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        path = Path(home) / "countersign/credentials.toml"
        if not path.exists():
            raise CredentialsError(
                f"no credentials: no --credentials, no COUNTERSIGN_CLIENT_ID, and there is no {path}"
            )
        return _read(path)


def _read(path):
    try:
        table = tomllib.loads(_read_private(path))
    except tomllib.TOMLDecodeError as error:
        raise CredentialsError(f"cannot read {path}: {error}") from None
    is_complete = sorted(table) in (sorted(SECRET), sorted(KEY))
    if not is_complete or not all(isinstance(value, str) for value in table.values()):
        raise CredentialsError(f"{path} must have {', '.join(SECRET)} (or {', '.join(KEY[2:])} in its place)")
    if "private_key_file" in table:
        # Beside the credentials, unless it says otherwise.
        table["private_key_file"] = str(path.parent / table["private_key_file"])
    return Credentials(**table)


def _read_private(path):
    try:
        with path.open() as file:
            # Of the open file, not of the path, which could be another one by now.
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise CredentialsError(f"{path} can be read by others: chmod 600 {path}")
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(f"cannot read {path}: {error}") from None


def _variable_or_file(name):
    value, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if value and path:
        raise CredentialsError(f"both {name} and {name}_FILE are set")
    if not path:
        return value
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise CredentialsError(f"cannot read {path} (from {name}_FILE): {error}") from None
