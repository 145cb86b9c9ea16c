#!/bin/sh
# The main job on the example data, in a home of its own (.demo): what `make run` does.
#
# Imports contacts, notes and mail into a fresh ledger, then runs compose_email: five agents, one draft, and
# a send that waits for you. Nothing leaves this machine: approved mail lands in .demo/outbox.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
RUNLOOP_HOME=${RUNLOOP_HOME:-$PWD/.demo}
export RUNLOOP_HOME
# The demo's own home: the socket lies in it, whatever the session says.
unset XDG_RUNTIME_DIR

say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
[ -n "${NO_COLOR:-}" ] && say() { printf '\n%s\n' "$*" >&2; }

mkdir -p -m 700 "$RUNLOOP_HOME"
rlp daemon stop >/dev/null 2>&1 || true
# A fresh graph each time; keys and the compiled runner stay, so that only the first start compiles.
rm -rf "$RUNLOOP_HOME/pog" "$RUNLOOP_HOME/outbox" "$RUNLOOP_HOME/keys/ledger.head"

say "1. Start the daemon"
rlp daemon start >/dev/null

say "2. Import contacts, notes and mail"
rlp import "$here/contacts.vcf" "$here/notes" "$here/mail"

say "3. Run compose_email: five agents in sandboxes, one draft, one question for you
   (the first run on a machine waits some seconds while the Python runner is compiled)"
code=0
rlp run compose_email -p recipient=john -p topic="Q4 plan" "$@" || code=$?

case $code in
0)
	say "Done. The mail is in $RUNLOOP_HOME/outbox/new. Ask what happened:"
	;;
5)
	say "Parked: nothing is sent before you approve it. Type the first line below, then the one above; or look first:"
	;;
*)
	exit "$code"
	;;
esac
cat >&2 <<EOF
  export RUNLOOP_HOME=$RUNLOOP_HOME PATH="$(dirname "$(command -v rlp)"):\$PATH"
  rlp runs                     every run
  rlp trace <id>               who sent what to whom, when, how big
  rlp kb why john.carter@example.org
                               what led to the mail, back to the notes it uses
  rlp replay <id>              execute it again, bit for bit, with no effect
  rlp verify                   the ledger's chain, signatures and views
EOF
exit "$code"
