# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# The kernels: Debian's own with its Rust metadata put back, and the User-Mode Linux builds from the same source.

# guest_kernel GUEST: the kernel that GUEST runs; dies for a name that is no guest.
guest_kernel() {
	case $1 in
	uml | uml-up | lockdep | kasan) echo "$1" ;;
	stock | qemu | virtme) echo stock ;;
	*) die "no such guest: $1 (there are uml, uml-up, lockdep, kasan, qemu, virtme)" ;;
	esac
}

# The variables, one a line, that `make` takes for a guest's kernel.
kernel_make_args() {
	case $1 in
	uml | uml-up | lockdep) echo ARCH=um ;;
	kasan) printf '%s\n' ARCH=um LLVM=1 ;;
	esac
}

# What of the build root a kernel is made of: compilers, bindgen, binutils, libc and the kernel packages themselves.
root_packages() {
	local root
	root=$(lab_root)
	grep -E '^(rustc|rust-src|bindgen|gcc-14|clang-19|binutils|libc6-dev|pahole|linux-(source|headers|kbuild|base)-[0-9]\S*) ' \
		"$root/usr/share/rvs-lab/packages"
}

# --- linux-source ---

source_make() {
	logged source "unpacking linux-source" in_root bash -euc "$(declare -f source_unpack); source_unpack \"\$1\"" -- "$1"
}
source_unpack() {
	tar -C "$1" --strip-components=1 -xJf /usr/src/linux-source-*.tar.xz
}
source_key() {
	{
		root_packages | grep '^linux-source-'
		declare -f source_unpack
	} | hash12
}
lab_source() {
	local key
	key=$(source_key)
	product source "$key" source_make
}

# --- the stock kernel ---

metadata_make() {
	local source
	source=$(lab_source)
	need_space 3000 "the stock kernel's Rust metadata"
	logged metadata "stock kernel: its Rust metadata" in_root \
		bash -euc "$(declare -f stock_metadata); stock_metadata \"\$@\"" -- "$1" "$source"
}

stock_make() {
	local metadata
	metadata=$(lab_metadata)
	logged stock "stock kernel: build tree, modules, initramfs" in_root \
		bash -euc "$(declare -f stock_kdir stock_modules stock_initramfs)
			stock_kdir \"\$@\"; stock_modules \"\$@\"; stock_initramfs \"\$@\"" -- \
		"$1" "$2" "$metadata" "$LAB_D"
}

