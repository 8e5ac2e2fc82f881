"""Channels and addresses. Whoever reads along has the secret, so plaintext stays on loopback."""

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

import grpc


def is_loopback(host):
    """Whether what is sent there stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_channel(url):
    """A channel to `https://..`, or to `http://..` on loopback."""
    address = urlsplit(url)
    if address.scheme == "https":
        # The system's certificate authorities, unless another one is named.
        ca_file = os.environ.get("COUNTERSIGN_CA_FILE")
        roots = Path(ca_file).read_bytes() if ca_file else None
        target = address.netloc if address.port else f"{address.netloc}:443"
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))
    if address.scheme != "http" or address.port is None or not is_loopback(address.hostname):
        raise ValueError(f"{url} is neither https:// nor http:// with a port on loopback")
    return grpc.insecure_channel(address.netloc)
