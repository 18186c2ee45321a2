#!/usr/bin/env bash
# Installs the servers that the tests start for themselves, where they are
# missing: PostgreSQL (15 or newer), Redis (its server, command line and
# benchmark) and PgBouncer. Starts no service and changes nothing else.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
have_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || have initdb; }

missing=()
have_postgres || missing+=(postgresql)
have redis-server || missing+=(redis-server)
{ have redis-cli && have redis-benchmark; } || missing+=(redis-tools)
have pgbouncer || missing+=(pgbouncer)
[ ${#missing[@]} -gt 0 ] || exit 0

if ! have apt-get || [ "$(id -u)" != 0 ]; then
  echo "The tests need: ${missing[*]} (names of Debian packages)." >&2
  echo "Install them, or run this as root on Debian or Ubuntu. They need not run: the tests start their own." >&2
  exit 1
fi

# Packages start their service when they are installed, unless this file forbids it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"

have_postgres && have redis-server && have redis-benchmark && have pgbouncer || {
  echo "Installed, but a program of them is still missing: ${missing[*]}" >&2
  exit 1
}
