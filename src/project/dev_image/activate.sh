# Brings the dependencies of the package's language, and notes the variables that lead to them. `source` is where the package's
# source is in the project, and `views` the directories of it in which dependencies are laid out.
export LAYERIZE_ACTIVATED=1
# Other users of the container find it, too.
umask 022
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

# When a process started, if it still runs.
started() {
  local stat
  { stat=$(< "/proc/$1/stat"); } 2>/dev/null || return
  # The name of the program, in parentheses, may be anything.
  set -- ${stat##*)}
  case $1 in Z | X) return ;; esac
  echo "${20}"
}

is_running() {
  local process time
  read -r process time 2>/dev/null < /build/activating/process && [ -n "$time" ] && [ "$(started "$process")" = "$time" ]
}

# One shell brings them, and the others wait; what one has begun that was stopped is begun anew.
waited=0 idle=0
until mkdir /build/activating 2>/dev/null; do
  [ ! -e /build/activated ] || exit 0
  if [ ! -w /build ]; then
    tell "what the package depends on is not there: /build cannot be written to; give the container one (\`--tmpfs /build:exec\`)"
    exit 1
  fi
  if is_running; then idle=0; else idle=$((idle + 1)); fi
  if [ $idle -ge 10 ]; then
    if ! mv /build/activating "/build/stopped.$$" 2>/dev/null; then
      [ -d /build/activating ] || continue
      tell "what the package depends on is not there: another user's shell that was to bring it was stopped; make the container anew"
      exit 1
    fi
    idle=0
    continue
  fi
  waited=$((waited + 1))
  [ $waited -ne 50 ] || tell "another shell brings what the package depends on; this one waits"
  sleep 0.1
done
echo "$$ $(started $$)" > /build/activating/process
[ ! -e /build/activated ] || exit 0
if compgen -G '/build/stopped.*' > /dev/null; then
  for entry in /build/* /build/.[!.]*; do
    [ "$entry" = /build/activating ] || rm -rf "$entry"
  done
fi
cp -RP /usr/libexec/layerize/build/. /build || exit

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
