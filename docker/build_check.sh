#!/bin/bash
# Build and inspect both images on a machine without a container engine: buildah in a chroot, with a base image from
# debootstrap as a substitute. Needs root, `apt install buildah debootstrap`, 25 GB of disk and a quarter of an hour.
#   docker/build_check.sh [FOLDER]     all files are in FOLDER (default: a temporary one), which is deleted in the end
# BUILD_OPTIONS is passed to buildah: for example, on a machine with its own package index,
# "--volume /etc/pip.conf:/etc/pip.conf:ro --env PIP_CERT=…".
# Not covered: the substitute has Debian's Python 3.11.2 instead of the image's 3.11, and no image runs in an engine.
set -euo pipefail
cd "$(dirname "$0")/.."
for program in buildah debootstrap; do
  command -v "$program" >/dev/null ||
    { echo "build_check: $program is missing: apt install buildah debootstrap" >&2; exit 1; }
done

folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
folder=$(realpath "$folder")
trap 'rm -rf "$folder"' EXIT
export BUILDAH_ISOLATION=chroot CONTAINERS_STORAGE_CONF="$folder/storage.conf" XDG_RUNTIME_DIR="$folder/run"
mkdir -p "$XDG_RUNTIME_DIR"
printf '[storage]\ndriver = "vfs"\nrunroot = "%s/runroot"\ngraphroot = "%s/graphroot"\n' "$folder" "$folder" \
  >"$folder/storage.conf"
read -ra options <<<"${BUILD_OPTIONS:-}"
step() { echo "=== $* ($(date -u +%H:%M:%S))"; }

step "substitute for the base image"
base=$(sed -nE 's/^FROM (python:[^ ]+) AS base$/\1/p' docker/Dockerfile)
debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$folder/rootfs" \
  >"$folder/debootstrap.log" 2>&1 ||
  { tail -5 "$folder/debootstrap.log"; exit 1; }
ln -sf python3 "$folder/rootfs/usr/bin/python"
# On a machine behind a proxy this file contains the proxy's certificate authority.
cp /etc/ssl/certs/ca-certificates.crt "$folder/rootfs/etc/ssl/certs/ca-certificates.crt"
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/rootfs" / >/dev/null
buildah commit --quiet --rm "$container" "docker.io/library/$base" >/dev/null
rm -rf "$folder/rootfs"

for target in airflow trainer; do
  step "build $target"
  buildah bud --format docker --pull-never --layers=false "${options[@]}" \
    -f docker/Dockerfile --target "$target" -t "cloudseg-$target:check" . \
    >"$folder/$target.log" 2>&1 || { tail -30 "$folder/$target.log"; exit 1; }
  grep -oE 'STEP [0-9]+/[0-9]+: [A-Z]+' "$folder/$target.log" | tail -3
  container=$(buildah from --pull-never "cloudseg-$target:check")
  inside() { buildah run --isolation chroot "$container" -- "$@"; }
  echo "user $(inside id -u), size $(du -sh --apparent-size "$(buildah mount "$container")" | cut -f1)"
  inside cloudseg --version
  inside airflow version
  modules='airflow.providers.celery.executors.celery_executor, airflow.providers.amazon'
  modules+=', cloudseg_celery, cloudseg_dagkit, cloudseg_plugin, cloudseg_ui.app, cloudseg.serve.app'
  inside python -c "import $modules; print('Celery, S3, the DAG files, the pages and the map can be imported')" 2>/dev/null
  inside python -c 'import importlib.util as u; print("torch:", u.find_spec("torch") is not None)'
  inside cloudseg doctor --no-device 2>/dev/null | sed 's/^/  /' || true
  secrets=$(buildah inspect --type image "cloudseg-$target:check" | grep -ciE '(PASSWORD|SECRET|FERNET|_KEY)=' || true)
  echo "variables that may contain a secret: $secrets"
  buildah umount "$container" >/dev/null
  buildah rm "$container" >/dev/null
done
step "both images build"
