#!/usr/bin/env bash
# Installs Python with venv, which uv is installed by; where uv is there already, it finds its Python.
set -euo pipefail

if command -v uv >/dev/null || python3 -c 'import ensurepip, venv' 2>/dev/null; then
	exit 0
fi
exec "$(dirname "$0")/debian.sh" python "uv, or Python (3.10 to 3.12) with venv" python3 python3-venv
