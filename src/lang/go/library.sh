# Not all of it is for this system.
go list -e -f '{{if and .Standard (not .Error)}}{{.ImportPath}}{{end}}' $layerize_imports > /build/library
xargs -r go build < /build/library
layerize_packages() { xargs -r go list -export -deps -f "$1" < /build/library; }
