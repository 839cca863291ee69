#!/bin/bash
# Fetches the SecureStrings under /musehub/<env>/ and writes them to .env, one variable per parameter, named by the
# last segment of its path.
#
# KEYTURN_PARAMETERS may hold `path=version` lines: those parameters are fetched at exactly that version. Parameter
# Store's reads are eventually consistent, so a deploy that follows a change at once could otherwise fetch the value
# before it.
set -euo pipefail
umask 077
cd "$(dirname "$0")/.."
# shellcheck source=/dev/null
source deploy/environment
region=${AWS_REGION:-us-east-1}

ssm() { aws ssm "$@" --region "$region" ${AWS_ENDPOINT_URL_SSM:+--endpoint-url "$AWS_ENDPOINT_URL_SSM"} --output json; }

fetched=$(mktemp -d)
trap 'rm -rf "$fetched" .env.new' EXIT

ssm get-parameters-by-path --path "/musehub/$MUSEHUB_ENV/" --with-decryption >"$fetched/00.json"

# Those that were answered at another version, or not at all, as names that SSM takes: path:version.
mapfile -t pinned < <(python3 - "$fetched/00.json" "/musehub/$MUSEHUB_ENV/" <<'PYTHON'
import json, os, re, sys

answered = {f"{p['Name']}={p['Version']}" for p in json.load(open(sys.argv[1]))["Parameters"]}
for line in os.environ.get("KEYTURN_PARAMETERS", "").splitlines():
    if re.fullmatch(re.escape(sys.argv[2]) + "[^=]+=[0-9]+", line) and line not in answered:
        print(line.replace("=", ":"))
PYTHON
)
for ((i = 0; i < ${#pinned[@]}; i += 10)); do # ten names a call are allowed
  ssm get-parameters --names "${pinned[@]:i:10}" --with-decryption >"$fetched/1$i.json"
done

python3 - "$fetched" >.env.new <<'PYTHON'
import json, os, re, sys

values = {}
for name in sorted(os.listdir(sys.argv[1])):
    answer = json.load(open(os.path.join(sys.argv[1], name)))
    if answer.get("InvalidParameters"):
        sys.exit("secrets.sh: SSM does not have " + ", ".join(answer["InvalidParameters"]))
    for parameter in answer["Parameters"]:
        if parameter["Type"] == "SecureString":
            values[parameter["Name"].rsplit("/", 1)[1]] = parameter["Value"]

for name, value in sorted(values.items()):
    # As `$(…)` in a shell does: a value that was put with a trailing newline runs without it.
    value = value.rstrip("\n")
    if not re.fullmatch(r"[A-Za-z0-9_./:@%+=,-]*", value):
        # compose expands what is not quoted
        value = '"' + re.sub(r'(["\\$])', r"\\\1", value).replace("\n", "\\n") + '"'
    print(f"{name}={value}")
PYTHON
mv .env.new .env
echo "secrets.sh: $(wc -l <.env) secrets of $MUSEHUB_ENV written to .env"
