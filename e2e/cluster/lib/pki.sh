# shellcheck shell=bash
# The cluster's CA, the certificates of its parts, and a kubeconfig for each. Made anew for each run.

# In a shell of its own, for the umask: all of it is secret, and nothing else is to inherit that.
make_pki() (
  umask 077
  pki=$RUN/pki
  mkdir -p "$pki"
  new_key "$pki/ca.key"
  openssl req -new -x509 -key "$pki/ca.key" -out "$pki/ca.crt" -days 365 -config <(
    printf '%s\n' '[req]' 'distinguished_name=dn' 'prompt=no' 'x509_extensions=ca' '[dn]' 'CN=sidecar-operator-test-cluster' \
      '[ca]' 'basicConstraints=critical,CA:TRUE' 'keyUsage=critical,keyCertSign,cRLSign,digitalSignature' 'subjectKeyIdentifier=hash'
  )
  new_key "$pki/sa.key"
  openssl pkey -in "$pki/sa.key" -pubout -out "$pki/sa.pub"
  leaf apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:$NODE_IP"
  leaf admin /O=system:masters/CN=admin
  leaf controller-manager /CN=system:kube-controller-manager
  leaf scheduler /CN=system:kube-scheduler
  leaf proxy /CN=system:kube-proxy
  leaf kubelet "/O=system:nodes/CN=system:node:$NODE" "DNS:$NODE,IP:$NODE_IP"
  for user in admin controller-manager scheduler proxy kubelet; do
    kubeconfig_for "$user" >"$RUN/$user.conf"
  done
  cp "$RUN/admin.conf" "$RUN/kubeconfig"
)

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

# leaf NAME SUBJECT [SUBJECT-ALTERNATIVE-NAMES]
leaf() {
  local base=$RUN/pki/$1
  new_key "$base.key"
  openssl req -new -key "$base.key" -subj "$2" -out "$base.csr" -config <(printf '%s\n' '[req]' 'distinguished_name=dn' '[dn]')
  openssl x509 -req -in "$base.csr" -CA "$RUN/pki/ca.crt" -CAkey "$RUN/pki/ca.key" -CAcreateserial -days 365 -out "$base.crt" -extfile <(
    printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' 'extendedKeyUsage=clientAuth,serverAuth' \
      'authorityKeyIdentifier=keyid' ${3:+"subjectAltName=$3"}
  ) 2>/dev/null
  rm "$base.csr"
}

kubeconfig_for() {
  cat <<END
apiVersion: v1
kind: Config
current-context: e2e
contexts: [{name: e2e, context: {cluster: e2e, user: $1}}]
clusters:
- name: e2e
  cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: $(base64 -w0 "$RUN/pki/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$RUN/pki/$1.crt"), client-key-data: $(base64 -w0 "$RUN/pki/$1.key")}
END
}
