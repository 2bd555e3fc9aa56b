# shellcheck shell=bash
# shellcheck disable=SC2034  # the other topics use these variables
# Finding the programs of others (PostgreSQL, Redis, a browser), and installing them where that is possible without asking.

POSTGRES_MINIMUM=15   # views with security_invoker
NODE_MINIMUM=20.19    # as in web/package.json

PG_BIN=""
REDIS_SERVER=""
CHROMIUM=""
CHROMEDRIVER=""
MAY_INSTALL=1
AS_ROOT=""           # what makes a command run as root: nothing, or sudo
INSTALL_PROBLEM=""   # why installing did not work, as a sentence
POLICY_FILE=""
CLUSTER_FILE=""

# Sets PG_BIN to the newest usable PostgreSQL, or to the version that an existing data folder needs.
find_postgres() { # [major version]
  local wanted="${1:-}" newest=0 folder major on_path
  PG_BIN=""
  on_path="$(command -v postgres || true)"
  for folder in "${on_path%/*}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
    /usr/local/opt/postgresql*/bin /home/linuxbrew/.linuxbrew/opt/postgresql*/bin \
    /Applications/Postgres.app/Contents/Versions/*/bin; do
    has_programs "$folder" postgres initdb pg_ctl psql || continue
    major="$("$folder/postgres" --version 2>/dev/null | sed -E 's/^[^0-9]*([0-9]+).*/\1/')"
    [ "${major:-0}" -ge "$POSTGRES_MINIMUM" ] 2>/dev/null || continue
    [ -z "$wanted" ] || [ "$major" = "$wanted" ] || continue
    if [ "$major" -gt "$newest" ] && has_extension "$folder" pg_trgm; then
      newest="$major"
      PG_BIN="$folder"
    fi
  done
  [ -n "$PG_BIN" ]
}

has_programs() { # folder names…
  local folder="$1" name
  shift
  for name in "$@"; do [ -x "$folder/$name" ] || return 1; done
}

# Without pg_config one cannot look; then only what the migrations need is taken to be there.
has_extension() { # bin-folder name
  [ -x "$1/pg_config" ] || { [ "$2" = pg_trgm ]; return; }
  [ -f "$("$1/pg_config" --sharedir)/extension/$2.control" ]
}

find_redis() { REDIS_SERVER="$(command -v redis-server || command -v valkey-server || true)" && [ -n "$REDIS_SERVER" ]; }

find_browser() {
  local mac="/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
  CHROMIUM="$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)"
  [ -n "$CHROMIUM" ] || [ ! -x "$mac" ] || CHROMIUM="$mac"
  CHROMEDRIVER="$(command -v chromedriver || true)"
  [ -n "$CHROMIUM" ] && [ -n "$CHROMEDRIVER" ]
}

require_postgres() { # [major version]
  find_postgres "${1:-}" && return
  local versioned=postgresql
  if [ -n "${1:-}" ]; then
    have apt-get && versioned="postgresql-$1"
    have brew && versioned="postgresql@$1"
  elif have brew; then
    versioned=postgresql@17
  fi
  install_packages "PostgreSQL ${1:-$POSTGRES_MINIMUM or newer} with its contrib extensions" "$versioned" \
    "postgresql-server postgresql-contrib" "$versioned" || die "$INSTALL_PROBLEM"
  find_postgres "${1:-}" && return
  [ -z "${1:-}" ] || die "The database in .dev belongs to PostgreSQL $1: install that version, or delete the database with ops/dev reset."
  die "PostgreSQL $POSTGRES_MINIMUM or newer with its contrib extensions is still missing: see https://www.postgresql.org/download/."
}

require_redis() {
  find_redis && return
  install_packages "Redis" "redis-server" "redis" "redis" || die "$INSTALL_PROBLEM"
  find_redis || die "Redis is still missing: see https://redis.io/docs/latest/operate/oss_and_stack/install/."
}

# Only the browser test needs one: without it, everything else can still be tested.
want_browser() {
  find_browser && return
  if have brew; then
    warn "Chromium and chromedriver are missing, which the browser test needs: brew install --cask google-chrome chromedriver"
  elif install_packages "Chromium with chromedriver" "chromium chromium-driver" "chromium chromedriver" ""; then
    find_browser || warn "Chromium and chromedriver are still missing; the browser test needs them."
  else
    warn "For the browser test: $INSTALL_PROBLEM"
  fi
}

