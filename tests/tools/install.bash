# shellcheck shell=bash
# Finds or installs the tools that the tests drive; sourced by tests/run.
#
# Nothing is installed outside target/test-tools, except Debian's chromium where no Chromium is there.
# Versions are those that requirements.txt and package-lock.json beside this file pin.

readonly MIN_PYTHON=3.11
readonly MIN_NODE=20

# "1.95" from the workspace: what CI builds with.
min_rust() {
    sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$REPO/Cargo.toml"
}

# at_least HAVE WANT: whether the dotted version HAVE is not older than WANT.
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
    for candidate in python3.14 python3.13 python3.12 python3.11 python3 python; do
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

# Checks everything before anything is installed, so that one run names all that is missing.
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

# Changes whenever a pin, the interpreter or the place of the checkout does.
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
    # Last, so that an interrupted installation is started over.
    echo "$stamp" >"$TOOLS/stamp"
}

# Prints the path of an installed Chromium or Chrome; fails if there is none.
find_chromium() {
    local candidate
    for candidate in chromium chromium-browser google-chrome google-chrome-stable \
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" \
        "/Applications/Chromium.app/Contents/MacOS/Chromium"; do
        if command -v "$candidate" >/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

no_chromium() {
    {
        echo "No Chromium for the browser tests: $1."
        echo "Install Chromium or Chrome with your system's package manager (Debian: apt-get install chromium),"
        echo "or set MC_TEST_CHROMIUM to the path of one, and run tests/run again."
    } >&2
    exit 2
}

apt_install_chromium() {
    local as_root=()
    command -v apt-get >/dev/null || no_chromium "none is in PATH, and this system has no apt-get to install it with"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || no_chromium "installing it needs root, and there is no sudo"
        say "installing Debian's chromium: apt-get writes to the system's directories, which needs root;"
        say "sudo asks for your password now. Nothing else in this run needs root."
        # Without a terminal there is nobody to type it.
        [ -t 0 ] || sudo -n true 2>/dev/null || no_chromium "sudo needs a password, and there is no terminal to ask on"
        as_root=(sudo)
    fi
    say "installing Debian's chromium with apt-get"
    {
        # An empty array counts as unset in the bash that macOS ships.
        ${as_root[@]+"${as_root[@]}"} apt-get update -qq \
            && ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
                apt-get install --yes -qq --no-install-recommends chromium
    } >"$TOOLS/apt-chromium.log" 2>&1 </dev/null || {
        tail -n 5 "$TOOLS/apt-chromium.log" >&2
        no_chromium "apt-get could not install it (whole output: $TOOLS/apt-chromium.log)"
    }
}

# Sets CHROMIUM.
provide_chromium() {
    CHROMIUM=${MC_TEST_CHROMIUM:-}
    if [ -n "$CHROMIUM" ]; then
        [ -x "$CHROMIUM" ] || no_chromium "MC_TEST_CHROMIUM is $CHROMIUM, which is not a program"
        return
    fi
    if ! CHROMIUM=$(find_chromium); then
        apt_install_chromium
        CHROMIUM=$(find_chromium) || no_chromium "apt-get installed it, but it is not in PATH"
    fi
}
