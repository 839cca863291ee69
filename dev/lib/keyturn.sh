# keyturn itself: its binary, its image, its chart in the world.
# shellcheck shell=bash

readonly KEYTURN_NAMESPACE=keyturn-system
# `dev` is the unoptimised build that the tests use too: what the demo has compiled the tests need not compile again,
# and a change is in the cluster half a minute later. `release` is what is measured and shipped.
readonly KEYTURN_PROFILE="${KEYTURN_PROFILE:-dev}"
readonly CHART="$REPO/charts/keyturn"
readonly WORLD_VALUES="$REPO/dev/world-values.yaml"

# Where cargo puts the unoptimised builds, keyturn's and the emulators'.
readonly DEV_FOLDER="${CARGO_TARGET_DIR:-$REPO/target}/debug"

keyturn_build() {
  case $KEYTURN_PROFILE in
    dev) cd "$REPO" && cargo build --locked --bin keyturn ;;
    release) image_build ;;
    *)
      echo "KEYTURN_PROFILE=$KEYTURN_PROFILE is not known. It is dev (when it is not set) or release"
      return 1
      ;;
  esac
}

keyturn_optimised() { [[ $KEYTURN_PROFILE == dev ]] || echo ", optimised"; }

keyturn_program() { if [[ $KEYTURN_PROFILE == dev ]]; then echo "$DEV_FOLDER/keyturn"; else image_program; fi; }

# The files of the image that the node runs, SOURCE:TARGET. The unoptimised program brings this machine's libraries,
# and Debian's own certificates rather than the machine's, to which somebody may have added theirs.
keyturn_files() {
  if [[ $KEYTURN_PROFILE != dev ]]; then
    image_files
    return
  fi
  local library
  echo "$DEV_FOLDER/keyturn:/keyturn"
  echo "$(rootfs_folder box)/etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt"
  for library in $(ldd "$DEV_FOLDER/keyturn" | grep -o '/[^ ]*'); do echo "$library:$library"; done
}

# keyturn_import IMAGE SOURCE:TARGET…: also drops the images of earlier builds, unless a pod still runs them.
keyturn_import() {
  local image used
  image_present "$1" || image_tar "$@" | image_import
  used=$(kubectl get pods --all-namespaces -o jsonpath='{.items[*].spec.containers[*].image}')
  for image in $(box_run "$NODE" ctr -n k8s.io images ls -q | grep '^localhost/keyturn:'); do
    [[ $image == "$1" || " $used " == *" $image "* ]] || box_run "$NODE" ctr -n k8s.io images rm "$image"
  done
}

# Whoever works on the custom resources may have applied them by hand, hence --take-ownership and --force-conflicts.
# .world/values.yaml, where there is one, adds to the world's values on this machine.
keyturn_helm() {
  local values=(--values "$WORLD_VALUES")
  [[ ! -e $STATE/values.yaml ]] || values+=(--values "$STATE/values.yaml")
  "$(client_program helm)" --kubeconfig "$STATE/kubeconfig" upgrade --install keyturn "$CHART" \
    --namespace "$KEYTURN_NAMESPACE" --create-namespace "${values[@]}" \
    --set-string "image.repository=${1%:*}" --set-string "image.tag=${1##*:}" --take-ownership --force-conflicts \
    --wait --timeout 90s
}

keyturn_install() {
  if [[ ! -e $CHART/Chart.yaml ]]; then
    say "           no charts/keyturn in this checkout: keyturn is not installed"
    return 0
  fi
  local image files
  mapfile -t files < <(keyturn_files)
  image=$(image_name "${files[@]}")
  ln -sf "$(keyturn_program)" "$STATE/bin/"
  phase "loading keyturn's image into the node" keyturn_import "$image" "${files[@]}"
  phase "installing the chart with helm" keyturn_helm "$image"
}

keyturn_up() {
  kubectl --namespace "$KEYTURN_NAMESPACE" wait deployment --all --for=condition=Available --timeout=0 >/dev/null 2>&1
}

keyturn_status() {
  [[ -e $CHART/Chart.yaml ]] || return 0
  local ok=0
  status_line keyturn "namespace $KEYTURN_NAMESPACE, with short times (dev/world-values.yaml):" keyturn_up || ok=1
  sed -n '/^times:/,/^[^ ]/s/^  /                     /p' "$WORLD_VALUES"
  return $ok
}
