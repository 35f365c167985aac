# What a shell of layerize does behind the user's own start files, so that the environment's programs are found first.
set -g __layerize_path (string split : -- $__LAYERIZE_PATH)
set -g __layerize_before
set -e __LAYERIZE_PATH
# Puts the environment first, but for what stood before it when the user's last command ended.
function __layerize_first
    set -l first $__layerize_path
    if set -l at (contains -i -- $__layerize_path[1] $__layerize_before); and test $at -gt 1
        set first $__layerize_before[1..(math $at - 1)] $__layerize_path
    end
    set -l rest
    for dir in $PATH
        contains -- $dir $first; or set -a rest $dir
    end
    set -gx PATH $first $rest
end
__layerize_first
# What others do before each prompt stands between what is noted and what is put right.
function __layerize_note --on-event fish_postexec
    set -g __layerize_before $PATH
end
function __layerize_before_prompt --on-event fish_prompt
    if test "$PATH" != "$__layerize_before"
        __layerize_first
    end
end
# A prompt of the user's that shows it needs no help.
if functions -q fish_prompt
    and not string match -q '*LAYERIZE_SHELL*' -- (functions fish_prompt | string collect)
    functions -c fish_prompt __layerize_prompt
    set -g __layerize_mark "(layerize:$LAYERIZE_SHELL) "
    function __layerize_keep
        return $argv[1]
    end
    function fish_prompt
        set -l last $status
        echo -n $__layerize_mark
        __layerize_keep $last
        __layerize_prompt
    end
end
