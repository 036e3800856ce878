#!/bin/sh
# Installs what tests start themselves and pip has not, from the distribution: redis-server, nats-server, slapd with
# ldap-utils, xmlsec1. Starts no daemon, now or at boot. Where it may not, it says which tests are left out; with CI=true
# that is an error.
set -eu
PATH=$PATH:/usr/sbin:/sbin
missing=""
for program in redis-server nats-server slapd xmlsec1; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
command -v ldapsearch >/dev/null || missing="$missing ldap-utils"
[ -n "$missing" ] || exit 0

left_out() {
    echo "$1: tests that need$missing are left out; apt-get install$missing brings them" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
}
command -v apt-get >/dev/null || left_out "no apt-get here"
[ "$(id -u)" -eq 0 ] || left_out "not root"

if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d # what packages ask before they start a daemon
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
{
    apt-get update -qq
    # shellcheck disable=SC2086
    apt-get install -qq -y --no-install-recommends $missing
} >/dev/null 2>&1 || left_out "apt-get failed"
command -v systemctl >/dev/null || exit 0
for package in $missing; do
    systemctl disable "$package" >/dev/null 2>&1 || true # most of them are no daemons
done
