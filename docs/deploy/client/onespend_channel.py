"""A gRPC channel to a cluster that has no load balancer in front.

It takes the addresses of all nodes, goes to the first that answers, and on to another when that one dies or hangs. Which
one it is does not matter: a write that reaches a replica is forwarded to the leader.

    nodes = ["10.0.0.1:7800", "10.0.0.2:7800", "10.0.0.3:7800"]
    with onespend_channel.connect(nodes, "ca.pem", "client-payouts.pem", "client-payouts.key") as channel:
        payments = payment_pb2_grpc.PaymentServiceStub(channel)

gRPC asks again by itself a few times and no more, so callers ask again, with the same request_id, until they have an
answer. Needs nothing but grpcio.
"""

import ipaddress
import json
import pathlib

import grpc

# gRPC asks again with the same bytes, and so with the same request_id.
RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.02s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
OPTIONS = [
    # Nodes' certificates carry this name, whatever their address.
    ("grpc.ssl_target_name_override", "onespend"),
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": RETRY}]})),
    # The defaults wait for up to a second, and soon for minutes, before they try a node again.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Finds out about a node that hangs with its connections open. Without the last one the ping has a minute.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),
]


def target(nodes):
    """What gRPC calls these nodes: a list of addresses, of one kind; of names it takes one, which may have several."""
    if len(nodes) == 1:
        return nodes[0]
    kinds = {ipaddress.ip_address(node.rpartition(":")[0].strip("[]")).version for node in nodes}
    if len(kinds) != 1:
        raise ValueError(f"neither a name nor a list of addresses, of IPv4 or of IPv6 alone: {nodes}")
    return f"ipv{kinds.pop()}:" + ",".join(nodes)


def connect(nodes, ca, cert, key):
    """Mutual TLS: `ca` is the cluster's authority, `cert` and `key` are who we are. All are names of files."""
    root, chain, private = (pathlib.Path(file).read_bytes() for file in (ca, cert, key))
    credentials = grpc.ssl_channel_credentials(root_certificates=root, private_key=private, certificate_chain=chain)
    return grpc.secure_channel(target(nodes), credentials, OPTIONS)
