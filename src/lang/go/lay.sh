# What was compiled before: notes of it are copied, as Go writes to them; what they are of is linked to.
for layerize_part in "${LAYERIZE_GO_LIBRARY:-}" "${LAYERIZE_GO_DEPENDENCIES:-}"; do
  [ -n "$layerize_part" ] || continue
  (
    cd "$layerize_part"
    find . -name '*-a' -print0 | xargs -0 -r cp --parents --no-preserve=mode,timestamps -t /build/gocache
  )
  cp -rsu --no-preserve=all "$layerize_part/." /build/gocache
done
# Go removes what is old once a day.
date +%s > /build/gocache/trim.txt
