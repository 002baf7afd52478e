# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What goes into a guest, and starting one.

# The variables, one a line, that `make` takes for a module of a guest's kernel: the module loader of User-Mode Linux knows no PIE relocations.
module_make_args() {
	case $1 in
	stock) ;;
	*)
		kernel_make_args "$1"
		echo "KRUSTFLAGS=-Crelocation-model=static -Ccode-model=large"
		;;
	esac
}

# Files that rvs.ko is made of, with their times: unchanged means nothing to do.
module_fingerprint() {
	local paths=()
	local path
	for path in Kbuild rvs scripts/kbuild; do
		[[ ! -e $LAB_TOP/$path ]] || paths+=("$path")
	done
	(cd "$LAB_TOP" && find "${paths[@]}" -type f -printf '%p %T@ %s\n' | sort)
}

# lab_module GUEST: build rvs.ko and rvs_ftp.ko for GUEST, and a module directory in which modprobe finds them; print the path of rvs.ko, beside
# which the other is.
lab_module() {
	local kernel kdir out fingerprint lock args=()
	kernel=$(guest_kernel "$1")
	kdir=$(lab_kdir "$kernel")
	out=$LAB_TOP/build/$kernel
	[[ -e $LAB_TOP/Kbuild ]] || die "there is no Kbuild in $LAB_TOP: nothing to build"
	mkdir -p "$out"
	exec {lock}>"$out/.lock"
	flock "$lock"
	fingerprint=$(echo "$kdir $(module_fingerprint)" | hash12)
	if [[ ! -e $out/rvs.ko || $(cat "$out/.fingerprint" 2>/dev/null) != "$fingerprint" ]]; then
		rm -f "$out/.fingerprint"
		mapfile -t args < <(module_make_args "$kernel")
		in_root bash -euc "$(declare -f module_build); module_build \"\$@\"" -- "$kdir" "$out" "$LAB_TOP" "${args[@]}" \
			{lock}>&- >&2 || die "rvs.ko does not build for $kernel"
		echo "$fingerprint" >"$out/.fingerprint"
	fi
	exec {lock}>&-
	printf '%s\n' "$out/rvs.ko"
}
module_build() {
	local kdir=$1 out=$2 top=$3 release
	shift 3
	make --no-print-directory -j"$(nproc)" -C "$kdir" "M=$top" "MO=$out" "$@" modules
	release=$(cat "$kdir/release")
	local modules=$out/modules/lib/modules/$release
	rm -rf "$out/modules"
	mkdir -p "$modules/updates"
	ln -s "$kdir/modules/$release/kernel" "$modules/kernel"
	ln -s "$out/rvs.ko" "$out/rvs_ftp.ko" "$modules/updates/"
	cp "$kdir/modules/$release/"modules.{order,builtin,builtin.modinfo} "$modules/"
	# In place of the old one at once: a guest that is being started finds either.
	local name
	for name in rvs_ftp rvs; do
		cp "$out/rvs/$name.ko" "$out/.$name.ko" && mv "$out/.$name.ko" "$out/$name.ko"
	done
	depmod -b "$out/modules" "$release"
}

