# CLUSTER=current: the demo in the cluster of the caller's kubectl context (kind, k3d, minikube, a real one). SSM and
# a docker host run as pods, so that the caller's machine needs kubectl and helm only: no root, no packages, no compiler.
#
# All of it lies in one namespace, which `down` deletes, but for what Kubernetes keeps outside of namespaces: keyturn's
# definitions, its cluster role with its binding, and the grant. The verbs are the current_ functions that are named
# like those of dev/lib/verbs.sh.
# shellcheck shell=bash

# The namespace, the release and the grant.
readonly DEMO=keyturn-demo
# On what is ours and lies outside of the namespace, and on the namespace.
readonly DEMO_LABEL=keyturn.dev/demo=true
readonly CURRENT="$REPO/dev/current"
# Debian 13. One that has dev/current/packages already need not fetch them.
readonly DEMO_HOST_IMAGE="${KEYTURN_DEMO_HOST_IMAGE:-debian:13-slim}"
readonly DEMO_KINDS=(managedsecrets dockerhosts secretincidents rotationgrants)

current_up() {
  local began=$EPOCHREALTIME
  current_begin
  current_require_one_cluster
  current_require_administrator
  current_require_own_namespace
  current_refuse_other_controllers
  current_find_image
  say "           in the cluster of kubectl's context $CONTEXT, namespace $DEMO"
  current_remember
  phase "making the namespace and keyturn's definitions" current_make_namespace
  [[ -n ${KEYTURN_IMAGE:-} ]] || phase "building keyturn's image with docker" current_build_image
  [[ -n ${KEYTURN_IMAGE:-} ]] || phase "loading keyturn's image into the nodes" current_load_image
  phase "starting SSM and a docker host as pods" current_start_pods
  phase "fetching the docker host's keys" current_fetch_keys
  phase "installing the chart with helm" current_helm
  current_write_programs
  printf '%7.1f s  in all\n' "$(seconds_since "$began")"
}

