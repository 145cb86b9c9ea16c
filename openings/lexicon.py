"""Words the router goes by: commands, the small words of sentences, words that mean the same.

Knows: lists, and why each is there. Does not know: how they are weighed.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ACTIONS", "ARTICLES", "BUILTINS", "COMMANDS", "EVERYDAY", "FIXED", "GREETINGS", "GROUP", "POLITE",
    "QUESTIONS", "SMALL",
    "SUBCOMMANDS", "TAKES_WORDS", "THANKS", "VERBS_AFTER", "stem",
]  # fmt: skip

_COMMANDS_WORDS = """
    apt apt-get ar at awk base64 basename bash bat batch bc brew btop bunzip2 bzip2 cal cargo cat chgrp
    chmod chown chsh clang clear cmake cmp code column comm convert cp crontab curl cut date dd df diff
    dig dirname dmesg dnf docker dpkg du emacs env expand expr factor fd ffmpeg file find finger fish
    fmt fold free fzf gcc gdb gh git go gofmt gpg grep groups gunzip gzip head host hostname htop id
    ifconfig install ip join journalctl jq killall kubectl last less link ln locale locate look ls lsblk
    lsof ltrace lynx mail make man md5sum mkdir mkfs more mount mv mypy nano nc ncdu netstat nice nl
    nmap node nohup npm npx open openssl paste patch pdftotext perl pgrep php ping pip pip3 pkill play
    podman poetry pr psql ps pytest python python3 readlink realpath reboot record rename reset rev rg
    rlp rm rmdir rsync ruby ruff runloopd rustc scp screen script sed seq service sftp sh sha256sum
    shred shuf shutdown size sleep sort split sqlite3 ssh stat strace strings strip su sudo sync
    systemctl tac tail tar task tee terraform timeout tmux top touch tr traceroute tree true tsort tty
    uname uniq unlink unzip uptime users uv vi view vim w wall watch wc wget whatis whereis who whoami
    write xargs xdg-open xz yarn yes yum zip zsh
