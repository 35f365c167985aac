mkdir -p /build/programs
layerize-go-build -o /build/programs/
for file in /build/programs/*; do
  [ ! -f "$file" ] || install -D -m 755 "$file" "$out/bin/${file##*/}"
done
if [ ! -e "$out" ]; then
  echo "go made no program: write a \`script\` that fills \$out" >&2
  exit 1
fi
