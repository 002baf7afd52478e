# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# The build root: Debian 13 with backports, holding the toolchain that built the target kernel, that kernel's headers and
# source, and every program the tests use.

ROOT_SUITE=trixie
ROOT_PACKAGES=(
	# the kernel and its toolchain
	build-essential rustc cargo rust-src rustfmt rust-clippy bindgen clang llvm lld libclang-dev flex bison bc
	libelf-dev libssl-dev libdw-dev pahole kmod cpio xz-utils zstd rsync python3 linux-headers-amd64/trixie-backports
	linux-source/trixie-backports
	# what tests, demo and benchmarks run
	ipvsadm keepalived ldirectord prometheus-node-exporter python3-pyroute2 nginx-light haproxy lksctp-tools tmux
	iproute2 nftables iptables ethtool socat curl iperf3 tcpdump conntrack iputils-ping bpftool
	busybox-static procps psmisc strace gdb qemu-system-x86 python3-venv file jq netcat-openbsd wrk
	# lint and userspace crates
	shellcheck pkg-config git ca-certificates
)

# The mirror this machine itself uses, from its own apt sources.
root_mirror() {
	local codename uri
	if [[ -n ${RVS_MIRROR:-} ]]; then
		printf '%s\n' "$RVS_MIRROR"
		return
	fi
	command -v apt-get >/dev/null || die "no apt sources to read a mirror from: set RVS_MIRROR to a Debian mirror's address"
	# shellcheck disable=SC1091
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	# shellcheck disable=SC2016
	uri=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(SITE) $(REPO_URI)' 'Created-By: Packages' |
		awk -v want="$codename" '$1 == want && $2 == "main" { print $NF; exit }')
	[[ -n $uri ]] || die "no Debian mirror in this machine's apt sources: set RVS_MIRROR to one's address"
	# The URI of a target ends in its dists/SUITE/... path only for indices; REPO_URI is the archive itself.
	printf '%s\n' "${uri%/}"
}

