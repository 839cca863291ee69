#!/bin/bash
# Restarts the app and the runner with what .env holds, and starts the database where it does not run yet.
set -euo pipefail
cd "$(dirname "$0")/.."
set -a
# shellcheck source=/dev/null
source deploy/environment
set +a

compose() { sudo --preserve-env=COMPOSE_PROJECT_NAME,MUSEHUB_CONTAINERS,MUSEHUB_PORT,MUSEHUB_POSTGRES_PORT docker compose "$@"; }

if grep -q '^DB_PASSWORD=.' .env; then
  # Never recreated: its password is changed inside, not by its environment.
  compose up --detach --no-recreate postgres
else
  echo "deploy.sh: no DB_PASSWORD yet; the database is not started" >&2
fi
# Both in one command: the token they share changes in both.
compose up --detach --force-recreate --no-deps --timeout 5 musehub musehub-runner

# Gives the app time to come up, 20 seconds at most. Whether it works is for whoever verifies to say.
deadline=$((SECONDS + 20))
while ((SECONDS < deadline)); do
  curl -sf -m 3 -o /dev/null "https://localhost:$MUSEHUB_PORT/explore" && break
  sleep 0.2
done
compose ps --format 'table {{.Name}}\t{{.State}}\t{{.Status}}'
