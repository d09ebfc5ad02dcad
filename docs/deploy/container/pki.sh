#!/bin/sh
# The authority of a cluster and its certificates, in folders of their own: each node gets its own two files and the
# authority's certificate, callers get theirs, and ca.key stays where nobody else looks. What is there is left as it is.
#
# $CLUSTER names the cluster. The nodes are node-1, node-2 and node-3.
set -eu
umask 077
authority=/pki/authority

issue() {
  [ -e "$authority/$1-$2.key" ] || onespend pki issue "$@" --dir "$authority"
}

[ -e "$authority/ca.key" ] || onespend pki init --cluster "$CLUSTER" --dir "$authority"
for id in 1 2 3; do
  issue node "$id" --host "node-$id"
  cp "$authority/ca.pem" "/pki/node-$id/ca.pem"
  cp "$authority/node-$id.pem" "/pki/node-$id/node.pem"
  cp "$authority/node-$id.key" "/pki/node-$id/node.key"
done

issue operator alice
issue client payouts
cp "$authority/ca.pem" "$authority/operator-alice.pem" "$authority/operator-alice.key" \
  "$authority/client-payouts.pem" "$authority/client-payouts.key" /pki/callers/
{
  echo 'data = ["node-1:7800", "node-2:7800", "node-3:7800"]'
  echo 'control = ["node-1:7801", "node-2:7801", "node-3:7801"]'
} >/pki/callers/endpoints
