# Functions to run several nodes on this machine; sourced by demo.sh and local-cluster.sh.
#
# On Linux each node has an address of its own in 127.0.0.0/8 and the default ports. Elsewhere only
# 127.0.0.1 is there, and each node has ports of its own.

if [[ -z ${BASH_VERSION:-} || -z ${repo:-} ]]; then
	echo 'nodes.sh is sourced by the other scripts' >&2
	exit 1
fi

binary=${WASMATRIX:-$repo/bin/wasmatrix}
subnet=${SUBNET:-127.0.0}
data=
pids=()

node_ip() {
	if [[ $(uname -s) == Linux ]]; then echo "$subnet.$((10 + $1))"; else echo 127.0.0.1; fi
}

# node_port NODE DEFAULT
node_port() {
	if [[ $(uname -s) == Linux ]]; then echo "$2"; else echo "$(($2 + 10 * $1))"; fi
}

node_gossip() { echo "$(node_ip "$1"):$(node_port "$1" 7400)"; }
node_rpc() { echo "$(node_ip "$1"):$(node_port "$1" 7401)"; }
node_http() { echo "$(node_ip "$1"):$(node_port "$1" 7402)"; }

# start_node NODE: the first founds the cluster, the others join it.
start_node() {
	local i=$1 join=()
	[[ $i -gt 1 ]] && join=(--join "$(node_gossip 1)")
	"$binary" agent --name "n$i" --data-dir "$data/n$i" --bind "$(node_ip "$i")" \
		--gossip-port "$(node_port "$i" 7400)" --rpc-port "$(node_port "$i" 7401)" --http-port "$(node_port "$i" 7402)" \
		--nats-port "$(node_port "$i" 7403)" --nats-route-port "$(node_port "$i" 7404)" \
		${join[@]+"${join[@]}"} >"$data/n$i.log" 2>&1 &
	pids[i]=$!
}

# wm NODE COMMAND...: asks a node. The flags go between the command and its arguments.
wm() {
	local i=$1 words=1
	shift
	[[ $1 == node ]] && words=2
	"$binary" "${@:1:words}" --addr "$(node_rpc "$i")" "${@:words+1}"
}

# field NAME: the values of a field in the JSON on stdin, one a line; enough for what these scripts ask.
field() { grep -oE "\"$1\": *(\"[^\"]*\"|[^,}]*)" | sed -E 's/^"[^"]*": *"?//; s/"$//'; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
	local until=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		if ((SECONDS >= until)); then
			echo "waited in vain for $what" >&2
			return 1
		fi
		sleep 0.2
	done
}

# sees NODE COUNT: whether a node sees so many alive under a leader.
sees() {
	local status
	status=$(wm "$1" status -o json --timeout 2s 2>/dev/null) || return 1
	[[ $(field alive <<<"$status") == "$2" && $(field recovering <<<"$status") == false && -n $(field name <<<"$status") ]]
}

# end_nodes: ends all processes that start_node started, at once, and removes the data.
end_nodes() {
	local pid
	for pid in ${pids[@]+"${pids[@]}"}; do
		kill -KILL "$pid" 2>/dev/null || true
	done
	for pid in ${pids[@]+"${pids[@]}"}; do
		wait "$pid" 2>/dev/null || true
	done
	pids=()
	if [[ -n $data ]]; then rm -rf "$data"; fi
}