# Build the Rust half of the kernel as Debian's builder did, and see that it offers exactly what Debian's image does.
stock_metadata() {
	local build=$1/build source=$2 headers missing
	headers=/usr/src/linux-headers-$(cat /usr/share/rvs-lab/release)
	mkdir -p "$build"
	cp "$headers/.config" "$build/.config"
	local args=(-C "$source" "O=$build" CC=x86_64-linux-gnu-gcc-14 HOSTCC=gcc)
	make "${args[@]}" olddefconfig
	make -j"$(nproc)" "${args[@]}" prepare modules_prepare
	sed -n 's/^EXPORT_SYMBOL_RUST_GPL(\(.*\));$/\1/p' "$build"/rust/exports_*_generated.h | sort >"$1/rust-symbols"
	cut -f 2 "$headers/Module.symvers" | sort >"$1/debian-symbols"
	[[ $(wc -l <"$1/rust-symbols") -gt 1000 ]] || { echo "too few Rust symbols: the metadata is not complete"; exit 1; }
	missing=$(comm -23 "$1/rust-symbols" "$1/debian-symbols")
	if [[ -n $missing ]]; then
		echo "the rebuilt Rust metadata does not match Debian's kernel; Module.symvers lacks:" "${missing//$'\n'/ }" |
			cut -c1-300
		exit 1
	fi
	echo "all $(wc -l <"$1/rust-symbols") Rust symbols are in Debian's Module.symvers"
	mkdir "$1/rust" "$1/scripts"
	mv "$build"/rust/*.rmeta "$build"/rust/*.so "$1/rust/"
	mv "$build/scripts/target.json" "$1/scripts/"
	rm -rf "$build" "$1/debian-symbols"
}

# A copy of Debian's headers with the metadata beside them.
stock_kdir() {
	local tmp=$1 final=$2 metadata=$3 release headers entry
	release=$(cat /usr/share/rvs-lab/release)
	headers=/usr/src/linux-headers-$release
	cp -a "$headers/." "$tmp/"
	rm "$tmp/scripts" "$tmp/tools"
	mkdir "$tmp/scripts"
	for entry in "$headers"/scripts/*; do
		ln -s "$(readlink -f "$entry")" "$tmp/scripts/"
	done
	ln -s "$(readlink -f "$headers/tools")" "$tmp/tools"
	cp "$metadata/scripts/target.json" "$tmp/scripts/"
	cp -r "$metadata/rust" "$tmp/rust"
	printf 'KBUILD_OUTPUT=%s\ninclude %s\n' "$final" "$(sed -n 's/^include //p' "$headers/Makefile")" >"$tmp/Makefile"
}

# The guest's modules, unpacked: networking and what the guest boots from, with all that they need.
stock_modules() {
	local tmp=$1 release deb
	release=$(cat /usr/share/rvs-lab/release)
	mkdir -p "$tmp/deb" "$tmp/boot" "$tmp/modules/$release"
	for deb in /usr/share/rvs-lab/*.deb; do
		dpkg-deb -x "$deb" "$tmp/deb"
	done
	[[ ! -d $tmp/deb/usr/lib/modules ]] || ln -sfn usr/lib "$tmp/deb/lib"
	find "$tmp/deb" -type f \( -name "vmlinuz-$release" -o -path "*/$release/vmlinuz" \) -exec cp {} "$tmp/boot/vmlinuz" \;
	[[ -s $tmp/boot/vmlinuz ]] || { echo "Debian's packages hold no vmlinuz for $release"; exit 1; }
	cp -n "/lib/modules/$release"/modules.* "$tmp/deb/lib/modules/$release/"
	depmod -b "$tmp/deb" "$release"
	python3 - "$tmp/deb/lib/modules/$release" "$tmp/modules/$release" <<-'END'
		import os, re, subprocess, sys
		full, out = sys.argv[1:]
		wanted = re.compile(r"kernel/(net/|crypto/|lib/|arch/x86/crypto/|drivers/virtio/|drivers/net/[^/]*\.ko"
		                    r"|drivers/net/(vxlan|ipvlan|wireguard|bonding|team)/|drivers/block/(loop|virtio_blk)"
		                    r"|drivers/char/hw_random/virtio|fs/(9p|netfs|overlayfs|fuse|nls)/)")
		unwanted = re.compile(r"kernel/net/(bluetooth|mac80211|wireless|nfc|can|rxrpc|sunrpc|atm|ax25|9p/9pnet_(rdma|xen)"
		                      r"|batman-adv|ieee802154|mac802154|smc|tipc|rds|ceph|hsr|dccp|6lowpan)")
		needs = {}
		for line in open(f"{full}/modules.dep"):
		    name, rest = line.split(":")
		    needs[name] = rest.split()
		picked, todo = set(), [n for n in needs if wanted.match(n) and not unwanted.match(n)]
		while todo:
		    name = todo.pop()
		    if name not in picked:
		        picked.add(name)
		        todo += needs[name]
		for name in picked:
		    plain = f"{out}/{re.sub(r'.(xz|zst)$', '', name)}"
		    os.makedirs(os.path.dirname(plain), exist_ok=True)
		    tool = {"xz": ["xz", "-dc"], "st": ["zstd", "-dcq"]}.get(name[-2:], ["cat"])
		    with open(plain, "wb") as file:
		        subprocess.run(tool + [f"{full}/{name}"], stdout=file, check=True)
		print(len(picked), "of", len(needs), "modules")
	END
	cp "$tmp/deb/lib/modules/$release/"modules.{order,builtin,builtin.modinfo} "$tmp/modules/$release/"
	mkdir "$tmp/deb-min"
	mkdir "$tmp/deb-min/lib"
	ln -s "$tmp/modules" "$tmp/deb-min/lib/modules"
	depmod -b "$tmp/deb-min" "$release"
	rm -rf "$tmp/deb" "$tmp/deb-min"
	echo "$release" >"$tmp/release"
}

# What the kernel needs to mount the build root over 9p, in loading order.
stock_initramfs() {
	local tmp=$1 release image=$1/initramfs module
	release=$(cat "$1/release")
	mkdir -p "$image/bin" "$image/modules" "$image/mnt/root" "$image/proc" "$image/dev"
	cp /bin/busybox "$image/bin/busybox"
	mkdir -p "$tmp/m/lib"
	ln -s "$tmp/modules" "$tmp/m/lib/modules"
	for module in virtio_pci 9pnet_virtio 9p overlay; do
		modprobe -d "$tmp/m" -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
	done | awk '!seen[$0]++' | while read -r module; do
		cp "$module" "$image/modules/"
		basename "$module" >>"$image/modules/order"
	done
	cp "$4/initramfs" "$image/init"
	(cd "$image" && find . | cpio -o -H newc --quiet) >"$tmp/boot/initramfs"
	rm -rf "$image" "$tmp/m"
}

# --- User-Mode Linux ---

# The configuration of a User-Mode Linux kernel: the common part and its own.
uml_config() {
	cat "$LAB_D/uml.config"
	case $1 in
	uml) echo CONFIG_SMP=y && echo CONFIG_NR_CPUS=8 ;;
	uml-up) echo CONFIG_SMP=n ;;
	*) cat "$LAB_D/$1.config" ;;
	esac
	echo "CONFIG_LOCALVERSION=\"-rvs-$1\""
	echo CONFIG_LOCALVERSION_AUTO=n
}

# The patches that a kernel is built with: files of scripts/lab.d that touch different files of the source.
uml_patches() {
	case $1 in
	uml) echo smp.patch ;;
	lockdep) echo debug.patch ;;
	kasan) echo debug.patch kasan.patch ;;
	esac
}

