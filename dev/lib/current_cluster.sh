# CLUSTER=current: keyturn in the cluster of the caller's kubectl context, for machines that cannot carry the world,
# and for trying it on a cluster that exists. Hosts and SSM are the caller's own.
# shellcheck shell=bash

current_up() {
  local tool context values=()
  for tool in kubectl helm; do
    command -v "$tool" >/dev/null || die "CLUSTER=current needs $tool on PATH"
  done
  context=$(command kubectl config current-context) || die "CLUSTER=current needs a kubectl context; none is current"
  [[ -n ${KEYTURN_IMAGE:-} ]] || die "CLUSTER=current needs KEYTURN_IMAGE, an image that the cluster can pull or has.
On Linux, dev/world image FILE writes one as a tar, for \`kind load image-archive\`, \`k3s ctr images import\` and the like"
  [[ -n ${AWS_REGION:-} ]] || die "CLUSTER=current needs AWS_REGION"
  say "using the cluster of kubectl's context $context"
  command kubectl version >/dev/null || die "the API server of the context $context does not answer"

  values=(--set-string "cluster=$(tr -c 'a-zA-Z0-9\n' - <<<"$context")" --set-string "aws.region=$AWS_REGION")
  [[ -z ${AWS_ENDPOINT_URL_SSM:-} ]] || values+=(--set-string "aws.endpointUrlSsm=$AWS_ENDPOINT_URL_SSM")
  command kubectl create namespace "$KEYTURN_NAMESPACE" --dry-run=client -o yaml | command kubectl apply -f - >/dev/null
  if [[ -n ${AWS_ACCESS_KEY_ID:-} ]]; then
    # By a file descriptor: arguments can be read by every process of the machine.
    command kubectl apply --namespace "$KEYTURN_NAMESPACE" -f - >/dev/null <<YAML
apiVersion: v1
kind: Secret
metadata: {name: keyturn-aws}
stringData:
  AWS_ACCESS_KEY_ID: "$AWS_ACCESS_KEY_ID"
  AWS_SECRET_ACCESS_KEY: "$AWS_SECRET_ACCESS_KEY"
  ${AWS_SESSION_TOKEN:+AWS_SESSION_TOKEN: "$AWS_SESSION_TOKEN"}
YAML
    values+=(--set-string aws.existingSecret=keyturn-aws)
  fi
  command helm upgrade --install keyturn "$CHART" --namespace "$KEYTURN_NAMESPACE" "${values[@]}" \
    --set-string "image.repository=${KEYTURN_IMAGE%:*}" --set-string "image.tag=${KEYTURN_IMAGE##*:}" --wait --timeout 3m
}

current_down() { command helm uninstall keyturn --namespace "$KEYTURN_NAMESPACE" --wait; }

current_status() {
  command kubectl --namespace "$KEYTURN_NAMESPACE" get deployments,pods
  command kubectl --namespace "$KEYTURN_NAMESPACE" wait deployment --all --for=condition=Available --timeout=0
}
