# What every part of the world shares: where things lie, which addresses they have, how a process is waited for.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the other parts use them

# Built tools and root filesystems are expensive and depend on nothing but the files they are keyed by, so they
# outlive the checkout. State belongs to the checkout; what must not survive a boot of the machine lies under /run.
readonly CACHE="${KEYTURN_CACHE:-$HOME/.cache/keyturn}"
case ${CLUSTER:-} in
  '') WORLD=world STATE=$REPO/.world ;;
  # What `up` remembers of somebody's cluster; a folder of his own for whoever cannot write the checkout.
  current) WORLD=current STATE=${KEYTURN_STATE:-$REPO/.world/current} ;;
  *) echo "dev/world: CLUSTER=$CLUSTER is not known. Leave it out, or set CLUSTER=current" >&2 && exit 1 ;;
esac
[[ $STATE == /* ]] || STATE=$PWD/$STATE
# The verbs are the functions of this prefix.
readonly WORLD STATE
readonly RUN=/run/keyturn
readonly PKI="$STATE/pki"
readonly LOGS="$STATE/log"

# One bridge joins the machine, the node and the docker host. It is a network of its own rather than the machine's
# address, so that every address below is the same from the machine and from pods, on every machine.
readonly BRIDGE=keyturn0
readonly MACHINE_ADDRESS=10.213.0.1
readonly NODE_ADDRESS=10.213.0.2
readonly HOST_ADDRESS=10.213.0.3
readonly PREFIX_LENGTH=24
readonly SERVICE_CIDR=10.213.16.0/20
readonly API_SERVICE_ADDRESS=10.213.16.1
readonly POD_CIDR=10.213.32.0/20
readonly API_URL=https://$NODE_ADDRESS:6443
readonly SSM_URL=http://$MACHINE_ADDRESS:4583
readonly CLOUDFLARE_URL=http://$MACHINE_ADDRESS:4584

readonly NODE=node
readonly DOCKER_HOST_BOX=production
readonly NODE_NAME=keyturn-world

say() { printf '%s\n' "$*"; }

die() {
  printf 'dev/world: %s\n' "$*" >&2
  exit 1
}

# wait_for SECONDS WHAT COMMAND…: polls until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      echo "gave up waiting for $what"
      return 1
    fi
    sleep 0.2
  done
}

# A process id alone may have been given to somebody else since; with its start time it is unmistakable.
process_identity() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086
  set -- $1 $stat
  echo "$1 ${21}"
}

# alive FILE: the process whose identity the file holds still runs (a zombie does not).
alive() {
  local recorded pid
  recorded=$(cat "$1" 2>/dev/null) || return 1
  pid=${recorded%% *}
  [[ -n $pid && "$(process_identity "$pid")" == "$recorded" ]] || return 1
  ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null
}

recorded_pid() { cut -d' ' -f1 "$1"; }

# stop FILE SECONDS: asks the recorded process to end, and ends it when it does not.
stop() {
  local pid
  alive "$1" || { rm -f "$1"; return 0; }
  pid=$(recorded_pid "$1")
  kill -TERM "$pid" 2>/dev/null || true
  wait_for "$2" "process $pid to end" not alive "$1" || { kill -KILL "$pid" 2>/dev/null || true; }
  wait_for 10 "process $pid to end" not alive "$1"
  rm -f "$1"
}

not() { ! "$@"; }
