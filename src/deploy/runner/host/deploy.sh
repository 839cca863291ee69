# --- deploy ----------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # parts are joined: one sets what another reads

deploy() {
  need_tools
  check_docker
  open_state
  give_up=$(($(now) + wait))
  while :; do
    open_lock gate
    open_lock lock
    exec 8>>"$state/gate" 9>>"$state/lock"
    flock 8
    # The same run asks again: its pod or its connection was lost. It gets its result, whatever that is.
    for known in "$state/runs/"*."$revision.$run"; do
      { [ -e "$known/result" ] && brings_the_same "$known"; } || continue
      exec 8>&- 9>&-
      follow started "$known"
    done
    current=$(get "$state/current")
    if flock -n 9; then break; fi
    # Somebody deploys. The same revision is joined: it brings what we would bring.
    if ending; then
      exec 8>&- 9>&-
      nap
      continue
    elif [ -n "$current" ] && works "$state/runs/$current"; then
      if is_of_this_revision "$current"; then
        exec 8>&- 9>&-
        follow attached "$state/runs/$current"
      fi
      busy="another deployment of keyturn"
    else
      busy="another program that holds $state/lock"
    fi
    exec 8>&- 9>&-
    if [ "$(now)" -ge "$give_up" ]; then
      say "busy $busy"
      finish
    fi
    nap
  done

  # The lock is ours, so nothing runs: a run without a result was cut off, by a reboot or a kill.
  if [ -n "$current" ] && [ "$(result_of "$state/runs/$current")" = running ]; then
    set_result "$state/runs/$current" interrupted
    journal "interrupted $current"
  fi

  # Another run of the same revision asks. A success stands, anything else is tried again.
  if [ "$replay" = yes ] && is_of_this_revision "$current" && [ "$(result_of "$state/runs/$current")" = 0 ]; then
    exec 8>&- 9>&-
    follow replayed "$state/runs/$current"
  fi

  refuse_lower_versions
  start
}

# Whether a run brings what is asked for. The name of a revision stands for its parameters, but a request can give another
# set that name.
is_of_this_revision() {
  case $1 in *."$revision".*) brings_the_same "$state/runs/$1" ;; *) return 1 ;; esac
}

brings_the_same() { [ "$(get "$1/parameters")" = "$parameters" ]; }

