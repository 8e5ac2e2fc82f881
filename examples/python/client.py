"""Calls the warehouse, in Python or in JavaScript, with a call of each kind.

    python client.py --server http://127.0.0.1:9001 --credentials picker.toml

Ends with 0 when done, 1 when it failed, 3 when refused, 4 when someone could not be reached.
"""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

# What generate.sh writes.
sys.path.append(str(Path(__file__).resolve().parent / "gen"))

import grpc
from channels import open_channel
from credentials import Credentials, CredentialsError
from policy import rules_of
from stock.v1 import stock_pb2, stock_pb2_grpc
from tokens import Authenticated

EXIT_CODES = {
    grpc.StatusCode.UNAUTHENTICATED: 3,
    grpc.StatusCode.PERMISSION_DENIED: 3,
    grpc.StatusCode.UNAVAILABLE: 4,
    grpc.StatusCode.DEADLINE_EXCEEDED: 4,
}


def main():
    parser = argparse.ArgumentParser(description="Calls the warehouse, with a call of each kind.")
    parser.add_argument("--server", required=True, help="where the warehouse is: http://127.0.0.1:9001")
    parser.add_argument("--credentials", metavar="FILE", help="whom to speak as, else COUNTERSIGN_* say it")
    parser.add_argument("--audience", help="what the tokens are for, if not what the .proto says")
    options = parser.parse_args()

    rules = rules_of(stock_pb2.DESCRIPTOR.services_by_name["StockService"])
    if options.audience:
        rules = {path: dataclasses.replace(rule, audience=options.audience) for path, rule in rules.items()}
    tokens = Authenticated(Credentials.find(options.credentials), rules)
    with grpc.intercept_channel(open_channel(options.server), tokens) as channel:
        call_each(stock_pb2_grpc.StockServiceStub(channel))


def call_each(stock):
    items = stock.ListItems(stock_pb2.ListItemsRequest(), timeout=10).items
    print("sold here:", *items)

    checked = stock.CheckStock(stock_pb2.CheckStockRequest(item="tea"), timeout=10)
    print(f"{checked.caller} sees {checked.count} of tea")

    parcels = [stock_pb2.DeliverRequest(item="tea", count=count) for count in (5, 7)]
    delivered = stock.Deliver(iter(parcels), timeout=10)
    print(f"{delivered.caller} delivered {delivered.parcels} parcels")

    orders = [stock_pb2.PickRequest(item="tea", count=count) for count in (2, 10)]
    for picked in stock.Pick(iter(orders), timeout=10):
        print(f"picked {picked.picked}, left {picked.left}")

    for shelf in stock.ListStock(stock_pb2.ListStockRequest(), timeout=10):
        print(f"{shelf.item}: {shelf.count}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        main()
    except (CredentialsError, ValueError) as error:
        sys.exit(f"error: {error}")
    except grpc.RpcError as error:
        print(f"error: {error.code().name}: {error.details()}", file=sys.stderr)
        sys.exit(EXIT_CODES.get(error.code(), 1))
