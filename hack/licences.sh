#!/usr/bin/env bash
# Runs go-licenses on packages of the module that it is called in, as they are shipped: for Linux, on each architecture, without
# cgo.
set -euo pipefail

program="$(cd "$(dirname "$0")/.." && go run ./internal/tools/cmd/tool go-licenses)"
# It tells the standard library from the rest by where that is; what it can't look into is assembly of modules it has looked into.
GOROOT="$(go env GOROOT)"
export GOROOT GOOS=linux CGO_ENABLED=0 GOFLAGS=-mod=readonly
for GOARCH in amd64 arm64; do
	export GOARCH
	"$program" "$@" 2> >(grep -vE "contains non-Go code that can't be inspected|^/.*\.(s|h|c)\$" >&2)
done
