#!/usr/bin/env bash
# tools.sh: promtool and amtool from Debian's packages, unpacked into .cache/prometheus: nothing is installed, no server is started.
# Without apt-get, or without a network, says so and ends with 0: the tests that need them are then skipped.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
folder=.cache/prometheus
if { command -v promtool && command -v amtool; } >/dev/null || [[ -x $folder/usr/bin/promtool && -x $folder/usr/bin/amtool ]]; then
  exit 0
fi
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
chmod 755 "$fetched" # apt-get fetches as a user of its own
fetch() (cd "$fetched" && apt-get download -qq prometheus prometheus-alertmanager)
{ fetch || { apt-get update -qq && fetch; }; } >/dev/null 2>&1 || {
  echo "promtool and amtool cannot be had here: the files of Prometheus and Alertmanager are not checked by them"
  exit 0
}
mkdir -p "$folder"
for wanted in prometheus:promtool prometheus-alertmanager:amtool; do
  dpkg-deb --fsys-tarfile "$fetched/${wanted%:*}"_*.deb | tar --extract --directory "$folder" "./usr/bin/${wanted#*:}"
done
