#!/usr/bin/env bash
# Runs a cluster of N real nodes (default 3) on this machine until Ctrl-C, which leaves nothing behind.
#
#   scripts/local-cluster.sh [N]
#
# SUBNET (default 127.0.0) is where the nodes listen: n1 on .11, n2 on .12 and so on.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/nodes.sh
source "$repo/scripts/nodes.sh"

count=${1:-3}
if ! [[ $count =~ ^[1-9][0-9]?$ ]]; then
	echo "usage: $0 [number of nodes, from 1 to 99]" >&2
	exit 2
fi
[[ -x $binary ]] || make -C "$repo" build

data=$(mktemp -d)
trap end_nodes EXIT
trap 'exit 0' INT TERM

for ((i = 1; i <= count; i++)); do start_node "$i"; done
if ! wait_for 30 "a cluster of $count" sees 1 "$count"; then
	tail -n 20 "$data"/n*.log >&2
	exit 1
fi

cat <<END
$count nodes run; their logs and data are in $data until you press Ctrl-C.

  export WASMATRIX_ADDR=$(node_rpc 1)
  $binary members
  $binary run --name hello path/to/module.wasm
  $binary ps -a

The status page is at http://$(node_http 1)/
END
wait
