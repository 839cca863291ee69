# keyturn on a docker host: POSIX sh, run by dash, bash and busybox alike. It is sent anew with every request, over
# standard input, and leaves nothing installed; what it keeps lies in
#
#   ${XDG_STATE_HOME:-~/.local/state}/keyturn/<compose project>/      (0700)
#     lock        held while a deployment runs. Another program's deployments can share it:
#                 flock -o ~/.local/state/keyturn/<project>/lock bash deploy/deploy.sh
#     gate        held for the moment in which it is decided what to do
#     current     name of the run that was started last
#     versions    newest version of each parameter that a run was started for, when its value was made, and when that
#                 run was asked for
#     journal     one line for each start and end, for people
#     runs/<number>.<revision>.<run>/    the last five: script, parameters, timeout, boot, pid, log, result
#     access-logs/<incident>.<secret>.<time>.log    what a collection found (0600); nobody deletes it
#
# A request is lines of "word value" up to "end"; "script <n>" is followed by n bytes. The answer is lines that begin
# with "keyturn: " on standard output and end with "keyturn: done"; what the user's scripts print goes to standard
# error. Nothing secret is in either: proofs carry a key and a fingerprint, and values never leave the host.
#
# It can be installed as the forced command of a key that may do nothing else. In authorized_keys, on one line:
#   restrict,command="KEYTURN_PROJECT=app KEYTURN_DEPLOY='bash /opt/app/deploy.sh' KEYTURN_VERIFY='bash /opt/app/verify.sh'
#                     sh /usr/local/lib/keyturn/host.sh serve" ssh-ed25519 ...
# Then the copy that is sent is skipped, and the host alone says what may be done, in the environment of the command:
#   KEYTURN_PROJECT       the only compose project; required
#   KEYTURN_DEPLOY, KEYTURN_VERIFY, KEYTURN_ACCESS_LOG
#                         run in place of the scripts of requests; a request for one that is not set is refused
#   KEYTURN_DEPLOY_TIMEOUT, KEYTURN_VERIFY_TIMEOUT, KEYTURN_ACCESS_LOG_TIMEOUT
#                         in seconds; 900, 120 and 120 if not set
#   KEYTURN_SUDO          "yes" where docker is called by sudo
#   KEYTURN_DOCKER        docker's path, where it is not found
# docs/docker-hosts.md says what is left to whoever holds the key; tests/host_script.rs tests each of its sentences.
# shellcheck shell=sh

say() { printf 'keyturn: %s\n' "$*"; }

finish() {
  say 'done'
  exit 0
}

# The host cannot do the work. The text says why and what to do.
unfit() {
  say "unfit $*"
  finish
}

first_line() { printf '%s\n' "$1" | head -n 1; }
last_line() { printf '%s\n' "$1" | grep . | tail -n 1; }

now() { date +%s; }

# Not every sleep takes fractions.
nap() { sleep 0.2 2>/dev/null || sleep 1; }

need() {
  command -v "$1" >/dev/null 2>&1 || unfit "$1 is not installed on the host; install the package $2"
}

need_tools() {
  need flock util-linux
  need setsid util-linux
  need timeout coreutils
  need sha256sum coreutils
  timeout -k 1 5 sh -c : 2>/dev/null || unfit "timeout on the host does not know -k; install the package coreutils"
}

# --- state -----------------------------------------------------------------------------------------------------------

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

# --- deploy ----------------------------------------------------------------------------------------------------------

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

# --- verify ----------------------------------------------------------------------------------------------------------

# Fails unless nobody deploys, for a while.
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

# --- prove -----------------------------------------------------------------------------------------------------------

# sudo answers in the language of the session, which explain_docker may not know.
call_docker() {
  if [ "$sudo" = yes ]; then LC_ALL=C sudo -n "$docker" "$@"; else "$docker" "$@"; fi
}

