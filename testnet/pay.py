#!/usr/bin/env python3
"""Makes one payment with a client generated from proto/ alone, and prints its transaction id.

Run it with the Python that testnet/python.sh prints; it needs only grpcio and grpcio-tools. The channel is that of
docs/deploy/client, so it takes one endpoint, or every node's address. It exits as `onespend pay` does: 0 for a payment
that is ordered, 1 for one that is refused or will never be paid, 2 for what cannot be asked, 3 where it is not known.
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
# What the details of an error hold. (With grpcio-status they can be unpacked.)
DETAILS = "grpc-status-details-bin"
# An answer that carries this speaks of one try alone, such as NOT_LEADER.
RETRY_INFO = b"google.rpc.RetryInfo"
# The service's own word: an ErrorInfo, whose field 2, `domain`, is "onespend".
ERROR_INFO, DOMAIN = b"google.rpc.ErrorInfo", b"\x12\x08onespend"
REFUSED_EXIT, USAGE_EXIT, UNKNOWN_EXIT = 1, 2, 3
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
    nodes = endpoint.split(",")
    for node in nodes:
        if ":" in node and not node.rpartition(":")[2].isdecimal():
            end(USAGE_EXIT, f"--endpoint {node}: PORT must be a number")
    try:
        return importlib.import_module("onespend_channel").connect(nodes, ca, cert, key)
    except (OSError, ValueError) as error:  # a file that is not there, or addresses of several kinds
        end(USAGE_EXIT, error)


def is_final(error):
    """Whether an error says that the request was not applied, now or later."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS, b"")
    if error.code() in UNKNOWN or RETRY_INFO in details:
        return False
    # Without the service's word it is a library's or a proxy's, as of an answer that is too large: of what was applied.
    is_spoken = ERROR_INFO in details and DOMAIN in details
    return is_spoken or error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED


def end(code, why):
    """Ends the program with this exit code."""
    print(why, file=sys.stderr)
    sys.exit(code)


def ask(call, request):
    """Calls until there is an answer. The request keeps its id, so nothing happens twice."""
    for attempt in range(1, TRIES + 1):
        try:
            return call(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            if is_final(error):
                end(REFUSED_EXIT, f"refused: {error.code().name}: {error.details()}")
            if attempt == TRIES:
                again = f"ask again with --request-id {request.request_id}"
                end(UNKNOWN_EXIT, f"perhaps applied, {again}: {error.code().name}: {error.details()}")
            time.sleep(PAUSE_SECONDS)
    raise AssertionError("the loop returns or exits")


def unpaid(payment, paid):
    """Exit code and reason where nobody is paid by what `txid` names; None where somebody is, or will be."""
    state = payment.PaymentState.Name(paid.state)
    if paid.state in (payment.PAYMENT_STATE_CANCELLED, payment.PAYMENT_STATE_DEAD):
        return REFUSED_EXIT, f"not paid: {state}"
    cancel = payment.ATTEMPT_PURPOSE_CANCEL
    if any(attempt.txid == paid.txid and attempt.purpose == cancel for attempt in paid.attempts):
        return UNKNOWN_EXIT, f"not paid so far: being cancelled, {state}; only an older attempt may still pay it"
    return None


def main():
    """Parses the command line and pays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("endpoint", "ca", "cert", "key", "wallet", "payment-id", "to"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--amount-sat", type=int, required=True)
    parser.add_argument("--feerate-sat-vb", type=float, default=2.0)
    parser.add_argument("--request-id", default=str(uuid.uuid4()), help="repeat a request whose outcome is unknown")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        payment, service = generate(folder)
        request = payment.CreatePaymentRequest(
            request_id=args.request_id,
            wallet_id=args.wallet,
            payment_id=args.payment_id,
            recipients=[payment.Recipient(address=args.to, amount_sat=args.amount_sat)],
            feerate_sat_vb=args.feerate_sat_vb,
        )
        with channel(args.endpoint, args.ca, args.cert, args.key) as connection:
            answer = ask(service.PaymentServiceStub(connection).CreatePayment, request)
        state = payment.PaymentState.Name(answer.payment.state)
        print(answer.payment.txid, state)
        why = unpaid(payment, answer.payment)
        if why:
            end(*why)


if __name__ == "__main__":
    main()
