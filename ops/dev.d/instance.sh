# shellcheck shell=bash
# An instance is a folder with what belongs to one private PostgreSQL and Redis: their ports, their passwords, where their data is.
# `up` has one, .dev itself; each run of the tests has its own, .dev/test-XXXXXX.

INSTANCE=""       # the folder
SERVER_HOME=""    # where the servers' data is: the same folder if the user they run as gets there
SERVER_USER=""    # empty: the user who calls
PRIVATE_PASSWORD=""   # the one of PostgreSQL's superuser and of Redis

# PostgreSQL refuses to run as root.
choose_server_user() {
  [ "$(id -u)" -eq 0 ] || return 0
  SERVER_USER=nobody
  ! id postgres >/dev/null 2>&1 || SERVER_USER=postgres
}

# Runs a command as the servers' user, in a folder that this user can enter. The fixed locale is for macOS, where PostgreSQL and
# Redis do not start without one.
as_server() {
  (
    cd /
    export LC_ALL=C
    if [ -z "$SERVER_USER" ]; then
      exec "$@"
    elif have setpriv; then
      exec setpriv --reuid="$SERVER_USER" --regid="$(id -g "$SERVER_USER")" --clear-groups -- "$@"
    elif have runuser; then
      exec runuser -u "$SERVER_USER" -- "$@"
    else
      exec sudo -u "$SERVER_USER" -- "$@"
    fi
  )
}

# Opens an instance, making it if it is new. Root's projects may lie where nobody else gets (/root/…): then the servers' data goes
# to a folder of their user in the temporary directory, which the instance remembers.
open_instance() { # folder
  INSTANCE="$1"
  choose_server_user
  make_private_folder "$DEV"
  make_private_folder "$INSTANCE"
  SERVER_HOME="$INSTANCE"
  if [ -n "$SERVER_USER" ] && ! as_server test -x "$INSTANCE"; then
    remembered_server_home || make_server_home
  fi
  mkdir -p "$SERVER_HOME/pg" "$SERVER_HOME/redis"
  chmod 700 "$SERVER_HOME/pg" "$SERVER_HOME/redis"
  [ -z "$SERVER_USER" ] || chown "$SERVER_USER" "$SERVER_HOME/pg" "$SERVER_HOME/redis"
  open_passwords
}

# Root's instance can be entered by the servers' user, not listed; what is secret in it is readable by root alone.
make_private_folder() {
  mkdir -p "$1"
  if [ -n "$SERVER_USER" ]; then chmod 711 "$1"; else chmod 700 "$1"; fi
}

# Servers and programs inherit their log files opened, so their folder may be closed to them.
open_logs() {
  mkdir -p "$LOGS"
  chmod 700 "$LOGS"
}

# The temporary directory is emptied now and then, and anybody may make a folder of the same name there again: it counts only while
# its mark, which only its owner could have written, names this instance.
remembered_server_home() {
  [ -f "$INSTANCE/server-home" ] || return 1
  SERVER_HOME="$(cat "$INSTANCE/server-home")"
  is_our_server_home "$SERVER_HOME" "$INSTANCE"
}

is_our_server_home() { # folder instance
  [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ "$(cat "$1/instance" 2>/dev/null)" = "$2" ]
}

make_server_home() {
  local parent="${TMPDIR:-/tmp}"
  as_server test -x "$parent" || parent=/tmp
  SERVER_HOME="$(mktemp -d "${parent%/}/mdl-dev.XXXXXX")"
  chmod 711 "$SERVER_HOME"
  echo "$INSTANCE" >"$SERVER_HOME/instance"
  echo "$SERVER_HOME" >"$INSTANCE/server-home"
}

# Folders of this project in the temporary directory that no instance remembers, because .dev was deleted by hand.
orphaned_server_homes() {
  local home instance
  for home in "${TMPDIR:-/tmp}"/mdl-dev.* /tmp/mdl-dev.*; do
    if [ -L "$home" ] || [ ! -O "$home" ]; then continue; fi
    instance="$(cat "$home/instance" 2>/dev/null)" || continue
    case "$instance" in "$DEV" | "$DEV"/*) ;; *) continue ;; esac
    is_our_server_home "$home" "$instance" || continue
    [ "$(cat "$instance/server-home" 2>/dev/null)" = "$home" ] || echo "$home"
  done
}

# Passwords, because every user of the machine can reach a loopback port. Files, because arguments can be read by all of them too.
open_passwords() {
  local role password
  [ ! -s "$INSTANCE/pgpass" ] || PRIVATE_PASSWORD="$(password_of postgres)"
  # One by one, since a later version may know more roles than the one that made the file.
  for role in postgres mdl_owner mdl_app mdl_backup mdl_scratch mdl_restore; do
    [ ! -s "$INSTANCE/pgpass" ] || [ -z "$(password_of "$role")" ] || continue
    password="$(random_password)"
    # Tests make databases and log in by role: one password for all saves them four variables.
    if [ "$role" = postgres ]; then PRIVATE_PASSWORD="$password"; elif [ "$INSTANCE" != "$DEV" ]; then password="$PRIVATE_PASSWORD"; fi
    (
      umask 077
      { cat "$INSTANCE/pgpass" 2>/dev/null || true; echo "127.0.0.1:*:*:$role:$password"; } >"$INSTANCE/pgpass.new"
      mv "$INSTANCE/pgpass.new" "$INSTANCE/pgpass"
    )
  done
  export PGPASSFILE="$INSTANCE/pgpass"
}

password_of() { sed -n "s/^127\.0\.0\.1:\*:\*:$1://p" "$INSTANCE/pgpass"; }

remembered_port() { sed -n "s/^$1=//p" "$INSTANCE/ports" 2>/dev/null || true; }

# Prints the port that is remembered under this name if it is free, otherwise the preferred one, otherwise another; and remembers it.
port_for() { # name [preferred]
  local port="" candidate
  for candidate in ${2:-} $(remembered_port "$1"); do
    if port_is_free "$candidate"; then
      port="$candidate"
      break
    fi
  done
  # Below the ports that systems hand out for outgoing connections.
  while [ -z "$port" ]; do
    candidate=$((20000 + RANDOM % 12000))
    if port_is_free "$candidate" && ! grep -q "=$candidate\$" "$INSTANCE/ports" 2>/dev/null; then port="$candidate"; fi
  done
  { grep -v "^$1=" "$INSTANCE/ports" 2>/dev/null || true; echo "$1=$port"; } >"$INSTANCE/ports.new"
  mv "$INSTANCE/ports.new" "$INSTANCE/ports"
  echo "$port"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Only one `up` (and nothing that deletes) at a time. The lock is a folder, since making one is atomic everywhere.
take_lock() {
  local tries=0 holder
  mkdir -p "$DEV"
  until mkdir "$DEV/lock" 2>/dev/null; do
    if holder="$(remembered_process "$DEV/lock/process")"; then
      die "MDL is already running here (process $holder): stop it with Ctrl-C in its terminal, or with ops/dev down."
    fi
    # Somebody may have made the folder this moment and not have written the file yet.
    tries=$((tries + 1))
    if [ "$tries" -ge 3 ]; then
      rm -rf "$DEV/lock.stale.$$"
      mv "$DEV/lock" "$DEV/lock.stale.$$" 2>/dev/null && rm -rf "$DEV/lock.stale.$$"
      tries=0
    else
      sleep 0.3
    fi
  done
  remember_process $$ "$DEV/lock/process"
}

release_lock() { rm -rf "$DEV/lock"; }
