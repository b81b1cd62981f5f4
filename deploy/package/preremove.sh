#!/bin/sh
# The node leaves its cluster in order before its binary goes. An upgrade leaves it alone.
set -e
root=${DPKG_ROOT:-}

# Debian says what it is about to do, rpm how many versions will be left.
case $1 in
remove | 0)
	if [ -d "$root/run/systemd/system" ]; then
		systemctl disable --now wasmatrix.service
	fi
	;;
esac
