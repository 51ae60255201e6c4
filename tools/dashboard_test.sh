#!/usr/bin/env bash
# Looks at every page of the dashboard with a headless browser: audited by axe-core for WCAG 2 A and AA, wide and narrow,
# light and dark, with scripts and without; asks, checks and cheats in the playground.
#   tools/dashboard_test.sh PROGRAM PYTHON [FOLDER FOR SCREENSHOTS]
set -euo pipefail
program=$(realpath "$1") python=$(realpath -s "$2") shots=${3:-}
root=$(cd "$(dirname "$0")/.." && pwd)
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    if [ -n "${CI:-}" ]; then
        echo "there is no chromium: apt-get install -y chromium" >&2
        exit 1
    fi
    echo "SKIPPED: there is no chromium here (apt-get install -y chromium), so no page was looked at"
    exit 0
fi
"$python" -m pip install --quiet --disable-pip-version-check 'playwright>=1.40,<2'
folder=$(mktemp -d)
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true; rm -rf "$folder"' EXIT
server=
(cd "$folder" && npm pack --silent axe-core@4.10.3 >/dev/null && tar xzf axe-core-*.tgz package/axe.min.js)
printf '{"version": 1, "default": {"prompt": 1000000, "output": 4000000}, "models": {"sql": {"prompt": 2000000, "output": 9000000}}}' >"$folder/prices"
key=$("$program" key ada 2>&1 >"$folder/line" | grep -o 'lsk-[0-9a-f]*')
sed 's/$/ budget=5/' "$folder/line" >"$folder/keys"
"$program" up --listen 127.0.0.1:0 --data "$folder/data" --memory 0.5 --log quiet --prices "$folder/prices" --api-keys "$folder/keys" \
    --admin-key administrator --adapter-root "$root/models/demo/adapters" --costs rtx-3090 >"$folder/log" 2>&1 &
server=$!
for _ in $(seq 600); do
    grep -q '^Try:' "$folder/log" && break
    kill -0 $server 2>/dev/null || { cat "$folder/log"; exit 1; }
    sleep 0.1
done
grep -q '^Try:' "$folder/log" || { cat "$folder/log"; exit 1; }
url=$(grep -o 'http://[0-9.:]*/v1' "$folder/log" | head -n 1)
"$python" "$root/tools/dashboard_test.py" "${url%/v1}" "$key" administrator "$browser" "$folder/package/axe.min.js" ${shots:+"$shots"}
