# What CI runs.
check: fmt clippy proto docs test

fmt:
    cargo fmt --check

clippy:
    cargo clippy --all-targets -- -D warnings
    cargo clippy --no-default-features --features mesh --all-targets -- -D warnings

# Needs buf (npm: @bufbuild/buf).
proto:
    cd proto && buf lint

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

test:
    cargo test

# Licences, sources and banned features. Needs cargo-deny.
deny:
    cargo deny check bans licenses sources

# Ratios taken in one run; see benches/.
bench:
    cargo bench

# Writes the files that tests compare with: the configuration reference and the CLI's transcripts.
regenerate:
    UPDATE_DOCS=1 cargo test --lib reference
    TRYCMD=overwrite cargo test --test cli
