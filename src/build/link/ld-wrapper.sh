#!/bin/sh
# Made by layerize: links dynamic programs and shared objects to store paths. The real linker is @PROGRAM@.
set -f
layerize_program= layerize_shared= layerize_special= layerize_before=

layerize_look() {
    # For musl: its own loader is wanted, and libraries of another C library are not.
    case $layerize_before=$1 in
    *-dynamic-linker=*/ld-musl-*) layerize_special=1 ;;
    esac
    layerize_before=$1
    case $1 in
    -dynamic-linker | --dynamic-linker | -dynamic-linker=* | --dynamic-linker=*) layerize_program=1 ;;
    -shared | --shared | -Bshareable) layerize_shared=1 ;;
    -r | -i | -Ur | --relocatable | -no-dynamic-linker | --no-dynamic-linker) layerize_special=1 ;;
    esac
}

for layerize_argument; do
    layerize_look "$layerize_argument"
    case $layerize_argument in
    @*)
        # A response file: its words matter, not how they are quoted.
        [ -r "${layerize_argument#@}" ] || continue
        while read -r layerize_line || [ -n "$layerize_line" ]; do
            for layerize_word in $layerize_line; do
                layerize_look "$layerize_word"
            done
        done <"${layerize_argument#@}"
        ;;
    esac
done

if [ -z "$layerize_special" ] && [ -n "$layerize_program$layerize_shared" ]; then
    set -- "$@" --disable-new-dtags -rpath "@RPATH@"
    if [ -n "$layerize_program" ] && [ -n "@INTERPRETER@" ]; then
        set -- "$@" --dynamic-linker "@INTERPRETER@"
    fi
fi
exec @PROGRAM@ "$@"@SEARCHED@
