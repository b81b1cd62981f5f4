#!/bin/sh
# What the node knew outlives the package, unless Debian is told to purge it.
set -e
root=${DPKG_ROOT:-}

case $1 in
remove | purge | 0)
	if [ -d "$root/run/systemd/system" ]; then
		systemctl daemon-reload
	fi
	;;
esac
if [ "$1" = purge ]; then
	# Under systemd's DynamicUser the second is where the data is, and the first a link to it.
	rm -rf "$root/var/lib/wasmatrix" "$root/var/lib/private/wasmatrix" "$root/etc/wasmatrix"
fi
