#!/usr/bin/env bash
# Installs spin, the model checker, and gcc, which compiles what spin makes of a model. What is there already is left as it is.
set -euo pipefail

missing=()
command -v spin >/dev/null || missing+=(spin)
command -v gcc >/dev/null && echo 'int main(void){return 0;}' | gcc -x c -o /dev/null - 2>/dev/null || missing+=(gcc libc6-dev)

if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi
exec "$(dirname "$0")/debian.sh" model "spin (6.5 or newer) and gcc" "${missing[@]}"
