# make help lists what there is. Every target does its own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

GO ?= go
# Which image to build: virtual (cloud kernel, what the tests boot) or hardware.
BUILD ?= virtual
# A kernel of your own: bzImage, and the directory of its modules after depmod.
KERNEL ?=
MODULES ?=
# How hard zstd packs the initramfs: 9 saves a quarter of a minute for 15 % of size.
LEVEL ?= 19
# The builder's keys: what is there signs the unified kernel image (make keys);
# those for updates are made with the first image.
KEYS ?= build/keys
FUZZTIME ?= 30s
QEMU_TIMEOUT ?= 50m
STATICCHECK := honnef.co/go/tools/cmd/staticcheck
STATICCHECK_VERSION := v0.8.2

# The runtime wipes what secrets leave behind; tests run as the image does.
GOEXPERIMENT := runtimesecret

export GO KERNEL MODULES GOEXPERIMENT
STEP := .ci/step
BIN := build/bin
# Programs that run on this machine.
HOST_PROGRAMS := ./image/cmd/mkimage ./image/cmd/quantavirt-netboot ./qemu-tests/cmd/lab ./quac100/cmd/quac100-model ./appliance/cmd/quantavirt
# Packages whose tests need no QEMU.
UNIT = $$($(GO) list ./... | grep -Ev '/build/|^quantavirt/qemu-tests$$')

.PHONY: help
help: ## this list
	@echo "QuantaVirt. On Debian 12 or 13 with git, make and Go 1.26, as root or with sudo:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Settings: GO=go BUILD=virtual|hardware KERNEL=bzImage MODULES=directory LEVEL=19 KEYS=build/keys FUZZTIME=30s"

.PHONY: run
run: image ## build and boot the appliance under QEMU with a VM inside; up until Ctrl-C
	@$(STEP) "The demonstration" $(GO) build -o $(BIN)/demonstration ./qemu-tests/cmd/run
	@$(BIN)/demonstration

.PHONY: demo
demo: image ## the same, check the outcome and end
	@$(STEP) "The demonstration" $(GO) build -o $(BIN)/demonstration ./qemu-tests/cmd/run
	@$(BIN)/demonstration -check

.PHONY: test
test: LEVEL := 9
test: keys images lint unit ## all checks and all tests, those under QEMU included
	@$(STEP) "Tests under QEMU" $(GO) test -count=1 -v -timeout $(QEMU_TIMEOUT) ./qemu-tests

.PHONY: soak
soak: export QV_SOAK := 1
soak: QEMU_TIMEOUT := 8h
soak: test ## the same with full counts

.PHONY: unit
unit: setup ## tests that need no QEMU; those of the network need root
	@[[ $$EUID == 0 ]] || echo "Not root: tests that need network namespaces are skipped."
	@$(STEP) "Tests without QEMU" env QV_DEMAND_TOOLS=1 $(GO) test -p 4 -timeout 10m $(UNIT)

.PHONY: bench
bench: images ## measure and store the numbers of SPECIFICATION.md
	@$(STEP) "The benchmark" $(GO) build -o $(BIN)/benchmark ./qemu-tests/cmd/bench
	@$(BIN)/benchmark

.PHONY: image
image: setup programs ## build/image/$BUILD: kernel, initramfs, unified kernel image, sizes
	@$(STEP) "Image, $(BUILD) build" $(BIN)/mkimage build --build $(BUILD) --level $(LEVEL) --keys $(KEYS)
	@$(STEP) "Unified kernel image, $(BUILD) build" $(BIN)/mkimage uki --build $(BUILD) --keys $(KEYS)

.PHONY: keys
keys: setup ## build/keys: the builder's keys and their enrolment files, made once
	@$(STEP) "The builder's keys" $(BIN)/mkimage keys --out $(KEYS)

.PHONY: media
media: image ## the same, and USB disk, ISO and network boot files of it
	@$(STEP) "Media, $(BUILD) build" $(BIN)/mkimage media --build $(BUILD) --keys $(KEYS)

.PHONY: images
images: ## both builds with their media, as the tests need them
	@$(MAKE) --no-print-directory media BUILD=virtual LEVEL=$(LEVEL)
	@$(MAKE) --no-print-directory media BUILD=hardware LEVEL=$(LEVEL)

.PHONY: programs
programs: setup ## build/bin: lab, quantavirt, quantavirt-netboot, quac100-model, mkimage
	@$(STEP) "Programs into $(BIN)" env CGO_ENABLED=0 $(GO) build -trimpath \
	  -ldflags "-X quantavirt/internal/version.Version=$$($(BIN)/mkimage version)" -o $(BIN)/ $(HOST_PROGRAMS)

.PHONY: setup
setup: check-go ## what the rest needs: Debian packages, Go modules, the QEMU and kernel root
	@$(STEP) "Debian packages of this machine" .ci/setup-host
	@$(STEP) "Go modules" $(GO) mod download
	@$(STEP) "The image builder" env CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/mkimage ./image/cmd/mkimage
	@$(STEP) "QEMU, kernels and tools of Debian 13" $(BIN)/mkimage setup

.PHONY: refresh
refresh: setup ## unpack QEMU, kernels and tools anew, in their newest versions
	@$(STEP) "QEMU, kernels and tools of Debian 13, anew" $(BIN)/mkimage setup --refresh

.PHONY: check-go
check-go:
	@.ci/check-go $(GO)

STATICCHECK_BIN := build/tools/staticcheck-$(STATICCHECK_VERSION)/staticcheck
$(STATICCHECK_BIN): | check-go
	@$(STEP) "staticcheck $(STATICCHECK_VERSION)" env GOBIN=$(abspath $(dir $@)) $(GO) install $(STATICCHECK)@$(STATICCHECK_VERSION)

.PHONY: lint
lint: setup $(STATICCHECK_BIN) ## gofmt, go vet, staticcheck, generated files
	@$(STEP) "gofmt" .ci/lint gofmt
	@$(STEP) "go vet" $(GO) vet ./...
	@$(STEP) "staticcheck" $(STATICCHECK_BIN) ./...
	@$(STEP) "Generated files are current" .ci/lint generated

.PHONY: generate
generate: check-go ## write what is generated: API types, error page, C headers
	@$(STEP) "go generate" $(GO) generate ./internal/... ./appliance/...

.PHONY: fuzz
fuzz: check-go ## every fuzz target for FUZZTIME
	@.ci/lint fuzz $(FUZZTIME)

.PHONY: clean
clean: ## remove build/ but the keys; what is cached under ~/.cache/quantavirt stays
	[[ ! -e build ]] || find build -mindepth 1 -maxdepth 1 ! -name keys -exec rm -rf {} +
