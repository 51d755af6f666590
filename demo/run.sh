#!/usr/bin/env bash
# A walk through Postern's main job, with real output: every command is printed, run and checked.
# Unattended it takes the test cluster; POSTERN_DEMO=current takes the current kube context, and asks first.
# POSTERN_DEMO_IMAGE names another image for the ops pod, where the cluster cannot pull the default one.
set -euo pipefail
called_in=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
work=$(mktemp -d)
installed=no
building= # the process that builds Kubernetes

finish() {
    local code=$?
    if [ "$code" -ne 0 ] && [ "$installed" = yes ]; then
        printf '\nThe demo stopped here (exit code %s). What it installed is still there; this removes it:\n' "$code" >&2
        printf '  %s ops uninstall --confirm%s\n' "$(command -v postern)" "${context:+ --context $(printf %q "$context")}" >&2
        if grep -qs 'the image cannot be pulled' "$work/seen"; then
            printf 'Name an image that the nodes can pull: POSTERN_DEMO_IMAGE=REGISTRY/NAME:TAG (images/ops builds one)\n' >&2
        fi
    fi
    [ -z "$building" ] || kill "$building" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# A part of the walk: its heading and what to look for.
part() { printf '\n\033[1m── %s\033[0m\n%s\n' "$1" "$2"; }
[ -t 1 ] || part() { printf '\n── %s\n%s\n' "$1" "$2"; }
also() { printf '\n%s\n' "$1"; }

# try CODE COMMAND [PATTERN…]: prints the command, runs it, and stops unless it exits with CODE and its output
# matches every PATTERN (or, for one that begins with !, does not).
try() {
    local wanted=$1 line=$2 code pattern
    shift 2
    printf '\n$ %s\n' "$line"
    set +e
    (eval "$line") 2>&1 </dev/null | tee "$work/seen"
    code=${PIPESTATUS[0]}
    set -e
    if [ "$code" -ne 0 ] || [ "$wanted" -ne 0 ]; then printf '(exit code %s)\n' "$code"; fi
    [ "$code" -eq "$wanted" ] || die "that should have exited with $wanted"
    for pattern in "$@"; do
        if [ "${pattern#!}" != "$pattern" ]; then
            ! grep -qE -- "${pattern#!}" "$work/seen" || die "that should not have said: ${pattern#!}"
        else
            grep -qE -- "$pattern" "$work/seen" || die "that should have said: $pattern"
        fi
    done
}

# slowly WHAT COMMAND…: a step that takes long the first time; says so, and that it is still at it.
slowly() {
    local began=$SECONDS ticker code=0
    printf '%s\n' "$1"
    shift
    (while sleep 30; do printf '  … %s s\n' $((SECONDS - began)); done) &
    ticker=$!
    "$@" </dev/null >"$work/said" || code=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [ "$code" -eq 0 ] || die "that failed: $*"
    printf '  took %s s\n' $((SECONDS - began))
}

for tool in "cargo:Rust 1.89 or newer" "cc:a C compiler"; do
    command -v "${tool%%:*}" >/dev/null || die "missing: ${tool#*:}"
done

case "${POSTERN_DEMO:-testbed}" in
current)
    # Absolute, as the walk goes on in a folder of its own.
    IFS=: read -ra files <<<"${KUBECONFIG:-${HOME:-}/.kube/config}"
    kubeconfig=
    for file in "${files[@]}"; do
        case "$file" in '') continue ;; /*) ;; *) file=$called_in/$file ;; esac
        kubeconfig=$kubeconfig${kubeconfig:+:}$file
    done
    export KUBECONFIG=$kubeconfig
    IFS=: read -ra files <<<"$kubeconfig"
    # YAML, or JSON with a key a line, as kubectl writes them; of several files the first that says so.
    context=$(sed -nE 's/^[[:space:]]*"?current-context"?:[[:space:]]*//p' "${files[@]}" 2>/dev/null |
        sed -E "s/[[:space:],]*\$//; s/^\"(.*)\"\$/\1/; s/^'(.*)'\$/\1/" | grep -m1 . || true)
    [ -n "$context" ] || die "POSTERN_DEMO=current, but there is no current context in $KUBECONFIG"
    # What is confirmed is what is used: no configuration names another context, and none switched to meanwhile.
    printf "context: '%s'\n" "${context//\'/\'\'}" >"$work/config.yaml"
    export POSTERN_CONFIG=$work/config.yaml
    printf 'The demo will install the ops pod in the cluster of context "%s" and remove it again.\n' "$context"
    printf 'It makes the namespaces postern-ops and postern-test, with a pod, a Secret and a ServiceAccount; no Role.\n'
    printf 'Your Postern configuration is not read.\n'
    if [ "${POSTERN_DEMO_YES:-}" != 1 ]; then
        [ -t 0 ] || die "confirm at a terminal, or with POSTERN_DEMO_YES=1"
        read -r -p 'Go on? [y/N] ' answer
        case "$answer" in y | Y | yes) ;; *) die "stopped; nothing was changed" ;; esac
    fi
    ;;
