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
# shellcheck shell=sh disable=SC2034,SC2154  # parts are joined: one sets what another reads

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
