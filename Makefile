# Verbs over meson: `make help` lists them.  A new source file needs no line anywhere: tools/build sees it.

MODEL ?=
FUZZ_SECONDS ?= 30
PREFIX ?= /usr/local
# WERROR=1: a warning stops the build, as the check of changes wants it.
BUILD = tools/build build -Dprefix=$(PREFIX) $(if $(WERROR),-Dwerror=true)
SANITIZED = -Db_lundef=false -Doptimization=1 $(if $(WERROR),-Dwerror=true)
# The tests' one model: fetched unless the caller names one.
WITH_MODEL = HADAL_TEST_MODEL="$${HADAL_TEST_MODEL:-$$(tools/fetch-default-model)}"; [ -n "$$HADAL_TEST_MODEL" ] || exit 1; \
    export HADAL_TEST_MODEL;

.PHONY: all deps ready chat serve test test-full bench bench-serve bench-train learn asan tsan fuzz layers fmt install clean help

all: ## build/hadal, the library and the tests
	@$(BUILD)

deps: ## install what is missing to build and test (Debian packages)
	@tools/deps

ready:
	@tools/deps --check 2>/dev/null || tools/deps
	@$(BUILD)

chat: ready ## talk with the small default model, or MODEL=path make chat
	@model="$(MODEL)"; [ -n "$$model" ] || model=$$(tools/fetch-default-model) || exit 1; \
	    exec build/hadal chat "$$model"

serve: ready ## the chat page and the API of the small default model, or MODEL=path make serve
	@model="$(MODEL)"; [ -n "$$model" ] || model=$$(tools/fetch-default-model) || exit 1; \
	    exec build/hadal serve "$$model" $(SERVE)

test: ready layers ## the quick tests: under ten minutes, one small model
	@$(WITH_MODEL) tests/run

test-full: ready layers ## adds exhaustive tests, bigger models and peers (MODELS=dir PEERS=dir)
	@$(WITH_MODEL) HADAL_TEST_FULL=1 HADAL_TEST_MODELS="$(MODELS)" HADAL_TEST_PEERS="$(PEERS)" tests/run --full

bench: ready ## speed; PEERS=dir adds the peers, interleaved
	@$(WITH_MODEL) bench/run $(if $(PEERS),--peers "$(PEERS)") $(if $(MODELS),--models "$(MODELS)")

bench-serve: ready ## the server with 1 to 64 clients; PEERS=dir adds llama-server
	@$(WITH_MODEL) bench/serve $(if $(PEERS),--peers "$(PEERS)") $(if $(MODEL),--model "$(MODEL)")

learn: ready ## small runs that must learn, beside PyTorch; HADAL_DATA=dir has texts, HADAL_VENV=dir torch
	@tests/learn/learn.py $(LEARN)

bench-train: ready ## a training step beside PyTorch's; HADAL_VENV=dir has torch, else one is made
	@bench/train --save $(TRAIN)

asan: ## the same tests under the address and undefined-behaviour sanitizers
	@tools/deps --check 2>/dev/null || tools/deps
	@tools/build build-asan -Db_sanitize=address,undefined $(SANITIZED)
	@$(WITH_MODEL) tests/run --build build-asan

tsan: ## what has threads under the thread sanitizer: the pool, sessions on it, the scheduler, the network side
	@tools/build build-tsan -Db_sanitize=thread $(SANITIZED)
	@HADAL_TEST_LIMIT=1200 tests/run --build build-tsan test_base_pool test_session test_sched test_net test_work

fuzz: ## every fuzz target for FUZZ_SECONDS (30) each; needs clang
	@tools/deps --check --clang 2>/dev/null || tools/deps --clang
	@tools/fuzz $(FUZZ_SECONDS)

layers: ## refuse an include that points upwards
	@tools/layers

fmt: ## clang-format over the lines that differ from the last commit
	@git clang-format --force --extensions c,h

install: all ## into PREFIX (/usr/local)
	@meson install -C build --no-rebuild

clean:
	rm -rf build build-*

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r v d; do printf '  make %-10s %s\n' "$$v" "$$d"; done
