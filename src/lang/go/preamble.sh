export GOENV=off GO111MODULE=on GOTOOLCHAIN=local GOPROXY=off GOSUMDB=off GOTELEMETRY=off
export GOPATH=/build/gopath GOMODCACHE=/build/modcache GOCACHE=/build/gocache
mkdir -p /build/bin /build/gocache /build/gopath /build/modcache/cache/download
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
