#!/usr/bin/env bash
# tools.sh: Prometheus, promtool, Alertmanager and amtool from Debian's packages, unpacked into .cache/prometheus: nothing is installed,
# no server is started. Without apt-get, or without a network, says so and ends with 0: the tests that need them are then skipped.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
folder=.cache/prometheus
names=(prometheus promtool alertmanager amtool)
templates=usr/share/prometheus/alertmanager
there() {
  local name
  [[ -e $folder/$templates/default.tmpl ]] || command -v alertmanager >/dev/null || return 1
  for name in "${names[@]}"; do
    [[ -x $folder/usr/bin/$name ]] || command -v "$name" >/dev/null || return 1
  done
}
there && exit 0
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
chmod 755 "$fetched" # apt-get fetches as a user of its own
fetch() (cd "$fetched" && apt-get download -qq prometheus prometheus-alertmanager)
{ fetch || { apt-get update -qq && fetch; }; } >/dev/null 2>&1 || {
  echo "Prometheus and Alertmanager cannot be had here: their files, the dashboards and the alerts are not tried with them"
  exit 0
}
mkdir -p "$folder"
unpack() { # package, and the programs in it, by names that are without the package's
  dpkg-deb --fsys-tarfile "$fetched/$1"_*.deb |
    tar --extract --directory "$folder" --transform 's,/prometheus-,/,' "${@:2}"
}
unpack prometheus ./usr/bin/prometheus ./usr/bin/promtool
unpack prometheus-alertmanager ./usr/bin/prometheus-alertmanager ./usr/bin/amtool "./$templates/default.tmpl" "./$templates/email.tmpl"
# Debian's looks for its templates in /usr/share, where root alone could put them: the one here looks in the folder that it is started in.
LC_ALL=C sed --in-place "s,/$templates,$(printf './%.0s' {1..17}),g" "$folder/usr/bin/alertmanager"