help_module() {
	cat <<'END'
usage: scripts/lab module GUEST

Build rvs.ko from this checkout for GUEST's kernel, into build/GUEST/ (build/stock/ for qemu and virtme), and print its path. In the guest
`modprobe rvs` finds it too. Nothing happens when nothing has changed.
END
}
cmd_module() {
	(($# == 1)) || die "module: name one guest"
	lab_module "$1"
}

help_boot() {
	cat <<'END'
usage: scripts/lab boot GUEST [OPTIONS] -- CMD [ARGUMENT...]

Boot GUEST and run CMD in it as root, in this directory. The console and what CMD prints go to standard output; the
last line is LAB-EXIT: and CMD's exit status, which is boot's as well. 124 means that the time was up, 125 that the
guest died. The guest sees the build root, the checkout and the cache read-only at their paths; /etc, /var, /tmp, /run are its own.
Any number of guests may run at once. CMD finds the path of rvs.ko in $RVS_KO; `modprobe rvs` works, and so do `modprobe ip_vs` and
the like. Variables named RVS_* and RUST_BACKTRACE are passed on.

  --out DIR     a directory of this machine that the guest sees as /out and can write to; gets the kernel's log as dmesg.txt
  --mem SIZE    memory (2G)
  --cpus N      processors (2; always 1 on uml-up and kasan)
  --timeout S   give up after S seconds (600)
  --icount      qemu: one guest nanosecond per instruction, on one processor
  --cpu MODEL   qemu: the processor's model (max)
  --plugin SPEC qemu: a TCG plugin, with its arguments
  --append STR  more for the kernel's command line
  --no-module   don't build rvs.ko
  --verbose     the whole boot log
END
}

cmd_boot() {
	local guest=${1:-} mem=2G cpus=2 timeout=600 icount='' out='' append='' module=1 quiet=quiet cpu=max plugin=''
	[[ -n $guest && $guest != -* ]] || die "boot: name a guest first"
	shift
	while (($#)); do
		case $1 in
		--mem) mem=$2 && shift 2 ;;
		--cpus) cpus=$2 && shift 2 ;;
		--timeout) timeout=$2 && shift 2 ;;
		--out) out=$2 && shift 2 ;;
		--append) append=$2 && shift 2 ;;
		--cpu) cpu=$2 && shift 2 ;;
		--plugin) plugin=$2 && shift 2 ;;
		--icount) icount=1 cpus=1 && shift ;;
		--no-module) module='' && shift ;;
		--verbose) quiet='' && shift ;;
		--) shift && break ;;
		*) die "boot: no such option: $1" ;;
		esac
	done
	(($#)) || die "boot: no command; it goes after --"
	local kernel kdir ko='' modules job rc=0 code started
	kernel=$(guest_kernel "$guest")
	kdir=$(lab_kdir "$kernel")
	modules=$kdir/modules
	if [[ -n $module ]]; then
		ko=$(lab_module "$kernel")
		modules=$LAB_TOP/build/$kernel/modules/lib/modules
	fi
	if [[ -n $out ]]; then
		mkdir -p "$out"
		out=$(readlink -f "$out")
		export LAB_OUT=$out
	fi
	mkdir -p "$LAB_CACHE/run"
	job=$(mktemp -d "$LAB_CACHE/run/XXXXXXXX")
	# shellcheck disable=SC2064
	trap "rm -rf '$job'" EXIT
	{
		local name
		for name in $(compgen -e); do
			case $name in RVS_* | RUST_BACKTRACE) printf 'export %s=%q\n' "$name" "${!name}" ;; esac
		done
		[[ -z $ko ]] || printf 'export RVS_KO=%q\n' "$ko"
		printf 'export RVS_GUEST=%q LAB_TOP=%q LAB_CACHE=%q\n' "$guest" "$LAB_TOP" "$LAB_CACHE"
		printf 'lab_modules=%q\nlab_out=%q\nlab_kind=%q\n' "$modules" "$out" "$kernel"
		printf 'lab_run() {\n\tcd %q 2>/dev/null || cd %q\n\t' "$PWD" "$LAB_TOP"
		printf '%q ' "$@"
		printf '\n}\n'
	} >"$job/job"
	local user_append=$append
	append="$quiet printk.time=1 panic=-1 oops=panic lab_job=$job lab_init=$LAB_D/init $append"

	local line=()
	case $kernel in
	stock) qemu_line ;;
	*) uml_line ;;
	esac
	[[ $guest != virtme ]] || virtme_line
	started=$EPOCHSECONDS
	# Not a pipe: the guest is this shell's own child, which ends with it.
	local sink sink_pid
	exec {sink}> >(sed -u 's/\r*$//' | tee "$job/console")
	sink_pid=$!
	LAB_TIMEOUT=$timeout root_namespace "$(lab_root)" "${line[@]}" </dev/null >&"$sink" 2>&1 {sink}>&- || rc=$?
	exec {sink}>&-
	wait "$sink_pid" || true
	code=$(sed -n 's/^.*LAB-EXIT: \([0-9]\{1,3\}\)$/\1/p' "$job/console" | tail -n 1)
	if [[ -n $code ]]; then
		return "$code"
	elif ((EPOCHSECONDS - started >= timeout)); then
		say "$guest: no end after $timeout seconds"
		return 124
	fi
	say "$guest: died (status $rc)"
	return 125
}

# What starts the guest, into the array `line`; the variables are those of cmd_boot.
# shellcheck disable=SC2054 # commas within words
uml_line() {
	case $kernel in
	# Checks and poison, but not who allocated: a stack trace per allocation costs more than all the rest here.
	lockdep) append="slab_debug=FZP $append" ;;
	kasan | uml-up) cpus=1 ;;
	esac
	line=("$kdir/linux" "mem=$mem" seccomp=on root=/dev/root rootfstype=hostfs ro
		"init=$LAB_D/init" con=null con0=fd:0,fd:1)
	[[ $kernel == uml-up ]] || line+=("ncpus=$cpus")
	local words
	read -ra words <<<"$append"
	line+=("${words[@]}")
}

# shellcheck disable=SC2054
qemu_line() {
	local accel=tcg,thread=multi
	[[ -z $icount ]] || accel=tcg,thread=single
	line=(qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -smp "$cpus" -m "$mem" -nodefaults -no-user-config -display none
		-serial stdio -no-reboot -kernel "$kdir/boot/vmlinuz" -initrd "$kdir/boot/initramfs"
		-append "console=ttyS0 no_timer_check $append"
		-fsdev "local,id=root,path=/,security_model=none,multidevs=remap"
		-device virtio-9p-pci,fsdev=root,mount_tag=root)
	[[ -z $icount ]] || line+=(-icount "shift=0,sleep=off")
	[[ -z $plugin ]] || line+=(-plugin "$plugin")
	[[ -z $out ]] || line+=(-fsdev "local,id=out,path=$out,security_model=none" -device virtio-9p-pci,fsdev=out,mount_tag=out)
}

