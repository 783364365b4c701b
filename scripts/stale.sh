#!/bin/sh
# Exit code 1 when the results in git were made by other code or settings than those beside them. Needs no data.
set -eu
said=$(dvc repro --dry --allow-missing 2>&1) || { printf '%s\n' "$said"; exit 2; }
printf '%s\n' "$said"
case $said in
*"Running stage"*) echo "error: stale results; fix: run \`dvc repro\` and commit dvc.lock and reports/" >&2; exit 1 ;;
esac
