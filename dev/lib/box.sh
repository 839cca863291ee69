# A box: a machine inside the machine, made of a root filesystem of its own and its own network, process, mount,
# host name and IPC namespaces. The node and the docker host each run in one.
#
# Why boxes: nothing of the world touches the machine but one bridge. Accounts, certificate stores, iptables rules,
# mounts and loopback addresses are the box's; when its first process dies, by `down` or by SIGKILL, the kernel takes
# all of it away, so there is nothing stale to clean up.
# shellcheck shell=bash

network_up() {
  if ! ip link show "$BRIDGE" >/dev/null 2>&1; then
    ip link add "$BRIDGE" type bridge
  fi
  ip address replace "$MACHINE_ADDRESS/$PREFIX_LENGTH" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  # Services and pods are reachable from the machine too, which tests and people use.
  ip route replace "$SERVICE_CIDR" via "$NODE_ADDRESS"
  ip route replace "$POD_CIDR" via "$NODE_ADDRESS"
  firewall_rules | while read -r chain rule; do
    # shellcheck disable=SC2086
    iptables -C "$chain" $rule 2>/dev/null || iptables -I "$chain" $rule
  done
}

# Where the machine has a firewall, or a docker that sends bridged packets through it, the world's own traffic passes.
firewall_rules() {
  command -v iptables >/dev/null || return 0
  [[ $(iptables -S INPUT 2>/dev/null) == "-P INPUT ACCEPT" ]] || echo "INPUT -i $BRIDGE -j ACCEPT"
  [[ $(iptables -S FORWARD 2>/dev/null) == "-P FORWARD ACCEPT" ]] || echo "FORWARD -i $BRIDGE -o $BRIDGE -j ACCEPT"
}

network_down() {
  firewall_rules | while read -r chain rule; do
    # shellcheck disable=SC2086
    iptables -D "$chain" $rule 2>/dev/null || true
  done
  ip link delete "$BRIDGE" 2>/dev/null || true
}

# What a box wrote over one root filesystem means nothing over another: it begins anew.
box_follow_rootfs() { # box_follow_rootfs FOLDER
  local root
  root=$(rootfs_folder box)
  [[ $(cat "$1/rootfs" 2>/dev/null) != "${root##*/}" ]] || return 0
  rm -rf "$1/upper" "$1/disk"
  mkdir -p "$1"
  echo "${root##*/}" >"$1/rootfs"
}

box_alive() { alive "$RUN/$1.pid"; }

# box_boot NAME ADDRESS INIT DISKS TOOLS…: starts INIT (a folder of dev/, its script `init` becomes the box's first
# process). DISKS are the folders under /var/lib that must lie on a real filesystem (overlayfs cannot be stacked) and
# survive a reboot of the box; TOOLS are folders that are bound under /opt/tools.
box_boot() {
  local name=$1 address=$2 init=$3 disks=$4 folder="$STATE/boxes/$1"
  shift 4
  box_remove_network "$name"
  box_follow_rootfs "$folder"
  mkdir -p "$folder"/{upper,work,root,etc} "$RUN/$name" "$LOGS/$name"
  # The work folder belongs to one mount; the kernel refuses to reuse one that a killed box left in use.
  rm -rf "$folder/work" && mkdir "$folder/work"

  ip netns add "keyturn-$name"
  ip link add "kt-$name" type veth peer name eth0 address "$(box_mac "$address")" netns "keyturn-$name"
  ip link set "kt-$name" master "$BRIDGE" up
  ip -n "keyturn-$name" link set lo up
  ip -n "keyturn-$name" address add "$address/$PREFIX_LENGTH" dev eth0
  ip -n "keyturn-$name" link set eth0 up
  ip -n "keyturn-$name" route add default via "$MACHINE_ADDRESS"

  local lower
  lower=$(rootfs_folder box)
  # --kill-child: who ends the process that started the box ends the box.
  BOX_NAME=$name BOX_LOWER=$lower BOX_FOLDER=$folder BOX_INIT=$REPO/dev/$init BOX_DISKS=$disks \
    BOX_TOOLS="$*" BOX_RUN=$RUN/$name BOX_LOG=$LOGS/$name \
    setsid nsenter --net="/run/netns/keyturn-$name" \
    unshare --mount --pid --uts --ipc --fork --kill-child "$REPO/dev/box/enter" \
    </dev/null >"$LOGS/$name/boot.log" 2>&1 9>&- &
  local starter=$!
  wait_for 10 "the first process of $name" first_process_of "$starter"
  process_identity "$(first_process_of "$starter")" >"$RUN/$name.pid"
}

first_process_of() { [[ $(cat "/proc/$1/comm") == unshare ]] && pgrep --parent "$1"; }

# box_run NAME COMMAND…: runs the command inside the box.
box_run() {
  local name=$1
  shift
  nsenter --target "$(recorded_pid "$RUN/$name.pid")" --mount --pid --net --uts --ipc --root --wd -- \
    /usr/bin/env -i PATH=/opt/tools/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
}

box_stop() {
  stop "$RUN/$1.pid" 20
  box_end_unrecorded "$1"
  box_remove_network "$1"
  box_remove_cgroups "$1"
}

# The same address at each boot, or everybody's ARP table would be wrong for half a minute.
box_mac() {
  # shellcheck disable=SC2046,SC2183  # four words come of one address
  printf '02:6b:%02x:%02x:%02x:%02x' $(tr . ' ' <<<"$1")
}

# A box whose `up` was killed before it recorded the first process is found by its network: that process is number 1
# of a process namespace of its own.
box_end_unrecorded() {
  local pid
  for pid in $(ip netns pids "keyturn-$1" 2>/dev/null); do
    ! grep -qE '^NSpid:.*[[:space:]]1$' "/proc/$pid/status" 2>/dev/null || kill -KILL "$pid"
  done
}

box_remove_network() {
  ip netns delete "keyturn-$1" 2>/dev/null || true
  ip link delete "kt-$1" 2>/dev/null || true
}

# Control groups are the one thing that a dead box leaves behind: cgroupfs has no namespace of ours.
box_remove_cgroups() {
  local top folder
  top=$(box_cgroup "$1")
  # Version 2 has one hierarchy; version 1 has one folder per controller.
  for folder in /sys/fs/cgroup/"$top" /sys/fs/cgroup/*/"$top"; do
    [[ ! -d $folder ]] || find "$folder" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
}

box_cgroup() {
  case $1 in
    "$NODE") echo kubepods ;;
    *) echo "keyturn-$1" ;;
  esac
}
