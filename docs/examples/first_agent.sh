#!/bin/sh
# From nothing to the first verified message of an agent of your own: five commands with `rlp` in the PATH.
#
#   sh docs/examples/first_agent.sh [NAME] [python|rust|ts|js|c]
#
# Scaffolds an agent, tests it in the sandbox, builds and signs it with this home's development key, installs
# it (that is a question to you: type its name), runs it in an opening, and executes the run again from its
# record. Prints each command before it runs, and at the end how long it all took.
set -eu

name=${1:-first_agent}
lang=${2:-python}
began=$(date +%s)
commands=0

step() {
	commands=$((commands + 1))
	printf '\n$ %s\n' "$*" >&2
	"$@"
}

step rlp agent scaffold "$name" --lang "$lang"
step rlp agent test "$name"
step rlp agent build "$name" --dev-key -o "$name.rlb"
if [ -t 0 ]; then
	step rlp agent install --dev-key "$name.rlb"
else
	# Without a terminal the question is parked (exit 5), and answered by its id.
	asked=$(step rlp agent install --dev-key --json "$name.rlb") || [ $? -eq 5 ]
	commands=$((commands + 1))
	approval=$(printf '%s\n' "$asked" | sed -n 's/.*"approval":"\([^"]*\)".*/\1/p')
	[ -z "$approval" ] || step rlp approve "$approval"
fi
step rlp run "$name/opening.yaml" -p text="todo: write an agent by 2030-01-01"
step rlp replay "$(rlp runs -n 1 --json | sed -n 's/.*"run": *"\([0-9a-z_-]*\)".*/\1/p' | head -n 1)"

printf '\n%s commands, %s s\n' "$commands" "$(($(date +%s) - began))" >&2