uml_make() {
	local tmp=$1 final=$2 kernel=$3 source lock patch
	source=$(lab_source)
	need_space 3000 "the $kernel kernel"
	uml_config "$kernel" >"$tmp/fragment"
	for patch in $(uml_patches "$kernel"); do
		in_root bash -euc "$(declare -f patched_files); patched_files \"\$@\"" -- "$tmp" "$source" "$LAB_D/$patch" ||
			die "$kernel: scripts/lab.d/$patch does not fit this kernel's source"
	done
	# One kernel at a time: two would share the processors and neither be ready soon.
	exec {lock}>"$LAB_CACHE/lock/building"
	if ! flock -n "$lock"; then
		say "$kernel: waiting for another kernel's build"
		flock "$lock"
	fi
	# shellcheck disable=SC2046
	logged "$kernel" "$kernel kernel" nice -n 5 "$LAB_SELF" run \
		bash -euc "$(declare -f uml_build); uml_build \"\$@\"" -- "$tmp" "$final" "$source" $(kernel_make_args "$kernel") {lock}>&-
	exec {lock}>&-
}

# The patched files of a kernel, and the headers beside them, in its output directory, where make finds them before those of
# the source.
patched_files() {
	local tmp=$1 source=$2 patch=$3 file
	sed -n 's|^+++ b/||p' "$patch" | while read -r file; do
		mkdir -p "$tmp/${file%/*}"
		find "$source/${file%/*}" -maxdepth 1 -name '*.h' -exec cp {} "$tmp/${file%/*}/" \;
		cp "$source/$file" "$tmp/$file"
	done
	patch --quiet --fuzz=0 -d "$tmp" -p1 <"$patch"
}

uml_build() {
	local tmp=$1 final=$2 source=$3 lost name value
	shift 3
	local args=(-C "$source" "O=$tmp" "$@")
	make "${args[@]}" "KCONFIG_ALLCONFIG=$tmp/fragment" allnoconfig
	lost=$(grep -E '^CONFIG_' "$tmp/fragment" | while IFS='=' read -r name value; do
		if [[ $value == n ]]; then
			! grep -q "^$name=" "$tmp/.config" || echo "$name=$value"
		else
			grep -qxF "$name=$value" "$tmp/.config" || echo "$name=$value"
		fi
	done)
	[[ -z $lost ]] || { echo "the kernel's configuration does not take: ${lost//$'\n'/ }"; exit 1; }
	make -j"$(nproc)" "${args[@]}"
	make "${args[@]}" "INSTALL_MOD_PATH=$tmp/installed" modules_install
	mv "$tmp/installed/lib/modules" "$tmp/modules"
	rm -f "$tmp"/modules/*/build
	cp "$tmp/include/config/kernel.release" "$tmp/release"
	# What a module is built against stays; the kernel's own objects go.
	find "$tmp" -path "$tmp/modules" -prune -o -type f \
		\( -name '*.o' -o -name '*.a' -o -name '*.ko' -o -name '.*.cmd' -o -name '*.mod' -o -name '*.mod.c' -o -name vmlinux \) \
		-exec rm -f {} +
	rm -rf "$tmp/installed"
	sed -i "s|$tmp|$final|g" "$tmp/Makefile"
}

metadata_key() {
	{
		root_packages
		declare -f stock_metadata
	} | hash12
}
lab_metadata() {
	local key
	key=$(metadata_key)
	product metadata "$key" metadata_make
}

# The hash of what a kernel is made from.
kernel_key() {
	root_packages
	case $1 in
	stock)
		declare -f stock_metadata stock_kdir stock_modules stock_initramfs
		cat "$LAB_D/initramfs"
		;;
	*)
		uml_config "$1"
		kernel_make_args "$1"
		declare -f uml_build
		local patch first=1
		for patch in $(uml_patches "$1"); do
			((!first)) || declare -f patched_files
			first=0
			cat "$LAB_D/$patch"
		done
		;;
	esac
}

# Print the directory of GUEST's kernel, made if need be: the KDIR, and in it what boots and its modules.
lab_kdir() {
	local kernel key
	kernel=$(guest_kernel "$1")
	key=$(kernel_key "$kernel" | hash12)
	case $kernel in
	stock) product stock "$key" stock_make ;;
	*) product "$kernel" "$key" uml_make ;;
	esac
}

help_kdir() {
	cat <<'END'
usage: scripts/lab kdir GUEST

Make the kernel that GUEST runs if it isn't there, and print the directory to build modules against (KDIR). Modules
are built inside the build root:
  scripts/lab run make -C "$(scripts/lab kdir uml)" M=$PWD ARCH=um KRUSTFLAGS="..." modules
`scripts/lab module GUEST` does this for rvs with all the right variables.
END
}
cmd_kdir() {
	(($# == 1)) || die "kdir: name one guest"
	lab_kdir "$1"
}