# Sets $docker to what is called. A session that runs one command has a shorter search path than a login: where that
# lacks docker it is looked for where installers put it, and the scripts find it on their search path then.
find_docker() {
  if [ -n "$docker" ]; then
    named=$docker
    PATH=$PATH:${docker%/*}
    return
  fi
  docker=docker
  command -v docker >/dev/null 2>&1 && return
  for place in /usr/local/bin /snap/bin /opt/bin "${HOME:-}/bin" "${HOME:-}/.local/bin"; do
    if [ -x "$place/docker" ]; then
      docker=$place/docker
      PATH=$PATH:$place
      return
    fi
    looked="$looked${looked:+, }$place"
  done
}

no_docker() {
  [ -z "$named" ] || unfit "$docker_field names $named, and the host has no such program"
  unfit "docker is not on the search path of a session without a login ($PATH)${looked:+, nor in $looked}; say in $docker_field where it lies, or install the package docker"
}

running() { call_docker ps -q --no-trunc --filter "label=com.docker.compose.project=$project" "$@"; }

check_docker() {
  if [ "$sudo" = yes ]; then
    need sudo sudo
  else
    command -v "$docker" >/dev/null 2>&1 || no_docker
  fi
  problem=$(running 2>&1 >/dev/null) && return
  case $sudo$problem in
    yes*"command not found"*)
      # sudo has a search path of its own, which may lack what the account's has.
      place=$(command -v "$docker")
      if [ "${place:-$docker}" = "$docker" ]; then no_docker; fi
      docker=$place
      problem=$(running 2>&1 >/dev/null) && return
      ;;
  esac
  explain_docker
}

# Says why docker could not be called, of what sudo and docker printed. Warnings come first, what made it fail comes
# last: "sudo: unable to resolve host", for one, is none of the causes.
explain_docker() {
  cause=$(last_line "$problem")
  account=$(id -un)
  program=$(command -v "$docker") || program=/usr/bin/docker
  case $sudo:$problem in
    yes:*"must have a tty"*)
      unfit "sudo wants a terminal, which a deployment does not have ($cause); add to sudoers: Defaults:$account !requiretty"
      ;;
    yes:*"password is required"* | yes:*"authentication is required"* | yes:*"no tty present"* | \
      yes:*"not allowed to "* | yes:*"may not run sudo"* | yes:*"not in the sudoers file"* | yes:*"I'm afraid I can't"*)
      unfit "sudo does not let the account call docker without a password ($cause); add to sudoers: $account ALL=(root) NOPASSWD: $program"
      ;;
  esac
  case $sudo:$cause in
    yes:sudo:*) unfit "sudo does not work on the host ($cause); mend it there: sudo -n $program ps, as $account, must list the containers" ;;
    no:*ermission\ denied*) unfit "the account may not use docker ($cause); $sudo_remedy, or add the account to the group docker" ;;
    *) unfit "docker does not answer ($cause); start it on the host" ;;
  esac
}

# prove CHECK...: each "index variable inner-pad outer-pad fingerprint fingerprint-without-trailing-newlines".
# A value is only ever in a variable of this shell and in pipes: printf is built in, so it is in no argument list.
prove() {
  need sha256sum coreutils
  case $(command -v printf) in /*) unfit "the host's sh has no built-in printf; make /bin/sh dash, bash or busybox" ;; esac
  check_docker
  # shellcheck disable=SC3045  # dash, bash and busybox have it
  ulimit -c 0 2>/dev/null
  LC_ALL=C
  export LC_ALL
  containers=$(running) || unfit "docker stopped answering"
  for id in $containers; do
    # An entry without `=`, as of `docker run -e NAME`, gives the container no such variable.
    if ! about=$(inspect '{{.Name}} {{.State.Status}} {{.RestartCount}} {{index .Config.Labels "com.docker.compose.oneoff"}}|{{range .Config.Env}}{{if gt (len (split . "=")) 1}}{{index (split . "=") 0}} {{end}}{{end}}'); then
      gone || unfit "docker inspect fails on the container $id"
      continue
    fi
    has=" ${about#*|}"
    # shellcheck disable=SC2086 # four words, the last may be missing
    set -- ${about%%|*} -- "$@"
    name=${1#/} status=$2 restarts=$3 once=$4
    while [ "$1" != -- ]; do shift; done
    shift
    [ "$once" != True ] || continue
    concerned=no
    for check do
      rest=${check#* }
      variable=${rest%% *}
      case $has in *" $variable "*) ;; *) continue ;; esac
      if ! value=$(inspect "{{range .Config.Env}}{{if and (gt (len (split . \"=\")) 1) (eq (index (split . \"=\") 0) \"$variable\")}}{{slice . $((${#variable} + 1))}}{{end}}{{end}}."); then
        gone || unfit "docker inspect fails on the container $name"
        concerned=no
        break
      fi
      concerned=yes
      compare "$check"
    done
    value=
    [ $concerned = no ] || say "container $status $restarts $name"
  done
  finish
}

inspect() { call_docker inspect --type container --format "$1" "$id" 2>/dev/null; }

# Whether the container was removed since it was listed.
gone() {
  listed=$(running --filter "id=$id") || unfit "docker stopped answering"
  [ -z "$listed" ]
}

# Says whether $value, which ends in a dot that is not its own, has one of the fingerprints of a check.
compare() {
  # shellcheck disable=SC2086 # six words
  set -- $1
  fingerprint=$(hmac "$3" "$4")
  if [ "$fingerprint" = "$5" ] || [ "$fingerprint" = "$6" ]; then
    say "same $1 $name"
  else
    say "differs $1 $name"
  fi
}

# HMAC-SHA256 of ${value%.}; the pads are the key's, written for printf.
hmac() {
  # shellcheck disable=SC2059 # the format is the content
  inner=$({ printf "$1"; printf %s "${value%.}"; } | sha256sum)
  inner=${inner%% *}
  bytes=
  while [ -n "$inner" ]; do
    byte=${inner%"${inner#??}"}
    inner=${inner#??}
    case $byte in
      25) bytes=$bytes%% ;;
      *) bytes=$bytes$(printf '\\%03o' "0x$byte") ;;
    esac
  done
  # shellcheck disable=SC2059
  outer=$({ printf "$2"; printf "$bytes"; } | sha256sum)
  printf '%s\n' "${outer%% *}"
}

# --- images ----------------------------------------------------------------------------------------------------------

# The image of each container of the project, and the name that the container was started with.
images() {
  check_docker
  containers=$(running) || unfit "docker stopped answering"
  for id in $containers; do
    if ! about=$(inspect '{{.Image}} {{index .Config.Labels "com.docker.compose.oneoff"}}|{{.Config.Image}}'); then
      gone || unfit "docker inspect fails on the container $id"
      continue
    fi
    # shellcheck disable=SC2086 # two words, the second may be missing
    set -- ${about%%|*}
    [ "${2:-}" = True ] || say "image $1 ${about#*|}"
  done
  finish
}

# A key with a forced command is for one project, and images of others may hold their source code and secrets.
need_image_of_the_project() {
  [ "$served" = yes ] || return 0
  containers=$(running) || unfit "docker stopped answering"
  # shellcheck disable=SC2086 # an ID a word; those that are gone meanwhile are told on standard error
  call_docker inspect --type container --format '{{.Image}}' $containers 2>/dev/null | grep -qxF "$image" ||
    unfit "no container of the project $project runs the image $image"
}

# What docker says about the image. It may hold secrets, so it goes through pipes only.
image() {
  check_docker
  need_image_of_the_project
  call_docker image inspect --format '{{json .}}' "$image" | sed 's/^/keyturn: inspect /'
  # `{{json .}}` is understood by every version, `json` only since 23.
  call_docker history --no-trunc --format '{{json .}}' "$image" | sed 's/^/keyturn: history /'
  finish
}

# The image with its layers, as a tar behind the first line.
save() {
  check_docker
  need_image_of_the_project
  say save
  call_docker image save "$image" 2>/dev/null
}

# --- logs ------------------------------------------------------------------------------------------------------------

# More than this is not kept of what one command prints, in bytes.
most_kept=67108864
# Nothing is kept where less than this would be left on the disk.
least_free=536870912

# What the user's command finds in the logs. It may hold secrets: it goes into a file of this account's alone, and its
# beginning and end through pipes to keyturn, which takes out what is secret.
logs() {
  need_tools
  open_state
  folder=$state/access-logs
  mkdir -p "$folder" 2>/dev/null || unfit "the folder $folder cannot be made$(space)"
  refuse_to_fill_the_disk
  # What was collected before stays: the logs that it was taken from may be gone.
  file=$folder/$incident.$secret.$(date -u +%Y%m%dT%H%M%SZ).$$
  touch "$file.new" "$file.errors" 2>/dev/null || unfit "the file $file.new cannot be made$(space)"
  code=$(collected 3>&1)
  size=$(wc -c <"$file.new")
  size=$((size))
  # A command whose output is full is told so by a signal.
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
  mv "$file.new" "$file.log" || unfit "the file $file.log cannot be made$(space)"
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

# Nothing deletes what was collected, and it can be asked for again and again: by whoever holds the key of a forced
# command, or may move the window of an incident. Products run on the same disk.
refuse_to_fill_the_disk() {
  used=$(du -sk "$folder") && [ "${used%%[!0-9]*}" -lt 1048576 ] ||
    unfit "the folder $folder holds 1 GiB of collected log lines; delete those of incidents that are closed"
  # shellcheck disable=SC2046 # the fields of one line
  set -- $(df -Pk "$folder" 2>/dev/null | tail -n 1)
  case ${4:-none} in
    *[!0123456789]*) free=0 ;;
    *) free=$4 ;;
  esac
  [ "$free" -ge $(((least_free + most_kept) / 1024)) ] ||
    unfit "less than $(((least_free + most_kept) / 1048576)) MiB are left where $folder lies, so log lines are not collected there; free some space on ${6:-its disk}"
}

# Runs the command with its output in $file.new, as far as that may grow, and the end of what it complains about in
# $file.errors; writes its exit code to 3, and a word where the disk is full.
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

# The last line may lack its end.
answered() {
  LC_ALL=C sed "s/^/keyturn: $1 /"
  echo
}

# top FILE BYTES LINES, bottom FILE BYTES LINES: the first or last lines, as many whole ones as fit.
top() {
  if [ "$(wc -c <"$1")" -gt "$2" ]; then head -c "$2" "$1" | LC_ALL=C sed '$d'; else cat "$1"; fi | head -n "$3"
}

bottom() {
  if [ "$(wc -c <"$1")" -gt "$2" ]; then tail -c "$2" "$1" | LC_ALL=C sed 1d; else cat "$1"; fi | tail -n "$3"
}

# --- requests --------------------------------------------------------------------------------------------------------

bad_request() {
  say "unfit keyturn's request cannot be read ($1): the script on the host may be of another version"
  finish
}

# Digits are listed, since in some languages more characters than these lie between 0 and 9.
is_number() { case $1 in '' | *[!0123456789]* | ???????????*) return 1 ;; esac }

# path=version@made
is_parameter() {
  rest=${1%@*}
  is_number "${1##*@}" && is_number "${rest##*=}" || return 1
  case ${rest%=*} in *[!A-Za-z0-9_./-]*) return 1 ;; /*) ;; *) return 1 ;; esac
}

# index variable inner-pad outer-pad fingerprint fingerprint-without-trailing-newlines
is_check() {
  set -f
  # shellcheck disable=SC2086 # six words
  set -- $1
  set +f
  [ $# -eq 6 ] && is_number "$1" && is_pad "$3" && is_pad "$4" || return 1
  case $2 in *[!A-Za-z0-9_]*) return 1 ;; esac
  case $5$6 in *[!0-9A-Fa-f-]*) return 1 ;; esac
}

# Bytes that printf prints: \ooo or %%, each.
is_pad() {
  rest=$1
  while [ -n "$rest" ]; do
    case $rest in
      \\[0-3][0-7][0-7]*) rest=${rest#????} ;;
      %%*) rest=${rest#??} ;;
      *) return 1 ;;
    esac
  done
}

read_request() {
  while read -r word value; do
    case $word in
      verb) verb=$value ;;
      project) project=$value ;;
      sudo) sudo=$value ;;
      docker)
        case $value in *[!A-Za-z0-9_./+-]*) bad_request docker ;; /*) ;; *) bad_request docker ;; esac
        docker=$value
        ;;
      revision) revision=$value ;;
      run) run=$value ;;
      replay) replay=$value ;;
      idle) idle=$value ;;
      timeout) timeout=$value ;;
      wait) wait=$value ;;
      parameter) read_parameter "$value" ;;
      image)
        case $value in '' | *[!A-Za-z0-9:]*) bad_request image ;; esac
        image=$value
        ;;
      incident) incident=$value ;;
      secret) secret=$value ;;
      since) since=$value ;;
      until) until=$value ;;
      check)
        is_check "$value" || bad_request check
        checks="$checks$value
"
        ;;
      script) read_script "$value" ;;
      end) break ;;
      *) bad_request "$word" ;;
    esac
  done
  [ "$word" = end ] || bad_request "no end"
}

read_parameter() {
  is_parameter "$1" || bad_request parameter
  # Of two versions of one parameter only the first would be compared with what was deployed before.
  case $pinned in *" ${1%=*}="*) bad_request parameter ;; esac
  pinned="$pinned $1"
  parameters="$parameters${parameters:+
}${1%@*}"
}

read_script() {
  is_number "$1" || bad_request script
  if [ "$served" = yes ]; then
    dd bs=1 count="$1" of=/dev/null 2>/dev/null
  else
    script=$(dd bs=1 count="$1" 2>/dev/null)
  fi
}

check_request() {
  for name in "$revision" "$run"; do
    case $name in *[!A-Za-z0-9-]*) bad_request name ;; esac
  done
  for name in "$project" "$incident" "$secret"; do
    case $name in */* | .* | *[!A-Za-z0-9._-]*) bad_request name ;; esac
  done
  for time in "$since" "$until"; do
    case $time in *[!0-9TZ:+.-]*) bad_request time ;; esac
  done
  for number in "${timeout:-0}" "$wait"; do
    is_number "$number" || bad_request number
  done
  [ -n "$project" ] || bad_request project
  case $verb in
    deploy) [ -n "$revision" ] && [ -n "$run" ] && [ -n "$timeout" ] || bad_request deploy ;;
    verify) [ -n "$timeout" ] || bad_request verify ;;
    prove | images) ;;
    image | save) [ -n "$image" ] || bad_request image ;;
    logs) [ -n "$timeout" ] && [ -n "$incident" ] && [ -n "$secret" ] || bad_request logs ;;
    *) bad_request verb ;;
  esac
}

