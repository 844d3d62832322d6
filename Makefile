# Each target installs the Debian packages it needs, by name, if they are missing.

TARGET  := $(shell rustc -vV | sed -n 's/^host: //p')
SKEP    := target/$(TARGET)/debug/skep
RELEASE := target/$(TARGET)/release/skep
N       ?= 10000

.PHONY: all build release test unit conformance hosts vm-test verify fix demo seeds docs bench-packages clean

all: build

build: packages-build
	cargo build --locked --package skep

release: packages-build
	cargo build --locked --release --package skep

# What aws-lc and zstd need: a C compiler.
.PHONY: packages-build packages-test packages-demo
packages-build:
	@scripts/packages gcc libc6-dev make
packages-test:
	@scripts/packages busybox-static nftables iproute2 iputils-ping procps util-linux mount docker-registry openssl skopeo python3 python3-docker python3-pytest
	@command -v docker >/dev/null || scripts/packages docker.io
packages-demo:
	@scripts/packages busybox-static curl iproute2 nftables

test: verify conformance hosts

unit: packages-build packages-test
	cargo test --locked --workspace

# The stock docker CLI and the Docker SDK for Python against the binary just built.
conformance: build packages-test
	SKEP=$(abspath $(SKEP)) scripts/in-netns /usr/bin/python3 -m pytest -q testkit/conformance

# Swarms of several machines in namespaces, driven by the stock docker CLI: what dies, stalls, or is cut off. About
# three minutes; SKEP_LONG=1 adds what takes longer.
hosts: build packages-test
	SKEP=$(abspath $(SKEP)) scripts/in-netns /usr/bin/python3 -m pytest -q testkit/hosts

# Changes nothing.
verify: packages-build packages-test
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	cargo test --locked --workspace
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; \
	else echo "NOT CHECKED: licences and bans, because cargo-deny is not installed (cargo install cargo-deny)"; fi

fix:
	cargo fmt --all

# skep on cgroup v2 and encrypted networks, in a virtual machine with a Debian kernel; says NOT RUN where there can be none.
vm-test: build
	SKEP=$(abspath $(SKEP)) NETWORK_TESTS="$$(scripts/test-binary network kernel)" testkit/vm/run

demo: build packages-demo
	SKEP=$(abspath $(SKEP)) scripts/demo

# Both kinds: one manager's decisions, and whole swarms.
seeds:
	SKEP_SEEDS=$(N) cargo test --locked --release --package sim --test seeds --test swarms

docs:
	SKEP_WRITE_DOCS=1 cargo test --locked --package api coverage

clean:
	cargo clean
