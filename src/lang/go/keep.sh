# Of Go's cache what was not laid into it, without the times at which it was made.
mkdir "$out"
(
  cd /build/gocache
  find . -type f -name '*-[ad]' | LC_ALL=C sort > /build/made
  : > /build/laid
  [ -z "${LAYERIZE_GO_LIBRARY:-}" ] || (cd "$LAYERIZE_GO_LIBRARY" && find . -type f | LC_ALL=C sort) > /build/laid
  LC_ALL=C comm -23 /build/made /build/laid | xargs -d '\n' -r cp --parents -t "$out"
)
find "$out" -name '*-a' -print0 | xargs -0 -r sed -i 's/[0-9 ]\{20\}$/                   1/'
