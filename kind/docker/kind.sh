#!/usr/bin/env bash
# Two clusters with Docker and kind, joined into one mesh. Every act may be repeated.
#   kind.sh up        make both clusters, build and load the image, install Isthmus
#   kind.sh connect   enable the mesh store in both and connect them
#   kind.sh down      remove both clusters
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
image=${ISTHMUS_IMAGE:-isthmus:dev}
clusters=(cluster1 cluster2)

fail() { printf 'kind.sh: %s\n' "$1" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is not installed: $2"; }

tools() {
  need docker "https://docs.docker.com/engine/install/"
  need kind "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
  need kubectl "apt-get install kubernetes-client, or https://kubernetes.io/docs/tasks/tools/"
  docker info >/dev/null 2>&1 || fail "the Docker engine does not answer: start it, or run as a user who may use it"
}

isthmus() {
  [ -x "$top/.venv/bin/isthmus" ] || fail "no $top/.venv/bin/isthmus: run 'make setup' first"
  "$top/.venv/bin/isthmus" "$@"
}

exists() { kind get clusters 2>/dev/null | grep -qx "$1"; }

up() {
  tools
  docker build -q -f "$here/Dockerfile" -t "$image" "$top"
  local id=0 name
  for name in "${clusters[@]}"; do
    id=$((id + 1))
    exists "$name" || kind create cluster --config "$here/$name.yaml"
    kind load docker-image --name "$name" "$image"
    # Without kube-proxy nobody serves the API's ClusterIP before us: agents use the node's name.
    isthmus install --context "kind-$name" --cluster-name "$name" --cluster-id "$id" \
      --set "k8sServiceHost=$name-control-plane" --image "$image" --wait
    kubectl --context "kind-$name" wait --for=condition=Ready nodes --all --timeout=180s
  done
}

connect() {
  tools
  local name
  for name in "${clusters[@]}"; do
    exists "$name" || fail "there is no cluster $name: run '$0 up' first"
    isthmus clustermesh enable --context "kind-$name"
  done
  isthmus clustermesh connect --context kind-cluster1 --destination-context kind-cluster2
  for name in "${clusters[@]}"; do
    isthmus clustermesh status --context "kind-$name" --wait
  done
}

down() {
  need kind "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
  local name
  for name in "${clusters[@]}"; do
    if exists "$name"; then kind delete cluster --name "$name"; fi
  done
}

case "${1:-}" in
  up | connect | down) "$1" ;;
  *) fail "usage: $0 up|connect|down" ;;
esac
