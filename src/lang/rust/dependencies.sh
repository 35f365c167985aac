# What was compiled before of crates that are the same is laid by hard links, with the time of all that is in a store.
if [ -d /build/units ]; then
  mkdir -p /build/target
  for unit in /build/units/*/; do
    [ ! -d "$unit" ] || cp -al "$unit." /build/target
  done
  find /build/target -print0 | xargs -0 touch -h -d @1
fi
layerize-cargo-build
layerize-cargo-build --message-format json-render-diagnostics > /build/units.json
# Of a package that Cargo would compile again nothing is kept, nor of the members, whose sources are not the real ones.
gawk '
  {
    id = $0
    sub(/^.*"package_id":"/, "", id)
    sub(/".*$/, "", id)
  }
  id !~ /^(registry|sparse|git)\+/ { next }
  /^\{"reason":"compiler-artifact"/ {
    if ($0 !~ /"fresh":true\}$/) { stale[id] = 1; next }
    files = $0
    sub(/^.*"filenames":\[/, "", files)
    sub(/\].*$/, "", files)
    while (match(files, /-[0-9a-f]+[."\/]/)) {
      hash = substr(files, RSTART + 1, RLENGTH - 2)
      if (length(hash) == 16) kept[hash] = id
      files = substr(files, RSTART + RLENGTH - 1)
    }
  }
  /^\{"reason":"build-script-executed"/ {
    dir = $0
    sub(/^.*"out_dir":"/, "", dir)
    sub(/\/out".*$/, "", dir)
    ran[substr(dir, length(dir) - 15)] = id
  }
  END {
    for (hash in ran) if (!(ran[hash] in stale)) kept[hash] = ran[hash]
    for (hash in kept) print hash, kept[hash] > "/build/owners"
    for (hash in kept) print hash
  }
' /build/units.json | sort > /build/kept
mkdir "$out"
cd /build/target
find . -type d -name .fingerprint | sort | while read -r dir; do
  dir=${dir%/.fingerprint}
  mkdir -p "$out/$dir/.fingerprint" "$out/$dir/deps" "$out/$dir/build"
  while read -r hash; do
    for unit in "$dir"/.fingerprint/*-"$hash" "$dir"/deps/*-"$hash" "$dir"/deps/*-"$hash".* "$dir"/build/*-"$hash"; do
      [ ! -e "$unit" ] || mv "$unit" "$out/$unit"
    done
  done < /build/kept
done
# What a build script said counts by its instructions; the order of its other lines varies from run to run.
find "$out" -path '*/build/*/output' | while read -r said; do
  { grep '^cargo:' "$said" || true; } > /build/said
  cat /build/said > "$said"
  : > "${said%output}stderr"
done
# Cargo has a build script's program by two names.
find "$out" -path '*/build/*/build-script-*' -type f | while read -r program; do
  dir=${program%/*} name=${program##*/}
  twin=${name//-/_}-${dir##*-}
  [ ! -e "$dir/$twin" ] || ln -sf "$twin" "$program"
done
