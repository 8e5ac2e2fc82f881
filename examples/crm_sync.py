#!/usr/bin/env python3
"""A partner's CRM pulls all customers, with an off-the-shelf OAuth library and nothing of Countersign.

    pip install requests-oauthlib
    COUNTERSIGN_URL=https://auth.example.com COUNTERSIGN_CLIENT_ID=crm \\
    COUNTERSIGN_CLIENT_SECRET_FILE=/etc/crm/secret \\
    python crm_sync.py https://api.example.com

Prints a customer a line, as JSON. Ends with 0 when done, 1 when it failed, 2 on wrong usage, 3 when
refused, 4 when someone could not be reached. To try it without TLS, on one machine, the library wants
OAUTHLIB_INSECURE_TRANSPORT=1.
"""

import json
import os
import sys
from pathlib import Path

import requests
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error, TokenExpiredError
from requests_oauthlib import OAuth2Session

SCOPE = ["read:customers"]
LONGEST_WAIT_SECONDS = 30


class Api:
    """HTTP with tokens."""

    def __init__(self, url, client_id, client_secret):
        self._url = f"{url.rstrip('/')}/oauth/token"
        self._auth = requests.auth.HTTPBasicAuth(client_id, client_secret)
        self._session = OAuth2Session(client=BackendApplicationClient(client_id, scope=SCOPE))

    def get(self, url, **options):
        """A GET with a token, and with another one if that has expired meanwhile."""
        options["timeout"] = LONGEST_WAIT_SECONDS
        response = None
        try:
            if not self._session.authorized:
                self._fetch()
            response = self._session.get(url, **options)
        except TokenExpiredError:
            # By our clock. There is no refresh token: a client that has its secret needs none.
            pass
        # By the API's clock, or it was revoked.
        if response is None or response.status_code == 401:
            self._fetch()
            response = self._session.get(url, **options)
        return response

    def _fetch(self):
        self._session.fetch_token(self._url, auth=self._auth, timeout=LONGEST_WAIT_SECONDS)


def customers(url, api):
    """All customers, page by page."""
    page = 1
    while page:
        response = api.get(f"{url.rstrip('/')}/customers", params={"page": page})
        response.raise_for_status()
        answer = response.json()
        yield from answer["customers"]
        page = answer.get("next_page")


def setting(name):
    """The value of a variable, or what is in the file that NAME_FILE names."""
    value, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if value and path:
        die(2, f"both {name} and {name}_FILE are set")
    if path:
        try:
            value = Path(path).read_text().strip()
        except OSError as error:
            die(2, f"cannot read {path} (from {name}_FILE): {error.strerror}")
    return value or die(2, f"set {name} or {name}_FILE")


def die(code, message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def main():
    if len(sys.argv) != 2:
        die(2, f"usage: {sys.argv[0]} URL-OF-THE-CUSTOMERS-API")
    names = ("COUNTERSIGN_URL", "COUNTERSIGN_CLIENT_ID", "COUNTERSIGN_CLIENT_SECRET")
    api = Api(*map(setting, names))
    try:
        for customer in customers(sys.argv[1], api):
            print(json.dumps(customer), flush=True)
    except OAuth2Error as error:
        die(3, f"no token: {error}")
    except requests.HTTPError as error:
        refused = error.response.status_code in (401, 403)
        die(3 if refused else 1, str(error))
    except (requests.ConnectionError, requests.Timeout) as error:
        die(4, f"cannot be reached: {error.request.url if error.request else error}")


if __name__ == "__main__":
    main()
