# Brings the dependencies of the package's language, and notes the variables that lead to them. `source` is where the package's
# source is in the project, and `views` the directories of it in which dependencies are laid out.
export LAYERIZE_ACTIVATED=1
export LAYERIZE_SOURCE=${LAYERIZE_PROJECT:-$PWD}$source

tell() {
  echo "note: $1" >&2
}

# Written whole: another shell may be waiting for it.
note() {
  cat > /build/activated.new && mv /build/activated.new /build/activated
}

quoted() {
  local quote="'\\''"
  printf "'%s'" "${1//\'/"$quote"}"
}

is_mounted() {
  local at
  while read -r _ _ _ _ at _; do
    # The kernel writes spaces and the like as octal numbers.
    printf -v at %b "${at//\\/\\0}"
    [ "$at" != "$1" ] || return 0
  done < /proc/self/mountinfo
  return 1
}

# What of the variables is not as it was; what is before and after the former path stays there.
changed() {
  local name
  for name in $(compgen -e); do
    case $name in _ | PWD | OLDPWD | SHLVL | PATH) continue ;; esac
    if [ "${had[$name]-}" != yes ] || [ "${was[$name]}" != "${!name}" ]; then
      echo "export $name=$(quoted "${!name}")"
    fi
  done
  echo "export PATH=$(quoted "${PATH%%"$path"*}")\"\$PATH\"$(quoted "${PATH#*"$path"}")"
}

if ! mkdir /build/activating 2>/dev/null; then
  if [ ! -w /build ]; then
    tell "what the package depends on is not there: /build cannot be written to"
    exit 1
  fi
  until [ -e /build/activated ]; do
    if ! kill -0 "$(cat /build/activating/process 2>/dev/null)" 2>/dev/null && sleep 1 && [ ! -e /build/activated ]; then
      tell "what the package depends on is not there: the shell that was to bring it was stopped; make the container anew"
      exit 1
    fi
    sleep 0.1
  done
  exit 0
fi
echo $$ > /build/activating/process

for view in "${views[@]}"; do
  if ! is_mounted "$LAYERIZE_SOURCE/$view"; then
    tell "what the package depends on is not laid out in $view of $LAYERIZE_SOURCE: nothing is mounted there, as by the file of \`layerize env --devcontainer\`"
    note < /dev/null
    exit 0
  fi
done

declare -A was had
for name in $(compgen -e); do
  was[$name]=${!name} had[$name]=yes
done
path=$PATH
. /usr/libexec/layerize/language || exit
changed | note