# What is the host's to say where the key has a forced command. Where two answers are possible the request must give the
# same: a DockerHost that means another project must not be told that it was deployed.
obey_forced_command() {
  docker_field="KEYTURN_DOCKER of the key's forced command"
  sudo_remedy="set KEYTURN_SUDO=yes in the key's forced command"
  docker=${KEYTURN_DOCKER:-}
  sudo=${KEYTURN_SUDO:-no}
  [ "$wait" -le 60 ] || wait=60
  [ -n "${KEYTURN_PROJECT:-}" ] ||
    unfit "the forced command of the key does not say which compose project it is for; add KEYTURN_PROJECT to it"
  [ "$project" = "$KEYTURN_PROJECT" ] ||
    unfit "the key is for the compose project $KEYTURN_PROJECT (KEYTURN_PROJECT of its forced command), and docker.composeProject of the DockerHost is $project"
  case $verb in
    deploy)
      script=${KEYTURN_DEPLOY:-}
      need_command "applications are deployed" KEYTURN_DEPLOY
      # A request must not be able to cut a deployment off in the middle either.
      limit=${KEYTURN_DEPLOY_TIMEOUT:-900}
      [ "$timeout" -eq "$limit" ] ||
        unfit "the forced command of the key gives a deployment $limit s, and deploy.timeout of the DockerHost is $timeout s; give KEYTURN_DEPLOY_TIMEOUT the same number of seconds"
      ;;
    verify)
      script=${KEYTURN_VERIFY:-}
      need_command "the product is verified" KEYTURN_VERIFY
      need_time "${KEYTURN_VERIFY_TIMEOUT:-120}" verify.timeout KEYTURN_VERIFY_TIMEOUT
      ;;
    logs)
      script=${KEYTURN_ACCESS_LOG:-}
      need_command "log lines are collected" KEYTURN_ACCESS_LOG
      need_time "${KEYTURN_ACCESS_LOG_TIMEOUT:-120}" accessLog.timeout KEYTURN_ACCESS_LOG_TIMEOUT
      ;;
  esac
}

