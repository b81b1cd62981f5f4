#!/bin/sh
# Installs wasmatrix from a release, upgrades it in place, and takes it away again.
set -eu

usage() {
	cat <<'END'
usage: install.sh [options] SOURCE
       install.sh --uninstall [--prefix DIR]

SOURCE is one of
  wasmatrix_1.2.3_linux_amd64.tar.gz    a release's archive; checksums.txt is looked for beside it
  https://.../wasmatrix_..._amd64.tar.gz the same, downloaded, with the checksums.txt beside it
  1.2.3                                 a version: its archive for this machine is downloaded
  DIR                                   an unpacked archive

  --prefix DIR       install below DIR; /usr/local where nothing is said
  --systemd          the unit, too, and /etc/wasmatrix/wasmatrix.yaml where there is none; nothing is enabled or started
  --checksums FILE   look the archive's checksum up there
  --from URL         download versions from below URL
  --uninstall        remove what was installed; configuration and data stay
DESTDIR in the environment is put before every path.
END
}

die() {
	echo "install.sh: $*" >&2
	exit 1
}

prefix=/usr/local
base=https://github.com/wasmatrix/wasmatrix/releases/download
root=${DESTDIR:-}
checksums='' source='' systemd=no uninstall=no

while [ $# -gt 0 ]; do
	case $1 in
	--prefix | --checksums | --from)
		[ $# -ge 2 ] || die "$1 needs a value; install.sh --help says more"
		case $1 in
		--prefix) prefix=$2 ;;
		--checksums) checksums=$2 ;;
		--from) base=$2 ;;
		esac
		shift
		;;
	--systemd) systemd=yes ;;
	--uninstall) uninstall=yes ;;
	-h | --help)
		usage
		exit
		;;
	-*) die "no option $1; install.sh --help says which there are" ;;
	*)
		[ -z "$source" ] || die "two sources, $source and $1; one is installed"
		source=$1
		;;
	esac
	shift
done

case $prefix in
/*) prefix=${prefix%/} ;;
*) die "--prefix $prefix: want an absolute path" ;;
esac
# One line a file, as it is called without DESTDIR: what the next version may not have, and what --uninstall removes.
manifest=$prefix/share/wasmatrix/installed

has_systemd() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

if [ "$uninstall" = yes ]; then
	[ -z "$source" ] || die "--uninstall takes no source"
	[ -f "$root$manifest" ] || die "nothing was installed below $prefix by this script: there is no $root$manifest"
	if has_systemd && systemctl --quiet is-active wasmatrix.service && grep -q '/wasmatrix\.service$' "$manifest"; then
		die 'a node runs here; have it leave first: systemctl disable --now wasmatrix'
	fi
	while read -r file; do rm -f "$root$file"; done <"$root$manifest"
	rm -f "$root$manifest"
	rmdir "$root$prefix/share/wasmatrix"
	if has_systemd; then systemctl daemon-reload; fi
	echo "wasmatrix is no longer below $prefix; /etc/wasmatrix and /var/lib/wasmatrix are as they were"
	exit
fi
if [ -z "$source" ]; then
	usage >&2
	exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

fetch() { # URL FILE
	if command -v curl >/dev/null; then
		curl -fsSL -o "$2" "$1" || die "could not download $1"
	elif command -v wget >/dev/null; then
		wget -q -O "$2" "$1" || die "could not download $1"
	else
		die "neither curl nor wget is here to download $1"
	fi
}

sha256() {
	if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

platform() {
	os=$(uname -s | tr '[:upper:]' '[:lower:]')
	case $(uname -m) in
	x86_64 | amd64) arch=amd64 ;;
	aarch64 | arm64) arch=arm64 ;;
	*) die "no release for $(uname -m); build it: make build" ;;
	esac
	echo "${os}_$arch"
}

case $source in
http://* | https://*) url=$source ;;
*)
	if [ -e "$source" ]; then
		url=
	else
		case $source in
		[0-9]*.[0-9]*.[0-9]* | v[0-9]*.[0-9]*.[0-9]*) ;;
		*) die "$source is neither a file, nor a directory, nor a URL, nor a version such as 1.2.3" ;;
		esac
		version=${source#v}
		url=$base/v$version/wasmatrix_${version}_$(platform).tar.gz
	fi
	;;
esac
archive=$source
if [ -n "$url" ]; then
	archive=$work/${url##*/}
	fetch "$url" "$archive"
	if [ -z "$checksums" ]; then
		checksums=$work/checksums.txt
		fetch "${url%/*}/checksums.txt" "$checksums"
	fi
