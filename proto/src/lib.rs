//! The gRPC interface of onespend and its leader-following client.