# need_command WHAT VARIABLE
need_command() {
  [ -n "$script" ] || unfit "the forced command of the key does not say how $1; add $2 to it"
}

# need_time MOST FIELD VARIABLE
need_time() {
  [ "$timeout" -le "$1" ] ||
    unfit "the forced command of the key gives $1 s, and $2 is $timeout s; raise $3 there, or lower $2"
}

# shellcheck disable=SC1007  # fields that a request leaves out are empty
answer() {
  verb= project= sudo=no revision= run= replay=yes idle=no timeout= wait=0 parameters= pinned= checks= script= image=
  incident= secret= since= until= docker= named= looked=
  docker_field="docker.path of the DockerHost"
  sudo_remedy="set docker.sudo in the DockerHost"
  read_request
  check_request
  [ "$served" = no ] || obey_forced_command
  find_docker
  case $verb in
    prove)
      # A check a line, and neither backslashes nor anything else in it is a pattern.
      set -f
      IFS='
'
      # shellcheck disable=SC2086
      set -- $checks
      unset IFS
      set +f
      prove "$@"
      ;;
    logs)
      KEYTURN_INCIDENT=$incident KEYTURN_SECRET=$secret KEYTURN_SINCE=$since KEYTURN_UNTIL=$until
      export KEYTURN_INCIDENT KEYTURN_SECRET KEYTURN_SINCE KEYTURN_UNTIL
      logs
      ;;
    *) "$verb" ;;
  esac
}

served=no
case ${1:-} in
  work) work "$2" "$3" ;;
  serve)
    served=yes
    # Installed as a forced command: the copy that the pod sends is skipped.
    { read -r length && is_number "$length"; } || bad_request length
    dd bs=1 count="$length" of=/dev/null 2>/dev/null
    answer
    ;;
  *) answer ;;
esac
