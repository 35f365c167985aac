layerize_download=/build/modcache/cache/download
# Nothing is started for each module: there may be a thousand.
while read -r name place; do
  IFS= read -r -d '' text < "${!name}" || true
  printf %s "$text" > "$layerize_download/$place.mod"
done < /build/go-mods
while read -r hash place; do
  printf %s "$hash" > "$layerize_download/$place.ziphash"
done < /build/go-zips
