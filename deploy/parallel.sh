#!/bin/bash
# usage: deploy/parallel.sh FLEET.yaml RESULTS [SHARDS [OPTIONS OF PARALLEL…]]
# One process for each shard with GNU parallel, on this machine, or on several that share their storage:
#   deploy/parallel.sh fleet.yaml results 8 --sshlogin node1,node2 --workdir .
# A shard that fails is run again at most twice: what is done costs its inspection only.
set -uo pipefail
config=$1 results=$2 shards=${3:-4}
mkdir -p "$results"
seq 0 $((shards - 1)) | parallel --jobs 2 --retries 3 --joblog "$results/parallel.log" "${@:4}" \
  "${WINJECT:-winject} batch --config $(printf %q "$config") --shard {}/$shards --results $(printf %q "$results")/shard-{} --progress none"
code=$?
"${WINJECT:-winject}" batch merge "$results"/shard-* -o "$results/merged" && exit $code
