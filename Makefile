# `make` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help build demo test check fmt vet lint race bench compare crash chaos sim fuzz cover deps clean

GO       ?= go
ROUNDS   ?= 100
SEEDS    ?= 10000
FUZZTIME ?= 30s

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/sluice
	$(GO) build -trimpath -o bin/sluice ./cmd/sluice

demo: ## run the social workload for some seconds, kill the server with -9 in the middle, compare every total
	$(GO) run ./cmd/sluice demo

test: deps ## install what the tests need where it is missing, then run all tests
	$(GO) test -timeout 30m ./...

check: deps fmt vet lint race ## what CI runs: format, vet, staticcheck, all tests with the race detector

fmt: ## fail when a file is not formatted
	@files="$$(gofmt -l .)"; test -z "$$files" || { echo "not formatted; run gofmt -w on:"; echo "$$files"; exit 1; }

vet: ## go vet
	$(GO) vet ./...

lint: ## staticcheck
	$(GO) tool staticcheck ./...

race: ## all tests with the race detector
	$(GO) test -race -timeout 40m ./...

bench: ## measure against the rivals on this machine and print one table
	$(GO) run ./bench

compare: ## the same writes by Sluice and by every rival on this machine: speed, cost, and what kill -9 takes
	$(GO) run ./bench/compare

crash: ## kill -9 the real binary again and again: make crash ROUNDS=100
	$(GO) test ./internal/crash -count=1 -v -timeout 0 -rounds $(ROUNDS)

chaos: ## every fault a machine and a network have, under load: make chaos ROUNDS=200
	$(GO) test ./internal/crash -run 'Chaos|FailOver' -count=1 -v -timeout 0 -chaos $(ROUNDS)

sim: ## simulate the whole system from many seeds: make sim SEEDS=100000
	$(GO) test ./internal/sim -run TestSeeds -count=1 -timeout 0 -seeds $(SEEDS)

fuzz: ## fuzz every fuzz test for a while: make fuzz FUZZTIME=30s
	GO=$(GO) ./scripts/fuzz.sh $(FUZZTIME)

cover: ## test coverage by package
	$(GO) test -timeout 30m -coverprofile=coverage.out ./... && $(GO) tool cover -func=coverage.out | tail -n 1

deps: ## install PostgreSQL, Redis and PgBouncer for the tests where they are missing
	@./scripts/install-test-deps.sh

clean: ## remove what the other targets made
	rm -rf bin coverage.out
