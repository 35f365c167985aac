# What cannot be found is told where the package itself is built. Of Go's library is compiled anew what C changes.
{
  go list -e -f '{{if and .Standard (not .Error)}}{{.ImportPath}}{{end}}' $layerize_imports
  layerize_go list -e -deps -f '{{if and .Module (not .Incomplete)}}{{if not .Module.Main}}{{if .Module.Replace
    }}{{if .Module.Replace.Version}}{{.ImportPath}}{{end}}{{else}}{{.ImportPath}}{{end}}{{end}}{{end}}'
} > /build/dependencies
(cd "$layerize_dir" && xargs -r go build -o /dev/null < /build/dependencies)
layerize_packages() { (cd "$layerize_dir" && xargs -r go list -export -deps -f "$1" < /build/dependencies); }
