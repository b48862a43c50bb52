#!/usr/bin/env bash
# Builds the base image of runtime images, faaslite/base:latest: a minimal Debian with Python 3 and CA certificates.
#
# It needs mmdebstrap and a Docker engine (docker's own DOCKER_HOST applies). No registry is asked: packages come
# from the Debian mirror that this machine's apt is set up for, read at run time.
#
#   build.sh [TAG]         TAG defaults to faaslite/base:latest
#   SUITE=bookworm         the Debian release
#   PACKAGES=a,b           packages besides the minimum
set -euo pipefail

tag=${1:-faaslite/base:latest}
suite=${SUITE:-bookworm}
packages=${PACKAGES:-python3,ca-certificates}

for tool in mmdebstrap docker; do
    command -v "$tool" >/dev/null || { echo "build.sh: $tool is not installed" >&2; exit 69; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# mmdebstrap runs apt with a configuration of its own, so what this machine says of proxies and certificates is handed on.
apt-config dump --format '%f "%v";%n' Acquire | grep -E '^Acquire::(http|https)::' >"$work/acquire.conf" || true

# The same sources as this machine's apt, in one-line form; a signing key named by path stays valid, since apt runs outside the new root.
apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)' |
    awk -v suite="$suite" '$1 == "Packages" && index($3, suite) == 1 {
        option = substr($5, 1, 1) == "/" ? "[signed-by=" $5 "] " : ""
        line = "deb " option $2 " " $3 " " $4
        if (!seen[line]++) print line
    }' >"$work/sources.list"
if [ ! -s "$work/sources.list" ]; then
    echo "build.sh: apt on this machine has no source for $suite; run apt-get update, or set SUITE" >&2
    exit 78
fi

# What nobody reads in a container is left out. dpkg is told of it once the essential packages are unpacked, of which it is taken away by hand:
# told before, mmdebstrap would filter each of their archives with a Python of its own, which takes a third of the whole time.
cat >"$work/dpkg.cfg" <<'END'
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
END

mmdebstrap --quiet --variant=minbase --mode="${MODE:-auto}" --include="$packages" \
    --aptopt="$work/acquire.conf" \
    --extract-hook='install -D -m 0644 '"$work"'/dpkg.cfg "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap' \
    --extract-hook='echo force-unsafe-io >"$1"/etc/dpkg/dpkg.cfg.d/unsafe' --customize-hook='rm "$1"/etc/dpkg/dpkg.cfg.d/unsafe' \
    --extract-hook='find "$1"/usr/share/man "$1"/usr/share/locale -mindepth 1 -delete' \
    --extract-hook='find "$1"/usr/share/doc -type f ! -name copyright -delete' \
    --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/etc/apt/sources.list' \
    --customize-hook='find "$1"/usr/lib -name __pycache__ -prune -exec rm -rf {} +' \
    "$suite" "$work/root.tar" "$work/sources.list"

docker import --change 'ENV LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'CMD ["/bin/sh"]' --message "Debian $suite, minimal, with Python 3" "$work/root.tar" "$tag" >/dev/null
echo "$tag"