testbed) context= ;;
*) die "POSTERN_DEMO is \"$POSTERN_DEMO\"; it may be testbed (the default) or current" ;;
esac

part "What is needed" "Built from this checkout. Later runs take seconds."
# As the tests build it: in half the time, and larger and slower than a release.
export POSTERN_XTASK_QUICK=1
slowly "Compiling the developer commands (first time: about a minute)" cargo build --quiet --package xtask
if [ -z "$context" ]; then
    # Beside our own build: Go and Rust leave each other time while one of them links.
    cargo xtask cluster build </dev/null >"$work/kubernetes" 2>&1 &
    building=$!
fi
slowly "Building postern and its agent (first time: about 5 minutes on two cores)" cargo xtask dist
kubernetes_is_built() { wait "$building" || { cat "$work/kubernetes" >&2; return 1; }; }
[ -z "$building" ] || slowly "Building Kubernetes (begun before; first time: 5 minutes more)" kubernetes_is_built
building=
PATH=$root/target/$(uname -m)-unknown-linux-gnu/quick:$PATH
[ -n "$context" ] || PATH=$PATH:$root/target/testbed/bin # kubectl, where there is none
export PATH
if [ -z "$context" ]; then
    slowly "Bringing up a real Kubernetes in a network namespace of its own (first time: 2 minutes)" \
        cargo xtask cluster up
    export KUBECONFIG=$root/target/testbed/kubeconfig
    # Nobody's settings apply to the test cluster.
    export POSTERN_CONFIG=/dev/null NO_PROXY="127.0.0.1,localhost,${NO_PROXY:-}"
fi
unset IC_API_KEY
image=
[ -z "${POSTERN_DEMO_IMAGE:-}" ] || image=" --image $(printf %q "$POSTERN_DEMO_IMAGE")"

cd "$work"
preview=$(postern ops uninstall </dev/null) || die "the cluster does not answer as it should"
case "$preview" in
"Nothing of the ops pod is installed here."*) ;;
*)
    [ -z "$context" ] || die "there is an ops pod in context \"$context\" that the demo did not make; it is left alone"
    printf '\nThe test cluster holds an ops pod of earlier tests; it is removed first.\n'
    postern ops uninstall --confirm </dev/null >/dev/null 2>&1 || die "it could not be removed"
    ;;
esac

if [ -n "$context" ]; then
    # Asks no server.
    pulled=$(eval "postern ops install --dry-run -o yaml$image" </dev/null 2>/dev/null | sed -nE 's/^ *(- )?image: *"?([^"]*)"?$/\2/p')
    printf '\nThe cluster'\''s nodes must be able to pull the image %s.\n' "$pulled"
    [ -n "$image" ] || printf '%s\n' \
        "That of a development build is in no registry. Unless it was loaded onto the nodes, build images/ops, push it to" \
        "a registry that they reach, and name it: POSTERN_DEMO_IMAGE=REGISTRY/NAME:TAG POSTERN_DEMO=current make demo"
fi

