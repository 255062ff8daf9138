# What bash reads before a page's script.
set -eu -o pipefail
trap 'echo "line $LINENO: status $?: $BASH_COMMAND" >&2' ERR

save() { # NAME: what a reader saves under that name
  mkdir -p -- "$(dirname -- "$1")"
  cat >"$1"
}

expect() { # STATUS COMMAND…
  local wanted=$1 status=0
  shift
  "$@" || status=$?
  [ "$status" = "$wanted" ] || { echo "status $status where $wanted was expected: $*" >&2; return 1; }
}
