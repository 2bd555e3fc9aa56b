# shellcheck shell=bash
# Building the programs and the web assets, when something changed.

BIN_DIR=""
WEB_PROBLEM=""   # why there are no web assets, as half a sentence

# Whether anything changed is for cargo to say; it takes a second.
build_programs() { # [cargo arguments]
  local profile=debug
  [ "${1:-}" != --release ] || profile=release
  if [ -n "${MDL_DEV_BIN_DIR:-}" ]; then
    BIN_DIR="$MDL_DEV_BIN_DIR"
    programs_exist || die "MDL_DEV_BIN_DIR is set, but $BIN_DIR has no mdl-api and mdl-worker."
    return
  fi
  require_cargo
  BIN_DIR="$(target_folder)/$profile"
  programs_exist || say "Building (the first time takes about ten minutes)…"
  (cd "$ROOT" && cargo build --workspace --bins "$@") || die "The build failed: cargo says why above."
}

programs_exist() { [ -x "$BIN_DIR/mdl-api" ] && [ -x "$BIN_DIR/mdl-worker" ]; }

# CARGO_TARGET_DIR, somebody's ~/.cargo/config.toml, or simply target/.
target_folder() {
  local folder
  folder="$(cd "$ROOT" && cargo metadata --format-version 1 --no-deps 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')" || true
  echo "${folder:-$ROOT/target}"
}

node_is_new_enough() {
  local version
  version="$(node --version 2>/dev/null | sed -nE 's/^v([0-9]+)\.([0-9]+)\..*/\1 \2/p')"
  [ -n "$version" ] || return 1
  [ "${version% *}" -gt "${NODE_MINIMUM%.*}" ] && return
  [ "${version% *}" -eq "${NODE_MINIMUM%.*}" ] && [ "${version#* }" -ge "${NODE_MINIMUM#*.}" ]
}

# The API runs without them, so nothing here ends the script.
build_web() {
  local log="$LOGS/web.log" now packages
  WEB_PROBLEM=""
  if [ ! -f "$ROOT/web/package-lock.json" ]; then
    WEB_PROBLEM="web/package-lock.json is missing"
  elif ! have node || ! have npm; then
    WEB_PROBLEM="Node.js $NODE_MINIMUM or newer with npm is missing: see https://nodejs.org"
  elif ! node_is_new_enough; then
    WEB_PROBLEM="Node.js is $(node --version 2>/dev/null || echo unusable), and $NODE_MINIMUM or newer is needed: see https://nodejs.org"
  fi
  if [ -z "$WEB_PROBLEM" ]; then
    now="$(fingerprint "$ROOT/web" -name node_modules -prune -o -name dist -prune -o)"
    packages="$(cksum <"$ROOT/web/package-lock.json")"
    if [ "$now" = "$(cat "$DEV/web-built" 2>/dev/null)" ] && [ -n "$(ls "$ROOT/web/dist" 2>/dev/null)" ]; then return; fi
    say "Building the web assets…"
    rm -f "$DEV/web-built"
    : >"$log"
    if [ "$packages" != "$(cat "$ROOT/web/node_modules/.mdl-packages" 2>/dev/null)" ]; then
      (cd "$ROOT/web" && npm ci --no-audit --no-fund && mkdir -p node_modules && echo "$packages" >node_modules/.mdl-packages) >>"$log" 2>&1 </dev/null ||
        WEB_PROBLEM="npm ci failed: see $log"
    fi
    if [ -z "$WEB_PROBLEM" ]; then
      (cd "$ROOT/web" && npm run build) >>"$log" 2>&1 </dev/null || WEB_PROBLEM="npm run build failed: see $log"
    fi
    # The same files as before the build, even if somebody saved one meanwhile: that one is built the next time.
    [ -n "$WEB_PROBLEM" ] || echo "$now" >"$DEV/web-built"
  fi
  [ -z "$WEB_PROBLEM" ] || warn "the web assets are not built: $WEB_PROBLEM. The API works without them."
}
