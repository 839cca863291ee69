# --- logs ------------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # the parts form one script: one sets what another reads

# Maximum number of bytes of a command's output that are kept.
most_kept=67108864
# Minimum number of bytes that must stay free on the disk; otherwise no output is kept.
least_free=536870912

# Runs the user's command that searches the logs. Its output may contain secrets: it is written to a file that only this
# account can read, and its first and last lines are piped to keyturn, which redacts secrets.
logs() {
  need_tools
  open_state
  folder=$state/access-logs
  mkdir -p "$folder" 2>/dev/null || unfit "the folder $folder cannot be created$(space)"
  refuse_to_fill_the_disk
  # Earlier collections are kept: the logs from which they were taken may be gone.
  file=$folder/$incident.$secret.$(date -u +%Y%m%dT%H%M%SZ).$$
  touch "$file.new" "$file.errors" 2>/dev/null || unfit "the file $file.new cannot be created$(space)"
  code=$(collected 3>&1)
  size=$(wc -c <"$file.new")
  size=$((size))
  # A command whose output is cut usually ends by a signal (SIGPIPE), so its exit code does not count then.
  cut=no
  [ "$size" -lt "$most_kept" ] || cut=yes
  case $code in *unwritten*)
    rm -f "$file.new" "$file.errors"
    unfit "the file $file.new cannot be written$(space)"
    ;;
  esac
  if [ "$code" != 0 ] && [ $cut = no ]; then
    say "collected ${code:-unknown}"
    bottom "$file.errors" 4000 20 | answered error
    rm -f "$file.new" "$file.errors"
    finish
  fi
  rm -f "$file.errors"
  mv "$file.new" "$file.log" || unfit "the file $file.log cannot be created$(space)"
  digest=$(sha256sum <"$file.log")
  say "collected 0"
  say "file $file.log"
  say "size $size"
  say "cut $cut"
  say "lines $(LC_ALL=C grep -c '' "$file.log")"
  say "digest ${digest%% *}"
  top "$file.log" 32768 60 | answered first
  bottom "$file.log" 32768 60 | answered last
  finish
}

# Nothing deletes the collected lines, and a collection can be requested again and again: by the holder of the key of a
# forced command, or by people who may change the window of an incident. Products run on the same disk.
refuse_to_fill_the_disk() {
  used=$(du -sk "$folder") && [ "${used%%[!0-9]*}" -lt 1048576 ] ||
    unfit "the folder $folder holds 1 GiB of collected log lines; delete those of closed incidents"
  # shellcheck disable=SC2046 # the fields of one line
  set -- $(df -Pk "$folder" 2>/dev/null | tail -n 1)
  case ${4:-none} in
    *[!0123456789]*) free=0 ;;
    *) free=$4 ;;
  esac
  [ "$free" -ge $(((least_free + most_kept) / 1024)) ] ||
    unfit "less than $(((least_free + most_kept) / 1048576)) MiB are free on the disk of $folder, so no log lines are collected there; free some space on ${6:-its disk}"
}

# Runs the command. Writes the beginning of its output, at most $most_kept bytes, to $file.new, and the end of its error
# output to $file.errors. Prints its exit code to file descriptor 3, and "unwritten" if the disk is full.
collected() {
  {
    {
      (
        umask "$user_mask"
        cd "${HOME:-/}" || cd /
        run_script "$timeout"
      ) </dev/null 2>&5 3>&- 5>&-
      echo $? >&3
    } | { head -c "$most_kept" >"$file.new" 2>/dev/null || echo unwritten >&3; }
  } 5>&1 >/dev/null | tail -c 4096 >"$file.errors"
}

# The last line may have no line feed, so one is added.
answered() {
  LC_ALL=C sed "s/^/keyturn: $1 /"
  echo
}

# top FILE BYTES LINES, bottom FILE BYTES LINES: print the first or last lines, as many complete lines as fit.
top() {
  if [ "$(wc -c <"$1")" -gt "$2" ]; then head -c "$2" "$1" | LC_ALL=C sed '$d'; else cat "$1"; fi | head -n "$3"
}

bottom() {
  if [ "$(wc -c <"$1")" -gt "$2" ]; then tail -c "$2" "$1" | LC_ALL=C sed 1d; else cat "$1"; fi | tail -n "$3"
}
