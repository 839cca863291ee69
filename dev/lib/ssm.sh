# SSM Parameter Store: moto, at one address for the machine, the docker host and pods.
# shellcheck shell=bash

ssm_start() {
  ! ssm_up || return 0
  stop "$RUN/ssm.pid" 5
  mkdir -p "$STATE/ssm"
  setsid "$(python_folder)/bin/python" "$REPO/dev/ssm/server.py" --host "$MACHINE_ADDRESS" --port "${SSM_URL##*:}" \
    --journal "$STATE/ssm/journal" </dev/null >>"$LOGS/ssm.log" 2>&1 9>&- &
  process_identity $! >"$RUN/ssm.pid"
  wait_for 20 SSM ssm_up
}

ssm_up() { alive "$RUN/ssm.pid" && curl -sf -m 2 -o /dev/null "$SSM_URL/world/health"; }

ssm_stop() { stop "$RUN/ssm.pid" 5; }

ssm_reset() {
  ssm_stop
  rm -rf "$STATE/ssm"
}
