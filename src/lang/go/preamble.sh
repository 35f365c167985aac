export GOENV=off GO111MODULE=on GOTOOLCHAIN=local GOPROXY=off GOSUMDB=off GOTELEMETRY=off
export GOPATH=/build/gopath GOMODCACHE=/build/modcache GOCACHE=/build/gocache
mkdir -p /build/bin /build/gocache /build/gopath /build/modcache/cache/download
# A release of Debian's by its own name is not on the path.
if ! command -v go > /dev/null; then
  for layerize_root in /usr/lib/go-*/; do
    [ ! -x "${layerize_root}bin/go" ] || export PATH=${layerize_root}bin:$PATH
  done
fi
# Where Go is gets into its cache: a store path there would be a reference.
layerize_root=$(readlink -f "$(command -v go)")
layerize_root=${layerize_root%/bin/go}
case $layerize_root in
  /layerize/store/*)
    ln -s "$layerize_root" /build/go
    export GOROOT=/build/go PATH=/build/go/bin:$PATH
    ;;
esac
export PATH=/build/bin:$PATH
