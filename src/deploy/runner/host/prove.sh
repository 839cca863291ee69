# --- prove -----------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # the parts form one script: one sets what another reads

# sudo prints messages in the language of the session; explain_docker knows only the English ones.
call_docker() {
  if [ "$sudo" = yes ]; then LC_ALL=C sudo -n "$docker" "$@"; else "$docker" "$@"; fi
}

# Sets $docker to the program to call. A session that runs one command has a shorter PATH than a login session. If
# docker is not in it, this function searches the folders that installers use, and adds the folder to the PATH of the
# scripts.
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
  unfit "docker is not on the search path of a session without a login ($PATH)${looked:+, nor in $looked}; set $docker_field to its path, or install the package docker"
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
      # sudo has its own PATH, which may lack folders of the account's PATH.
      place=$(command -v "$docker")
      if [ "${place:-$docker}" = "$docker" ]; then no_docker; fi
      docker=$place
      problem=$(running 2>&1 >/dev/null) && return
      ;;
  esac
  explain_docker
}

# Explains why docker could not be called, from the output of sudo and docker. Warnings come first and the real cause
# comes last: "sudo: unable to resolve host", for example, is only a warning.
explain_docker() {
  cause=$(last_line "$problem")
  account=$(id -un)
  program=$(command -v "$docker") || program=/usr/bin/docker
  case $sudo:$problem in
    yes:*"must have a tty"*)
      unfit "sudo requires a terminal, which a deployment does not have ($cause); add to sudoers: Defaults:$account !requiretty"
      ;;
    yes:*"password is required"* | yes:*"authentication is required"* | yes:*"no tty present"* | \
      yes:*"not allowed to "* | yes:*"may not run sudo"* | yes:*"not in the sudoers file"* | yes:*"I'm afraid I can't"*)
      unfit "sudo does not allow the account to call docker without a password ($cause); add to sudoers: $account ALL=(root) NOPASSWD: $program"
      ;;
  esac
  case $sudo:$cause in
    yes:sudo:*) unfit "sudo does not work on the host ($cause); fix it there: sudo -n $program ps, as $account, must list the containers" ;;
    no:*ermission\ denied*) unfit "the account may not use docker ($cause); $sudo_remedy, or add the account to the group docker" ;;
    *) unfit "docker does not answer ($cause); start it on the host" ;;
  esac
}

# prove CHECK...: each check is "index variable inner-pad outer-pad fingerprint fingerprint-without-trailing-newlines".
# A value is only in a variable of this shell and in pipes: printf is built in, so the value is never in an argument
# list.
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
    # An entry without `=`, as from `docker run -e NAME`, does not set a variable in the container.
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

# True if the container was removed after it was listed.
gone() {
  listed=$(running --filter "id=$id") || unfit "docker stopped answering"
  [ -z "$listed" ]
}

# Reports if $value matches one of the fingerprints of a check. The last character of $value is a dot that was added to
# it.
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

# Prints the HMAC-SHA256 of ${value%.}. The arguments are the two pads of the key, as format strings for printf.
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
