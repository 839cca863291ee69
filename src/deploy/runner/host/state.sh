# --- state -----------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # the parts form one script: one sets what another reads

open_state() {
  user_mask=$(umask)
  umask 077
  [ -n "${XDG_STATE_HOME:-}${HOME:-}" ] || unfit "the account has no home folder"
  state=${XDG_STATE_HOME:-$HOME/.local/state}/keyturn/$project
  problem=$(mkdir -p "$state/runs" 2>&1 && chmod 700 "$state" 2>&1) ||
    unfit "the folder $state cannot be created: $(first_line "$problem")$(space)"
  [ -w "$state/runs" ] || unfit "the folder $state cannot be written to by this account"
}

# Prints that the disk of the state folder is full, if it is: this explains a failed write.
space() {
  existing=$state
  while [ ! -e "$existing" ]; do existing=$(dirname "$existing"); done
  full_mount "$existing" >/dev/null && printf '; its disk is full: free some space on %s' "$(full_mount "$existing")"
}

# Prints the mount point of $1 and succeeds if less than one MiB is free there.
full_mount() {
  # shellcheck disable=SC2046 # the fields of one line
  set -- $(df -Pk "$1" 2>/dev/null | tail -n 1)
  [ $# -ge 6 ] && [ "$4" -lt 1024 ] 2>/dev/null && printf '%s\n' "$6"
}

# put FILE CONTENT: replaces a whole file. The file is read back, since the write alone may not show that the disk is
# full.
put() {
  if ! { printf '%s\n' "$2" >"$1.new"; } 2>/dev/null || [ "$(cat "$1.new" 2>/dev/null)" != "$2" ] ||
    ! mv "$1.new" "$1" 2>/dev/null; then
    rm -f "$1.new"
    unfit "the file $1 cannot be written$(space)"
  fi
}

get() { cat "$1" 2>/dev/null; }

journal() { { printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$state/journal"; } 2>/dev/null; }

# Files of a fixed size, which are overwritten in place: this works even on a full disk.
reserve() { put "$1" "$(printf '%-12s.' "$2")"; }
overwrite() { printf '%-12s.\n' "$2" 1<>"$1"; }
set_result() { overwrite "$1/result" "$2"; }

result_of() {
  word=
  read -r word _ 2>/dev/null <"$1/result"
  printf '%s\n' "$word"
}

# Creates the file before it is opened: a failed redirection would end the shell at once.
open_lock() { touch "$state/$1" 2>/dev/null || unfit "the file $state/$1 cannot be created$(space)"; }

boot() { get /proc/sys/kernel/random/boot_id || echo unknown; }

# True if the current run has a result and is about to release the lock.
ending() {
  current=$(get "$state/current")
  [ -n "$current" ] && [ "$(result_of "$state/runs/$current")" != running ] && works "$state/runs/$current"
}

# True if the process of a run is alive. A zombie does not count.
works() {
  pid=
  read -r pid _ 2>/dev/null <"$1/pid"
  [ -n "$pid" ] && [ "$(get "$1/boot")" = "$(boot)" ] && kill -0 "$pid" 2>/dev/null &&
    ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null
}
