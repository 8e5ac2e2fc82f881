"""Whom a program speaks as, found where the `countersign` command line finds it."""

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("url", "client_id", "client_secret")


class CredentialsError(Exception):
    """There are no usable credentials. The message says why, and never what they are."""


@dataclass(frozen=True)
class Credentials:
    """A client's credentials and the server that knows them."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)

    @staticmethod
    def find(named=None):
        """From the file that was named, else from the environment, else from the configuration directory."""
        if named is not None:
            return _read(Path(named))
        found = {name: _variable_or_file(f"COUNTERSIGN_{name.upper()}") for name in NAMES}
        if any(found.values()):
            # All or none: the secret of one server must not go to another.
            missing = [f"COUNTERSIGN_{name.upper()}" for name in NAMES if not found[name]]
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
        with path.open("rb") as file:
            # Of the open file, not of the path, which could be another one by now.
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise CredentialsError(f"{path} can be read by others: chmod 600 {path}")
            table = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CredentialsError(f"cannot read {path}: {error}") from None
    if sorted(table) != sorted(NAMES) or not all(isinstance(value, str) for value in table.values()):
        raise CredentialsError(f"{path} must have {', '.join(NAMES)}, and nothing else")
    return Credentials(**table)


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
