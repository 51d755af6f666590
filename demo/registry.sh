# shellcheck shell=bash
# A registry in the test cluster that asks for a password, with one image that no node has. Sourced by run.sh.

# start_registry ROOT WORK: the registry's Pod, and $pushed, the name of its image. User demo, password demo-password.
start_registry() {
    local root=$1 work=$2 port forward layer layer_size config_size
    # The hash of "demo-password".
    cat >"$work/htpasswd" <<'HASH'
demo:$2a$04$l7a/i9b3.8v4gM/UVb1/AOoRL2rrWlO53J6fMZuXJncsFBumi1pY.
HASH
    cat >"$work/registry.yml" <<'CONFIG'
version: 0.1
storage: {inmemory: {}}
http: {addr: ':5000'}
log: {level: warn}
auth:
  htpasswd: {realm: registry.test, path: /etc/registry/htpasswd}
CONFIG
    kubectl create namespace demo-registry
    kubectl create configmap registry -n demo-registry --from-file "$work/htpasswd" --from-file "$work/registry.yml"
    kubectl apply -f - <<'OBJECTS'
apiVersion: v1
kind: Pod
metadata: {name: registry, namespace: demo-registry, labels: {app: registry}}
spec:
  containers:
  - name: registry
    image: docker.io/library/registry:3
    args: [serve, /etc/registry/registry.yml]
    ports: [{containerPort: 5000}]
    readinessProbe: {tcpSocket: {port: 5000}, periodSeconds: 1}
    volumeMounts: [{name: config, mountPath: /etc/registry}]
  volumes: [{name: config, configMap: {name: registry}}]
---
apiVersion: v1
kind: Service
metadata: {name: registry, namespace: demo-registry}
spec: {selector: {app: registry}, clusterIP: 10.96.0.50, ports: [{port: 5000}]}
OBJECTS
    kubectl wait -n demo-registry --for=condition=Ready pod/registry --timeout=60s
    kubectl port-forward -n demo-registry pod/registry :5000 >"$work/forward" &
    forward=$!
    until port=$(sed -nE 's/^Forwarding from 127.0.0.1:([0-9]+) .*/\1/p' "$work/forward") && [ -n "$port" ]; do
        kill -0 "$forward" || return 1
        sleep 0.1
    done
    mkdir -p "$work/layer"
    tar -xf "$root/target/images/scratch-static.tar" -C "$work/layer"
    layer=$(echo "$work"/layer/*.tar)
    printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/app"],"Labels":{"demo":"%s"}},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
        "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')" "$$" "$(digest "$layer")" >"$work/config.json"
    layer_size=$(stat -c %s "$layer")
    config_size=$(stat -c %s "$work/config.json")
    upload "$port" "$layer"
    upload "$port" "$work/config.json"
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%s}]}' \
        "$(digest "$work/config.json")" "$config_size" "$(digest "$layer")" "$layer_size" >"$work/manifest.json"
    to_registry -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
        --data-binary "@$work/manifest.json" "http://127.0.0.1:$port/v2/shop/web/manifests/demo-$$"
    kill "$forward"
    wait "$forward" 2>/dev/null || true
    pushed=registry.test/shop/web:demo-$$
}

digest() { printf 'sha256:%s' "$(sha256sum "$1" | cut -d ' ' -f 1)"; }

to_registry() { curl -sS --fail --noproxy '*' -u demo:demo-password "$@"; }

# upload PORT FILE
upload() {
    local location
    location=$(to_registry -X POST -o /dev/null -w '%header{location}' "http://127.0.0.1:$1/v2/shop/web/blobs/uploads/")
    case "$location" in /*) location=http://127.0.0.1:$1$location ;; esac
    case "$location" in *\?*) location="$location&digest=$(digest "$2")" ;; *) location="$location?digest=$(digest "$2")" ;; esac
    to_registry -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$2" "$location"
}