# What runs inside the new root before it is finished: fetch, unpacked, the image that the headers belong to.
root_hook() {
	set -eu
	release=$(dpkg-query -W -f '${Depends}' linux-headers-amd64 | tr ',' '\n' | sed -n 's/^ *linux-headers-\([^ ]*\).*/\1/p')
	test -n "$release"
	mkdir -p /usr/share/rvs-lab
	cd /usr/share/rvs-lab
	for kind in image binary modules; do
		if apt-cache show "linux-$kind-$release" >/dev/null 2>&1; then
			apt-get -q -o APT::Sandbox::User=root download "linux-$kind-$release"
		fi
	done
	ls ./*.deb
	echo "$release" >/usr/share/rvs-lab/release
	dpkg-query -W -f '${Package} ${Version}\n' >/usr/share/rvs-lab/packages
	echo 'the build root of rvs (scripts/lab)' >/etc/rvs-lab
	mkdir -p /out
}

root_make() {
	local tmp=$1 mirror packages hook
	need_tool mmdebstrap mmdebstrap
	need_space 12000 "the lab"
	mirror=$(root_mirror)
	packages=$(IFS=,; echo "${ROOT_PACKAGES[*]}")
	hook="$(declare -f root_hook); root_hook"
	{
		apt-config dump --format '%f "%v";%n' Acquire::http Acquire::https Acquire::Retries \
			Acquire::Check-Valid-Until Acquire::Check-Date 2>/dev/null || true
		echo 'APT::Install-Recommends "false";'
	} >"$LAB_CACHE/tmp-apt.conf"
	# shellcheck disable=SC2016 # for mmdebstrap's own shell
	local args=(
		--variant=minbase --include="$packages" --aptopt="$LAB_CACHE/tmp-apt.conf"
		--dpkgopt=path-exclude=/usr/share/man/* --dpkgopt=path-exclude=/usr/share/doc/*
		--dpkgopt=path-exclude=/usr/share/locale/*
		--customize-hook='chroot "$1" sh -c "$LAB_HOOK"'
	)
	local sources=("deb $mirror $ROOT_SUITE main" "deb $mirror $ROOT_SUITE-updates main"
		"deb $mirror $ROOT_SUITE-backports main")
	local what="build root: Debian $ROOT_SUITE from this machine's mirror"
	if [[ $EUID == 0 ]]; then
		LAB_HOOK=$hook logged root "$what" mmdebstrap --mode=root "${args[@]}" "$ROOT_SUITE" "$tmp" "${sources[@]}"
	else
		need_user_namespaces
		LAB_HOOK=$hook logged root "$what" root_make_as_user "$tmp" "${args[@]}" "$ROOT_SUITE" - "${sources[@]}"
	fi
	rm -f "$LAB_CACHE/tmp-apt.conf"
}

root_make_as_user() {
	local tmp=$1
	shift
	set -o pipefail
	mmdebstrap --mode=unshare --format=tar "$@" |
		unshare --map-root-user --map-auto tar -x --exclude='./dev/*' -C "$tmp"
}

need_user_namespaces() {
	unshare --map-root-user --map-auto --mount --pid --fork true 2>/dev/null ||
		die "an ordinary user needs user namespaces and subordinate ids here (package uidmap, /etc/subuid), or run this as root"
}

root_key() {
	{
		echo "$ROOT_SUITE" "${ROOT_PACKAGES[@]}"
		declare -f root_hook root_make root_make_as_user
		cat "$LAB_CACHE/epoch" 2>/dev/null || true
	} | hash12
}

# Print the build root's directory, made if need be.
lab_root() {
	if inside; then
		echo /
		return
	fi
	product root "$(root_key)" root_make
}

# in_root CMD...: run CMD in the build root, in this directory, with this machine's network and certificates.
in_root() {
	if inside; then
		"$@"
		return
	fi
	local root
	root=$(lab_root)
	root_namespace "$root" "$@"
}

# root_namespace ROOT CMD...: as in_root, in namespaces of its own: all that CMD leaves behind dies with it.
# With LAB_TIMEOUT set, it dies after that many seconds.
root_namespace() {
	local flags=(--mount --propagation private --pid --fork --kill-child) pid rc=0 limit=()
	# Changed roots are no mount points, and the one who is inside has private mounts already.
	! inside || flags[2]=unchanged
	if [[ $EUID != 0 ]]; then
		need_user_namespaces
		flags+=(--map-root-user --map-auto)
	fi
	local mortal=(setpriv --pdeathsig KILL)
	[[ -z ${LAB_TIMEOUT:-} ]] || limit=(timeout --foreground --signal=KILL "$LAB_TIMEOUT" "${mortal[@]}")
	"${mortal[@]}" "${limit[@]}" unshare "${flags[@]}" "$LAB_D/enter" "$@" <&0 &
	pid=$!
	# unshare holds back these signals while its child runs, so only KILL ends it, and with it the child.
	# shellcheck disable=SC2064
	trap "kill -KILL $pid 2>/dev/null; exit 143" TERM
	# shellcheck disable=SC2064
	trap "kill -KILL $pid 2>/dev/null; exit 130" INT HUP
	wait "$pid" || rc=$?
	trap - TERM INT HUP
	return "$rc"
}

help_root() {
	cat <<'END'
usage: scripts/lab root

Make the build root if it isn't there and print its directory. It is a Debian 13 system with backports: the compiler,
bindgen and headers of the current backports kernel, QEMU, ipvsadm, keepalived, nftables and what else the tests run.
END
}
cmd_root() { lab_root; }

help_run() {
	cat <<'END'
usage: scripts/lab run [--] CMD [ARGUMENT...]

Run CMD as root inside the build root. The checkout, the lab's cache, /tmp and the home directory have the same
paths as outside; the current directory is kept. The network, certificates, proxies and cargo's and pip's registry settings of this
machine hold. CARGO_HOME is in the cache and CARGO_TARGET_DIR is build/cargo, so nothing mixes with a Rust
toolchain of this machine. When CMD ends, all that it started ends too.
END
}
cmd_run() {
	[[ ${1:-} != -- ]] || shift
	(($#)) || die "run: no command given"
	in_root "$@"
}

help_update() {
	cat <<'END'
usage: scripts/lab update

Forget the build root's package versions. The next command that needs it makes a new one from the mirror's current
packages, and new kernels where these have changed. `lab clean --old` deletes what this leaves behind.
END
}
cmd_update() {
	mkdir -p "$LAB_CACHE"
	date +%s >"$LAB_CACHE/epoch"
	say "the next command that needs the build root makes a new one"
}
