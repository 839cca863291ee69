# Sourced by the init script of a box: starts daemons, restarts one that dies, ends them in order on SIGTERM.
# shellcheck shell=bash
supervisors=()

# supervise NAME COMMAND…: keeps the command running; its output goes to /var/log/world/NAME.log.
supervise() {
  local name=$1
  shift
  (
    trap 'kill "$daemon" 2>/dev/null; wait "$daemon"; exit 0' TERM
    while true; do
      "$@" >>"/var/log/world/$name.log" 2>&1 &
      daemon=$!
      wait "$daemon" && status=0 || status=$?
      echo "$(date -u +%FT%TZ) $name ended with status $status; starting it again" >>/var/log/world/init.log
      sleep 0.5
    done
  ) &
  supervisors=("$!" "${supervisors[@]}")
}

# Ends what was started, the last first, each given time to end: dockerd stops its containers meanwhile.
shut_down() {
  trap '' TERM
  local supervisor
  for supervisor in "${supervisors[@]}"; do
    kill -TERM "$supervisor" 2>/dev/null || true
    wait "$supervisor" 2>/dev/null || true
  done
  exit 0
}

# Waits until the box is told to end. A shell runs a trap between commands, so it waits instead of sleeping.
serve() {
  trap shut_down TERM INT
  while true; do
    sleep infinity &
    wait $! || true
  done
}

until_answers() {
  until "$@" >/dev/null 2>&1; do sleep 0.2; done
}
