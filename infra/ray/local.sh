#!/usr/bin/env bash
# A Ray cluster of one head and some workers on this machine, each in processes of its own, with
# token authentication and the dashboard on loopback.
#
#   infra/ray/local.sh start [WORKERS [CPUS]]   default: 1 worker node, 2 logical CPUs per node
#   eval "$(infra/ray/local.sh env)"            RAY_ADDRESS and the like for this shell
#   infra/ray/local.sh stop
#
# Everything is kept in $ULSDRAM_RAY_HOME (default: ~/.ulsdram-ray). Other clusters on the machine
# are left alone: ports are free ones, and only processes started here are stopped.
set -euo pipefail
umask 077
home=${ULSDRAM_RAY_HOME:-$HOME/.ulsdram-ray}
bin=${ULSDRAM_BIN:-$(dirname "$(command -v ray || echo .venv/bin/ray)")}
store=${ULSDRAM_OBJECT_STORE:-200000000}

free_port() {
  "$bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_node() { # name, ray start's options...
  local name=$1
  shift
  free_port >"$home/$name.metrics" # where Prometheus finds this node
  # The defaults of these ports are fixed numbers: a second node on the machine would lack its agent.
  setsid "$bin/ray" start "$@" --block --disable-usage-stats --object-store-memory "$store" \
    --dashboard-agent-listen-port "$(free_port)" --dashboard-agent-grpc-port "$(free_port)" \
    --metrics-export-port "$(cat "$home/$name.metrics")" >"$home/$name.log" 2>&1 </dev/null &
  echo $! >"$home/$name.pid"
}

wait_for() { # what, command...
  local what=$1
  shift
  for _ in $(seq 240); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.5
  done
  echo "$what did not come up; see $home/*.log" >&2
  exit 1
}

answers() { # a dashboard without a token answers 401, which is an answer
  "$bin/python" - "$1" <<'PY'
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1] + "/api/version", timeout=5)
except urllib.error.HTTPError:
    pass
PY
}

start() {
  local workers=${1:-1} cpus=${2:-2} port dashboard host
  if [ -e "$home/env" ]; then
    echo "found a cluster in $home; stop it first" >&2
    exit 2
  fi
  mkdir -p "$home"
  "$bin/python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$home/token"
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$home/token" RAY_USAGE_STATS_ENABLED=0
  export PATH="$bin:$PATH"
  unset RAY_ADDRESS RAY_AUTH_TOKEN
  port=$(free_port)
  dashboard=$(free_port)
  host=$("$bin/python" -c 'import ray; print(ray.util.get_node_ip_address())')
  start_node head --head --port "$port" --num-cpus "$cpus" --dashboard-host 127.0.0.1 \
    --dashboard-port "$dashboard" --ray-client-server-port "$(free_port)"
  {
    echo "export RAY_ADDRESS=$host:$port"
    echo "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard"
    echo "export RAY_AUTH_MODE=token"
    echo "export RAY_AUTH_TOKEN_PATH=$home/token"
    echo "export RAY_USAGE_STATS_ENABLED=0"
  } >"$home/env"
  wait_for "the head" answers "http://127.0.0.1:$dashboard"
  for number in $(seq "$workers"); do
    start_node "worker-$number" --address "$host:$port" --num-cpus "$cpus"
  done
  for number in $(seq "$workers"); do
    wait_for "worker $number" grep -q "Ray runtime started" "$home/worker-$number.log"
  done
  echo "running; eval \"\$(infra/ray/local.sh env)\", then ray job submit ..."
}

stop() {
  local pid
  for file in "$home"/worker-*.pid "$home"/head.pid; do
    if [ ! -e "$file" ]; then continue; fi
    pid=$(cat "$file")
    # setsid made each node a group of its own
    kill -TERM -- "-$pid" 2>/dev/null || true
    for _ in $(seq 40); do
      if ! kill -0 -- "-$pid" 2>/dev/null; then break; fi
      sleep 0.5
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
  done
  rm -f "$home"/*.pid "$home"/*.metrics "$home/env" "$home/token"
}

case ${1:-} in
  start) start "${@:2}" ;;
  env) cat "$home/env" ;;
  stop) stop ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
