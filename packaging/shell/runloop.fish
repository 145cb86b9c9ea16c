# Runloop at the prompt of fish: a wish becomes `rlp -- 'wish'`, a shell line stays what it is, a line that
# destroys is shown and not run. Put in place by `rlp shell enable fish`, taken away by `rlp shell disable fish`.
# Every line goes to `rlp route` through a pipe, never as an argument: arguments are seen by everybody.
# RUNLOOP_SHELL=off in the environment turns it off; Alt-Enter runs a line as it is.

function __runloop_wanted
    status is-interactive; and isatty stdin; and isatty stdout; or return 1
    test "$RUNLOOP_SHELL" != off -a -z "$CI" -a -z "$SSH_CONNECTION$SSH_CLIENT$SSH_TTY"; or return 1
    test -n "$TERM" -a "$TERM" != dumb -a -z "$INSIDE_EMACS"; or return 1
    not set -q __runloop_on
end

function __runloop_line
    set -l line (commandline -b | string collect)
    if commandline --paging-mode; or commandline --search-mode; or test -z (string trim -- "$line" | string collect)
        commandline -f execute
        return
    end
    commandline --is-valid
    if test $status -ge 2 -a (count (commandline -b)) -gt 1
        commandline -f execute # a block that is not complete goes on in the next line
        return
    end
    if not type -q rlp
        commandline -f execute
        return
    end
    set -l first (string match -r '^\s*\S+' -- "$line" | string trim)
    set -l known
    if test -n "$first[1]"; and functions -q -- $first[1]
        set known --known $first[1]
    end
    set -l limit 800
    set -q RUNLOOP_SHELL_MS; and set limit $RUNLOOP_SHELL_MS
    set -l said (printf '%s' "$line" | $__runloop_guard rlp route --timeout-ms $limit $known - 2>/dev/null)
    set -l code $pipestatus[2]
    switch $code
        case 10
            set -g __runloop_slow 0
        case 11
            set -g __runloop_slow 0
            set -l lead
            string match -qr '^\s' -- "$line"; and set lead ' '
            commandline -r -- "$lead"'rlp -- '(string escape -- "$line" | string collect)
        case 13
            set -g __runloop_slow 0
            printf '\nrunloop: not run: %s\n' (string replace 'denied: ' '' -- "$said") >&2
            commandline -f repaint
            return
        case '*'
            set -g __runloop_slow (math $__runloop_slow + 1)
            if test $__runloop_slow -ge 3
                __runloop_off
                printf '\nrunloop: rlp does not answer (exit %s); the prompt is as before in this shell\n' $code >&2
            end
    end
    commandline -f execute
end

function __runloop_off
    for mode in default insert
        bind -M $mode -e \r \n \e\r 2>/dev/null
    end
end

if __runloop_wanted
    set -g __runloop_on 1
    set -g __runloop_slow 0
    set -g __runloop_guard command
    type -q timeout; and set -g __runloop_guard timeout 3
    for mode in default insert
        if test "$RUNLOOP_SHELL_KEY" = own
            bind -M $mode \e\r __runloop_line
        else
            bind -M $mode \r __runloop_line
            bind -M $mode \n __runloop_line
            bind -M $mode \e\r execute
        end
    end
end
