# The dependencies as they were compiled before: what is small is copied, with its time; what is large is linked to. Nothing is
# made that is replaced at once: that took a second.
mkdir -p /build/target
(
  cd "$LAYERIZE_RUST_DEPENDENCIES"
  find . ! -type d -size -33 -print0 |
    xargs -0 -r cp --parents -P --no-preserve=mode --preserve=timestamps -t /build/target
)
cp -rsu --no-preserve=all "$LAYERIZE_RUST_DEPENDENCIES/." /build/target
