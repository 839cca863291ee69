# The verbs of dev/world.
# shellcheck shell=bash

world_up() {
  local began=$EPOCHREALTIME
  require_servable_machine
  lock
  require_own_world
  bring_up
  # shellcheck disable=SC2016  # as a person types it
  printf '%7.1f s  in all. dev/world status shows it; eval "$(dev/world env)" lets a shell use it\n' \
    "$(seconds_since "$began")"
}

bring_up() {
  prepare_machine
  # keyturn is needed last: it is built beside everything else.
  start_phase "building keyturn$(keyturn_optimised)" keyturn_build
  build_tools
  link_tools
  if world_is_up; then say "the world is up already"; else boot; fi
  finish_phases
  if cloudflare_wanted; then cloudflare_install; fi
  keyturn_install
}

prepare_machine() {
  machine_ready || phase "installing Debian packages, Go and Rust" install_machine_packages
  { find_go && find_cargo; } || die "Go 1.21 or newer and cargo are needed and could not be installed"
}

boot() {
  say "$REPO" >"$RUN/checkout"
  phase "removing what an earlier world left behind" clear_remains
  phase "making keys and certificates" make_pki
  phase "making the network" network_up
  save_sysctls
  phase "starting SSM at $SSM_URL" ssm_start
  box_alive "$DOCKER_HOST_BOX" || phase "starting the docker host" docker_host_boot
  local node="waiting for Kubernetes: node $NODE_NAME Ready"
  local docker_host="waiting for the docker host: dockerd and sshd at $HOST_ADDRESS"
  start_phase "$docker_host" docker_host_wait
  # All else is ready long before it.
  finish_phases "$BUILDING_KUBERNETES"
  # shellcheck disable=SC2153  # of common.sh
  box_alive "$NODE" || phase "starting the node" node_boot
  start_phase "$node" node_wait
  finish_phases "$node" "$docker_host"
}

# What `dev/test lint` and `dev/test chart` call. Nothing is started for it.
world_tools() {
  require_servable_machine
  lock
  prepare_machine
  lint_tools_built || phase "fetching what lints and the tests of the chart call" build_lint_tools
  link_tools
}

# What only tests need, beside a world that is up.
world_tests() {
  require_servable_machine
  lock
  require_own_world
  { find_go && find_cargo && world_is_up; } || die "the world is not up: dev/world up"
  [[ -z $(missing_commands "${TEST_PACKAGES[@]}") ]] || phase "installing what tests need" install_test_packages
  test_tools_built || start_phase "fetching Helm 3 and Postgres servers" build_test_tools
  local pods="building the root filesystem of pods of CLUSTER=current"
  [[ -e $(rootfs_folder demo) ]] || start_phase "$pods" build_rootfs demo
  start_phase "building the Cloudflare emulator" cloudflare_build
  finish_phases "$pods"
  start_phase "loading the image of pods of CLUSTER=current into the node" demo_host_import
  finish_phases
  phase "starting Cloudflare at $CLOUDFLARE_URL" cloudflare_start
}

# The kubelet sets these, and they are the machine's: /proc/sys has no namespace for them.
readonly KUBELET_SYSCTLS=(
  kernel/keys/root_maxbytes kernel/keys/root_maxkeys kernel/panic kernel/panic_on_oops vm/overcommit_memory
  vm/panic_on_oom
)

save_sysctls() {
  [[ ! -e $RUN/sysctls ]] || return 0
  local name
  for name in "${KUBELET_SYSCTLS[@]}"; do echo "$name $(<"/proc/sys/$name")"; done >"$RUN/sysctls"
}

restore_sysctls() {
  local name value
  [[ -e $RUN/sysctls ]] || return 0
  while read -r name value; do echo "$value" >"/proc/sys/$name"; done <"$RUN/sysctls"
}

# A world that was killed leaves no process with a meaning: what still answers is kept, everything else is taken down
# to the state of a machine that has just booted.
clear_remains() {
  if ! node_up; then box_stop "$NODE"; fi
  if ! docker_host_up; then box_stop "$DOCKER_HOST_BOX"; fi
  ssm_up || ssm_stop
}

world_is_up() { tools_built && find_go && find_cargo && ssm_up && node_up && docker_host_up; }

world_down() {
  [[ -z ${1:-} || $1 == --any ]] || die "down takes no argument but --any"
  require_servable_machine
  lock
  [[ ${1:-} == --any ]] || require_own_world
  phase "ending the docker host" box_stop "$DOCKER_HOST_BOX"
  phase "ending the node" box_stop "$NODE"
  phase "ending SSM" ssm_stop
  phase "ending Cloudflare" cloudflare_stop
  phase "removing the network" network_down
  phase "restoring the kernel's settings" restore_sysctls
  rm -rf "$RUN"
}