# virtme-ng brings its own initramfs and first process; ours has only the job to run.
virtme_line() {
	local virtme
	virtme=$(lab_virtme)
	export LAB_MODULES=$modules
	# Its -v brings the kernel's console.
	line=(env "PATH=$virtme/bin:/usr/sbin:/usr/bin:/sbin:/bin" vng -v --run "$kdir/boot/vmlinuz" --root /
		--disable-kvm --disable-microvm --cpus "$cpus" --memory "$mem" --user root
		--append "loglevel=5 panic=-1 oops=panic $user_append" --exec "$LAB_D/job $job")
	[[ -z $out ]] || line+=(--rwdir "/out=$out")
}

virtme_make() {
	logged virtme "virtme-ng from PyPI" in_root bash -euc "$(declare -f virtme_install); virtme_install \"\$@\"" -- "$1" "$2"
}
virtme_install() {
	python3 -m venv "$1"
	"$1/bin/pip" --quiet install virtme-ng
	grep -lIr "$1" "$1/bin" "$1/pyvenv.cfg" | xargs sed -i "s|$1|$2|g"
}
virtme_key() {
	{
		root_packages
		declare -f virtme_install
	} | hash12
}
lab_virtme() {
	local key
	key=$(virtme_key)
	product virtme "$key" virtme_make
}

help_all() {
	cat <<'END'
usage: scripts/lab all

Make everything that `make test` needs: the build root, the stock kernel with its Rust metadata, the User-Mode Linux
guest. Cold, that is about 12 minutes on two cores; afterwards nothing. uml-up, for `make bench`, is made when it is first used.
END
}
cmd_all() {
	local kernel
	for kernel in stock uml; do
		lab_kdir "$kernel" >/dev/null
	done
	say "all there"
}

help_debug() {
	cat <<'END'
usage: scripts/lab debug

Make the two debug kernels: lockdep (lockdep, RCU and sleep checks, DEBUG_OBJECTS) and kasan (KASAN, kmemleak,
fault injection). About 10 minutes each on two cores, once.
END
}
cmd_debug() {
	lab_kdir lockdep >/dev/null
	lab_kdir kasan >/dev/null
	say "both there"
}

# Every product's name and the directory that it has or would have now.
current_products() {
	local key kernel root
	root=root-$(root_key)
	echo "root $root"
	[[ -d $LAB_CACHE/$root ]] || return 0
	key=$(source_key)
	echo "source source-$key"
	key=$(metadata_key)
	echo "metadata metadata-$key"
	key=$(virtme_key)
	echo "virtme virtme-$key"
	for kernel in stock uml uml-up lockdep kasan; do
		key=$(kernel_key "$kernel" | hash12)
		echo "$kernel $kernel-$key"
	done
}

help_status() {
	cat <<'END'
usage: scripts/lab status

Say which parts of the lab are there and how big they are, and what is left over from older versions.
END
}
cmd_status() {
	local name dir
	current_products | while read -r name dir; do
		if [[ -d $LAB_CACHE/$dir ]]; then
			printf '%-8s %6s  %s\n' "$name" "$(du -sh "$LAB_CACHE/$dir" 2>/dev/null | cut -f 1)" "$LAB_CACHE/$dir"
		else
			printf '%-8s %6s  not made yet\n' "$name" -
		fi
	done
	for dir in $(old_products); do
		printf '%-8s %6s  %s\n' old "$(du -sh "$dir" 2>/dev/null | cut -f 1)" "$dir"
	done
}

# Products that no current version uses, and what interrupted builds have left.
old_products() {
	local current dir
	current=$(current_products | cut -d ' ' -f 2)
	for dir in "$LAB_CACHE"/{root,source,metadata,virtme,stock,uml,uml-up,lockdep,kasan}-????????????; do
		[[ ! -d $dir ]] || grep -qxF "${dir##*/}" <<<"$current" || echo "$dir"
	done
	for dir in "$LAB_CACHE"/tmp-*; do
		[[ ! -e $dir ]] || echo "$dir"
	done
	# What boots that were killed have left.
	find "$LAB_CACHE/run" -mindepth 1 -maxdepth 1 -mmin +600 2>/dev/null || true
}

help_clean() {
	cat <<'END'
usage: scripts/lab clean [--old]

Delete all that the lab has made in its cache; with --old, only what the current version of the checkout and of the
build root no longer uses. Don't do it while a lab is running.
END
}
cmd_clean() {
	local dir
	if [[ ${1:-} == --old ]]; then
		for dir in $(old_products); do
			say "deleting $dir"
			discard "$dir"
		done
		return
	fi
	(($# == 0)) || die "clean: no such option: $1"
	discard "$LAB_CACHE"
}
