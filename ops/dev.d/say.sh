# shellcheck shell=bash
# What every topic uses: messages, processes, secrets.

say() { printf '%s\n' "$*"; }
warn() { printf 'ops/dev: %s\n' "$*" >&2; }
die() {
  warn "$*"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# The command line of a process; nothing if there is no such process.
command_of() { LC_ALL=C ps -ww -p "$1" -o args= 2>/dev/null || true; }

# Process ids are used again, so a file that remembers one also remembers its command line.
remember_process() { # pid file
  printf '%s\n%s\n' "$1" "$(command_of "$1")" >"$2.new"
  mv -f "$2.new" "$2"
}

# Prints the process id that a file remembers, if that very process still runs.
remembered_process() { # file
  local pid="" command=""
  [ -f "$1" ] || return 1
  { read -r pid && read -r command; } <"$1" || return 1
  [ -n "$pid" ] && [ -n "$command" ] && [ "$(command_of "$pid")" = "$command" ] || return 1
  echo "$pid"
}

# A process that ended but that nobody asked about (a container may have no init that does) still has an id, and does not run.
process_runs() { # pid
  kill -0 "$1" 2>/dev/null || return 1
  case "$(ps -p "$1" -o stat= 2>/dev/null)" in "" | Z*) return 1 ;; esac
}

# TERM, then KILL to the one that has not gone within the seconds given.
stop_process() { # pid seconds
  local tries=$(($2 * 10))
  kill -TERM "$1" 2>/dev/null || return 0
  while process_runs "$1"; do
    if [ "$tries" -le 0 ]; then
      kill -KILL "$1" 2>/dev/null || true
      return 0
    fi
    tries=$((tries - 1))
    sleep 0.1
  done
}

random_password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# A summary of the content of files below a folder, to see whether anything changed.
fingerprint() { # folder [find arguments]
  local folder="$1"
  shift
  (cd "$folder" && find . "$@" -type f -exec cksum {} + | LC_ALL=C sort | cksum)
}
