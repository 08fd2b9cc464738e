# Every target says what it does: `make` lists them. A fresh machine needs Go and make; what else a target runs is built
# from Go modules once, into a cache outside the checkout, or installed by hack/databases.sh and hack/spin.sh.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/airflow-requeue/airflow-requeue/internal/flags.version=$(VERSION)
TOOL := $(GO) run ./internal/tools/cmd/tool

# The licences that what is shipped may have; and that of go-sql-driver/mysql, whose source therefore is in the images.
LICENCES ?= Apache-2.0,BSD-2-Clause,BSD-3-Clause,ISC,MIT
LICENCES_MYSQL ?= MPL-2.0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: controlplane ## show the main job on a real kube-apiserver, as a live timeline
	@$(GO) run ./demo

.PHONY: demo-airflow
demo-airflow: controlplane ## run the whole Airflow through a storm of dying pods, with and without airflow-requeue (minutes)
	@hack/databases.sh
	@hack/python.sh
	@$(GO) test -count=1 -timeout 60m -v ./test/whole -whole

.PHONY: test
test: controlplane tools databases ## prove it: all tests, with the race detector, on real servers
	$(GO) test -race -timeout 20m ./...

.PHONY: test-airflow
test-airflow: controlplane databases ## prove it against Airflow itself, old and new, installed from PyPI
	@hack/python.sh
	@$(GO) run ./internal/airflow/cmd/airflow
	$(GO) test -race -timeout 30m ./test/airflow -airflow

OUT ?= docs/bench

.PHONY: bench
bench: controlplane ## measure cost and speed beside what they are to be compared with (about 20 minutes; BENCH=--help)
	@hack/databases.sh
	@hack/python.sh
	$(GO) run ./bench --out=$(OUT) $(BENCH)
	@out=$$(realpath -m $(OUT)) && cd bench/plot && $(GO) run . "$$out/bench.json" "$$out/bench.svg"

.PHONY: lint
lint: ## run golangci-lint and actionlint, and check that the modules are tidy
	"$$($(TOOL) golangci-lint)" run ./...
	cd internal/tools/images && "$$(cd ../../.. && $(TOOL) golangci-lint)" run ./...
	"$$($(TOOL) actionlint)" -shellcheck= -pyflakes= .github/workflows/*.yaml
	$(GO) mod tidy -diff

.PHONY: vulnerabilities
vulnerabilities: ## look for known vulnerabilities in what is shipped; says so where their database can't be reached
	@$(GO) run ./internal/tools/cmd/vulnerabilities $(VULNERABILITIES) ./cmd/...

.PHONY: licences
licences: ## check that all that is shipped has a licence that is allowed
	@hack/licences.sh check --allowed_licenses=$(LICENCES) --ignore=github.com/go-sql-driver/mysql ./cmd/...
	@hack/licences.sh check --allowed_licenses=$(LICENCES_MYSQL) --ignore=filippo.io github.com/go-sql-driver/mysql
	@echo "licences: all of what is shipped is one of $(LICENCES); go-sql-driver/mysql is $(LICENCES_MYSQL)"

.PHONY: model
model: ## check the protocol's model exhaustively with spin
	@hack/spin.sh
	@docs/protocol/check.sh

.PHONY: build
build: ## build webhook and watcher into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/airflow-requeue-webhook ./cmd/webhook
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/airflow-requeue-watcher ./cmd/watcher

.PHONY: images
images: ## build both images for amd64 and arm64 into bin/images, as OCI layouts with their SBOMs, without a daemon
	@hack/images.sh bin/images

.PHONY: push-images
push-images: ## push bin/images to REGISTRY, such as ghcr.io/airflow-requeue, as TAG (default: what git describe says)
	@: "$${REGISTRY:?name a registry, and a folder in it}"
	@for program in watcher webhook; do \
		"$$($(TOOL) crane)" push bin/images/$$program "$$REGISTRY/$$program:$${TAG:-$(VERSION)}"; \
	done

.PHONY: test-images
test-images: ## build the images in two places, and check that they are the same and as they are said to be
	$(GO) test -count=1 -timeout 30m -v ./test/images -images

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZTIME (default 20s)
	@for target in $$(grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' pkg | sed 's/func //'); do \
		package=$$(grep -rlE --include='*_test.go' "^func $$target\(" pkg | xargs dirname); \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $${FUZZTIME:-20s} -fuzzminimizetime 20x ./$$package; \
	done

.PHONY: planted
planted: controlplane tools ## plant a fault for each row of the table and see its test fail, and each attack succeed undefended
	$(GO) test -timeout 40m ./test/scenarios -run TestAPlantedFaultIsCaughtByItsRow -planted -v
	$(GO) test -timeout 10m ./test/manifests -run TestAnAttackSucceedsOnAWatcherWithoutItsDefence -planted -v

.PHONY: controlplane
controlplane: ## build etcd and kube-apiserver into the cache (once, about 4 minutes)
	@$(GO) run ./internal/controlplane/cmd/controlplane >/dev/null

.PHONY: tools
tools: ## build kustomize, helm, kubectl and cert-manager into the cache (once, about 8 minutes)
	@$(TOOL) kustomize >/dev/null
	@$(TOOL) helm >/dev/null
	@$(TOOL) cert-manager >/dev/null

.PHONY: databases
databases: ## install PostgreSQL, PgBouncer and MariaDB where Debian's packages can be; else their tests skip
	@hack/databases.sh || { [ "$${CI:-}" != true ] && echo "databases: the tests that want what is missing will be skipped" >&2; }