current_down() {
  [[ $# == 0 ]] || die "with CLUSTER=current, down takes no argument"
  current_begin
  current_require_own_namespace
  if current_namespace_exists; then
    # While keyturn and its docker host are there, and can end what they are at.
    phase "deleting secrets and hosts" current_delete_objects
    phase "uninstalling the chart" command helm --kube-context "$CONTEXT" uninstall "$DEMO" --namespace "$DEMO" \
      --ignore-not-found --wait --timeout 3m
    phase "deleting the namespace $DEMO" cluster delete namespace "$DEMO" --timeout=5m
  fi
  phase "deleting what lies outside of it" current_delete_outside
  grep '^kept' "$(phase_log "deleting what lies outside of it")" || true
  # Not the folder as a whole: KEYTURN_STATE may name one with other things in it.
  rm -rf "${STATE:?}"/{bin,ssh,log,cluster,checkout.tar.gz,image-id}
  rmdir "$STATE" 2>/dev/null || true
}

current_status() {
  current_begin
  current_namespace_exists || die "nothing of it is in the cluster of context $CONTEXT: CLUSTER=current dev/world up"
  demo get deployments,pods,services
  demo wait deployment --all --for=condition=Available --timeout=0s >/dev/null ||
    die "not everything is available: kubectl --context $CONTEXT --namespace $DEMO describe pods"
}

current_env() {
  [[ -e $STATE/cluster && -e $STATE/bin/docker ]] || die "nothing is up: CLUSTER=current dev/world up"
  cat <<SH
export CLUSTER=current
export KEYTURN_STATE=$(printf %q "$STATE")
export PATH=$(printf %q "$STATE/bin"):\$PATH
export KEYTURN_DEMO_NAMESPACE=$DEMO
export KEYTURN_HOST=$(awk 'NR == 1 { print $1 }' "$STATE/ssh/known_hosts")
export KEYTURN_HOST_PORT=22
export KEYTURN_HOST_USER=deploy
export KEYTURN_HOST_KEY=$(printf %q "$STATE/ssh/deploy")
export KEYTURN_HOST_KNOWN_HOSTS=$(printf %q "$STATE/ssh/known_hosts")
SH
}

current_run() {
  [[ ${1:-} == "$DOCKER_HOST_BOX" ]] ||
    die "with CLUSTER=current the one machine to run commands in is $DOCKER_HOST_BOX, the docker host: dev/world run $DOCKER_HOST_BOX COMMAND…"
  shift
  current_begin
  demo exec --stdin deployment/host -- "$@"
}

# --- What is needed, and in whose way it would be ---------------------------------------------------------------------

# cluster ARGUMENT…: kubectl in the cluster, wherever the caller's context points to by now; demo: in the namespace.
cluster() { command kubectl --context "$CONTEXT" "$@"; }
demo() { cluster --namespace "$DEMO" "$@"; }

# Tools, a folder for the state, and the cluster: the one that `up` was run for, or that of kubectl's context.
current_begin() {
  # In a shell of `dev/world env` these would be the programs that are written below.
  PATH=${PATH//"$STATE/bin:"/}
  local tool
  for tool in kubectl helm; do
    type -P "$tool" >/dev/null || die "CLUSTER=current needs $tool on PATH"
  done
  mkdir -p "$STATE" 2>/dev/null && [[ -w $STATE ]] ||
    die "$STATE cannot be written. Name a folder for what \`up\` must remember: KEYTURN_STATE=~/keyturn-demo"
  CONTEXT=$(command kubectl config current-context 2>/dev/null) || CONTEXT=
  CALLERS_SERVER=$(current_server)
  # shellcheck source=/dev/null
  [[ ! -e $STATE/cluster ]] || source "$STATE/cluster"
  [[ -n $CONTEXT ]] || die "kubectl has no current context: kubectl config get-contexts, kubectl config use-context"
  cluster get --raw /version >/dev/null || die "the API server of kubectl's context $CONTEXT does not answer"
}

current_server() {
  command kubectl config view --context "$CONTEXT" --minify --output jsonpath='{.clusters[0].cluster.server}' 2>/dev/null ||
    true
}

current_remember() {
  {
    printf 'CONTEXT=%q\n' "$CONTEXT"
    [[ -z ${KUBECONFIG:-} ]] || printf 'export KUBECONFIG=%q\n' "$KUBECONFIG"
  } >"$STATE/cluster"
}

current_require_one_cluster() {
  [[ -z $CALLERS_SERVER || $CALLERS_SERVER == "$(current_server)" ]] ||
    die "the demo is in the cluster of context $CONTEXT, $(current_server), and kubectl's context is now that of $CALLERS_SERVER.
End that one first (CLUSTER=current dev/world down), or give the second a folder of its own: KEYTURN_STATE=…"
}

current_require_administrator() {
  local kind
  for kind in customresourcedefinitions clusterroles clusterrolebindings namespaces; do
    cluster auth can-i create "$kind" >/dev/null 2>&1 ||
      die "the user of context $CONTEXT may not create $kind. The demo needs an administrator of the cluster"
  done
}

current_namespace_exists() { cluster get namespace "$DEMO" >/dev/null 2>&1; }

current_require_own_namespace() {
  current_namespace_exists || return 0
  [[ -n $(cluster get namespaces --selector "$DEMO_LABEL" --field-selector "metadata.name=$DEMO" --output name) ]] ||
    die "the cluster has a namespace $DEMO that dev/world did not make (it lacks the label $DEMO_LABEL).
It is left alone. The demo needs that name: rename or delete the namespace, or use another cluster"
}

# A controller that works in all namespaces would work on the demo's objects too, with another SSM.
current_refuse_other_controllers() {
  local others where namespace name
  others=$(cluster get deployments --all-namespaces --output \
    jsonpath='{range .items[?(@.spec.replicas>0)]}{.metadata.namespace}/{.metadata.name} {.spec.template.spec.containers[*].env[*].name}{"\n"}{end}' \
    --selector app.kubernetes.io/part-of=keyturn,app.kubernetes.io/component=controller)
  where=$(awk 'NF && !/ KEYTURN_WATCH_NAMESPACES( |$)/ { print $1; exit }' <<<"$others")
  [[ -n $where ]] || return 0
  namespace=${where%/*} name=${where#*/}
  die "a keyturn that works in all namespaces runs in the cluster of context $CONTEXT: $where.
It would work on the demo's objects too, and look for them in its own SSM. Limit it to its namespaces (chart value
watchNamespaces), or stop it while the demo is there:
  kubectl --context $CONTEXT scale deployment $name --namespace $namespace --replicas=0"
}

# --- keyturn's image --------------------------------------------------------------------------------------------------

# KEYTURN_IMAGE, or where the nodes are containers of a docker that is here, one that is built and loaded into them.
current_find_image() {
  local why
  [[ -z ${KEYTURN_IMAGE:-} ]] || return 0
  if [[ -z $(current_loader) ]]; then
    why="context $CONTEXT is none of kind, k3d or minikube, into whose nodes an image could be loaded"
  elif ! type -P "$(current_loader)" >/dev/null; then
    why="$(current_loader), which would load it into the nodes of context $CONTEXT, is not on PATH"
  elif ! docker version >/dev/null 2>&1; then
    why="docker, which would build it, does not answer"
  fi
  [[ -z ${why:-} ]] || die "an image of keyturn is needed, and there is none: $why.
Build it, push it to where the cluster's nodes can pull it, and name it:
  docker build --tag registry.example.com/keyturn:demo $REPO && docker push registry.example.com/keyturn:demo
  KEYTURN_IMAGE=registry.example.com/keyturn:demo CLUSTER=current make demo
On Linux without docker, \`dev/world image FILE\` (as root) writes it as a tar for \`kind load image-archive\`, \`k3s ctr
images import\` and the like."
}

# The program that loads images into the nodes; nothing where there is none.
current_loader() {
  local provider
  provider=$(command kubectl config view --context "$CONTEXT" --minify \
    --output jsonpath='{.clusters[0].cluster.extensions[*].extension.provider}')
  case $CONTEXT/$provider in
    */*minikube*) echo minikube ;;
    kind-*) echo kind ;;
    k3d-*) echo k3d ;;
  esac
}

current_build_image() { docker build --iidfile "$STATE/image-id" "$REPO"; }

# Named by what is in it: a changed image replaces the one that runs.
current_built_image() { sed 's/^sha256:\(............\).*/keyturn:demo-\1/' "$STATE/image-id"; }

current_load_image() {
  local image
  image=$(current_built_image)
  docker tag "$(<"$STATE/image-id")" "$image"
  case $(current_loader) in
    kind) kind load docker-image "$image" --name "${CONTEXT#kind-}" ;;
    k3d) k3d image import "$image" --cluster "${CONTEXT#k3d-}" ;;
    minikube) minikube image load "$image" --profile "$CONTEXT" ;;
  esac
}

# --- What is put into the cluster -------------------------------------------------------------------------------------

# docker in a pod needs a privileged one, which some clusters admit only where the namespace says so.
current_make_namespace() {
  cluster apply --server-side --filename - <<YAML
apiVersion: v1
kind: Namespace
metadata:
  name: $DEMO
  labels: {keyturn.dev/demo: "true", pod-security.kubernetes.io/enforce: privileged}
YAML
  local kind
  for kind in "${DEMO_KINDS[@]}"; do
    if ! definition_exists "$kind" || definition_is_ours "$kind"; then
      cluster label --local --overwrite --filename "$REPO/crds/$kind.keyturn.dev.yaml" "$DEMO_LABEL" --output yaml |
        cluster apply --server-side --force-conflicts --filename -
    fi
  done
  cluster wait --for=condition=Established --timeout=60s --filename "$REPO/crds"
  # Pods cannot be created before their namespace's account exists.
  wait_for 30 "the default service account" demo get serviceaccount default
}

definition_exists() { cluster get crd "$1.keyturn.dev" >/dev/null 2>&1; }

# We applied it, and no installation of the chart has taken it over since.
definition_is_ours() {
  [[ $(cluster get crd "$1.keyturn.dev" --ignore-not-found --output \
    jsonpath='{.metadata.labels.keyturn\.dev/demo} {.metadata.annotations.meta\.helm\.sh/release-name}') == "true " ]]
}

# The scripts of the pods, as the checkout has them; a change of one makes the pods anew.
readonly DEMO_FILES=(dev/box/supervise.sh dev/current dev/host dev/ssm/server.py)

current_start_pods() {
  local ssm checkout
  COPYFILE_DISABLE=1 tar --create --gzip --directory "$REPO" --file "$STATE/checkout.tar.gz" "${DEMO_FILES[@]}"
  checkout=$(cd "$REPO" && find "${DEMO_FILES[@]}" -type f | LC_ALL=C sort | xargs cat | hash_of -)
  demo create configmap checkout --from-file="$STATE/checkout.tar.gz" --dry-run=client --output yaml |
    demo apply --server-side --force-conflicts --filename -
  demo apply --server-side --filename "$CURRENT/services.yaml"
  ssm=$(service_address ssm)
  sed "s|@IMAGE@|$DEMO_HOST_IMAGE|; s|@SSM_URL@|http://$ssm:4583|; s|@CHECKOUT@|$checkout|" "$CURRENT/pods.yaml" |
    demo apply --server-side --force-conflicts --filename -
  await_pods ssm
  await_pods host
}

service_address() { demo get service "$1" --output jsonpath='{.spec.clusterIP}'; }

# await_pods DEPLOYMENT: waits until it runs as it is now described, and says why where that will not be.
await_pods() {
  local deadline=$((SECONDS + 900)) waiting
  until demo rollout status "deployment/$1" --timeout=2s 2>/dev/null; do
    waiting=$(demo get pods --selector "app.kubernetes.io/name=$1" --output \
      jsonpath='{range .items[*].status.containerStatuses[*].state.waiting}{.reason}: {.message}{"\n"}{end}' |
      grep -E '^(ErrImageNeverPull|ImagePullBackOff|InvalidImageName|CrashLoopBackOff)' || true)
    # A policy or a quota that refuses the pod.
    waiting+=$(demo get deployment "$1" --output \
      jsonpath='{.status.conditions[?(@.type=="ReplicaFailure")].message}')
    if [[ -n $waiting ]] || ((SECONDS >= deadline)); then
      demo logs "deployment/$1" --tail=12 || true
      demo get events --field-selector type=Warning --output custom-columns=:.involvedObject.name,:.message | tail -n 5
      echo "the pod of deployment $1 does not become ready: ${waiting:-after 15 minutes}"
      return 1
    fi
    sleep 1
  done
}

# The key of the account, and what its host is known by.
current_fetch_keys() {
  local address
  address=$(service_address host)
  mkdir -p "$STATE/ssh"
  chmod 700 "$STATE/ssh"
  (umask 077 && demo exec deployment/host -- cat /etc/world/deploy >"$STATE/ssh/deploy")
  demo exec deployment/host -- sh -c 'cat /etc/world/ssh_host_*_key.pub' |
    sed "s/^/$address /; s/ production\$//" >"$STATE/ssh/known_hosts"
}

current_helm() {
  local image=${KEYTURN_IMAGE:-} values=()
  [[ -n $image ]] || image=$(current_built_image)
  if [[ $image == *@* ]]; then
    values=(--set-string "image.repository=${image%@*}" --set-string "image.digest=${image#*@}")
  else
    # A colon before the last slash is that of a registry's port.
    [[ ${image##*/} == *:* ]] || image+=:latest
    values=(--set-string "image.repository=${image%:*}" --set-string "image.tag=${image##*:}")
  fi
  command helm --kube-context "$CONTEXT" upgrade --install "$DEMO" "$CHART" --namespace "$DEMO" \
    --values "$WORLD_VALUES" --values "$CURRENT/values.yaml" "${values[@]}" \
    --set-string "aws.endpointUrlSsm=http://$(service_address ssm):4583" --wait --timeout 3m
}

# What `dev/world env` puts on PATH: kubectl and helm for this cluster, aws and docker as the docker host has them.
current_write_programs() {
  mkdir -p "$STATE/bin"
  local program kubectl
  kubectl="$(printf %q "$(type -P kubectl)") --context $(printf %q "$CONTEXT")"
  write_program kubectl "exec $kubectl \"\$@\""
  write_program helm "exec $(printf %q "$(type -P helm)") --kube-context $(printf %q "$CONTEXT") \"\$@\""
  for program in aws docker; do
    write_program $program "terminal=(); [[ ! -t 0 || ! -t 1 ]] || terminal=(--tty)
exec $kubectl --namespace $DEMO exec --stdin \"\${terminal[@]}\" deployment/host -- $program \"\$@\""
  done
}

write_program() { # write_program NAME SCRIPT
  {
    echo '#!/usr/bin/env bash'
    [[ -z ${KUBECONFIG:-} ]] || printf 'export KUBECONFIG=%q\n' "$KUBECONFIG"
    echo "$2"
  } >"$STATE/bin/$1"
  chmod 755 "$STATE/bin/$1"
}

# --- Taking it away ---------------------------------------------------------------------------------------------------

# keyturn ends what it is at before it lets go of a secret. Where it is not there any more, there is nothing to end.
current_delete_objects() {
  local kind object
  for kind in managedsecrets dockerhosts secretincidents; do
    definition_exists "$kind" || continue
    demo delete "$kind" --all --timeout=60s && continue
    for object in $(demo get "$kind" --output name); do
      demo patch "$object" --type merge --patch '{"metadata": {"finalizers": null}}'
    done
  done
}

# Of the definitions those that are ours, unless somebody has made objects of them meanwhile: these would go with them.
current_delete_outside() {
  local kind others=
  if definition_exists rotationgrants; then cluster delete rotationgrant "$DEMO" --ignore-not-found; fi
  cluster delete clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings \
    --selector "app.kubernetes.io/part-of=keyturn,app.kubernetes.io/instance=$DEMO"
  for kind in "${DEMO_KINDS[@]}"; do
    if definition_exists "$kind"; then others+=$(cluster get "$kind" --all-namespaces --output name); fi
  done
  for kind in "${DEMO_KINDS[@]}"; do
    definition_is_ours "$kind" || continue
    if [[ -z $others ]]; then
      cluster delete crd "$kind.keyturn.dev" --timeout=60s
    else
      echo "kept, because the cluster has objects of keyturn besides the demo's: the definition $kind.keyturn.dev"
    fi
  done
}

# --- For tests: the world as somebody's cluster -----------------------------------------------------------------------

# The image of the pods with all packages, as dev/current/Dockerfile makes it.
demo_host_image() {
  local root
  root=$(rootfs_folder demo)
  echo "localhost/keyturn-demo-host:${root##*-}"
}

# The world's docker makes an image of the root filesystem, and Kubernetes' node gets it: neither has a registry.
demo_host_import() {
  local image
  image=$(demo_host_image)
  ! image_present "$image" || return 0
  tar -C "$(rootfs_folder demo)" -c . | docker_on_host import - "$image"
  docker_on_host save "$image" | image_import
  docker_on_host rmi "$image"
}
