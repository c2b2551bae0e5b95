# SPDX-License-Identifier: Apache-2.0
#
# setup.sh: what ./tests/run and ./examples/quickstart share: finding and installing what a build needs,
# and building. Sourced by bash scripts that have set `root` to the checkout.
#
#   setup_options "$@"        reads --yes, --no-install; leaves the rest in the array `rest`
#   setup_packages NAME...    sees to it that these are there: rows of package_probe
#   setup_build DIR OPTION... configures and builds build/DIR
#
# Status 3 means that the machine lacks something that we may not or cannot install.

setup_yes=
setup_install=1
rest=()

setup_options() {
    rest=()
    local word
    for word in "$@"; do
        case $word in
        --yes) setup_yes=1 ;;
        --no-install) setup_install= ;;
        *) rest+=("$word") ;;
        esac
    done
}

# Is what Debian's package brings there, from wherever it came?
package_probe() {
    case $1 in
    gcc) command -v gcc >/dev/null ;;
    libc6-dev) [ -e /usr/include/stdio.h ] ;;
    meson) command -v meson >/dev/null ;;
    ninja-build) command -v ninja >/dev/null ;;
    re2c) command -v re2c >/dev/null ;;
    lemon) command -v lemon >/dev/null ;;
    pkg-config) command -v pkg-config >/dev/null ;;
    libjansson-dev) pkg-config --exists jansson 2>/dev/null ;;
    libcmocka-dev) pkg-config --exists cmocka 2>/dev/null ;;
    libopenblas0-serial) compgen -G '/usr/lib/*/openblas-serial/libopenblas*.so*' >/dev/null ;;
    *) echo "setup.sh knows no package $1" >&2; exit 3 ;;
    esac
}

setup_packages() {
    local missing=() package
    for package in "$@"; do
        package_probe "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0

    local command="apt-get install --no-install-recommends ${missing[*]}"
    if [ -z "$setup_install" ]; then
        echo "missing: ${missing[*]}"
        echo "install them with: $command"
        exit 3
    fi
    local as_root=
    if ! grep -qE '^ID(_LIKE)?=.*debian' /etc/os-release 2>/dev/null || ! command -v apt-get >/dev/null; then
        echo "This is not Debian, so nothing was installed. What is missing has these names there:"
        echo "    $command"
        exit 3
    elif [ "$(id -u)" -ne 0 ]; then
        as_root=sudo
        if ! command -v sudo >/dev/null || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
            echo "Neither root nor sudo, so nothing was installed. As root, run:"
            echo "    apt-get update && $command"
            exit 3
        fi
    fi
    echo "About to install with apt-get: ${missing[*]}"
    if [ -t 0 ] && [ -t 1 ] && [ -z "$setup_yes" ]; then
        local answer
        read -r -p "Go on? [Y/n] " answer
        case $answer in
        '' | [yY]*) ;;
        *) echo "Nothing was installed. The command is: $command"; exit 3 ;;
        esac
    fi
    # the lists of a fresh machine are empty or old; a failing update is no reason to stop yet
    $as_root apt-get update -q || true
    if ! $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"; then
        echo "The installation failed. The command was: $command" >&2
        exit 3
    fi
}

setup_build() {
    local folder=$root/build/$1 log
    shift
    log=$folder.log
    mkdir -p "$root/build"
    echo "Building in ${folder#"$root"/} ..."
    local action=(setup)
    [ -e "$folder/build.ninja" ] && action=(setup --reconfigure)
    if ! meson "${action[@]}" "$folder" "$root" "$@" >"$log" 2>&1 || ! ninja -C "$folder" >>"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "The build failed; all of its output is in ${log#"$root"/}" >&2
        exit 1
    fi
}
