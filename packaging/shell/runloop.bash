# Runloop at the prompt of bash: a wish becomes `rlp -- 'wish'`, a shell line stays what it is, a line that
# destroys is shown and not run. Put in place by `rlp shell enable bash`, taken away by `rlp shell disable bash`.
# Every line goes to `rlp route` through a pipe, never as an argument: arguments are seen by everybody.
# RUNLOOP_SHELL=off in the environment turns it off; Alt-Enter runs a line as it is.

__runloop_wanted() {
    [[ $- == *i* && -t 0 && -t 1 ]] || return 1
    [[ ${RUNLOOP_SHELL:-on} != off && -z ${CI:-} && -z ${SSH_CONNECTION:-}${SSH_CLIENT:-}${SSH_TTY:-} ]] || return 1
    [[ -n ${TERM:-} && $TERM != dumb && -z ${INSIDE_EMACS:-} ]] || return 1
    ((BASH_VERSINFO[0] > 4 || (BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4))) || return 1
    [[ -z ${__runloop_on:-} ]]
}

# A new prompt: what is typed next begins a command.
__runloop_prompt() { __runloop_fresh=1; }

# Decide what the next key of the macro does: run the line, or leave it where it is.
__runloop_then() { bind -m "$__runloop_map" "\"\C-x\C-z\": $1"; }

__runloop_line() {
    local line=$READLINE_LINE known=() lead='' first said code
    __runloop_map=emacs
    [[ -o vi ]] && __runloop_map=vi-insert
    __runloop_then accept-line
    if ((__runloop_fresh)); then __runloop_text=$line; else __runloop_text+=$'\n'$line; fi
    local fresh=$__runloop_fresh
    __runloop_fresh=0
    [[ $__runloop_text == *[![:space:]]* ]] || return
    hash rlp 2>/dev/null || return
    first=${line#"${line%%[![:space:]]*}"}
    first=${first%%[[:space:]]*}
    if alias -- "$first" &>/dev/null || declare -F -- "$first" &>/dev/null; then known=(--known "$first"); fi
    said=$(printf '%s' "$__runloop_text" |
        "${__runloop_guard[@]}" rlp route --timeout-ms "${RUNLOOP_SHELL_MS:-800}" "${known[@]}" - 2>/dev/null)
    code=$?
    case $code in
        10) __runloop_slow=0 ;;
        11)
            __runloop_slow=0
            ((fresh)) || return # only the rest of a command: the shell's
            [[ $line == [[:space:]]* ]] && lead=' '
            READLINE_LINE="${lead}rlp -- ${line@Q}"
            READLINE_POINT=${#READLINE_LINE}
            ;;
        13)
            __runloop_slow=0
            __runloop_fresh=$fresh
            ((fresh)) || __runloop_text=${__runloop_text%$'\n'"$line"}
            __runloop_then redraw-current-line
            printf 'runloop: not run: %s\n' "${said#denied: }" >&2
            ;;
        *)
            if ((++__runloop_slow >= 3)); then
                __runloop_off
                printf 'runloop: rlp does not answer (exit %s); the prompt is as before in this shell\n' "$code" >&2
            fi
            ;;
    esac
}

__runloop_off() {
    local map
    for map in emacs vi-insert; do
        bind -m "$map" '"\C-m": accept-line'
        bind -m "$map" '"\C-j": accept-line'
        bind -m "$map" -r '\e\C-m' 2>/dev/null
    done
}

if __runloop_wanted; then
    if [[ $(bind -q accept-line 2>/dev/null) == *'\C-m'* ]]; then
        __runloop_on=1 __runloop_fresh=0 __runloop_slow=0 __runloop_text='' __runloop_map=emacs
        __runloop_guard=()
        hash timeout 2>/dev/null && __runloop_guard=(timeout 3)
        if [[ $(declare -p PROMPT_COMMAND 2>/dev/null) == 'declare -a'* ]]; then
            PROMPT_COMMAND+=(__runloop_prompt)
        else
            PROMPT_COMMAND="${PROMPT_COMMAND:+$PROMPT_COMMAND$'\n'}__runloop_prompt"
        fi
        for __runloop_map in vi-insert emacs; do
            bind -m "$__runloop_map" -x '"\C-x\C-y": __runloop_line'
            bind -m "$__runloop_map" '"\C-x\C-z": accept-line'
            if [[ ${RUNLOOP_SHELL_KEY:-enter} == own ]]; then
                bind -m "$__runloop_map" '"\e\C-m": "\C-x\C-y\C-x\C-z"'
            else
                bind -m "$__runloop_map" '"\C-m": "\C-x\C-y\C-x\C-z"'
                bind -m "$__runloop_map" '"\C-j": "\C-x\C-y\C-x\C-z"'
                bind -m "$__runloop_map" '"\e\C-m": accept-line'
            fi
        done
    else
        printf 'runloop: Enter is bound to something else here; the prompt stays as it is\n' >&2
    fi
fi
