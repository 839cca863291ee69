# --- images ----------------------------------------------------------------------------------------------------------
# shellcheck shell=sh disable=SC2034,SC2154  # parts are joined: one sets what another reads

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
