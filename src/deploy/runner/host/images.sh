# --- images ----------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # the parts form one script: one sets what another reads

# Prints the image of each container of the project, and the name with which the container was started.
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

# A key with a forced command is for one project only. Images of other projects may contain source code and secrets.
need_image_of_the_project() {
  [ "$served" = yes ] || return 0
  containers=$(running) || unfit "docker stopped answering"
  # shellcheck disable=SC2086 # one ID per word; docker reports containers that are gone on standard error
  call_docker inspect --type container --format '{{.Image}}' $containers 2>/dev/null | grep -qxF "$image" ||
    unfit "no container of the project $project runs the image $image"
}

# Prints docker's data about the image. It may contain secrets, so it is never written to a file.
image() {
  check_docker
  need_image_of_the_project
  call_docker image inspect --format '{{json .}}' "$image" | sed 's/^/keyturn: inspect /'
  # Every version of docker supports `{{json .}}`; `json` works only since version 23.
  call_docker history --no-trunc --format '{{json .}}' "$image" | sed 's/^/keyturn: history /'
  finish
}

# Prints the image with its layers as a tar, after a first line.
save() {
  check_docker
  need_image_of_the_project
  say save
  call_docker image save "$image" 2>/dev/null
}
