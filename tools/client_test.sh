#!/usr/bin/env bash
# Starts a server with the demo, talks to it with OpenAI's Python client, verifies and tampers with a receipt.
#   tools/client_test.sh PROGRAM PYTHON
set -euo pipefail
program=$1 python=$2
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
"$program" up --listen 127.0.0.1:0 --data "$folder" --memory 0.5 >"$folder/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 600); do
    grep -q '^Try:' "$folder/log" && break
    kill -0 $server 2>/dev/null || { cat "$folder/log"; exit 1; }
    sleep 0.1
done
grep -q '^Try:' "$folder/log" || { cat "$folder/log"; exit 1; }
cat "$folder/log"
url=$(grep -o 'http://[0-9.:]*/v1' "$folder/log" | head -n 1)
"$python" "$root/crates/gateway/tests/openai_client.py" "$url"

"$python" - "$url" "$folder" <<'PY'
import json, sys, urllib.request
url, folder = sys.argv[1:]
body = {"model": "spanish", "temperature": 0, "messages": [{"role": "user", "content": "Where is the red lamp?"}]}
request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request))
print("answer:", answer["choices"][0]["message"]["content"])
def fetch(answer):
    return urllib.request.urlopen(url.removesuffix("/v1") + answer["receipt"]["url"]).read()
bundle = fetch(answer)
open(folder + "/honest", "wb").write(bundle)
# Held to a schema, with penalties and a stop string: all of it is part of the replay.
schema = {"type": "object", "additionalProperties": False, "required": ["n"], "properties": {"n": {"type": "integer", "maximum": 99, "minimum": 0}}}
body |= {"presence_penalty": 1, "logit_bias": {"300": -5}, "stop": ["never"], "seed": 1, "temperature": 1.2, "max_tokens": 40,
         "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}
request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request))
print("held to a schema:", answer["choices"][0]["message"]["content"])
open(folder + "/shaped", "wb").write(fetch(answer))
# The same bundle with one bit of its last leaf turned.
at = len(bundle) - 40
open(folder + "/tampered", "wb").write(bundle[:at] + bytes([bundle[at] ^ 1]) + bundle[at + 1 :])
PY
"$program" verify "$folder/honest" --data "$folder"
"$program" verify "$folder/shaped" --data "$folder"
if "$program" verify "$folder/tampered" --data "$folder"; then
    echo "a tampered receipt was accepted"
    exit 1
fi
"$program" verify "$folder/honest" --data "$folder" --log "$url/log"
"$program" log check "$url/log"
"$program" witness init "$folder/witness" witness.example.com/w
"$program" witness cosign "$folder/witness" "$url/log"
echo "1 passed, 0 failed"
