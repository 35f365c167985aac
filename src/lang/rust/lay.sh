# The dependencies as they were compiled before: what is small is copied, with its time; what is large is linked to.
mkdir -p /build/target
cp -rs --no-preserve=all "$LAYERIZE_RUST_DEPENDENCIES/." /build/target
(
  cd "$LAYERIZE_RUST_DEPENDENCIES"
  find . ! -type d -size -33 -print0 |
    xargs -0 -r cp --parents --remove-destination -P --no-preserve=mode --preserve=timestamps -t /build/target
)
