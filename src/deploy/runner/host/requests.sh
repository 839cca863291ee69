# --- requests --------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # the parts form one script: one sets what another reads

bad_request() {
  say "unfit keyturn's request cannot be read ($1): the script on the host may be of another version"
  finish
}

# The digits are listed, since in some locales the range 0-9 contains more characters.
is_number() { case $1 in '' | *[!0123456789]* | ???????????*) return 1 ;; esac }

# path=version@time; the time is that at which the value was made.
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

# Bytes as a format string for printf: each byte is \ooo or %%.
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
  # A parameter may occur only once: of two versions, only the first would be compared with earlier deployments.
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

# Applies the host's own settings if the key has a forced command. A request that sets the same thing must set the same
# value: a DockerHost that names another project must not be reported as deployed.
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
      # Otherwise a request could interrupt a deployment with a shorter timeout.
      limit=${KEYTURN_DEPLOY_TIMEOUT:-900}
      [ "$timeout" -eq "$limit" ] ||
        unfit "the forced command of the key allows a deployment $limit s, and deploy.timeout of the DockerHost is $timeout s; set KEYTURN_DEPLOY_TIMEOUT to the same number of seconds"
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

# need_command WHAT VARIABLE: refuses the request if the forced command has no script for it
need_command() {
  [ -n "$script" ] || unfit "the forced command of the key does not say how $1; add $2 to it"
}

# need_time MOST FIELD VARIABLE: refuses the request if its time limit is longer than the forced command allows
need_time() {
  [ "$timeout" -le "$1" ] ||
    unfit "the forced command of the key allows $1 s, and $2 is $timeout s; raise $3 there, or lower $2"
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
      # One check per line. Pathname expansion is switched off: nothing in a check is a pattern, not even a backslash.
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
    # Installed as a forced command: skips the copy of the script that the pod sends.
    { read -r length && is_number "$length"; } || bad_request length
    dd bs=1 count="$length" of=/dev/null 2>/dev/null
    answer
    ;;
  *) answer ;;
esac