part "1. Install the ops pod" "A least-privilege pod in which tools run. The credential is made up, and read from the environment."
installed=yes
first=demo-key-one-$RANDOM-0123456789
second=demo-key-number-two-$RANDOM-0123456789
printf '\n$ export IBMCLOUD_API_KEY=%s\n' "$first"
export IBMCLOUD_API_KEY=$first
try 0 "postern ops install --trusted-profile off$image" 'created Secret' 'is ready'
also "Again: nothing to do."
try 0 "postern ops install --trusted-profile off$image" 'unchanged' '!created|updated'

part "2. Run tools as if they were local" "Streams stay apart, and a tool's exit code comes back unchanged."
try 3 "postern run -- sh -c 'echo to stdout; echo to stderr >&2; exit 3' 2>errors.txt" '^to stdout' '!to stderr'
try 0 "cat errors.txt" '^to stderr' '!to stdout'
try 0 "postern run -- seq 1 2000000 | tail -n 1" '^2000000$'
also "Standard input, and a local file staged for one run:"
try 0 "printf 'pear\napple\n' | postern run -i -- sort" '^apple' '^pear'
printf 'region: eu-de\n' >values.yaml
try 0 "postern run --file values.yaml=/tmp/values.yaml -- cat /tmp/values.yaml" '^region: eu-de'
also "What is not there says so, with an exit code no tool is mistaken for:"
try 127 "postern run -- no-such-tool" 'no-such-tool'

part "3. A secret that comes out redacted" "The tool has the credential (its length proves it); what it prints of it is masked."
try 0 "postern run -- sh -c 'printf %s \"\$IBMCLOUD_API_KEY\" | wc -c'" "^ *${#first}\$"
try 0 "postern run -- printenv IBMCLOUD_API_KEY" '\[REDACTED\]' "!$first"
try 0 "postern run -- sh -c 'printf %s \"\$IBMCLOUD_API_KEY\" | base64'" '\[REDACTED\]' "!$(printf %s "$first" | base64)"

part "4. Show" "What is installed, and as whom it runs."
try 0 "postern ops show" 'ready: *true' 'static key' "!$first"

part "5. Rotate the credential" "A new value, install again: the Secret changes and the pod is replaced."
printf '\n$ export IBMCLOUD_API_KEY=%s\n' "$second"
export IBMCLOUD_API_KEY=$second
try 0 "postern ops install --trusted-profile off$image" 'updated Secret' 'Pod' 'is ready'
try 0 "postern run -- sh -c 'printf %s \"\$IBMCLOUD_API_KEY\" | wc -c'" "^ *${#second}\$"

part "6. Who ran what" "The agent's audit lines; never a secret in them."
try 0 "postern ops logs" 'wc -c' "!$second"

if [ -z "$context" ]; then
    part "7. Copy" "In and out of pods, verified; this one has neither shell nor tar."
    try 0 "kubectl run postern-demo -n default --image scratch-static:1 --restart Never" 'created'
    try 0 "kubectl wait -n default --for=condition=Ready pod/postern-demo --timeout=60s" 'condition met'
    try 0 "postern cp values.yaml default/postern-demo:/tmp/" '1 file copied and verified'
    try 0 "postern cp default/postern-demo:/tmp/values.yaml copy.yaml" '1 file copied and verified'
    try 0 "cat copy.yaml" '^region: eu-de'
    try 0 "kubectl delete pod postern-demo -n default --wait=false" 'deleted'
fi

if [ -z "$context" ]; then
    # shellcheck source=registry.sh
    . "$root/demo/registry.sh"
    part "8. An image behind a password" "A Pod whose credential is in another namespace cannot pull. The controller brings it there."
    slowly "Starting a registry that asks for a password, with an image that the node does not have" start_registry "$root" "$work"
    try 0 "kubectl create namespace shop" 'created'
    try 0 "kubectl run web -n shop --image $pushed" 'created'
    try 0 "kubectl wait -n shop pod/web --for=jsonpath='{.status.containerStatuses[0].state.waiting.reason}'=ImagePullBackOff --timeout=90s" 'condition met'
    try 0 "kubectl delete pod web -n shop --grace-period=0 --force 2>/dev/null" 'deleted'
    try 0 "postern controller install --replicas 1" 'is available'
    auth=$(printf demo:demo-password | base64)
    printf '{"auths":{"registry.test":{"auth":"%s"}}}' "$auth" >docker.json
    try 0 "kubectl create namespace platform" 'created'
    try 0 "kubectl create secret generic vendor -n platform --type kubernetes.io/dockerconfigjson --from-file .dockerconfigjson=docker.json" 'created'
    cat >vendor.yaml <<'OBJECT'
