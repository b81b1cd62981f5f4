#!/bin/sh
# Nothing is enabled or started: a node that nobody has told where to join would found a cluster of its own. And nothing is
# restarted: package managers upgrade many hosts at once, and a cluster is upgraded one node after the other.
set -e
root=${DPKG_ROOT:-}

if [ -d "$root/run/systemd/system" ]; then
	systemctl daemon-reload
	if systemctl --quiet is-active wasmatrix.service; then
		echo 'wasmatrix: the node here still runs the version before; when its turn comes: systemctl restart wasmatrix'
		exit 0
	fi
fi

# Debian says which version was configured before, rpm how many there are now.
if { [ "$1" = configure ] && [ -z "$2" ]; } || [ "$1" = 1 ]; then
	echo 'wasmatrix: tell the node about its cluster in /etc/wasmatrix/wasmatrix.yaml, then: systemctl enable --now wasmatrix'
fi
