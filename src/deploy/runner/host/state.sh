# --- state -----------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # parts are joined: one sets what another reads

open_state() {
  user_mask=$(umask)
  umask 077
  [ -n "${XDG_STATE_HOME:-}${HOME:-}" ] || unfit "the account has no home folder"
  state=${XDG_STATE_HOME:-$HOME/.local/state}/keyturn/$project
  problem=$(mkdir -p "$state/runs" 2>&1 && chmod 700 "$state" 2>&1) ||
    unfit "the folder $state cannot be made: $(first_line "$problem")$(space)"
  [ -w "$state/runs" ] || unfit "the folder $state cannot be written to by this account"
}

# How much room is left where the state lies, when that explains a failure.
space() {
  existing=$state
  while [ ! -e "$existing" ]; do existing=$(dirname "$existing"); done
  full_mount "$existing" >/dev/null && printf '; its disk is full: free some space on %s' "$(full_mount "$existing")"
}

# Prints the mount point of $1 and succeeds if it has less than a MiB left.
full_mount() {
  # shellcheck disable=SC2046 # the fields of one line
  set -- $(df -Pk "$1" 2>/dev/null | tail -n 1)
  [ $# -ge 6 ] && [ "$4" -lt 1024 ] 2>/dev/null && printf '%s\n' "$6"
}

# put FILE CONTENT: replaces a file as a whole. A full disk shows on the write, or only when it is read back.
put() {
  if ! { printf '%s\n' "$2" >"$1.new"; } 2>/dev/null || [ "$(cat "$1.new" 2>/dev/null)" != "$2" ] ||
    ! mv "$1.new" "$1" 2>/dev/null; then
    rm -f "$1.new"
    unfit "the file $1 cannot be written$(space)"
  fi
}

get() { cat "$1" 2>/dev/null; }

journal() { { printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$state/journal"; } 2>/dev/null; }

# Files of a fixed size that are overwritten in place, which works on a full disk too.
reserve() { put "$1" "$(printf '%-12s.' "$2")"; }
overwrite() { printf '%-12s.\n' "$2" 1<>"$1"; }
set_result() { overwrite "$1/result" "$2"; }

result_of() {
  word=
  read -r word _ 2>/dev/null <"$1/result"
  printf '%s\n' "$word"
}

# A redirection that fails ends a shell at once, so what it needs is made before.
open_lock() { touch "$state/$1" 2>/dev/null || unfit "the file $state/$1 cannot be made$(space)"; }

boot() { get /proc/sys/kernel/random/boot_id || echo unknown; }

# Whether the current run has its result and is about to let go of the lock.
ending() {
  current=$(get "$state/current")
  [ -n "$current" ] && [ "$(result_of "$state/runs/$current")" != running ] && works "$state/runs/$current"
}

# Whether the process that does the work of a run is alive. A zombie is not.
works() {
  pid=
  read -r pid _ 2>/dev/null <"$1/pid"
  [ -n "$pid" ] && [ "$(get "$1/boot")" = "$(boot)" ] && kill -0 "$pid" 2>/dev/null &&
    ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null
}
