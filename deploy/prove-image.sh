#!/usr/bin/env bash
# Builds the Dockerfile's target `server` and tests the image, without a container engine:
#   deploy/prove-image.sh [cpu|cuda]
# Needs root on Debian with debootstrap and buildah, some minutes, and 20 GiB in TMPDIR; removes all its files at the end.
# The base image is Debian's Python 3.11 under the name used in the Dockerfile. The machine's certificates, its pip settings
# and the folders in MOUNTS are mounted for the build; they do not become part of the image.
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${1:-cpu}
export BUILDAH_ISOLATION=chroot
work=$(mktemp --directory --tmpdir="${TMPDIR:-/var/tmp}")
store() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }
finish() {
    store umount --all > /dev/null || true
    umount "$work/storage/overlay" 2> /dev/null || true
    rm -rf "$work"
}
trap finish EXIT

name=$(sed -n 's/^FROM \(\S*\) AS base$/\1/p' Dockerfile)
packages=ca-certificates,python3.11,python3-distutils,python3.11-venv
debootstrap --variant=minbase --include="$packages" bookworm "$work/base" > "$work/log" || { tail "$work/log" && exit 1; }
ln -s /usr/bin/python3.11 "$work/base/usr/local/bin/python"
container=$(store from scratch)
store add --quiet "$container" "$work/base" / > /dev/null
store commit --quiet --rm "$container" "docker.io/library/$name" > /dev/null
rm -rf "$work/base"

mounts=()
for path in /etc/ssl/certs /etc/pip.conf ${MOUNTS:-}; do
    if [ -e "$path" ]; then mounts+=(--volume "$path:$path:ro"); fi
done
store build --pull-never --format docker --target server --build-arg "VARIANT=$variant" "${mounts[@]}" --tag pathmnist .
root=$(store mount "$(store from --pull-never pathmnist)")

setting() { store inspect --type image --format "{{range .Docker.Config.$1}}{{println .}}{{end}}" pathmnist | sed '/^$/d'; }
mapfile -t environment < <(setting Env)
mapfile -t entrypoint < <(setting Entrypoint)
mapfile -t arguments < <(setting Cmd)
mapfile -t check < <(setting Healthcheck.Test | tail --lines=+2)
user=$(store inspect --type image --format '{{.Docker.Config.User}}' pathmnist)
folder=$(store inspect --type image --format '{{.Docker.Config.WorkingDir}}' pathmnist)
echo "image: $(du --summarize --block-size=M "$root" | cut --fields=1), user $user, ${entrypoint[*]} ${arguments[*]}"

# The restrictions of a cluster: this user without capabilities, a read-only root, /tmp in memory, and here no network.
within() {
    chroot "$root" /usr/bin/env --ignore-environment --chdir="$folder" "${environment[@]}" PATHMNIST_TOKEN=token \
        setpriv --reuid="$user" --regid="$user" --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
}
answer() {
    mount --bind "$root" "$root"
    mount --options remount,bind,ro "$root"
    mount --types tmpfs --options mode=1777 tmpfs "$root/tmp"
    mount --types tmpfs --options mode=755 tmpfs "$root/dev"
    mkdir --mode=1777 "$root/dev/shm"
    for device in null zero random urandom; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mount --types proc proc "$root/proc"
    ip link set lo up
    SECONDS=0
    within "${entrypoint[@]}" "${arguments[@]}" &
    for _ in $(seq 120); do
        if within "${check[@]}" 2> /dev/null; then break; fi
        sleep 1
    done
    within "${check[@]}"
    echo "the image's health check passes after $SECONDS s"
    within /opt/venv/bin/python -m serving check --explain
    if within touch /app/written 2> /dev/null; then exit 1; fi
    echo "the root file system cannot be written"
}
export -f within answer
export root user folder
declare -p environment entrypoint arguments check > "$work/image"
BASH_ENV="$work/image" unshare --mount --net --pid --fork bash -euo pipefail -c answer