# A late request must not bring back what was replaced: a lower version is refused, unless its value was made later, as
# where the parameter was deleted and made again. "versions" counts runs that were started, not only those that ended
# well: a failed one may have brought its values to some containers.
#
# Behind a forced command a request may lie, and a lie must not keep honest requests out for good. It looks like the
# truth: made-up versions like a parameter that was made anew. So two rules bound how long it lasts. What a request said
# is forgotten after a day: a request that is only late comes before, since its Job has a deadline. And no value is made
# in the future, so one that is made after the lie is deployed at once.
refuse_lower_versions() {
  versions=
  moment=$(now)
  [ "$served" = no ] || refuse_values_of_the_future
  if [ -e "$state/versions" ]; then
    while read -r path version made told; do
      # The script of an earlier version did not write when that was.
      is_number "$told" || told=0
      [ "$served" = no ] || [ $((moment - told)) -lt 86400 ] || continue
      for wanted in $pinned; do
        [ "${wanted%=*}" = "$path" ] || continue
        wanted=${wanted##*=}
        if [ "${wanted%@*}" -lt "$version" ] && [ "${wanted#*@}" -le "$made" ]; then
          say "outdated $path $version $state/versions"
          finish
        fi
        continue 2
      done
      versions="$versions$path $version $made $told
"
    done <"$state/versions"
  fi
  for wanted in $pinned; do
    path=${wanted%=*}
    wanted=${wanted##*=}
    versions="$versions$path ${wanted%@*} ${wanted#*@} $moment
"
  done
}

# AWS refuses what a host signs whose clock is five minutes off, so one that fetches from there is no later than that.
refuse_values_of_the_future() {
  for wanted in $pinned; do
    [ "${wanted##*@}" -le $((moment + 300)) ] ||
      unfit "the request says that the value of ${wanted%=*} is made in the future ($(date -u)): is the host's clock late?"
  done
}

start() {
  number=0
  for known in "$state/runs/"*; do
    name=${known##*/}
    [ -e "$known/result" ] || { rm -rf "$known"; continue; }
    [ "${name%%.*}" -gt "$number" ] && number=${name%%.*}
  done
  number=$((number + 1))
  for known in "$state/runs/"*; do
    name=${known##*/}
    [ -e "$known" ] && [ "${name%%.*}" -le $((number - 5)) ] && rm -rf "$known"
  done
  if [ "$(wc -c 2>/dev/null <"$state/journal" || echo 0)" -gt 262144 ]; then
    put "$state/journal" "$(tail -n 500 "$state/journal")"
  fi

  name=$number.$revision.$run
  folder=$state/runs/$name
  mkdir "$folder" 2>/dev/null || unfit "the folder $folder cannot be made$(space)"
  put "$folder/script" "$script"
  put "$folder/parameters" "$parameters"
  put "$folder/timeout" "$timeout"
  put "$folder/boot" "$(boot)"
  reserve "$folder/pid" none
  touch "$folder/log" 2>/dev/null || unfit "the file $folder/log cannot be made$(space)"
  if [ "$served" = no ] && [ -n "${keyturn_source:-}" ]; then
    put "$state/host.sh" "$keyturn_source"
    program=$state/host.sh
  else
    program=$0
  fi
  put "$state/versions" "${versions%?}"
  reserve "$folder/result" running
  put "$state/current" "$name"
  journal "started $name $parameters"
  # A session of its own: it does not end with the connection. It keeps the lock (9) until it ends.
  setsid sh "$program" work "$folder" "$user_mask" </dev/null >/dev/null 2>&1 8>&- &
  overwrite "$folder/pid" "$!"
  exec 8>&- 9>&-
  follow started "$folder"
}

# What outlives the connection: runs the script and writes its result down.
work() {
  folder=$1
  state=${folder%/runs/*}
  umask 077
  trap '' HUP
  KEYTURN_PARAMETERS=$(get "$folder/parameters")
  KEYTURN_REVISION=${folder##*/}
  KEYTURN_REVISION=${KEYTURN_REVISION#*.}
  KEYTURN_REVISION=${KEYTURN_REVISION%%.*}
  export KEYTURN_PARAMETERS KEYTURN_REVISION
  limit=$(get "$folder/timeout")
  began=$(now)
  cd "${HOME:-/}" || cd /
  # This subshell keeps the lock with us, should we be killed alone. The script does not get it, or a daemon that it
  # starts would hold it for ever; nor does timeout, since busybox's outlives the script.
  (
    umask "$2"
    timeout -k 10 "$limit" sh "$folder/script" 9>&-
    exit $?
  ) </dev/null >>"$folder/log" 2>&1
  code=$?
  # The codes that timeout gives; busybox gives the signal's.
  case $code in
    124 | 137 | 143) [ $(($(now) - began)) -ge "$limit" ] && code=timeout ;;
  esac
  journal "ended ${folder##*/} $code"
  set_result "$folder" "$code"
}

# follow HOW FOLDER: shows the log of a run until it has a result, and tells that. HOW is what the run is to the one who
# asks: "started" is its own, whether it began now or before a connection was lost; "attached" is another's that runs;
# "replayed" another's that succeeded.
follow() {
  say "deploy $1"
  folder=$2
  say "log $folder/log"
  shown=0
  while :; do
    outcome=$(result_of "$folder")
    if [ "$outcome" = running ] && ! works "$folder"; then
      # It may have ended in between.
      outcome=$(result_of "$folder")
      [ "$outcome" = running ] && outcome=interrupted
    fi
    size=$(wc -c 2>/dev/null <"$folder/log" || echo 0)
    if [ "$size" -gt "$shown" ]; then
      if [ $((size - shown)) -gt 1048576 ]; then
        printf '[... %s bytes of output are left out here; see %s on the host]\n' $((size - shown - 262144)) "$folder/log" >&2
        shown=$((size - 262144))
        # The first line may be the end of one, and a part of a value is not known as one.
        tail -c "+$((shown + 1))" "$folder/log" | head -c $((size - shown)) | LC_ALL=C sed 1d >&2
      else
        tail -c "+$((shown + 1))" "$folder/log" | head -c $((size - shown)) >&2
      fi
      shown=$size
    fi
    [ "$outcome" = running ] || break
    nap
  done
  if [ "$outcome" != 0 ]; then
    for place in "$state" "${HOME:-/}" /tmp /var/lib/docker /; do
      mount=$(full_mount "$place") && say "full $mount" && break
    done
  fi
  say "result $outcome"
  finish
}

# run_script SECONDS: becomes the request's script. Arguments are shown to every account of the host, the environment is
# not.
run_script() {
  keyturn_script=$script
  export keyturn_script
  # shellcheck disable=SC2016 # expanded by that shell
  exec timeout -k 5 "$1" sh -c 'eval "unset keyturn_script; $keyturn_script"'
}
