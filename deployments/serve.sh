#!/bin/sh
# One machine for everything: `serve.sh start` runs a Prefect server and a process worker in the background and deploys;
# `serve.sh stop` ends what it started, runs under way included, by process id. State lies under work/serve. Called by
# make serve and make stop.
set -eu
cd "$(dirname "$0")/.."
export CROSSRISK_HOME="${CROSSRISK_HOME:-$PWD}"
state=work/serve demo=work/demo_data   # below CROSSRISK_HOME
STATE="$CROSSRISK_HOME/$state"
PORT="${PREFECT_PORT:-4200}"
BIN="$PWD/.venv/bin"
export CROSSRISK_SCHEDULES_ACTIVE="${CROSSRISK_SCHEDULES_ACTIVE:-false}"
export PREFECT_API_URL="http://127.0.0.1:$PORT/api"
export PREFECT_HOME="${PREFECT_HOME:-$STATE/prefect}"
export DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false
export PREFECT_LOGGING_EXTRA_LOGGERS=crossrisk PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW=ignore

# SIGINT is what Prefect ends by; sh has its background ignore it, and children inherit that
DETACHED='import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.setsid()
os.execv(sys.argv[1], sys.argv[1:])'

is_running() { [ -f "$STATE/$1.pid" ] && kill -0 "$(cat "$STATE/$1.pid")" 2>/dev/null; }

server_answers() {
  "$BIN/python" -c "import urllib.request as u; u.urlopen('$PREFECT_API_URL/health', timeout=2)" 2>/dev/null
}

# the demo's data where there are no others, so that the form works as it stands after make demo
choose_data() {
  if [ -z "${CROSSRISK_DATA:-}" ] && [ ! -d "$CROSSRISK_HOME/data" ] && [ -d "$CROSSRISK_HOME/$demo" ]; then
    export CROSSRISK_DATA="$demo"
    echo "there is no data/: runs read the demo's portfolio, as with CROSSRISK_DATA=$demo"
  fi
}

# a process keeps the settings it was started with: others asked for later would be ignored without a word
refuse_other_settings() {
  settings="CROSSRISK_DATA=${CROSSRISK_DATA:-data} PREFECT_PORT=$PORT PREFECT_HOME=$PREFECT_HOME"
  if is_running server || is_running worker; then
    running="$(cat "$STATE/settings" 2>/dev/null || echo unknown)"
    if [ "$settings" != "$running" ]; then
      printf 'already served with other settings; make stop first (it ends runs under way)\n' >&2
      printf '  running:   %s\n  asked for: %s\n' "$running" "$settings" >&2
      exit 1
    fi
  elif server_answers; then
    echo "port $PORT has a Prefect server already, not of this checkout; name another: PREFECT_PORT=4300 make serve" >&2
    exit 1
  fi
  echo "$settings" >"$STATE/settings"
}

start() { # name, command...
  name="$1"; shift
  if is_running "$name"; then echo "$name already runs"; return; fi
  "$BIN/python" -c "$DETACHED" "$@" </dev/null >"$STATE/$name.log" 2>&1 &
  echo $! >"$STATE/$name.pid"
}

stop() {
  if is_running "$1"; then
    "$BIN/python" deployments/stop.py "$(cat "$STATE/$1.pid")"
    echo "$1 stopped"
  fi
  rm -f "$STATE/$1.pid"
}

case "${1:-}" in
  start)
    mkdir -p "$STATE"
    choose_data
    refuse_other_settings
    start server "$BIN/prefect" server start --host 127.0.0.1 --port "$PORT"
    printf 'waiting for the server'
    for _ in $(seq 120); do
      if server_answers; then echo; break; fi
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
