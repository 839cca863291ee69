# Long work: each phase runs in the background with its output in a log of its own, and says how it gets on.
# shellcheck shell=bash

# How long a phase took on this machine last time, for whoever waits for it the next time.
readonly DURATIONS="$CACHE/durations"

# What it usually takes: seconds on two cores, from `dev/measure-demo`. A machine that has done it once knows better.
declare -rA USUAL_SECONDS=(
  ["building Kubernetes"]=600
  ["building keyturn"]=420
  ["building root filesystems"]=180
  ["building keyturn, optimised"]=720
)

# phase TITLE COMMAND…: runs the command and prints one line with the time it took.
phase() {
  start_phase "$@"
  finish_phases "$1"
}

declare -A PHASE_TITLE=() PHASE_BEGAN=()

# start_phase TITLE COMMAND…: starts the command beside what runs already; finish_phases waits for it.
# It is a background job because bash ignores `set -e` in everything that an `if` calls. Job control gives it a
# process group of its own, so that one signal ends it with all that it started, compilers included. What they have
# built by then is in their caches.
start_phase() {
  local title=$1
  shift
  mkdir -p "$LOGS/phases"
  set -m
  ("$@") >"$(phase_log "$title")" 2>&1 </dev/null 9>&- &
  set +m
  PHASE_TITLE[$!]=$title
  PHASE_BEGAN[$!]=$EPOCHREALTIME
}

# finish_phases [TITLE…]: waits for these phases, or for all. Where one fails, the others and the program end too.
finish_phases() {
  local pid shown=$SECONDS every=60
  [[ ! -t 1 ]] || every=1
  trap 'interrupted INT' INT
  trap 'interrupted TERM' TERM
  trap 'interrupted HUP' HUP
  while are_running "$@"; do
    for pid in "${!PHASE_TITLE[@]}"; do
      kill -0 "$pid" 2>/dev/null || finish_phase "$pid"
    done
    are_running "$@" || break
    if ((SECONDS - shown >= every)); then
      shown=$SECONDS
      if [[ -t 1 ]]; then show_running; else running_phases | sed 's/^/           still /'; fi
    fi
    sleep 0.2
  done
  trap - INT TERM HUP
}

are_running() { # are_running [TITLE…]
  (($# > 0)) || { ((${#PHASE_TITLE[@]} > 0)); return; }
  local title running
  for running in "${PHASE_TITLE[@]}"; do
    for title in "$@"; do [[ $title != "$running" ]] || return 0; done
  done
  return 1
}

finish_phase() { # finish_phase PID
  local title=${PHASE_TITLE[$1]} took status=0
  took=$(seconds_since "${PHASE_BEGAN[$1]}")
  unset "PHASE_TITLE[$1]" "PHASE_BEGAN[$1]"
  wait "$1" || status=$?
  clear_lines
  if ((status != 0)); then
    end_phases
    printf '%7.1f s  FAILED: %s; the end of %s:\n' "$took" "$title" "$(phase_log "$title")" >&2
    tail -n 25 "$(phase_log "$title")" | sed 's/^/    /' >&2
    exit 1
  fi
  printf '%7.1f s  %s\n' "$took" "$title"
  # What was there already says nothing about the next time.
  if ((${took%.*} >= 5)); then
    mkdir -p "$DURATIONS"
    echo "${took%.*}" >"$DURATIONS/$(slug "$title")"
  fi
}

interrupted() { # interrupted SIGNAL
  trap '' INT TERM HUP
  clear_lines
  printf 'dev/world: interrupted. What is built is kept, and the same command goes on from there. Left undone:\n' >&2
  running_phases | sed 's/^/           /' >&2
  end_phases
  trap - "$1"
  kill -"$1" $$
}

end_phases() {
  local pid
  for pid in "${!PHASE_TITLE[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  for pid in "${!PHASE_TITLE[@]}"; do wait "$pid" 2>/dev/null || true; done
  PHASE_TITLE=()
}

# A line for each phase that runs: what it does, for how long, and how long that takes.
running_phases() {
  local pid
  for pid in "${!PHASE_TITLE[@]}"; do
    printf '%s %s%s\n' "${PHASE_TITLE[$pid]}" "$(minutes "$(seconds_since "${PHASE_BEGAN[$pid]}")")" \
      "$(expected "${PHASE_TITLE[$pid]}")"
  done
}

expected() { # expected TITLE
  local last
  if last=$(cat "$DURATIONS/$(slug "$1")" 2>/dev/null); then
    echo " (last time $(minutes "$last"))"
  elif [[ -n ${USUAL_SECONDS[$1]:-} ]]; then
    echo " (usually about $(minutes "${USUAL_SECONDS[$1]}"))"
  fi
}

minutes() {
  local seconds=${1%.*}
  printf '%d:%02d' $((seconds / 60)) $((seconds % 60))
}

# The lines are rewritten in place, and never longer than the terminal is wide: wrapped ones could not be.
lines_shown=0

show_running() {
  local text columns
  columns=$(tput cols 2>/dev/null) || columns=80
  text=$(running_phases | sed 's/^/           /' | cut -c "1-$((columns - 1))")
  clear_lines
  printf '%s\n' "$text"
  lines_shown=${#PHASE_TITLE[@]}
}

clear_lines() {
  for (( ; lines_shown > 0; lines_shown--)); do printf '\033[1A\033[K'; done
}

phase_log() { echo "$LOGS/phases/$(slug "$1").log"; }

slug() { tr -cs 'a-zA-Z0-9\n' - <<<"$1" | sed 's/^-*//; s/-*$//'; }

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'; }
