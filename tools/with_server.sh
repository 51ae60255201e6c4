#!/usr/bin/env bash
# Starts a server with the demo and runs a command in which the word URL stands for its address; ends with its status.
#   tools/with_server.sh PROGRAM COMMAND...      more options of `up` may stand in LOCKSTEP_UP
set -euo pipefail
program=$1
shift
folder=$(mktemp -d)
"$program" up --listen 127.0.0.1:0 --data "$folder" --memory 0.5 --log quiet ${LOCKSTEP_UP:-} >"$folder/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 600); do
    grep -q '^Try:' "$folder/log" && break
    kill -0 $server 2>/dev/null || { cat "$folder/log"; exit 1; }
    sleep 0.1
done
grep -q '^Try:' "$folder/log" || { cat "$folder/log"; exit 1; }
url=$(grep -o 'http://[0-9.:]*/v1' "$folder/log" | head -n 1)
"${@/#URL/$url}"