"""
_BUILTINS_WORDS = """
    . : [ [[ { ( ! alias bg bind break builtin caller case cd command compgen complete continue declare
    dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi for function
    getopts hash help history if jobs kill let local logout mapfile popd print printf pushd pwd read
    readonly return select set setopt shift shopt source suspend test then time times trap true type
    typeset ulimit umask unalias unset until wait which while abbr and begin bindkey contains count emit
    end functions not or string switch
"""
BUILTINS = frozenset(_BUILTINS_WORDS.split())
"""What bash, zsh or fish know by themselves; no look at PATH finds them."""
COMMANDS = frozenset(_COMMANDS_WORDS.split()) | BUILTINS
"""What counts as a command when the caller does not know the machine's own."""

_EVERYDAY_WORDS = """
    and at batch begin bind break case cat clear code column command complete continue convert count cut
    date do done else enable end exit expand export expr factor false file find finger fish fold for
    free function git go groups hash head help history host if install jobs join kill last less let link
    local locate look mail make man more mount nice node not nothing open or paste patch ping play print
    read record rename repeat reset return script screen select service set shift shutdown size sleep
    sort source split state string strings strip switch sync tail task tee test then time times top
    touch trap tree true type uniq unlink until users view wait wall watch which while who w write yes
    yarn zip echo record schedule
"""
EVERYDAY = frozenset(_EVERYDAY_WORDS.split())
"""Command words that a sentence may well begin with."""

_TAKES_WORDS_WORDS = """
    apropos bg cal cd code command disown dig dirs echo emacs exec export fg finger gh help hash host id
    info jobs killall locate make man mkdir mkfifo nano npm npx open pgrep ping pip pip3 pkill popd
    poetry print printf pushd pytest read rm rmdir ruff service source ssh su sudo systemctl task tmux
    touch type unalias unset uv vi view vim watch whatis whereis which yarn apt apt-get brew cargo dnf
    docker git go just kubectl rlp terraform ls cat cp mv ln tail head less more diff rg grep sort wc
"""
TAKES_WORDS = frozenset(_TAKES_WORDS_WORDS.split())
"""Commands whose arguments are often plain words: names, targets, packages."""

SUBCOMMANDS: Mapping[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "git": "add am apply bisect blame branch checkout cherry-pick clean clone commit config diff fetch "
        "grep gc init log merge mv pull push rebase reflog remote reset restore revert rm shortlog show "
        "stash status submodule switch tag worktree",
        "docker": "attach build compose container cp create exec image images info inspect kill load login "
        "logs network pause port ps pull push restart rm rmi run save start stats stop system tag top volume",
        "podman": "build exec images logs ps pull push restart rm rmi run start stop",
        "kubectl": "apply config create cp delete describe edit exec expose get logs port-forward rollout "
        "scale top version",
        "systemctl": "cat daemon-reload disable edit enable is-active isolate list-timers list-units mask "
        "poweroff reboot reload restart show start status stop suspend",
        "apt": "autoremove depends install list policy purge remove search show update upgrade full-upgrade",
        "apt-get": "autoremove clean install purge remove update upgrade source",
        "brew": "info install list search uninstall update upgrade",
        "dnf": "info install list remove search update upgrade",
        "pip": "check download freeze install list show uninstall wheel",
        "pip3": "check freeze install list show uninstall",
        "npm": "audit ci create exec init install link ls outdated pack publish run start test uninstall "
        "update version",
        "yarn": "add build dev init install remove run start test upgrade",
        "cargo": "add bench build check clean clippy doc fmt init install new publish remove run test tree "
        "update",
        "go": "build clean doc env fmt generate get install list mod run test tool version vet work",
        "uv": "add init lock pip python remove run self sync tool tree venv",
        "poetry": "add build init install lock publish remove run shell show update",
        "gh": "api auth browse gist issue pr release repo run workflow",
        "tmux": "attach detach kill-server kill-session ls new split-window",
        "terraform": "apply destroy fmt init output plan state validate",
        "ip": "a addr address link neigh route rule",
        "rlp": "agent approvals cap config daemon doctor kb list plan replay run runs trace why",
        "service": "apache2 cron docker networking nginx postgresql ssh",
        "make": "all build check clean dist docs install lint run setup test",
        "who": "am",
        "ssh": "localhost",
        "set": "fish_greeting",
        "openssl": "dgst enc genrsa rand req s_client x509",
        "jobs": "",
        "history": "clear delete search",
        "string": "collect escape join length lower match pad repeat replace split sub trim unescape upper",
        "for": "",
    }.items()
}
"""Second words that make a command of the first."""

_SMALL_WORDS = """
    a about all also am an and any anybody anyone are as at be because been before being but by can
    cannot could did do does each ever every everybody everyone everything for from had has have he her
    hers him his how i if in into is it its just know latest me mine most must my myself need never next
    no nobody nothing of off on our ours over please shall she should so some somebody someone something
    such tell than that the their them then there these they this those through to today tomorrow
    tonight too under until up us very was we were what whatever when where which whichever who whom
    whose why will with without would yesterday you your yours
"""
SMALL = frozenset(_SMALL_WORDS.split())
"""Words that hold sentences together and are seldom arguments."""
_QUESTIONS_WORDS = (
    "who what when where why how which whose whom is are do does did can could should would will"
)
QUESTIONS = frozenset(_QUESTIONS_WORDS.split())
_VERBS_AFTER_WORDS = """
    is are was were isn't aren't wasn't isnt does doesn't did didn't has hasn't had keeps keep kept says
    said seems looks gives gave shows returns fails failed hangs crashes works won't can't cannot will
    should would could might must broke needs wants means says stopped
"""
VERBS_AFTER = frozenset(_VERBS_AFTER_WORDS.split())
"""What follows a word that is spoken about: "rm is dangerous"."""
_GREETINGS_WORDS = "please hello hi hey thanks thank sorry bye goodbye howdy ok okay hallo hola bonjour"
GREETINGS = frozenset(_GREETINGS_WORDS.split())
ARTICLES = frozenset(["a", "an", "the", "my"])
POLITE = (
    "please could you please",
    "could you please",
    "can you please",
    "i would like to",
    "i'd like to",
    "i want to",
    "i need to",
    "help me to",
    "could you",
    "would you",
    "can you",
    "help me",
    "please",
    "let's",
    "hey",
    "now",
)
FIXED = frozenset({"who am i", "who am I", "who mom likes", "man man"})
"""Commands that read like sentences, word for word."""
_ACTIONS_WORDS = """
    write compose draft send prepare find search tell inform notify summarise summarize make list show
    mail email  add book call cancel check compare copy count create delete explain file forward give
    move open order plan  print put read remind remove rename reply run save schedule set sort start
    stop translate update
"""
ACTIONS = frozenset(_ACTIONS_WORDS.split())
"""Words that begin a wish; behind "and" or "then" they begin a second one."""
THANKS = frozenset({"please", "thanks", "thank", "you"})

_SYNONYMS = (
    frozenset(["write", "compose", "draft", "send", "prepare"]),
    frozenset(["email", "e-mail", "mail", "message", "letter"]),
    frozenset(["about", "regarding", "re", "concerning", "on"]),
    frozenset(["tell", "inform", "notify"]),
    frozenset(["by", "via", "per"]),
    frozenset(["summarize", "summarise", "sum"]),
    frozenset(["find", "search", "look"]),
)
GROUP: Mapping[str, int] = {word: number for number, group in enumerate(_SYNONYMS) for word in group}


def stem(word: str) -> str:
    """A word without its commonest endings: enough to hear "notes" in "note"."""
    for ending in ("ies", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word.removesuffix("e") if len(word) > 4 else word
