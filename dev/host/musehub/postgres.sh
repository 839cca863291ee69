#!/bin/bash
# What the official image's entrypoint does: creates the database at the first start, with POSTGRES_USER as its
# superuser; scram-sha-256 over the network, trust on the local socket (`docker exec … psql` needs no password).
set -euo pipefail
installed=(/usr/lib/postgresql/*/bin)
version=$(basename "${installed[0]%/bin}")
data=/var/lib/postgresql/data/$version
PATH=${installed[0]}:$PATH

if ((EUID == 0)); then
  install -d -m 700 -o postgres -g postgres "${data%/*}"
  install -d -m 2775 -o postgres -g postgres /var/run/postgresql
  exec setpriv --reuid=postgres --regid=postgres --init-groups bash "$0"
fi

# Created beside its place and moved there whole: a first start that was killed begins again.
if [[ ! -d $data ]]; then
  rm -rf "$data.new"
  initdb --pgdata="$data.new" --username="$POSTGRES_USER" --pwfile=<(echo "$POSTGRES_PASSWORD") \
    --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync
  echo 'host all all all scram-sha-256' >>"$data.new/pg_hba.conf"
  [[ $POSTGRES_DB == postgres ]] ||
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$data.new" postgres
  mv "$data.new" "$data"
fi
# A container that was killed leaves this behind; here nobody else can hold it.
rm -f "$data/postmaster.pid"
exec postgres -D "$data" -c listen_addresses='*' -c log_connections=on
