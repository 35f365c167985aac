# The user's own `.zshenv`, where that is; then zsh looks for `.zshrc` beside this file.
__layerize_start=$ZDOTDIR
if [[ -n ${__LAYERIZE_ZDOTDIR-} ]]; then
  ZDOTDIR=$__LAYERIZE_ZDOTDIR
else
  unset ZDOTDIR
fi
unset __LAYERIZE_ZDOTDIR
if [[ -r ${ZDOTDIR:-$HOME}/.zshenv ]]; then
  . ${ZDOTDIR:-$HOME}/.zshenv
fi
__layerize_dotdir=${ZDOTDIR-}
ZDOTDIR=$__layerize_start
unset __layerize_start
