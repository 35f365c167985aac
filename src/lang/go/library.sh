# Not all of it is for this system.
go list -e -f '{{if and .Standard (not .Error)}}{{.ImportPath}}{{end}}' $layerize_imports | xargs -r go build