world_reset() {
  require_servable_machine
  lock
  require_own_world
  phase "emptying the docker host" docker_host_reset
  phase "emptying Kubernetes" node_reset
  phase "emptying SSM" ssm_reset
  phase "emptying Cloudflare" cloudflare_reset
  bring_up
}

# Two at once would start everything twice. Everything started in the background closes the descriptor.
lock() {
  mkdir -p "$RUN"
  exec 9>/run/keyturn.lock
  flock --nonblock 9 || { say "another dev/world is at work; waiting for it" && flock 9; }
  mkdir -p "$RUN"
}

# One world a machine: its addresses exist once.
require_own_world() {
  local other
  other=$(cat "$RUN/checkout" 2>/dev/null) || return 0
  [[ $other != "$REPO" ]] || return 0
  if box_alive "$NODE" || box_alive "$DOCKER_HOST_BOX" || alive "$RUN/ssm.pid"; then
    die "a world runs on this machine already, from the checkout $other.
There can be one at a time. To end it: $other/dev/world down (or, if that checkout is gone: $0 down --any)"
  fi
}

world_status() {
  local other ok=0
  other=$(cat "$RUN/checkout" 2>/dev/null) || other=
  if [[ -n $other && $other != "$REPO" ]]; then
    say "a world of another checkout: $other"
    return 1
  fi
  status_line "Kubernetes" "$API_URL, node $NODE_NAME" node_up || ok=1
  status_line "SSM" "$SSM_URL, region us-east-1" ssm_up || ok=1
  ! cloudflare_wanted || status_line "Cloudflare" "$CLOUDFLARE_URL, emulated" cloudflare_up || ok=1
  status_line "docker host" "deploy@$HOST_ADDRESS port 22, box $DOCKER_HOST_BOX" docker_host_up || ok=1
  keyturn_status || ok=1
  return $ok
}

status_line() { # status_line NAME WHERE CHECK
  if "$3" 2>/dev/null; then
    printf '%-12s up    %s\n' "$1" "$2"
  else
    printf '%-12s DOWN  %s\n' "$1" "$2"
    return 1
  fi
}

world_env() {
  cat <<SH
export KUBECONFIG=$(printf %q "$STATE/kubeconfig")
export PATH=$(printf %q "$STATE/bin"):\$PATH
export AWS_ENDPOINT_URL_SSM=$SSM_URL
export KEYTURN_CLOUDFLARE=$CLOUDFLARE_URL
export AWS_REGION=us-east-1
export AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=world
export AWS_SECRET_ACCESS_KEY=world
export DOCKER_HOST=unix://$RUN/$DOCKER_HOST_BOX/docker.sock
export KEYTURN_HOST=$HOST_ADDRESS
export KEYTURN_HOST_PORT=22
export KEYTURN_HOST_USER=deploy
export KEYTURN_HOST_KEY=$(printf %q "$PKI/ssh/deploy_ed25519")
export KEYTURN_HOST_KNOWN_HOSTS=$(printf %q "$PKI/ssh/known_hosts")
export KEYTURN_WORLD_STATE=$(printf %q "$STATE")
export KEYTURN_MOTO_SERVER=$(printf %q "$(python_folder)/bin/moto_server")
export KEYTURN_DEMO_NAMESPACE=musehub-production
export KEYTURN_DEMO_HOST_IMAGE=$(demo_host_image)
export KEYTURN_POSTGRES=$(printf %q "$(postgres_folders)")
SH
}

world_image() {
  [[ $# == 1 ]] || die "image takes the file to write"
  require_servable_machine
  machine_ready || phase "installing Debian packages, Go and Rust" install_machine_packages
  find_cargo || die "cargo is needed and could not be installed"
  phase "building keyturn, optimised" image_build
  local image files
  mapfile -t files < <(image_files)
  image=$(image_name "${files[@]}")
  image_tar "$image" "${files[@]}" >"$1"
  "$REPO/dev/lib/sbom.py" "$(uname -m)-unknown-linux-gnu" >"${1%.tar}.cdx.json"
  say "$image in $1, and what it is made of in ${1%.tar}.cdx.json (CycloneDX)"
}

world_run() { box_run "$@"; }

# What tests do to a box. Connections that are open when it is unplugged hang, as they do when a cable is pulled.
world_unplug() { ip link set "kt-$1" down; }
world_plug() { ip link set "kt-$1" up; }
world_crash() { kill -KILL "$(recorded_pid "$RUN/$1.pid")"; }
