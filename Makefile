# SPDX-License-Identifier: GPL-2.0-only
#
# `make` builds rvs.ko (and rvs_ftp.ko) against the running kernel, or the one whose build tree is KDIR. Kbuild's variables (ARCH, LLVM,
# CC, O, MO, KRUSTFLAGS, V, W ...) go through to it. Everything else runs in the lab (scripts/lab, docs/lab.md) and
# needs nothing installed but mmdebstrap.

KDIR ?= /lib/modules/$(shell uname -r)/build
GUEST ?= uml
PEER ?= rvs
SCENARIO ?=
# How many scenarios of a run may pass at a second attempt only (they are named, and never those that the kernel had a word about).
AGAIN ?=
# What `make test` boots on the stock kernel.
QEMU_SCENARIOS ?= boot hooks ignore_tunneled

lab := scripts/lab
kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR) $(if $(MO),MO=$(abspath $(MO)))
in-root := $(lab) run
runner = $(in-root) scripts/rvs-test run $(addprefix --again ,$(AGAIN))
scenario-args = $(addprefix --scenario ,$(SCENARIO)) $(if $(JOBS),--jobs $(JOBS))

.PHONY: modules
modules: ## build rvs.ko and rvs_ftp.ko (default); KDIR= names another kernel's build tree, MO= another place for the result
	@scripts/check-kdir $(KDIR) $(O)
	+$(kbuild) modules

.PHONY: install
install: ## install both modules for the kernel of KDIR, with depmod (as root)
	@scripts/check-kdir $(KDIR) $(O)
	+$(kbuild) modules_install

.PHONY: install-rvsadm
install-rvsadm: ## install rvsadm, man pages and completions; RVSADM= a built one, PREFIX= (/usr/local), DESTDIR=, IPVSADM=1 also as ipvsadm
	@DESTDIR="$(DESTDIR)" PREFIX="$(or $(PREFIX),/usr/local)" IPVSADM="$(IPVSADM)" scripts/install-rvsadm $(RVSADM)

.PHONY: clean
clean: ## delete what the build has made here (not the lab's cache: scripts/lab clean)
	@if [ -e $(KDIR)/Makefile ]; then $(kbuild) clean; fi
	rm -rf build

##@ In the lab

.PHONY: lab
lab: ## make everything that the tests need: build root, kernels, guests (once, about 12 minutes)
	$(lab) all

.PHONY: lab-debug
lab-debug: ## make the two debug kernels
	$(lab) debug

.PHONY: rvsadm
rvsadm: ## build the static rvsadm; prints its path
	@$(in-root) scripts/build-rvsadm

.PHONY: rvs-toa
rvs-toa: ## build the static rvs-toa, which real servers behind FullNAT run; prints its path
	@$(in-root) scripts/build-rvs-toa

.PHONY: test
ifeq ($(origin SCENARIO)$(origin GUEST)$(origin PEER),filefilefile)
test: test-host test-scenarios test-boot ## host tests, all scenarios on uml, a boot test on qemu; SCENARIO= GUEST= PEER= choose
else
test:
	$(runner) --guest $(GUEST) --peer $(PEER) $(scenario-args)
endif

.PHONY: test-host
test-host: ## the tests that need no guest
	scripts/test-scripts
	$(in-root) cargo test --quiet --locked --workspace

.PHONY: test-miri
test-miri: ## rvs_core under Miri; needs this machine's cargo with a nightly toolchain that has it
	@cargo +nightly miri --version >/dev/null 2>&1 || { \
		echo "rvs: Miri is missing: rustup component add --toolchain nightly miri" >&2; exit 1; }
	PROPTEST_CASES=4 MIRIFLAGS=-Zmiri-disable-isolation CARGO_TARGET_DIR=build/miri cargo +nightly miri test --locked -p rvs_core

.PHONY: test-scenarios
test-scenarios: ## all scenarios on uml
	$(runner) --guest uml --peer rvs

.PHONY: test-boot
test-boot: ## the stock Debian kernel loads rvs and balances
	$(runner) --guest qemu --peer rvs $(addprefix --scenario ,$(QEMU_SCENARIOS))

.PHONY: test-peer
test-peer: ## all scenarios against the C module
	$(runner) --guest uml --peer c

.PHONY: test-debug
test-debug: ## all scenarios on the lockdep and kasan guests
	@$(lab) module kasan >/dev/null & $(lab) module lockdep >/dev/null; wait
	$(runner) --guest lockdep --peer rvs $(scenario-args)
	$(runner) --guest kasan --peer rvs $(scenario-args)

.PHONY: bench
bench: ## instructions and nanoseconds per packet, beside the C module; writes docs/benchmarks.md
	scripts/bench

.PHONY: demo
demo: ## watch rvs balance HTTP requests over three servers; GUEST=qemu: on the stock kernel
	scripts/demo $(GUEST)

.PHONY: lint
lint: ## rustfmt, clippy and shellcheck, nothing let through
	scripts/lint

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
