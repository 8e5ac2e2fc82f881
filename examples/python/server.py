"""A warehouse that serves only callers with a good token.

    python server.py --listen 127.0.0.1:9001 --issuer http://127.0.0.1:9443 \
        --jwks-url http://127.0.0.1:9443/.well-known/jwks.json --audience stock
"""

import argparse
import collections
import logging
import signal
import sys
import threading
from concurrent import futures
from pathlib import Path

# What generate.sh writes.
sys.path.append(str(Path(__file__).resolve().parent / "gen"))

import grpc
from channels import is_loopback
from policy import rules_of
from stock.v1 import stock_pb2, stock_pb2_grpc

from guard import Guard, Verifier, caller


class Stock(stock_pb2_grpc.StockServiceServicer):
    """The shelves."""

    def __init__(self):
        self._lock = threading.Lock()
        self._shelves = collections.Counter({"coffee": 40, "tea": 100})

    def CheckStock(self, request, context):
        with self._lock:
            count = self._shelves[request.item]
        return stock_pb2.CheckStockResponse(count=count, caller=caller().client_id)

    def ListStock(self, request, context):
        with self._lock:
            shelves = sorted(self._shelves.items())
        for item, count in shelves:
            yield stock_pb2.ListStockResponse(item=item, count=count)

    def Deliver(self, requests, context):
        parcels = 0
        for parcel in requests:
            with self._lock:
                self._shelves[parcel.item] += parcel.count
            parcels += 1
        return stock_pb2.DeliverResponse(parcels=parcels, caller=caller().client_id)

    def Pick(self, requests, context):
        for wanted in requests:
            with self._lock:
                picked = min(wanted.count, self._shelves[wanted.item])
                self._shelves[wanted.item] -= picked
                left = self._shelves[wanted.item]
            yield stock_pb2.PickResponse(picked=picked, left=left)

    def ListItems(self, request, context):
        with self._lock:
            return stock_pb2.ListItemsResponse(items=sorted(self._shelves))


def main():
    parser = argparse.ArgumentParser(description="A warehouse that serves only callers with a good token.")
    parser.add_argument(
        "--listen", default="127.0.0.1:0", help="the address to serve on, of this machine only"
    )
    parser.add_argument("--issuer", required=True, help="whose tokens are good, exactly as they say it")
    parser.add_argument("--jwks-url", required=True, help="where the issuer's keys are")
    parser.add_argument("--audience", default="stock", help="what the tokens must be for")
    options = parser.parse_args()
    host = options.listen.rpartition(":")[0]
    if not is_loopback(host.strip("[]")):
        parser.error("this example serves plaintext, so only on loopback; put TLS before it")

    verifier = Verifier(options.issuer, options.jwks_url, options.audience)
    rules = rules_of(stock_pb2.DESCRIPTOR.services_by_name["StockService"])
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=10),
        interceptors=[Guard(verifier, rules)],
        # Without this, two servers could share a port and nobody would know.
        options=[("grpc.so_reuseport", 0)],
    )
    stock_pb2_grpc.add_StockServiceServicer_to_server(Stock(), server)
    port = server.add_insecure_port(options.listen)
    server.start()
    print(f"listening on http://{host}:{port}", flush=True)

    told = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: told.set())
    told.wait()
    server.stop(grace=5).wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    main()
