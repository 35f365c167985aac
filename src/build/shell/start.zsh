# What a shell of layerize reads: the user's own start file, and behind it what keeps the environment's programs first.
typeset -g __layerize_path=$__LAYERIZE_PATH __layerize_mark="(layerize:$LAYERIZE_SHELL) " __layerize_before=
unset __LAYERIZE_PATH
if [[ -n $__layerize_dotdir ]]; then
  ZDOTDIR=$__layerize_dotdir
else
  unset ZDOTDIR
fi
unset __layerize_dotdir
if [[ -r ${ZDOTDIR:-$HOME}/.zshrc ]]; then
  . ${ZDOTDIR:-$HOME}/.zshrc
fi
# A prompt of the user's that shows it needs no help.
if [[ "$PROMPT $RPROMPT $(functions)" == *LAYERIZE_SHELL* ]]; then
  __layerize_mark=
fi
# Puts the environment first, but for what stood before it when the user's last command ended.
__layerize_first() {
  emulate -L zsh
  local -a first before rest
  first=(${(s.:.)__layerize_path})
  before=(${(s.:.)__layerize_before})
  local -i at=${before[(ie)${first[1]}]}
  if (( at <= $#before )); then
    first=(${before[1,at-1]} $first)
  fi
  rest=(${path:|first})
  path=($first $rest)
  rehash
}
__layerize_note() {
  local __layerize_status=$?
  __layerize_before=$PATH
  return $__layerize_status
}
__layerize_before_prompt() {
  local __layerize_status=$?
  emulate -L zsh
  if [[ $PATH != $__layerize_before ]]; then
    __layerize_first
  fi
  if [[ -n $__layerize_mark && $PROMPT != *"$__layerize_mark"* ]]; then
    PROMPT=$__layerize_mark$PROMPT
  fi
  return $__layerize_status
}
__layerize_first
# What others do before each prompt stands between what was noted and what is put right; `precmd` itself would come before that.
if (( $+functions[precmd] )); then
  functions[__layerize_users_precmd]=$functions[precmd]
  unfunction precmd
  precmd_functions=(__layerize_users_precmd $precmd_functions)
fi
precmd_functions=(__layerize_note $precmd_functions __layerize_before_prompt)
