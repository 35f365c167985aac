# Of Go's cache what `layerize_packages` names: what a package was compiled to, what was said meanwhile, and the header for
# others with C; so the same is kept whatever was compiled before. What was laid out is not kept again, nor are times.
mkdir "$out" /build/keys
layerize_packages '{{if .Export}}{{.Export}} {{if .CgoFiles}}C{{else}}-{{end}} {{if .Standard}}std{{else if not .Module}}-{{
  else if .Module.Main}}-{{else if not .Module.Replace}}{{.Module.Path}}@{{.Module.Version}}{{
  else if .Module.Replace.Version}}{{.Module.Replace.Path}}@{{.Module.Replace.Version}}{{else}}-{{end}}{{end}}' > /build/packages
(
  cd /build/gocache
  find . -name '*-a' -print0 | LC_ALL=C sort -z | xargs -0 -r cat > /build/actions
  gawk '
    NR == FNR { sub(/^.*\//, "", $1); sub(/-d$/, "", $1); if ($3 != "-") wanted[$1] = $2 " " $3; next }
    $1 == "v1" && $3 in wanted { bytes = $2; gsub(/../, "\\x&", bytes); print $2, bytes, wanted[$3] }
  ' /build/packages /build/actions > /build/compiled
  # What else belongs to a package has a name that Go derives from that of the package.
  while read -r layerize_id layerize_bytes layerize_c _; do
    printf "subkey:${layerize_bytes}stdout" > "/build/keys/$layerize_id-stdout"
    [ "$layerize_c" = - ] || printf "subkey:${layerize_bytes}_cgo_install.h" > "/build/keys/$layerize_id-header"
  done < /build/compiled
  (cd /build/keys && find . -type f -print0 | xargs -0 -r sha256sum) > /build/derived
  gawk '
    FILENAME == "/build/compiled" { owner[$1] = $4; next }
    FILENAME == "/build/derived" { sub(/^\.\//, "", $2); sub(/-.*/, "", $2); owner[$1] = owner[$2]; next }
    $1 == "v1" && $2 in owner {
      print $2, owner[$2] > "/build/owners"
      print $3, owner[$2] > "/build/owners"
      print "./" substr($2, 1, 2) "/" $2 "-a"
      print "./" substr($3, 1, 2) "/" $3 "-d"
    }
  ' /build/compiled /build/derived /build/actions | LC_ALL=C sort -u > /build/made
  : > /build/laid
  [ -z "${LAYERIZE_GO_LIBRARY:-}" ] || (cd "$LAYERIZE_GO_LIBRARY" && find . -type f | LC_ALL=C sort) > /build/laid
  LC_ALL=C comm -23 /build/made /build/laid | xargs -d '\n' -r cp --parents -L -t "$out"
)
find "$out" -name '*-a' -print0 | xargs -0 -r sed -i 's/[0-9 ]\{20\}$/                   1/'
