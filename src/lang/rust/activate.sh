# Cargo builds where the user has it build, as the user calls it; the crates are those that are pinned.
sed -i -e '/^\[build\]$/d' -e '/^target-dir = /d' /build/layerize-cargo.toml
rm /build/bin/layerize-cargo-build
unset CARGO_INCREMENTAL LAYERIZE_CARGO_PROFILE
