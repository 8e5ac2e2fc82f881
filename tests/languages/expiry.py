"""The CRM's token expires in the middle of its pages, by its own clock and by that of the API.

python expiry.py URL-OF-THE-CUSTOMERS-API URL-OF-COUNTERSIGN CLIENT-ID < SECRET
"""

import sys

import crm_sync

customers_api, countersign, client_id = sys.argv[1:]
api = crm_sync.Api(countersign, client_id, sys.stdin.read().strip())


def spoil(**changes):
    """The token as it is some time later."""
    api._session.token = {**api._session.token, **changes}
    return api._session.token["access_token"]


names = []
for customer in crm_sync.customers(customers_api, api):
    names.append(customer["name"])
    if len(names) == 1:
        expired = spoil(expires_at=1)
    if len(names) == 3:
        assert api._session.token["access_token"] != expired, "no new token"
        refused = spoil(access_token="a.b.c")
assert api._session.token["access_token"] != refused, "no new token"
assert len(names) == len(set(names)) == 5, names
