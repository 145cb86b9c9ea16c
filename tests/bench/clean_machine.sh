#!/bin/sh
# Times the way from a clean Debian to the first verified message of an agent of one's own: eight commands.
#
#   sudo sh tests/bench/clean_machine.sh [python|js|ts|c|rust]
#
# Makes a minimal Debian 12 in a temporary directory (mmdebstrap), with this checkout's HEAD to clone from, and
# types the commands on a pseudo-terminal in it, as root in namespaces of its own. The network settings of this
# machine (resolver, certificates, PIP_*) are carried over; nothing else is.
set -eu

lang=${1:-python}
[ "$(id -u)" = 0 ] || { echo "clean_machine: needs root for a chroot" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { echo "clean_machine: apt-get install mmdebstrap" >&2; exit 2; }
here=$(cd "$(dirname "$0")/../.." && pwd)
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT

mmdebstrap --quiet --variant=minbase bookworm "$root"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/srv/certificates.pem"
git clone -q --bare "$here" "$root/srv/runloop"
chroot "$root" apt-get -qq update
case $lang in
rust) tools="rustc cargo libstd-rust-dev-wasm32 lld" ;;
c) tools="clang lld" ;;
ts) tools="node-typescript" ;;
*) tools="" ;;
esac

cat >"$root/root/steps.sh" <<STEPS
set -eu
cd /root
began=\$(date +%s%N)
since() { echo "\$(( (\$(date +%s%N) - \$1) / 1000000 )) ms"; }
step() { echo "\\$ \$*"; at=\$(date +%s%N); "\$@"; echo "   [\$(since \$at)]"; }
step apt-get -qq install -y git make python3.11-venv $tools >/root/apt.log 2>&1; tail -n 1 /root/apt.log
step git clone -q /srv/runloop runloop
step make -s -C runloop setup
PATH=/root/runloop/.venv/bin:\$PATH
step rlp agent scaffold first_agent --lang $lang
step rlp agent build first_agent --dev-key -o first_agent.rlb
step rlp agent install --dev-key first_agent.rlb
step rlp run first_agent/opening.yaml -p text="todo: write an agent by 2030-01-01"
step rlp verify
echo "8 commands, \$(since \$began)"
rlp daemon stop
STEPS

# The one question is answered as a person would: by the agent's name.
unshare --mount --pid --fork --mount-proc="$root/proc" sh -eu <<INSIDE
mount --rbind /dev "$root/dev"
(n=0; while ! grep -q "type first_agent" "$root/root/log" 2>/dev/null && [ \$n -lt 3000 ]; do
	n=\$((n + 1)); sleep 0.1; done; echo first_agent) |
	env -i HOME=/root TERM=xterm LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		SSL_CERT_FILE=/srv/certificates.pem PIP_CERT=/srv/certificates.pem REQUESTS_CA_BUNDLE=/srv/certificates.pem \
		$(env | sed -n "s/^\(PIP_[A-Z_]*=.*\)/'\1'/p" | grep -v -e PIP_CERT -e FIND_LINKS | tr '\n' ' ') \
		chroot "$root" script -qefc "sh /root/steps.sh" /root/log
INSIDE
