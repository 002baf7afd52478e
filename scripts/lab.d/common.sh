# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What every part of the lab uses: messages, locks, and products that are either complete or absent.

say() { printf 'lab: [%4d s] %s\n' $((EPOCHSECONDS - LAB_START)) "$*" >&2; }
die() {
	printf 'lab: error: %s\n' "$*" >&2
	exit 1
}

# True inside the build root, where `run` has nothing left to do.
inside() { [[ -n ${LAB_INSIDE:-} && -e /etc/rvs-lab ]]; }

# The first 12 digits of the hash of what is on standard input.
hash12() { sha256sum | cut -c1-12; }

# need_tool TOOL PACKAGE: have TOOL, or say which package brings it. Root on Debian gets it installed.
need_tool() {
	command -v "$1" >/dev/null && return
	if [[ $EUID == 0 && -x /usr/bin/apt-get ]] && ! inside; then
		say "installing $2"
		{ apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "$2"; } \
			>"$LAB_CACHE/log/apt.log" 2>&1 && command -v "$1" >/dev/null && return
		die "$1 is missing and package $2 could not be installed (log: $LAB_CACHE/log/apt.log)"
	fi
	die "$1 is missing: install the package $2"
}

need_space() {
	local free
	free=$(df --output=avail -BM "$LAB_CACHE" | tail -n 1 | tr -dc 0-9)
	((free >= $1)) || die "no space: $2 needs $1 MiB under $LAB_CACHE, $free MiB are free"
}

# logged NAME WHAT CMD...: run CMD with its output in a log; show progress; on failure show the log's end.
logged() {
	local name=$1 what=$2 log=$LAB_CACHE/log/$1.log pid rc=0 tick=0
	shift 2
	say "$what"
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	# shellcheck disable=SC2064
	trap "kill -KILL $pid 2>/dev/null; exit 130" INT TERM HUP
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.5
		((++tick % 40)) || say "$what: $(wc -l <"$log") lines of log"
	done
	wait "$pid" || rc=$?
	trap - INT TERM HUP
	((rc == 0)) && return
	tail -n 20 "$log" >&2
	if grep -qE 'Could not (resolve|connect)|Failed to fetch|Temporary failure|Unable to connect' "$log"; then
		die "$name: the mirror can't be reached; check the network, or name another in RVS_MIRROR (log: $log)"
	elif grep -q 'No space left on device' "$log"; then
		die "$name: no space left under $LAB_CACHE (log: $log)"
	fi
	die "$name failed (log: $log)"
}

# product NAME KEY MAKER: print the directory of product NAME made from inputs with hash KEY. When it is not there,
# MAKER is called with a temporary directory, the path that it will have and NAME; only when MAKER has finished does the
# one become the other, so what exists is complete. Two callers don't make it twice.
product() {
	local name=$1 final=$LAB_CACHE/$1-$2 maker=$3 tmp lock
	if [[ ! -e $final ]]; then
		mkdir -p "$LAB_CACHE/log" "$LAB_CACHE/lock" || die "can't write to $LAB_CACHE"
		tmp=$LAB_CACHE/tmp-$name-$2
		exec {lock}>"$LAB_CACHE/lock/$name"
		if ! flock -n "$lock"; then
			say "$name: another lab is making it; waiting"
			flock "$lock"
		fi
		if [[ ! -e $final ]]; then
			discard "$tmp"
			mkdir -p "$tmp"
			# The lock is ours alone: a background child that outlives us must not hold it.
			"$maker" "$tmp" "$final" "$name" {lock}>&- >&2
			mv -T "$tmp" "$final"
			say "$name: ready"
		fi
		exec {lock}>&-
	fi
	touch -c "$final"
	printf '%s\n' "$final"
}

# discard DIR...: delete directories, also those whose files belong to the users of a namespace.
discard() {
	local dir
	for dir; do
		[[ -e $dir ]] || continue
		rm -rf --one-file-system "$dir" 2>/dev/null ||
			unshare --map-root-user --map-auto rm -rf --one-file-system "$dir"
	done
}
