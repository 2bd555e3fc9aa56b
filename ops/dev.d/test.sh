# shellcheck shell=bash
# `test` and `coverage`: a PostgreSQL and a Redis of their own, which are gone afterwards.

COVERAGE_MINIMUM=85

run_tests() {
  local lint=0 failed="" locked=""
  if [ "${CI:-}" = true ]; then
    lint=1
    locked=--locked
  fi
  while [ $# -gt 0 ]; do
    case "$1" in
      --lint) lint=1 ;;
      --no-install) MAY_INSTALL=0 ;;
      *) break ;;
    esac
    shift
  done
  require_cargo
  open_test_instance
  cd "$ROOT" || exit

  if [ "$lint" = 1 ]; then
    step "cargo fmt" cargo fmt --all --check || failed="$failed, cargo fmt"
    step "cargo clippy" cargo clippy ${locked:+"$locked"} --workspace --all-targets -- -D warnings || failed="$failed, cargo clippy"
  fi
  step "web assets" build_web
  # Before the tests, which start these programs.
  step "cargo build" cargo build ${locked:+"$locked"} --workspace --bins || die "The build failed: cargo says why above."
  # The runner last, so that its summary is what one sees. Its arguments choose tests; doc tests know other ones.
  if [ $# -eq 0 ]; then
    step "doc tests" cargo test ${locked:+"$locked"} --workspace --doc || failed="$failed, doc tests"
  fi
  if have cargo-nextest; then
    step "tests" cargo nextest run ${locked:+"$locked"} --workspace "$@" || failed="$failed, tests"
  else
    step "tests" cargo test ${locked:+"$locked"} --workspace --lib --bins --tests "$@" || failed="$failed, tests"
  fi
  [ -z "$failed" ] || die "Failed: ${failed#, }."
}

run_coverage() {
  if [ "${1:-}" = --no-install ]; then
    MAY_INSTALL=0
    shift
  fi
  require_cargo
  if ! have cargo-tarpaulin; then
    [ "$MAY_INSTALL" = 1 ] || die "cargo-tarpaulin is missing: install it (cargo install cargo-tarpaulin --locked) and run this again."
    step "cargo install cargo-tarpaulin" cargo install cargo-tarpaulin --locked || die "cargo-tarpaulin could not be installed: cargo says why above."
  fi
  open_test_instance
  cd "$ROOT" || exit
  step "web assets" build_web
  step "cargo build" cargo build --workspace --bins || die "The build failed: cargo says why above."
  # Coverage builds tests only: those that run our programs take them from the ordinary build.
  MDL_TEST_PROGRAMS="$(target_folder)/debug"
  export MDL_TEST_PROGRAMS
  # A target folder of its own, or every run would rebuild everything for the other kind of build.
  step "coverage" cargo tarpaulin --engine llvm --follow-exec --workspace --skip-clean --timeout 900 \
    --target-dir "$(target_folder)/coverage" --exclude-files 'tests/*' --exclude-files 'loadtests/*' --exclude-files 'target/*' \
    --out Html --out Json --output-dir "$DEV/coverage" --fail-under "$COVERAGE_MINIMUM" "$@" ||
    die "The tests failed, or coverage is under $COVERAGE_MINIMUM percent: see above, and $DEV/coverage."
}

# Says what runs and, in the end, for how long; the exit code is the command's.
step() { # name command…
  local name="$1" start=$SECONDS code=0
  shift
  say "==> $name"
  "$@" || code=$?
  if [ "$code" = 0 ]; then say "==> $name: $((SECONDS - start)) s"; else say "==> $name: failed after $((SECONDS - start)) s"; fi
  return "$code"
}

# Starts the servers that the tests use, and exports where they are:
#   MDL_TEST_DATABASE_URL   superuser, database postgres. mdl_owner, mdl_app and the others have the same password as in this URL.
#                           The database mdl is empty but for what ops/roles.sql does to it: good as a template.
#   MDL_TEST_PG_BIN         folder with pg_dump and pg_restore of the server's version
#   MDL_TEST_REDIS_URL
#   MDL_TEST_CHROMIUM, MDL_TEST_CHROMEDRIVER   if there is a browser
open_test_instance() {
  choose_server_user
  make_private_folder "$DEV"
  LOGS="$LOGS/test"
  open_logs
  sweep_tests
  # Under another name until it says whose it is, or somebody else's sweep would take it for a leftover.
  local new
  new="$(mktemp -d "$DEV/new-XXXXXX")"
  remember_process $$ "$new/process"
  INSTANCE="$DEV/test-${new##*-}"
  mv "$new" "$INSTANCE"
  trap 'leave_tests $?' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  open_instance "$INSTANCE"
  if [ -z "${MDL_TEST_DATABASE_URL:-}" ]; then
    start_postgres careless
    prepare_roles
    MDL_TEST_DATABASE_URL="$(private_database_url postgres postgres)"
  fi
  [ -z "$PG_BIN" ] || export MDL_TEST_PG_BIN="${MDL_TEST_PG_BIN:-$PG_BIN}"
  if [ -z "${MDL_TEST_REDIS_URL:-}" ]; then
    start_redis
    MDL_TEST_REDIS_URL="$(private_redis_url)"
  fi
  want_browser
  want_python
  want_faketime
  [ -z "$CHROMIUM" ] || export MDL_TEST_CHROMIUM="${MDL_TEST_CHROMIUM:-$CHROMIUM}"
  [ -z "$CHROMEDRIVER" ] || export MDL_TEST_CHROMEDRIVER="${MDL_TEST_CHROMEDRIVER:-$CHROMEDRIVER}"
  export MDL_TEST_DATABASE_URL MDL_TEST_REDIS_URL
}

leave_tests() { # exit code
  trap '' INT TERM HUP
  trap - EXIT
  set +e
  remove_test_instance "$INSTANCE"
  allow_service_starts
  exit "$1"
}

# Instances of runs that were killed.
sweep_tests() {
  local instance
  for instance in "$DEV"/test-*; do
    [ -d "$instance" ] || continue
    remembered_process "$instance/process" >/dev/null || remove_test_instance "$instance"
  done
}

remove_test_instance() { # instance
  local home="$1"
  if [ -f "$1/server-home" ] && is_our_server_home "$(cat "$1/server-home")" "$1"; then home="$(cat "$1/server-home")"; fi
  stop_servers "$home"
  rm -rf "$home" "$1"
}
