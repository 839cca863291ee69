# Cloudflare: dev/cloudflare-emulator, at one address for the machine, the docker host and pods.
# shellcheck shell=bash

# The build that the tests use, whatever keyturn's is. The package alone would get libraries with fewer features, which would
# all be compiled once more.
cloudflare_build() {
  cd "$REPO" || return
  cargo build --locked --workspace --bin cloudflare-emulator
}

# A changed program takes the place of the one that runs; what it keeps stays.
cloudflare_start() {
  local program="$STATE/cloudflare/cloudflare-emulator"
  if cloudflare_up && cmp -s "$DEV_FOLDER/cloudflare-emulator" "$program"; then return 0; fi
  cloudflare_stop
  mkdir -p "$STATE/cloudflare"
  cp "$DEV_FOLDER/cloudflare-emulator" "$program"
  setsid "$program" --listen "${CLOUDFLARE_URL#http://}" --state "$STATE/cloudflare/state.json" \
    </dev/null >>"$LOGS/cloudflare.log" 2>&1 9>&- &
  process_identity $! >"$RUN/cloudflare.pid"
  wait_for 20 Cloudflare cloudflare_up
}

cloudflare_up() { alive "$RUN/cloudflare.pid" && curl -sf -m 2 -o /dev/null "$CLOUDFLARE_URL/_emulator/health"; }

cloudflare_stop() { stop "$RUN/cloudflare.pid" 5; }

cloudflare_reset() {
  cloudflare_stop
  rm -f "$STATE/cloudflare/state.json"
}

cloudflare_install() {
  phase "building the Cloudflare emulator" cloudflare_build
  phase "starting Cloudflare at $CLOUDFLARE_URL" cloudflare_start
}

# Only tests ask for it; in a world where they have, it belongs to what `up` brings back.
cloudflare_wanted() { [[ -e $STATE/cloudflare ]]; }
