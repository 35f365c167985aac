# What a person's shell in the place of a build's script reads. Builtins and `sed` alone.
# The whole script, as the build runs it.
run_script() {
    (cd /build/source && @RUN@)
}
# Lines of the script, in this shell: `run_lines 3`, `run_lines 3 7`.
run_lines() {
    eval "$(sed -n "${1:?a number of a line},${2:-$1}p" @SCRIPT@)"
}
# The script with the numbers of its lines.
show_script() {
    sed = @SCRIPT@ | sed 'N; s/\n/\t/'
}
PS1="(build of $LAYERIZE_SHELL) \$ "
case $- in
*i*)
    printf 'The build of %s: %s.\n' @LABEL@ @NOTE@
    echo 'show_script, run_lines FROM [TO] and run_script go on; $src is the source, $out the result. Nothing is kept.'
    ;;
esac