fi

if [ -d "$archive" ]; then
	content=$archive
else
	[ -n "$checksums" ] || checksums=$(dirname "$archive")/checksums.txt
	[ -f "$checksums" ] || die "no $checksums to check the archive by; it is beside each release, and --checksums FILE says where it is here"
	name=$(basename "$archive")
	want=$(awk -v name="$name" '$2 == name { print $1 }' "$checksums")
	[ -n "$want" ] || die "$checksums has no $name"
	got=$(sha256 "$archive")
	[ "$got" = "$want" ] || die "$name is not what was released: its SHA-256 is $got, and $checksums has $want; download it again"
	mkdir "$work/unpacked"
	tar -xzf "$archive" -C "$work/unpacked"
	content=$(echo "$work"/unpacked/*)
fi
[ -f "$content/wasmatrix" ] || die "$source holds no wasmatrix"
[ "$systemd" = no ] || [ -f "$content/deploy/systemd/wasmatrix.service" ] || die "$source holds no unit for systemd"
version=$("$content/wasmatrix" version | head -n 1) || die "the wasmatrix in $source does not run on this machine, which is $(platform)"

# put FILE MODE PLACE: at once, so that a program that runs keeps its file and one that starts finds the old or the new.
put() {
	mkdir -p "$root$(dirname "$3")"
	cp "$1" "$root$3.new.$$"
	chmod "$2" "$root$3.new.$$"
	mv -f "$root$3.new.$$" "$root$3"
	echo "$3" >>"$work/installed"
}

put_all() { # MODE DIR FILES...
	mode=$1 dir=$2
	shift 2
	for file; do
		if [ -f "$file" ]; then put "$file" "$mode" "$dir/$(basename "$file")"; fi
	done
}

put "$content/wasmatrix" 755 "$prefix/bin/wasmatrix"
put_all 644 "$prefix/share/man/man1" "$content"/man/*.1
if [ -d "$content/completions" ]; then
	put "$content/completions/wasmatrix.bash" 644 "$prefix/share/bash-completion/completions/wasmatrix"
	put "$content/completions/wasmatrix.zsh" 644 "$prefix/share/zsh/site-functions/_wasmatrix"
	put "$content/completions/wasmatrix.fish" 644 "$prefix/share/fish/vendor_completions.d/wasmatrix.fish"
fi
put_all 644 "$prefix/share/doc/wasmatrix" "$content/LICENSE" "$content/README.md" "$content/CHANGELOG.md"

unit=/etc/systemd/system/wasmatrix.service
if [ "$systemd" = no ] && [ -f "$root$manifest" ] && grep -qx "$unit" "$root$manifest"; then
	systemd=yes # an upgrade keeps what was asked for
fi
if [ "$systemd" = yes ]; then
	sed "s|=/usr/bin/wasmatrix|=$prefix/bin/wasmatrix|" "$content/deploy/systemd/wasmatrix.service" >"$work/wasmatrix.service"
	put "$work/wasmatrix.service" 644 "$unit"
	if [ ! -e "$root/etc/wasmatrix/wasmatrix.yaml" ]; then
		put "$content/deploy/wasmatrix.yaml" 644 /etc/wasmatrix/wasmatrix.yaml
		# It is the operator's from now on.
		grep -vx /etc/wasmatrix/wasmatrix.yaml "$work/installed" >"$work/kept"
		mv "$work/kept" "$work/installed"
	fi
	if has_systemd; then systemctl daemon-reload; fi
fi

if [ -f "$root$manifest" ]; then # what the version before had, and this one has not
	while read -r file; do
		grep -qx "$file" "$work/installed" || rm -f "$root$file"
	done <"$root$manifest"
fi
sort -o "$work/installed" "$work/installed"
put "$work/installed" 644 "$manifest"

echo "$version is installed as $prefix/bin/wasmatrix"
if [ "$systemd" = yes ]; then
	if has_systemd && systemctl --quiet is-active wasmatrix.service; then
		echo 'the node here still runs the version before; when its turn comes: systemctl restart wasmatrix'
	else
		echo 'tell the node about its cluster in /etc/wasmatrix/wasmatrix.yaml, then: systemctl enable --now wasmatrix'
	fi
fi
