# Runloop at the prompt of zsh: a wish becomes `rlp -- 'wish'`, a shell line stays what it is, a line that
# destroys is shown and not run. Put in place by `rlp shell enable zsh`, taken away by `rlp shell disable zsh`.
# Every line goes to `rlp route` through a pipe, never as an argument: arguments are seen by everybody.
# RUNLOOP_SHELL=off in the environment turns it off; Alt-Enter runs a line as it is.

__runloop_wanted() {
    emulate -L zsh
    [[ -o interactive && -o zle && -t 0 && -t 1 ]] || return 1
    [[ ${RUNLOOP_SHELL:-on} != off && -z ${CI:-} && -z ${SSH_CONNECTION:-}${SSH_CLIENT:-}${SSH_TTY:-} ]] || return 1
    [[ -n ${TERM:-} && $TERM != dumb && -z ${INSIDE_EMACS:-} ]] || return 1
    [[ -z ${__runloop_on:-} ]]
}

__runloop_line() {
    emulate -L zsh
    local text=$PREBUFFER$BUFFER first said code lead=''
    local -a known
    if [[ $CONTEXT == (vared|select) || $text != *[![:space:]]* ]] || ! (( $+commands[rlp] )); then
        zle __runloop_accept
        return
    fi
    first=${${text##[[:space:]]#}%%[[:space:]]*}
    (( $+aliases[$first] || $+functions[$first] || $+galiases[$first] )) && known=(--known "$first")
    said=$(print -rn -- "$text" |
        "${__runloop_guard[@]}" rlp route --timeout-ms "${RUNLOOP_SHELL_MS:-800}" "${known[@]}" - 2>/dev/null)
    code=$?
    case $code in
        (10) __runloop_slow=0 ;;
        (11)
            __runloop_slow=0
            if [[ $CONTEXT == start ]]; then # else: the rest of a command, the shell's
                [[ $BUFFER == [[:space:]]* ]] && lead=' '
                BUFFER="${lead}rlp -- ${(qq)BUFFER}"
                CURSOR=$#BUFFER
            fi
            ;;
        (13)
            __runloop_slow=0
            zle -M "runloop: not run: ${said#denied: }"
            return 0
            ;;
        (*)
            if (( ++__runloop_slow >= 3 )); then
                zle -A __runloop_accept accept-line
                zle -M "runloop: rlp does not answer (exit $code); the prompt is as before in this shell"
            fi
            ;;
    esac
    zle __runloop_accept
}

if __runloop_wanted; then
    typeset -gi __runloop_on=1 __runloop_slow=0
    typeset -ga __runloop_guard
    (( $+commands[timeout] )) && __runloop_guard=(timeout 3)
    if [[ ${RUNLOOP_SHELL_KEY:-enter} == own ]]; then
        zle -A .accept-line __runloop_accept
        zle -N __runloop_line
        bindkey -M emacs '\e^M' __runloop_line
        bindkey -M viins '\e^M' __runloop_line
    else
        zle -A accept-line __runloop_accept # what others made of Enter goes on to work
        zle -N accept-line __runloop_line
        zle -A .accept-line __runloop_as_it_is
        bindkey -M emacs '\e^M' __runloop_as_it_is
        bindkey -M viins '\e^M' __runloop_as_it_is
    fi
fi
