#!/usr/bin/env bash
# postgres.sh: PostgreSQL's server from Debian's packages, unpacked into .cache/postgresql: nothing is installed, no server is started.
# Where it is installed, or cannot be had, does nothing and ends with 0: the tests that need it are then skipped.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.."
folder=.cache/postgresql
if command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || compgen -G "$folder/usr/lib/postgresql/*/bin/initdb" >/dev/null; then
  exit 0
fi
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
chmod 755 "$fetched" # apt-get fetches as a user of its own
# The server and the libraries that this machine lacks, less those that compile queries to machine code.
packages() {
  local server
  server=$(apt-cache depends postgresql | sed -n 's/.*Depends: \(postgresql-[0-9]*\)$/\1/p') && [[ -n $server ]] &&
    apt-get install --simulate --no-install-recommends "$server" | awk '$1 == "Inst" {print $2}' | grep -E '^(lib|postgresql-[0-9]+$)' | grep -vE 'llvm|-perl$'
}
fetch() (
  names=$(packages)
  # shellcheck disable=SC2086 # each name is a word
  cd "$fetched" && apt-get download -qq $names
)
{ fetch || { apt-get update -qq && fetch; }; } >/dev/null 2>&1 || {
  echo "PostgreSQL cannot be had here: the ledger is not tested in it"
  exit 0
}
mkdir -p "$folder"
for package in "$fetched"/*.deb; do
  dpkg-deb --extract "$package" "$folder"
done
