# --- deploy ----------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # the parts form one script: one sets what another reads

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
    # The same run asks again, after its pod or its connection was lost. It gets its own result, success or failure.
    for known in "$state/runs/"*."$revision.$run"; do
      { [ -e "$known/result" ] && brings_the_same "$known"; } || continue
      exec 8>&- 9>&-
      follow started "$known"
    done
    current=$(get "$state/current")
    if flock -n 9; then break; fi
    # A deployment is running. If it has the same revision, this request joins it, since it deploys the same versions.
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

  # This request has the lock, so no deployment runs. A run without a result was interrupted by a reboot or a kill.
  if [ -n "$current" ] && [ "$(result_of "$state/runs/$current")" = running ]; then
    set_result "$state/runs/$current" interrupted
    journal "interrupted $current"
  fi

  # This is another run of the same revision. An earlier success counts for it; anything else is tried again.
  if [ "$replay" = yes ] && is_of_this_revision "$current" && [ "$(result_of "$state/runs/$current")" = 0 ]; then
    exec 8>&- 9>&-
    follow replayed "$state/runs/$current"
  fi

  refuse_lower_versions
  start
}

# True if a run deploys the requested parameters. A revision names its parameters, but a request can use the name of a
# revision for other parameters.
is_of_this_revision() {
  case $1 in *."$revision".*) brings_the_same "$state/runs/$1" ;; *) return 1 ;; esac
}

brings_the_same() { [ "$(get "$1/parameters")" = "$parameters" ]; }

# Refuses a late request, which would bring back an old version: a version that is lower than the last one is refused,
# unless its value was made later, as after the parameter was deleted and created again. The file "versions" also has
# runs that failed, since a failed run may have brought its values to some containers.
#
# With a forced command, a request may contain false versions, and these must not block honest requests permanently. The
# script cannot recognise them, since they look like a parameter that was created again. Two rules limit how long they
# have an effect. First, an entry is forgotten after a day: a late request comes earlier than that, since its Job has a
# deadline. Second, a value from the future is refused, so a value that is made after the false request is deployed at
# once.
refuse_lower_versions() {
  versions=
  moment=$(now)
  [ "$served" = no ] || refuse_values_of_the_future
  if [ -e "$state/versions" ]; then
    while read -r path version made told; do
      # An earlier version of this script did not record the time of the request.
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

# AWS refuses the requests of a host whose clock is wrong by five minutes. So the clock of a host that fetches from AWS
# is at most that late.
refuse_values_of_the_future() {
  for wanted in $pinned; do
    [ "${wanted##*@}" -le $((moment + 300)) ] ||
      unfit "the request says that the value of ${wanted%=*} was made in the future ($(date -u)); check whether the host's clock is late"
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
  mkdir "$folder" 2>/dev/null || unfit "the folder $folder cannot be created$(space)"
  put "$folder/script" "$script"
  put "$folder/parameters" "$parameters"
  put "$folder/timeout" "$timeout"
  put "$folder/boot" "$(boot)"
  reserve "$folder/pid" none
  touch "$folder/log" 2>/dev/null || unfit "the file $folder/log cannot be created$(space)"
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
  # The run has its own session, so that it does not end with the connection. It keeps the lock (9) until it ends.
  setsid sh "$program" work "$folder" "$user_mask" </dev/null >/dev/null 2>&1 8>&- &
  overwrite "$folder/pid" "$!"
  exec 8>&- 9>&-
  follow started "$folder"
}

# Runs the script and records its result. This process outlives the connection.
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
  # This subshell holds the lock too, in case only the parent process is killed. The script does not get the lock, since
  # a daemon that it starts would hold it forever. Neither does timeout, since the timeout of busybox outlives the
  # script.
  (
    umask "$2"
    timeout -k 10 "$limit" sh "$folder/script" 9>&-
    exit $?
  ) </dev/null >>"$folder/log" 2>&1
  code=$?
  # Exit codes of timeout. busybox returns the code of the signal instead.
  case $code in
    124 | 137 | 143) [ $(($(now) - began)) -ge "$limit" ] && code=timeout ;;
  esac
  journal "ended ${folder##*/} $code"
  set_result "$folder" "$code"
}

# follow HOW FOLDER: prints the log of a run until the run has a result, then prints the result. HOW says how the run
# belongs to this request: "started" is the request's own run, started now or before a connection was lost; "attached"
# is a run of another request that is still in progress; "replayed" is a run of another request that succeeded.
follow() {
  say "deploy $1"
  folder=$2
  say "log $folder/log"
  shown=0
  while :; do
    outcome=$(result_of "$folder")
    if [ "$outcome" = running ] && ! works "$folder"; then
      # The run may have ended between the two checks.
      outcome=$(result_of "$folder")
      [ "$outcome" = running ] && outcome=interrupted
    fi
    size=$(wc -c 2>/dev/null <"$folder/log" || echo 0)
    if [ "$size" -gt "$shown" ]; then
      if [ $((size - shown)) -gt 1048576 ]; then
        printf '[... %s bytes of output are left out here; see %s on the host]\n' $((size - shown - 262144)) "$folder/log" >&2
        shown=$((size - 262144))
        # The first line is left out: it may be the end of a line, and a part of a value would not be recognised as a
        # secret.
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

# run_script SECONDS: replaces this process with the request's script. The script is passed in the environment: every
# account of the host can see arguments, but not the environment.
run_script() {
  keyturn_script=$script
  export keyturn_script
  # shellcheck disable=SC2016 # the new shell expands it
  exec timeout -k 5 "$1" sh -c 'eval "unset keyturn_script; $keyturn_script"'
}
