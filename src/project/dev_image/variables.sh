# Every shell of a dev image has the dependencies of the package's language: the first one of a container brings them.
if [ -z "${LAYERIZE_ACTIVATED-}" ]; then
  export LAYERIZE_ACTIVATED=1
  if [ -e /build/activated ] || /usr/libexec/layerize/activate; then
    . /build/activated
  fi
fi
