# What the machine itself must offer, and what is installed on it.
# shellcheck shell=bash

# Says why this machine cannot carry the world, before anything is changed on it.
require_servable_machine() {
  local why=
  if [[ $(uname -s) != Linux ]]; then
    why="it runs $(uname -s), and the world needs Linux"
  elif ((EUID != 0)); then
    why="it needs root, for network namespaces and mounts (try: sudo -E $0 ${ARGUMENTS[*]})"
  elif ! command -v apt-get >/dev/null; then
    why="it has no apt-get, with which the world installs what it lacks"
  elif ! grep -qw overlay /proc/filesystems && ! modprobe overlay 2>/dev/null; then
    why="its kernel has no overlay filesystem"
  elif [[ $(uname -m) != x86_64 && $(uname -m) != aarch64 ]]; then
    why="it is $(uname -m), and the world is built for x86_64 and aarch64"
  fi
  [[ -z $why ]] || die "this machine cannot carry the world: $why.
Nothing was changed. With a Kubernetes cluster of your own, use that one: CLUSTER=current $0 ${ARGUMENTS[*]}"
}

# command:package pairs; a package is installed only where its command is missing.
readonly MACHINE_PACKAGES=(
  curl:curl flock:util-linux git:git ip:iproute2 make:make mmdebstrap:mmdebstrap openssl:openssl pgrep:procps
  python3:python3 ssh:openssh-client ssh-keygen:openssh-client unshare:util-linux xz:xz-utils
)
readonly TEST_PACKAGES=(busybox:busybox pgbouncer:pgbouncer sshd:openssh-server)

missing_commands() { # missing_commands COMMAND:PACKAGE…
  local pair
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
  done
}

missing_packages() {
  missing_commands "${MACHINE_PACKAGES[@]}"
  command -v cc >/dev/null || printf '%s\n' gcc libc6-dev
  # Debian's signatures are checked with these keys; Ubuntu does not have them.
  [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || echo debian-archive-keyring
  [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

machine_ready() { [[ -z $(missing_packages) ]] && find_go && find_cargo; }

install_machine_packages() {
  local packages
  mapfile -t packages < <(missing_packages | sort -u)
  install_packages "${packages[@]}"
  find_go || install_go
  find_cargo || install_cargo
}

install_test_packages() {
  local packages
  mapfile -t packages < <(missing_commands "${TEST_PACKAGES[@]}")
  install_packages "${packages[@]}"
}

install_packages() {
  (($# > 0)) || return 0
  # One unreachable source of the machine's list must not stop us; a missing package will.
  apt-get update || true
  without_starting_services apt-get install --yes --no-install-recommends "$@"
}

# Tests start an sshd and a PgBouncer of their own; the machine must not get one that answers because of them.
without_starting_services() {
  local had_ssh=no had_pgbouncer=no had_policy=yes status=0
  [[ ! -e /usr/sbin/sshd ]] || had_ssh=yes
  [[ ! -e /usr/sbin/pgbouncer ]] || had_pgbouncer=yes
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    had_policy=no
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
  fi
  DEBIAN_FRONTEND=noninteractive "$@" || status=$?
  [[ $had_policy == yes ]] || rm -f /usr/sbin/policy-rc.d
  if [[ $had_ssh == no && -d /run/systemd/system ]]; then systemctl disable ssh.service ssh.socket || true; fi
  if [[ $had_pgbouncer == no && -d /run/systemd/system ]]; then systemctl disable pgbouncer.service || true; fi
  return $status
}

# Go fetches the toolchain that a go.mod asks for by itself from 1.21 on.
readonly GO_FALLBACK=1.26.0

find_go() {
  local go version
  for go in "$(command -v go)" /usr/local/go/bin/go "$CACHE/go/bin/go"; do
    [[ -x $go ]] || continue
    version=$("$go" env GOVERSION) || continue
    version=${version#go1.}
    if ((${version%%[!0-9]*} >= 21)); then
      PATH="${go%/*}:$PATH"
      return 0
    fi
  done
  return 1
}

install_go() {
  local arch=amd64
  [[ $(uname -m) != aarch64 ]] || arch=arm64
  mkdir -p "$CACHE"
  curl -fsSL --retry 3 "https://go.dev/dl/go$GO_FALLBACK.linux-$arch.tar.gz" | tar -xz -C "$CACHE"
  find_go
}

find_cargo() {
  command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
  command -v cargo >/dev/null
}

# Installs the compiler that keyturn is shipped from: a newer clippy must not fail a change that did nothing wrong.
install_cargo() {
  local rust
  rust=$(sed -n 's/^ARG RUST=//p' "$REPO/Dockerfile")
  curl -fsSL --retry 3 https://sh.rustup.rs |
    sh -s -- -y --profile minimal --default-toolchain "$rust" --component rustfmt --component clippy
  find_cargo
}
