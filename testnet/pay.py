#!/usr/bin/env python3
"""Makes one payment with a client generated from proto/ alone, and prints its transaction id.

Run it with the Python that testnet/python.sh prints; it needs only grpcio and grpcio-tools. The channel is that of
docs/deploy/client, so it takes one endpoint, or every node's address.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import time
import uuid

import grpc
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto" / "proto"
CLIENT = ROOT / "docs" / "deploy" / "client"
# The outcome of a call that ends like this is unknown.
UNKNOWN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)
# An answer that carries this speaks of one try alone, such as NOT_LEADER. (With grpcio-status it can be unpacked.)
RETRY_INFO = b"google.rpc.RetryInfo"
DETAILS = "grpc-status-details-bin"
TRIES = 20
CALL_SECONDS = 5
PAUSE_SECONDS = 0.2


def generate(folder):
    """Generates the client into `folder` and returns its two modules for payments."""
    files = [str(path.relative_to(PROTO)) for path in sorted(PROTO.glob("onespend/v1/*.proto"))]
    if not files:
        sys.exit(f"no .proto files below {PROTO}")
    bundled = pathlib.Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{bundled}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(arguments + files) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, folder)
    payment = importlib.import_module("onespend.v1.payment_pb2")
    service = importlib.import_module("onespend.v1.payment_pb2_grpc")
    return payment, service


def channel(endpoint, ca, cert, key):
    """To one address, or to several with commas between them."""
    sys.dont_write_bytecode = True  # nothing is written beside what is deployed
    sys.path.insert(0, str(CLIENT))
    return importlib.import_module("onespend_channel").connect(endpoint.split(","), ca, cert, key)


def is_final(error):
    """Whether an error says that the request was not applied, now or later."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS, b"")
    return error.code() not in UNKNOWN and RETRY_INFO not in details


def ask(call, request):
    """Calls until there is an answer. The request keeps its id, so nothing happens twice."""
    for attempt in range(1, TRIES + 1):
        try:
            return call(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            if is_final(error):
                sys.exit(f"refused: {error.code().name}: {error.details()}")
            if attempt == TRIES:
                sys.exit(f"perhaps applied, ask again: {error.code().name}: {error.details()}")
            time.sleep(PAUSE_SECONDS)
    raise AssertionError("the loop returns or exits")


def main():
    """Parses the command line and pays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("endpoint", "ca", "cert", "key", "wallet", "payment-id", "to"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--amount-sat", type=int, required=True)
    parser.add_argument("--feerate-sat-vb", type=float, default=2.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        payment, service = generate(folder)
        request = payment.CreatePaymentRequest(
            request_id=str(uuid.uuid4()),
            wallet_id=args.wallet,
            payment_id=args.payment_id,
            recipients=[payment.Recipient(address=args.to, amount_sat=args.amount_sat)],
            feerate_sat_vb=args.feerate_sat_vb,
        )
        with channel(args.endpoint, args.ca, args.cert, args.key) as connection:
            answer = ask(service.PaymentServiceStub(connection).CreatePayment, request)
        state = payment.PaymentState.Name(answer.payment.state)
        print(answer.payment.txid, state)


if __name__ == "__main__":
    main()
