#!/usr/bin/env bash
# Installs what the tests need beyond Go: clang, lld and wasi-libc, rustc with its library for WASI, and node with the
# AssemblyScript compiler, to build guests; redis and etcd, on which keys and values can be kept; chromium and axe-core, to look at
# the status page; QuickJS and CPython for WASI, which are run as guests; promtool, which reads the alert rules; zsh and fish, at whose prompts Tab is pressed; mandoc, which reads manual pages; shellcheck; a C compiler for the race detector; and
# for root on Linux iproute2, with which a test splits a network, and strace, with which one hangs a disk. Does nothing where they
# are there already.
set -euo pipefail

sysroots=(/usr /usr/share/wasi-sysroot /usr/share /opt/homebrew/share/wasi-sysroot /usr/local/share/wasi-sysroot /opt/wasi-sdk/share/wasi-sysroot)

have_wasi_libc() {
	[[ -n ${WASI_SYSROOT:-} && -d $WASI_SYSROOT ]] && return 0
	local root triple
	for root in "${sysroots[@]}"; do
		for triple in wasm32-wasi wasm32-wasip1; do
			[[ -f $root/lib/$triple/libc.a ]] && return 0
		done
	done
	return 1
}

have_wasi_rust() {
	local rustc triple
	for rustc in rustc /usr/bin/rustc; do
		command -v "$rustc" >/dev/null || continue
		for triple in wasm32-wasip1 wasm32-wasi; do
			compgen -G "$("$rustc" --print sysroot)/lib/rustlib/$triple/lib/libstd-*.rlib" >/dev/null && return 0
		done
	done
	return 1
}

have_chromium() {
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || [[ -d /Applications/Chromium.app ]]
}

missing() {
	command -v clang >/dev/null || echo clang
	command -v wasm-ld >/dev/null || echo lld
	have_wasi_libc || echo wasi-libc
	command -v gcc >/dev/null || command -v clang >/dev/null || echo 'a C compiler'
	have_wasi_rust || echo 'rustc for wasm32-wasi'
	command -v npm >/dev/null || echo npm
	command -v redis-server >/dev/null || echo redis-server
	command -v etcd >/dev/null || echo etcd
	have_chromium || echo chromium
	command -v promtool >/dev/null || echo promtool
	command -v zsh >/dev/null || echo zsh
	command -v fish >/dev/null || echo fish
	command -v mandoc >/dev/null || echo mandoc
	command -v shellcheck >/dev/null || echo shellcheck
	if [[ $(uname) == Linux && $(id -u) -eq 0 ]]; then
		command -v ip >/dev/null || echo iproute2
		command -v strace >/dev/null || echo strace
	fi
}

# from_npm puts what a lock file says beside it.
from_npm() {
	local what=$1 dir
	dir=$(dirname "$0")/../$2
	[[ -d $dir/node_modules && $dir/node_modules -nt $dir/package-lock.json ]] && return 0
	echo "setup: installing $what into $2"
	npm ci --prefix "$dir" --no-audit --no-fund --loglevel error && touch "$dir/node_modules"
}

packages() {
	from_npm 'the AssemblyScript compiler' sdk/as
	from_npm axe-core web/testdata/axe
	from_npm 'QuickJS and CPython for WASI' runtime/meter/testdata/large
}

lacks=$(missing | paste -sd, -)
if [[ -z $lacks ]]; then
	packages
	exit
fi
echo "setup: installing $lacks"

as_root() {
	if [[ $(id -u) -eq 0 ]]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "setup: neither root nor sudo; please run as root: $*" >&2
		return 1
	fi
}

if command -v apt-get >/dev/null; then
	as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
	# The servers are for tests, which start their own: none is to run beside them.
	as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends clang lld wasi-libc gcc libc6-dev iproute2 strace \
		rustc libstd-rust-dev-wasm32 redis-server etcd-server $(have_chromium || echo chromium) prometheus zsh fish mandoc shellcheck $(command -v npm >/dev/null || echo nodejs npm)
elif command -v dnf >/dev/null; then
	as_root dnf install -y clang lld wasi-libc-devel wasi-libc-static gcc iproute strace rust rust-std-static-wasm32-wasip1 redis etcd chromium golang-github-prometheus zsh fish mandoc ShellCheck nodejs npm
elif command -v apk >/dev/null; then
	as_root apk add clang lld wasi-libc wasi-compiler-rt gcc musl-dev iproute2 strace rust rust-wasm redis etcd chromium prometheus zsh fish mandoc shellcheck nodejs npm
elif command -v brew >/dev/null; then
	brew install llvm lld wasi-libc wasi-runtimes rustup redis etcd prometheus zsh fish mandoc shellcheck node
	have_chromium || brew install --cask chromium
	echo "setup: put $(brew --prefix llvm)/bin in PATH: the clang of Xcode builds no WebAssembly"
else
	echo "setup: no apt-get, dnf, apk or brew here; please install clang, lld, wasi-libc, rustc for wasm32-wasip1, redis, etcd, chromium, promtool, zsh, fish, mandoc, shellcheck and npm by hand" >&2
	exit 1
fi

lacks=$(missing | paste -sd, -)
if [[ -n $lacks ]]; then
	echo "setup: still missing after the installation: $lacks" >&2
	exit 1
fi
packages