# Only the test of the webhooks' Python example needs it.
want_python() {
  python3 -c 'import venv, ensurepip' 2>/dev/null && return
  install_packages "Python with venv" "python3 python3-venv" "python3" "python" ||
    warn "For the test of the webhooks' Python example: $INSTALL_PROBLEM"
}

# Only the test of wrong clocks needs it, on Linux.
want_faketime() {
  local library
  [ "$(uname)" = Linux ] || return 0
  for library in /usr/lib*/faketime/libfaketime.so.1 /usr/lib/*/faketime/libfaketime.so.1; do
    [ ! -e "$library" ] || return 0
  done
  install_packages "libfaketime" "faketime" "libfaketime" "" || warn "For the test of wrong clocks: $INSTALL_PROBLEM"
}

require_cargo() {
  have cargo || PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
  have cargo || die "Rust is missing: install it from https://rustup.rs and run this again."
}

# Installs with the package manager when that works without a question. If not, INSTALL_PROBLEM says what to do.
install_packages() { # what apt-packages dnf-packages brew-packages
  local what="$1" log="$LOGS/install.log" manager="" packages="" how=""
  if have apt-get; then
    manager=apt-get packages="$2"
  elif have dnf; then
    manager=dnf packages="$3"
  elif have brew; then
    manager=brew packages="$4"
  else
    INSTALL_PROBLEM="$what is missing: install it with this system's package manager and run this again."
    return 1
  fi

  local may=$MAY_INSTALL
  how="$manager install $packages"
  if [ "$manager" != brew ] && [ "$(id -u)" -ne 0 ]; then
    how="sudo $how"
    AS_ROOT="sudo -n"
    if ! have sudo || ! sudo -n true 2>/dev/null; then may=0; fi
  fi
  if [ "$may" = 0 ]; then
    INSTALL_PROBLEM="$what is missing: install it ($how) and run this again."
    return 1
  fi

  open_logs
  say "Installing $packages with $manager (log: $log)…"
  # The packages are several words, and AS_ROOT may be none.
  # shellcheck disable=SC2086
  case "$manager" in
    apt-get) install_with_apt $packages ;;
    dnf) $AS_ROOT dnf -y install $packages ;;
    brew) HOMEBREW_NO_AUTO_UPDATE=1 brew install $packages ;;
  esac >>"$log" 2>&1 && return
  tail -n 5 "$log" >&2
  INSTALL_PROBLEM="Installing failed (log: $log): install $what by hand ($how) and run this again."
  return 1
}

# Debian starts a server as soon as it is installed, on the standard ports. Nobody asked for that one: while we install, service starts
# are refused and no cluster is made; a cluster or a Redis that is already there is left as it is.
install_with_apt() { # packages…
  local apt failed=0 had_redis=0
  apt="$AS_ROOT env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold"
  ! have redis-server || had_redis=1
  forbid_service_starts
  # The lists may be missing or old: asked for only when the first try fails.
  # shellcheck disable=SC2086
  $apt install --no-install-recommends "$@" || { $apt update && $apt install --no-install-recommends "$@"; } || failed=1
  if [ "$had_redis" = 0 ] && have redis-server && have systemctl; then
    $AS_ROOT systemctl disable redis-server || true
  fi
  allow_service_starts
  return "$failed"
}

forbid_service_starts() {
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    POLICY_FILE=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' | $AS_ROOT tee "$POLICY_FILE" >/dev/null
    $AS_ROOT chmod 755 "$POLICY_FILE"
  fi
  if [ ! -e /etc/postgresql-common/createcluster.d/mdl-dev.conf ]; then
    CLUSTER_FILE=/etc/postgresql-common/createcluster.d/mdl-dev.conf
    $AS_ROOT mkdir -p "${CLUSTER_FILE%/*}"
    echo 'create_main_cluster = false' | $AS_ROOT tee "$CLUSTER_FILE" >/dev/null
  fi
}

# Also called on the way out, in case Ctrl-C came during an installation.
allow_service_starts() {
  [ -z "$POLICY_FILE" ] || $AS_ROOT rm -f "$POLICY_FILE"
  if [ -n "$CLUSTER_FILE" ]; then
    $AS_ROOT rm -f "$CLUSTER_FILE"
    $AS_ROOT rmdir "${CLUSTER_FILE%/*}" 2>/dev/null || true # if nothing else is in there
  fi
  POLICY_FILE="" CLUSTER_FILE=""
}
