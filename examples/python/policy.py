"""What the `.proto` of a service demands of those who call it.

Both sides read it: the server to refuse, the client to ask for no more than each method needs.
"""

from dataclasses import dataclass

from countersign.v1 import auth_pb2


@dataclass(frozen=True)
class Rule:
    """What one method demands."""

    audience: str
    scopes: frozenset[str]
    public: bool


def rules_of(service):
    """The rules of a service's methods, by the path under which they are called.

    `service` is its descriptor: `stock_pb2.DESCRIPTOR.services_by_name["StockService"]`.
    """
    audience = service.GetOptions().Extensions[auth_pb2.service].audience
    rules = {}
    for method in service.methods:
        declared = method.GetOptions().Extensions[auth_pb2.auth]
        if declared.public == bool(declared.scopes):
            raise ValueError(f"{method.full_name} must be either public or demand scopes")
        rules[f"/{service.full_name}/{method.name}"] = Rule(
            audience, frozenset(declared.scopes), declared.public
        )
    return rules
