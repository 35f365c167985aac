# What a shell of layerize reads: the user's own start file, and behind it what keeps the environment's programs first.
__layerize_path=$__LAYERIZE_PATH
__layerize_mark="(layerize:$LAYERIZE_SHELL) "
__layerize_before=
unset __LAYERIZE_PATH
if [ -r "$HOME/.bashrc" ]; then
  . "$HOME/.bashrc"
fi
# A prompt of the user's that shows it needs no help.
case "$PS1 ${PROMPT_COMMAND[*]} $(declare -f)" in
  *LAYERIZE_SHELL*) __layerize_mark= ;;
esac
# Puts the environment first, but for what stood before it when the user's last command ended.
__layerize_first() {
  local first=$__layerize_path left rest=":$PATH:" dir
  case ":$__layerize_before:" in
    *":$__layerize_path:"*)
      left=":$__layerize_before:"
      left=${left%%":$__layerize_path:"*}
      left=${left#:}
      first=${left:+$left:}$__layerize_path
      ;;
  esac
  left="$first:"
  while [ -n "$left" ]; do
    dir=${left%%:*}
    left=${left#*:}
    while [[ $rest == *":$dir:"* ]]; do
      rest=${rest%%":$dir:"*}:${rest#*":$dir:"}
    done
  done
  rest=${rest#:}
  rest=${rest%:}
  PATH=$first${rest:+:$rest}
  hash -r 2>/dev/null
}
__layerize_note() {
  local status=$?
  __layerize_before=$PATH
  return $status
}
__layerize_before_prompt() {
  local status=$?
  if [[ $PATH != "$__layerize_before" ]]; then
    __layerize_first
  fi
  if [ -n "$__layerize_mark" ] && [[ $PS1 != *"$__layerize_mark"* ]]; then
    PS1=$__layerize_mark$PS1
  fi
  return $status
}
__layerize_first
# What others do before each prompt stands between what was noted and what is put right.
if [[ $(declare -p PROMPT_COMMAND 2>/dev/null) == "declare -a"* ]]; then
  PROMPT_COMMAND=(__layerize_note "${PROMPT_COMMAND[@]}" __layerize_before_prompt)
else
  PROMPT_COMMAND=__layerize_note${PROMPT_COMMAND:+$'\n'$PROMPT_COMMAND}$'\n'__layerize_before_prompt
fi
