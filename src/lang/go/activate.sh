# What is compiled stays with the user, where there is a home.
[ ! -w "${HOME:-/}" ] || export GOCACHE=$HOME/.cache/go-build
