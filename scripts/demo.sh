#!/usr/bin/env bash
# Shows the product's main job on this machine: three real nodes on loopback, a few guests, the leader
# killed. Fails loudly when something is not as it should be, and leaves nothing behind.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
# A subnet of its own, so that it disturbs no cluster that runs here.
SUBNET=${SUBNET:-127.77.$((RANDOM % 250 + 1))}
# shellcheck source=scripts/nodes.sh
source "$repo/scripts/nodes.sh"

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() {
	local node=$1
	shift
	printf '\n$ wasmatrix %s    (asked of n%s)\n' "${*//$data\//}" "$node"
	wm "$node" "$@"
}
die() {
	printf '\ndemo: %s\n' "$*" >&2
	exit 1
}
finish() {
	local code=$?
	trap - EXIT INT TERM
	if ((code != 0 && code != 130 && code != 143)) && [[ -n $data ]]; then
		for log in "$data"/n*.log; do
			printf '\n--- the end of %s\n' "$(basename "$log")" >&2
			tail -n 25 "$log" >&2
		done
	fi
	end_nodes
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[[ -x $binary ]] || die "there is no $binary: run \`make demo\`"
began=$SECONDS
data=$(mktemp -d)

say 'Three nodes start. The first founds a cluster, the others join it.'
for i in 1 2 3; do start_node "$i"; done
for guest in hello ticker crashy; do
	GOOS=wasip1 GOARCH=wasm go build -C "$repo" -o "$data/$guest.wasm" "./examples/$guest"
done
for i in 1 2 3; do wait_for 20 "n$i to see three nodes" sees "$i" 3; done
voters() { [[ $(wm 1 members | grep -cwE 'leader|voter') -eq 3 ]]; }
wait_for 20 'three voters' voters
show 1 members

say 'Any node takes orders: these go to three different ones.'
show 1 run --name hello --restart never "$data/hello.wasm"
show 2 run --name ticker --count 3 "$data/ticker.wasm"
show 3 run --name crashy --restart on-failure --max-retries 2 --backoff 200ms "$data/crashy.wasm"

crashed() { [[ $(wm 1 inspect -o json crashy | field status) == crashed ]]; }
wait_for 20 'crashy to use up its restarts' crashed
show 2 ps -a
show 3 logs --tail 3 hello
crashy=$(wm 3 inspect -o json crashy)
printf '\ncrashy: %s restarts, then: %s\n' "$(field restarts <<<"$crashy")" "$(field last_error <<<"$crashy")"
[[ $(field restarts <<<"$crashy") == 2 ]] || die 'crashy was to be restarted twice'
[[ $(wm 1 inspect -o json hello | field status) == stopped ]] || die 'hello was to end well'

ids() { wm "$1" ps -a -o json | field instance_id | sort; }
before=$(ids 1)
[[ $(wc -l <<<"$before") -eq 5 ]] || die "five instances were started, and ps -a shows: $before"

leader=$(wm 1 status -o json | field name | head -n 1)
number=${leader#n}
ask=$((number % 3 + 1))
say "The leader, $leader, dies: kill -9."
killed=$(date +%s%N)
kill -KILL "${pids[number]}"
wait "${pids[number]}" 2>/dev/null || true
# A start is the hardest question: it needs a new leader that has asked all nodes what they run.
wm "$ask" run --name after --timeout 20s "$data/ticker.wasm" >/dev/null
printf '\nThe next start was accepted and ran %d ms later.\n' "$((($(date +%s%N) - killed) / 1000000))"

[[ $(wm "$ask" status -o json | field name | head -n 1) != "$leader" ]] || die "$leader is dead and said to lead"
show "$ask" ps -a
after=$(ids "$ask")
lost=$(comm -23 <(echo "$before") <(echo "$after"))
[[ -z $lost ]] || die "after the leader's death these are not known any more: $lost"
dead() { wm "$ask" members | grep -w "$leader" | grep -qw dead; }
wait_for 20 "$leader to be seen dead" dead
show "$ask" members

say "All five instances are still known, and the cluster takes orders. Done in $((SECONDS - began)) s."
