#!/usr/bin/env bash
# Builds both images into a folder, by the Go that go.mod names: another may compile and compress to other bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

out="$(realpath -m "$1")"
GOTOOLCHAIN="$(sed -n 's/^toolchain //p' go.mod)"
export GOTOOLCHAIN

licences="$(mktemp -d)"
trap 'rm -rf "$licences"' EXIT
for program in watcher webhook; do
	hack/licences.sh save "./cmd/$program" --save_path="$licences/$program" --force
	install -D -m 0644 "$(go env GOROOT)/LICENSE" "$licences/$program/go.dev/LICENSE"
done
go -C internal/tools/images run . --source="$PWD" --licences="$licences" --out="$out"