apiVersion: postern.dev/v1alpha1
kind: ClusterPullSecret
metadata: {name: vendor}
spec:
  source: {namespace: platform, name: vendor}
  namespaces: {names: [shop]}
  registries: [registry.test/shop]
OBJECT
    try 0 "cat vendor.yaml" 'ClusterPullSecret'
    try 0 "kubectl apply -f vendor.yaml" 'created'
    try 0 "kubectl run web -n shop --image $pushed" 'created'
    try 0 "kubectl wait -n shop pod/web --for=condition=Ready --timeout=90s" 'condition met'
    try 0 "kubectl get clusterpullsecrets" 'True'

    part "9. A volume that belongs to someone else" "A Pod that does not run as root cannot write its fresh volume. The webhook gives it to its user."
    cat >data.yaml <<'OBJECTS'
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
OBJECTS
    cat >pod.yaml <<'OBJECT'
apiVersion: v1
kind: Pod
metadata: {name: writer, namespace: shop}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 2000, runAsGroup: 2000, fsGroup: 2000}
  containers:
  - {name: writer, image: scratch-static:1, command: [/app, write, /data/file], volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
OBJECT
    try 0 "kubectl apply -f data.yaml -f pod.yaml" 'created'
    try 0 "kubectl wait -n shop pod/writer --for=jsonpath='{.status.phase}'=Failed --timeout=60s" 'condition met'
    try 0 "kubectl logs -n shop writer" 'permission denied'
    try 1 "postern verify volumes -n shop" 'fsGroup 2000 has no effect'
    cat >local-path.yaml <<'OBJECT'
apiVersion: postern.dev/v1alpha1
kind: VolumeOwnership
metadata: {name: local-path}
spec:
  namespaces: {names: [shop]}
  storageClasses: [local-path]
OBJECT
    try 0 "kubectl apply -f local-path.yaml" 'created'
    try 0 "kubectl delete -f pod.yaml" 'deleted'
    # The webhook has to have read the object.
    until kubectl apply --dry-run=server -o yaml -f pod.yaml | grep -q postern-own; do sleep 0.2; done
    try 0 "kubectl apply -f pod.yaml" 'created'
    try 0 "kubectl wait -n shop pod/writer --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s" 'condition met'
    try 0 "kubectl logs -n shop writer -c postern-own" '2000:2000'
    try 0 "postern controller uninstall --custom-resources --confirm" 'deleted Namespace'
    try 0 "kubectl delete namespace shop platform demo-registry --wait=false" 'deleted'
fi

part "10. Uninstall" "First a preview, then, confirmed, all of it."
try 0 "postern ops uninstall" 'Would delete' 'Pod'
try 0 "postern ops uninstall --confirm" 'deleted Pod'
try 0 "postern ops uninstall" 'Nothing of the ops pod'
installed=no

part "That was it" "To try next:"
if [ -z "$context" ]; then
    cat <<NEXT
  export KUBECONFIG=$root/target/testbed/kubeconfig PATH=$root/target/$(uname -m)-unknown-linux-gnu/release:\$PATH
  postern ops install
  postern run -it -- bash                  # a terminal in the ops pod
  postern exec -n postern-ops postern-ops -- ls /
  postern ops show --check                 # every link of the chain, one by one
  POSTERN_DEMO=current make demo           # the same in your own cluster; asks first
  make clean-cluster                       # the test cluster goes, and leaves nothing behind
NEXT
else
    cat <<NEXT
  postern --help                           # in $root/target/$(uname -m)-unknown-linux-gnu/release
  postern ops install --dry-run            # what it would change here
  postern ops rbac                         # the Roles people need to install, to run and to look
NEXT
fi
