# The one-node Kubernetes: writes its configuration, boots its box, waits for it.
# shellcheck shell=bash

kubectl() { "$(client_program kubectl)" --kubeconfig "$STATE/kubeconfig" "$@"; }

node_configure() {
  local etc="$STATE/boxes/$NODE/etc" user
  mkdir -p "$etc/pki" "$etc/cni"
  cp "$PKI"/{ca.crt,apiserver.*,kubelet-client.*,service-account.*,tokens.csv} "$etc/pki/"
  for user in controller-manager scheduler kubelet kube-proxy; do
    kubeconfig $user "$etc/$user.kubeconfig"
  done
  kubeconfig admin "$STATE/kubeconfig"
  cat >"$etc/environment" <<SH
export NODE_ADDRESS=$NODE_ADDRESS NODE_NAME=$NODE_NAME SERVICE_CIDR=$SERVICE_CIDR POD_CIDR=$POD_CIDR
SH
  node_kubelet_configuration >"$etc/kubelet.yaml"
  node_containerd_configuration >"$etc/containerd.toml"
  node_cni_configuration >"$etc/cni/10-world.conflist"
}

# cgroupfs, because a box has no systemd. Without CAP_SYS_RESOURCE nothing may lower its oom score, hence 0 here and
# restrict_oom_score_adj below. failCgroupV1: where the machine still has cgroup v1, 1.35 refuses to start otherwise.
# The node's disk is the machine's: a percentage of it would be gigabytes, of which the world needs few.
node_kubelet_configuration() {
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_ADDRESS
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: /etc/world/pki/ca.crt}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
$(cgroup_v2 || echo 'failCgroupV1: false')
oomScoreAdj: 0
maxOpenFiles: 20000
enforceNodeAllocatable: []
failSwapOn: false
evictionHard: {memory.available: 100Mi, nodefs.available: 300Mi, imagefs.available: 300Mi}
imageGCHighThresholdPercent: 100
resolvConf: /etc/resolv.conf
shutdownGracePeriod: 0s
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
YAML
}

cgroup_v2() { [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]]; }

node_containerd_configuration() {
  cat <<TOML
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:3.10"
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/world/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
TOML
}

node_cni_configuration() {
  cat <<JSON
{
  "cniVersion": "0.4.0",
  "name": "world",
  "plugins": [
    {
      "type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

node_boot() {
  node_configure
  local components=("${KUBERNETES_COMPONENTS[@]/#/$(go_folder kubernetes)/}")
  box_boot "$NODE" "$NODE_ADDRESS" node "containerd etcd kubelet" "${components[@]}" "$(client_program kubectl)"
}

node_wait() {
  wait_for 60 "the API server" kubectl get --raw /readyz
  wait_for 20 containerd box_run "$NODE" ctr version
  pause_image
  wait_for 60 "the node" node_ready
  # Pods cannot be created before their namespace's account exists.
  wait_for 30 "the default service account" kubectl get serviceaccount default
}

# The second half asks the kubelet itself: after a reboot the API server still holds the last word of the one before.
node_ready() {
  [[ $(kubectl get node "$NODE_NAME" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}') == True ]] &&
    kubectl get --raw "/api/v1/nodes/$NODE_NAME/proxy/healthz" >/dev/null
}

node_up() { box_alive "$NODE" && node_ready 2>/dev/null; }

# The container that holds a pod's namespaces. Built here: there is no registry to pull it from.
pause_image() {
  image_present localhost/pause:3.10 && return
  local folder
  folder="$CACHE/pause-$(hash_of "$REPO/dev/pause/main.go")"
  if [[ ! -e $folder/pause ]]; then
    mkdir -p "$folder"
    (cd "$REPO/dev/pause" && go_build "$folder" -ldflags '-s -w' main.go && mv "$folder/main" "$folder/pause")
  fi
  "$REPO/dev/lib/image.py" --name localhost/pause:3.10 --entrypoint /pause "$folder/pause:/pause" | image_import
}

image_present() { box_run "$NODE" ctr -n k8s.io images ls -q "name==$1" | grep -q .; }
image_import() { box_run "$NODE" ctr -n k8s.io images import -; }

# Kubernetes without any object of anybody; images stay.
node_reset() {
  box_stop "$NODE"
  rm -rf "$STATE/boxes/$NODE/disk/"{etcd,kubelet} "$STATE/boxes/$NODE/upper"
}
