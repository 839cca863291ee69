# Keys and certificates of the world: made once per checkout, kept by `reset`, so that what `dev/world env` printed
# stays true.
# shellcheck shell=bash

make_pki() {
  [[ ! -e $PKI/complete ]] || return 0
  rm -rf "$PKI"
  mkdir -p "${PKI%/*}"
  mkdir -m 700 "$PKI"
  cd "$PKI" || return

  openssl ecparam -name prime256v1 -genkey -noout -out ca.key
  openssl req -x509 -new -key ca.key -days 3650 -subj /CN=keyturn-world -out ca.crt \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
  issue apiserver /CN=kube-apiserver serverAuth "IP:$NODE_ADDRESS,IP:$API_SERVICE_ADDRESS,IP:127.0.0.1,\
DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
DNS:kubernetes.default.svc.cluster.local"
  # With it the API server shows itself to the kubelet; `kubectl logs` and `exec` need it.
  issue kubelet-client /O=system:masters/CN=kube-apiserver clientAuth DNS:kube-apiserver
  openssl genrsa -out service-account.key 2048
  openssl rsa -in service-account.key -pubout -out service-account.pub

  local user
  for user in admin controller-manager scheduler kubelet kube-proxy; do
    openssl rand -hex 24 >"$user.token"
  done
  {
    echo "$(<admin.token),admin,admin,system:masters"
    echo "$(<controller-manager.token),system:kube-controller-manager,controller-manager"
    echo "$(<scheduler.token),system:kube-scheduler,scheduler"
    echo "$(<kubelet.token),system:node:$NODE_NAME,kubelet,system:nodes"
    echo "$(<kube-proxy.token),system:kube-proxy,kube-proxy"
  } >tokens.csv

  mkdir ssh
  local type
  for type in ed25519 ecdsa rsa; do
    ssh-keygen -q -t $type -N '' -C production -f "ssh/ssh_host_${type}_key"
    # The deploy account's keys, one of each kind; RSA in the form that EC2 hands out.
    # shellcheck disable=SC2046  # two words, or none
    ssh-keygen -q -t $type -N '' -C deploy -f "ssh/deploy_$type" $([[ $type != rsa ]] || echo -m PEM)
  done
  cat ssh/deploy_*.pub >ssh/authorized_keys
  sed "s/^/$HOST_ADDRESS /; s/ production\$//" ssh/ssh_host_*_key.pub >ssh/known_hosts
  touch complete
}

# issue NAME SUBJECT USAGE NAMES: a certificate by the world's own authority.
issue() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  openssl req -new -key "$1.key" -subj "$2" |
    openssl x509 -req -days 3650 -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" \
      -extfile <(printf 'extendedKeyUsage=%s\nsubjectAltName=%s\n' "$3" "$4")
}

# kubeconfig USER FILE
kubeconfig() {
  cat >"$2" <<YAML
apiVersion: v1
kind: Config
current-context: keyturn-world
clusters:
- name: keyturn-world
  cluster: {server: "$API_URL", certificate-authority-data: $(base64 -w0 <"$PKI/ca.crt")}
contexts:
- name: keyturn-world
  context: {cluster: keyturn-world, user: $1}
users:
- name: $1
  user: {token: $(<"$PKI/$1.token")}
YAML
  chmod 600 "$2"
}
