layerize-cargo-build
case $LAYERIZE_CARGO_PROFILE in
  dev | test) layerize_made=debug ;;
  bench) layerize_made=release ;;
  *) layerize_made=$LAYERIZE_CARGO_PROFILE ;;
esac
for file in /build/target/"$layerize_made"/* /build/target/*/"$layerize_made"/*; do
  [ -f "$file" ] || continue
  case $file in
    *.d | *.rlib | *.rmeta) ;;
    *.so | *.a) install -D -m 644 "$file" "$out/lib/${file##*/}" ;;
    *) [ ! -x "$file" ] || install -D -m 755 "$file" "$out/bin/${file##*/}" ;;
  esac
done
if [ ! -e "$out" ]; then
  echo "cargo made neither a program nor a library that could be installed: write a \`script\` that fills \$out" >&2
  exit 1
fi
