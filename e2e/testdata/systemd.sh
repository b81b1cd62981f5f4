#!/bin/sh
# systemd.sh CGROUP DIR: becomes a systemd of its own that starts nothing by itself. It sees no process, network, mount or control
# group of the machine's; what it writes is gone with it. DIR has the binary, the unit, and the node's configuration.
set -eu
cgroup=$1 dir=$2

if [ "${INSIDE:-}" = '' ]; then
	echo $$ >"$cgroup/cgroup.procs"
	INSIDE=yes exec unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup --mount-proc sh "$0" "$cgroup" "$dir"
fi

mount --make-rprivate /
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/own
mount -t cgroup2 cgroup2 /sys/fs/cgroup/own
mount --move /sys/fs/cgroup/own /sys/fs/cgroup
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/given
cp "$dir"/* /var/lib/given
mount -t tmpfs tmpfs /run
for tree in etc usr; do
	mkdir -p "/run/over/$tree" "/run/scratch/$tree"
	mount -t overlay overlay -o "lowerdir=/$tree,upperdir=/run/over/$tree,workdir=/run/scratch/$tree" "/$tree"
done
ip link set lo up

# As the package puts them.
mkdir -p /etc/wasmatrix /run/units /run/generators
cp /var/lib/given/wasmatrix /usr/bin/wasmatrix
cp /var/lib/given/wasmatrix.yaml /etc/wasmatrix/wasmatrix.yaml
cp /var/lib/given/wasmatrix.service /run/units
for target in sysinit basic shutdown network-online multi-user nothing; do
	printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >"/run/units/$target.target"
done
: >/run/console
mount --bind /run/console /dev/console

export container=test SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/run/generators
exec /lib/systemd/systemd --system --unit=nothing.target --log-target=console --show-status=no
