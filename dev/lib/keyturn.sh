# keyturn itself: its binary, its image, its chart in the world.
# shellcheck shell=bash

readonly KEYTURN_NAMESPACE=keyturn-system
readonly KEYTURN_TARGET="$(uname -m)-unknown-linux-gnu"
# `dev` is the unoptimised build that the tests use too: what the demo has compiled the tests need not compile again,
# and a change is in the cluster half a minute later. `release` is what is measured and shipped.
readonly KEYTURN_PROFILE="${KEYTURN_PROFILE:-dev}"
readonly CHART="$REPO/charts/keyturn"
readonly WORLD_VALUES="$REPO/dev/world-values.yaml"

keyturn_folder() {
  case $KEYTURN_PROFILE in
    dev) echo "${CARGO_TARGET_DIR:-$REPO/target}/debug" ;;
    *) echo "${CARGO_TARGET_DIR:-$REPO/target}/$KEYTURN_TARGET/$KEYTURN_PROFILE" ;;
  esac
}

# Static, so that the image needs nothing but the binary. A target is named so that the flag does not reach build
# scripts and procedural macros, which cannot be static.
keyturn_build() {
  cd "$REPO"
  case $KEYTURN_PROFILE in
    dev) cargo build --locked --bin keyturn ;;
    *)
      RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --locked --profile "$KEYTURN_PROFILE" --target "$KEYTURN_TARGET" --bin keyturn
      ;;
  esac
}

keyturn_optimised() { [[ $KEYTURN_PROFILE == dev ]] || echo ", optimised"; }

# The files of the image. A static binary has no libraries; the unoptimised one brings this machine's.
keyturn_files() {
  local library
  echo "$(keyturn_folder)/keyturn:/keyturn"
  echo "$(keyturn_certificates):/etc/ssl/certs/ca-certificates.crt"
  if [[ $KEYTURN_PROFILE == dev ]]; then
    for library in $(ldd "$(keyturn_folder)/keyturn" | grep -o '/[^ ]*'); do echo "$library:$library"; done
  fi
}

# Named by what is in it, so that a changed binary is a new image, and an unchanged one is not imported again.
keyturn_image() {
  echo "localhost/keyturn:$(hash_of "$(keyturn_folder)/keyturn" "$(keyturn_certificates)" "$REPO/dev/lib/image.py")"
}

# Debian's own roots rather than the machine's, to which somebody may have added theirs.
keyturn_certificates() { echo "$(rootfs_folder box)/etc/ssl/certs/ca-certificates.crt"; }

keyturn_image_tar() {
  local files
  mapfile -t files < <(keyturn_files)
  "$REPO/dev/lib/image.py" --name "$1" --entrypoint /keyturn --user 65532:65532 "${files[@]}"
}

keyturn_import() { # keyturn_import IMAGE: also drops the images of earlier builds, unless a pod still runs them
  local image used
  image_present "$1" || keyturn_image_tar "$1" | image_import
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
  local image
  image=$(keyturn_image)
  ln -sf "$(keyturn_folder)/keyturn" "$STATE/bin/"
  phase "loading keyturn's image into the node" keyturn_import "$image"
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
