#!/bin/sh
# Runs the tests of this package on Linux: with the Swift that is on PATH, or else with Debian's
# (swiftlang), which is put into a folder of its own on the first run and kept there. Where neither
# can be had it says in one line what is missing, and ends well.
#
#   test-on-linux.sh                runs the tests
#   test-on-linux.sh --inside ...   runs a command in the folder, the package at /package
#
# HANDBELL_SWIFT_CACHE  the folder that Swift and what it builds are kept in (.cache/swift)
# HANDBELL_PYTHON       a Python that has Handbell and its tests' packages; with it the tests that
#                       want a running server get one
set -eu

package=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$package/../.." && pwd)
cache=${HANDBELL_SWIFT_CACHE:-$project/.cache/swift}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
release=trixie
root=$cache/$release
ready=$root/.swift-is-ready

skip() {
    echo "swift: SKIPPED, $1"
    exit 0
}

# Installs a package of the machine's own distribution.
install_here() {
    command -v apt-get >/dev/null || return 1
    apt-get install -y -qq --no-install-recommends "$1" >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$1"; } >/dev/null 2>&1
}

# The mirror that this machine itself takes Debian from.
mirror() {
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Identifier: Packages' 2>/dev/null |
        sed -n 's/^Debian //p' | grep -v -e security -e '^cdrom' | sort -u | head -n 1
}

# Runs a command inside the folder. /proc, /dev and the package are mounted for this command alone:
# nothing stays mounted, however it ends.
inside() {
    unshare --mount --propagation private sh -eu -c '
        root=$1 package=$2 build=$3
        shift 3
        mkdir -p "$root/package" "$root/build" "$build"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --bind "$package" "$root/package"
        mount --bind "$build" "$root/build"
        exec chroot "$root" env -C /package "$@"
    ' inside "$root" "$package" "$cache/build" "$@"
}

# Puts Debian's Swift into the folder. What a run that was broken off has left is made anew.
set_up() {
    [ "$(uname -s)" = Linux ] || skip "no swift on PATH"
    command -v apt-get >/dev/null || skip "no swift on PATH, and no apt-get to set up Debian's"
    [ "$(id -u)" = 0 ] || skip "no swift on PATH, and only root can set up Debian's in a folder"
    unshare --mount --propagation private true 2>/dev/null ||
        skip "no swift on PATH, and mounting is not allowed here, which setting up Debian's needs"
    [ -e "$ready" ] && return
    command -v debootstrap >/dev/null || install_here debootstrap ||
        skip "no swift on PATH, and debootstrap, which sets up Debian's, can't be installed"
    from=$(mirror)
    # Where the lists were never loaded, apt does not know yet what its sources are of.
    [ -n "$from" ] || { apt-get update -qq >/dev/null 2>&1 && from=$(mirror); }
    [ -n "$from" ] || skip "no swift on PATH, and apt's sources name no mirror of Debian"
    echo "swift: setting up Debian's in $root (once; about two minutes and 3 GB)"
    rm -rf "$root"
    mkdir -p "$root"
    if ! {
        debootstrap --variant=minbase "$release" "$root" "$from" &&
            # The machine's own ways to the mirror, a proxy say.
            apt-config dump Acquire::http Acquire::https >"$root/etc/apt/apt.conf.d/80machine" &&
            inside env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
                --no-install-recommends swiftlang libc6-dev libstdc++-14-dev ca-certificates git &&
            inside apt-get clean
    } >"$cache/setup.log" 2>&1; then
        skip "Debian's could not be set up, see $cache/setup.log"
    fi
    touch "$ready"
}

# Lints the package and runs its tests, beside a server where there is a Python that can start one.
# Warnings are errors.
test_with() {
    scratch=$1
    shift
    # The sample wants UIKit, so it is not compiled here; but what it says is read.
    cd "$package"
    "$@" format lint --strict --recursive Package.swift Sources Tests Sample
    set -- "$@" test --package-path "$seen" --scratch-path "$scratch" -Xswiftc -warnings-as-errors
    if [ -n "${HANDBELL_PYTHON:-}" ]; then
        cd "$project" && set -- "$HANDBELL_PYTHON" -m tests.device_backend "$@"
    else
        echo "swift: no HANDBELL_PYTHON, so without the tests that want a running server"
    fi
    log=$cache/tests.log
    mkdir -p "$cache"
    for again in yes yes no; do
        if nice -n 10 "$@" >"$log" 2>&1; then
            cat "$log"
            echo "swift: the package's tests have passed"
            return
        fi
        cat "$log"
        # Foundation on Linux can crash where a request is cancelled in the moment of its answer.
        if [ $again = no ] || ! grep -A 3 "crashed:" "$log" | grep -q "libFoundationNetworking"; then
            exit 1
        fi
        echo "swift: Foundation itself crashed; the tests are run again"
    done
}

case ${1:-} in
--inside)
    shift
    inside env HOME=/tmp ${HANDBELL_LIVE:+"HANDBELL_LIVE=$HANDBELL_LIVE"} "$@"
    ;;
*)
    if command -v swift >/dev/null; then
        seen=$package
        test_with "$cache/build" swift
    else
        set_up
        seen=/package
        test_with /build "$package/test-on-linux.sh" --inside swift
    fi
    ;;
esac
