# The docker host: a box with its own dockerd, sshd, account and the runbook's stack.
# shellcheck shell=bash

docker_host_configure() {
  local etc="$STATE/boxes/$DOCKER_HOST_BOX/etc"
  mkdir -p "$etc"
  cp "$PKI"/ssh/ssh_host_*_key "$PKI/ssh/authorized_keys" "$etc/"
  echo "export SSM_URL=$SSM_URL" >"$etc/environment"
}

docker_host_boot() {
  docker_host_configure
  box_boot "$DOCKER_HOST_BOX" "$HOST_ADDRESS" host docker
}

docker_host_wait() {
  wait_for 30 dockerd docker_on_host version
  docker_host_image
  wait_for 30 sshd on_docker_host true
}

docker_on_host() { box_run "$DOCKER_HOST_BOX" docker "$@"; }

on_docker_host() {
  ssh -n -i "$PKI/ssh/deploy_ed25519" -o IdentitiesOnly=yes -o UserKnownHostsFile="$PKI/ssh/known_hosts" \
    -o StrictHostKeyChecking=yes -o BatchMode=yes -o ConnectTimeout=5 -F none deploy@"$HOST_ADDRESS" "$@"
}

docker_host_up() {
  box_alive "$DOCKER_HOST_BOX" && docker_on_host version >/dev/null 2>&1 && on_docker_host true
}

# One image serves Postgres, the app and the runner. It carries no variable of ours, as the runbook demands. A second
# tag says which root filesystem it was made of.
docker_host_image() {
  local root tag
  root=$(rootfs_folder app)
  tag=musehub:${root##*/}
  docker_on_host image inspect "$tag" >/dev/null 2>&1 || tar -C "$root" -c . | docker_on_host import - "$tag"
  docker_on_host tag "$tag" musehub:world
}

docker_host_reset() {
  box_stop "$DOCKER_HOST_BOX"
  rm -rf "$STATE/boxes/$DOCKER_HOST_BOX"/{disk,upper}
}
