#!/bin/sh
# One machine for everything: `serve.sh start` runs a Prefect server and a process worker in the background and deploys;
# `serve.sh stop` ends what it started, by process id. State lies under work/serve. Called by make serve and make stop.
set -eu
cd "$(dirname "$0")/.."
STATE="${CROSSRISK_HOME:-$PWD}/work/serve"
PORT="${PREFECT_PORT:-4200}"
BIN="$PWD/.venv/bin"
export CROSSRISK_HOME="${CROSSRISK_HOME:-$PWD}"
export CROSSRISK_SCHEDULES_ACTIVE="${CROSSRISK_SCHEDULES_ACTIVE:-false}"
export PREFECT_API_URL="http://127.0.0.1:$PORT/api"
export PREFECT_HOME="${PREFECT_HOME:-$STATE/prefect}"
export DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false
export PREFECT_LOGGING_EXTRA_LOGGERS=crossrisk PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW=ignore

is_running() { [ -f "$STATE/$1.pid" ] && kill -0 "$(cat "$STATE/$1.pid")" 2>/dev/null; }

start() { # name, command...
  name="$1"; shift
  if is_running "$name"; then echo "$name already runs"; return; fi
  nohup "$@" >"$STATE/$name.log" 2>&1 &
  echo $! >"$STATE/$name.pid"
}

stop() {
  if is_running "$1"; then
    pid="$(cat "$STATE/$1.pid")"
    kill -INT "$pid"
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
    if kill -0 "$pid" 2>/dev/null; then kill -KILL "$pid"; fi
    echo "$1 stopped"
  fi
  rm -f "$STATE/$1.pid"
}

case "${1:-}" in
  start)
    mkdir -p "$STATE"
    start server "$BIN/prefect" server start --host 127.0.0.1 --port "$PORT"
    printf 'waiting for the server'
    for _ in $(seq 120); do
      if "$BIN/python" -c "import sys, urllib.request as u; u.urlopen('$PREFECT_API_URL/health', timeout=2)" 2>/dev/null
      then echo; break; fi
      is_running server || { echo; tail -20 "$STATE/server.log"; exit 1; }
      printf '.'; sleep 1
    done
    # the pool first: a worker that makes it at the same moment would get in each other's way with us
    "$BIN/prefect" work-pool inspect crossrisk >/dev/null 2>&1 \
      || "$BIN/prefect" work-pool create crossrisk --type process >/dev/null
    start worker "$BIN/prefect" worker start --pool crossrisk --type process
    "$BIN/prefect" --no-prompt deploy --all --prefect-file deployments/prefect.yaml >"$STATE/deploy.log" 2>&1 \
      || { tail -20 "$STATE/deploy.log"; exit 1; }
    echo "$PREFECT_API_URL" >"$STATE/api_url"   # crossrisk status asks it for the next run
    echo "deployed: retrain/monthly, retrain/on-demand, monitor/monthly (schedules active: $CROSSRISK_SCHEDULES_ACTIVE)"
    echo "open http://127.0.0.1:$PORT; logs under $STATE; make stop ends it"
    ;;
  stop) stop worker; stop server; rm -f "$STATE/api_url" ;;
  *) echo "usage: $0 start|stop" >&2; exit 2 ;;
esac
