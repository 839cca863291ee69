# --- verify ----------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # the parts form one script: one sets what another reads

# Waits until no deployment runs. Answers "busy" if one still runs when the time to wait is over.
wait_until_idle() {
  give_up=$(($(now) + wait))
  while :; do
    open_lock lock
    exec 9>>"$state/lock"
    flock -n 9 && break
    exec 9>&-
    if [ "$(now)" -ge "$give_up" ] && ! ending; then
      say "busy a deployment that holds $state/lock"
      finish
    fi
    nap
  done
  exec 9>&-
}

verify() {
  need_tools
  open_state
  [ "$idle" = no ] || wait_until_idle
  KEYTURN_PARAMETERS=$parameters
  KEYTURN_REVISION=$revision
  export KEYTURN_PARAMETERS KEYTURN_REVISION
  give_up=$(($(now) + timeout))
  while :; do
    left=$((give_up - $(now)))
    [ "$left" -ge 1 ] || left=1
    (
      umask "$user_mask"
      cd "${HOME:-/}" || cd /
      run_script "$left"
    ) </dev/null >&2
    code=$?
    [ "$code" -ne 0 ] || break
    [ $(($(now) + 2)) -lt "$give_up" ] || break
    sleep 2
  done
  say "verify $code"
  finish
}
