# What CI runs.
check: fmt typos clippy signatures deny msrv proto docs book test shop

fmt:
    cargo fmt --check

clippy:
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy --package countersign-build --no-default-features -- -D warnings

# No dependency re-admits malleable signatures.
signatures:
    .ci/lenient-ed25519

# Needs buf (npm: @bufbuild/buf).
proto:
    cd proto && buf lint

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

test:
    cargo test

# What the tests of examples in other languages need, under target/. They skip without it.
languages:
    .ci/languages

# Crates of their own, as users have them.
shop:
    cargo test --manifest-path tests/fixtures/shop/Cargo.toml --target-dir target
    cargo build --manifest-path examples/starter/Cargo.toml --target-dir target

# Into target/book. Needs mdbook.
book:
    mdbook build docs

# Licences, sources and banned features. Needs cargo-deny.
deny:
    cargo deny check bans licenses sources

# The model of keys and revocations, further than CI goes: some minutes.
model:
    MODEL_FULL=1 cargo test --release --test model -- --nocapture --test-threads 1

# The real server, sessions and guards on a simulated network, with many seeds.
simulate seeds="1000":
    SIMULATION_SEEDS={{seeds}} cargo test --test simulation

# Ratios taken in one run; see benches/.
bench:
    cargo bench

# A thousand rotations and revocations under load, the server killed and restarted throughout: about a
# quarter of an hour. Prints its figures. `cargo test` has a small one.
storm:
    COUNTERSIGN_STORM=full cargo test --release --test storm -- --nocapture

# From an acknowledged revocation to the last of 100 guards refusing.
propagation:
    cargo bench --bench propagation

# What anyone can send, a million changes each, with any toolchain. `cargo test` does some.
fuzz-smoke:
    FUZZ_RUNS=1000000 cargo test --release --test fuzz -- --nocapture

# The same by coverage, for a minute each. Needs cargo-fuzz and a nightly toolchain.
fuzz:
    FUZZ_SEEDS=target/fuzz-seeds FUZZ_RUNS=0 cargo test --test fuzz
    for target in $(cargo +nightly fuzz list); do \
        ASAN_OPTIONS=detect_odr_violation=0 cargo +nightly fuzz run "$target" "target/fuzz-seeds/$target" -- -max_total_time=60 -max_len=8192; \
    done

# What may be misspelt. Needs typos (PyPI or crates.io).
typos:
    typos

# The oldest toolchain that Cargo.toml promises.
msrv:
    cargo +1.89 check --locked --workspace --all-targets

# Writes the files that tests compare with: the configuration reference, the CLI's transcripts, what
# build scripts generate, and the wire types of countersign-mesh.
regenerate:
    UPDATE_DOCS=1 cargo test --lib reference
    TRYCMD=overwrite cargo test --test cli
    UPDATE_GOLDEN=1 cargo test --package countersign-build --test compile
    UPDATE_GOLDEN=1 cargo test --test protos
