# keyturn on a docker host: a POSIX sh script, for dash, bash and busybox. It is sent with every request, over standard
# input, and installs nothing. It keeps its state in
#
#   ${XDG_STATE_HOME:-~/.local/state}/keyturn/<compose project>/      (0700)
#     lock        held while a deployment runs. Deployments of other programs can share it:
#                 flock -o ~/.local/state/keyturn/<project>/lock bash deploy/deploy.sh
#     gate        held for the short time in which the script decides what to do
#     current     name of the last run that was started
#     versions    for each parameter: the newest version that a run was started for, the time at which its value was
#                 made, and the time of the request
#     journal     one line for each start and end, for people
#     runs/<number>.<revision>.<run>/    the last five runs: script, parameters, timeout, boot, pid, log, result
#     access-logs/<incident>.<secret>.<time>.log    the log lines of a collection (0600); nothing deletes them
#
# A request consists of lines "word value" up to "end"; "script <n>" is followed by n bytes. The answer consists of
# the lines on standard output that begin with "keyturn: "; the last one is "keyturn: done". The output of the user's
# scripts goes to standard error. Neither request nor answer contains a secret: a check has a key and a fingerprint, and
# values never leave the host.
#
# The script can be installed as the forced command of a key that may do nothing else. In authorized_keys, on one line:
#   restrict,command="KEYTURN_PROJECT=app KEYTURN_DEPLOY='bash /opt/app/deploy.sh' KEYTURN_VERIFY='bash /opt/app/verify.sh'
#                     sh /usr/local/lib/keyturn/host.sh serve" ssh-ed25519 ...
# Then the copy of the script in a request is skipped, and only the host decides what may be done, by the environment of
# the command:
#   KEYTURN_PROJECT       the only compose project that is allowed; required
#   KEYTURN_DEPLOY, KEYTURN_VERIFY, KEYTURN_ACCESS_LOG
#                         run instead of the scripts in requests; a request for one that is not set is refused
#   KEYTURN_DEPLOY_TIMEOUT, KEYTURN_VERIFY_TIMEOUT, KEYTURN_ACCESS_LOG_TIMEOUT
#                         in seconds; 900, 120 and 120 if not set
#   KEYTURN_SUDO          "yes" to call docker with sudo
#   KEYTURN_DOCKER        path of docker, if the script does not find it
# docs/docker-hosts.md says what the holder of the key can still do; tests/host_script.rs tests each of its sentences.
# shellcheck shell=sh disable=SC2034,SC2154  # the parts form one script: one sets what another reads

say() { printf 'keyturn: %s\n' "$*"; }

finish() {
  say 'done'
  exit 0
}

# Reports that the host cannot do the work. The text says why and what to do.
unfit() {
  say "unfit $*"
  finish
}

first_line() { printf '%s\n' "$1" | head -n 1; }
last_line() { printf '%s\n' "$1" | grep . | tail -n 1; }

now() { date +%s; }

# Not every sleep accepts fractions of a second.
nap() { sleep 0.2 2>/dev/null || sleep 1; }

need() {
  command -v "$1" >/dev/null 2>&1 || unfit "$1 is not installed on the host; install the package $2"
}

need_tools() {
  need flock util-linux
  need setsid util-linux
  need timeout coreutils
  need sha256sum coreutils
  timeout -k 1 5 sh -c : 2>/dev/null || unfit "timeout on the host does not support -k; install the package coreutils"
}
