# TAS sockets.  `make help` lists the targets.  Variables: O=build folder, CC=gcc|clang, SAN=address,undefined | thread, V=1
#? make             build into build/ (O=folder)
#? make demo        set this machine up, build, and show an unmodified program on TAS
#? make conformance the same calls on Linux and on TAS, compared (build/conformance/index.html; QUICK=1: what make test runs)
#? make test        unit tests, and real programs in network namespaces (test-full: with large volumes)
#? make deps        install what building and the demo need (test-deps: tests and lint)
#? make lint        ruff, mypy, clang, layers, exports
#? make install     into PREFIX (/usr/local), below DESTDIR
#? make clean       remove the build folder
#? variables        CC=gcc|clang  SAN=address,undefined|thread  V=1 (show commands)
O ?= build
CC := $(if $(filter default,$(origin CC)),gcc,$(CC))
AR := ar
PREFIX ?= /usr/local
DESTDIR ?=
SAN ?=
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' "$(1)" "$(2)";)

MAKEFLAGS += --no-builtin-rules
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wundef
BASE := -std=gnu11 -g -O2 -fno-strict-aliasing -fno-omit-frame-pointer -pthread -D_GNU_SOURCE $(WARN)
ifneq ($(SAN),)
BASE += -fsanitize=$(SAN) -fno-sanitize-recover=all
LDSAN := -fsanitize=$(SAN)
else
NO_UNDEFINED := -Wl,-z,defs
endif
INC_FP := -Ifastpath
INC_CL := -Ifastpath -Iinterpose/client

DPDK_CFLAGS = $(patsubst -I%,-isystem %,$(shell pkg-config --cflags libdpdk)) # system: our warnings are for our code
DPDK_LIBS = $(shell pkg-config --libs libdpdk)

# ---- sources: every .c in its folder belongs to that part ----
TCP_SRC := $(sort $(wildcard fastpath/tcp/*.c))
TAS_SRC := $(sort $(wildcard fastpath/fast/*.c fastpath/slow/*.c fastpath/service/*.c))
LOW_SRC := $(sort $(wildcard interpose/client/lowlevel/*.c))
SOCK_SRC := $(sort $(wildcard interpose/client/sockets/*.c))
PRE_SRC := $(sort $(wildcard interpose/preload/*.c interpose/preload/*.S))
FP_TESTS := $(sort $(wildcard fastpath/tests/test_*.c))
CL_TESTS := $(sort $(wildcard interpose/tests/test_*.c))
APPS := $(sort $(wildcard apps/*.c))

objs = $(patsubst %,$(O)/obj/%.o,$(basename $(1)))
picobjs = $(patsubst %,$(O)/pic/%.o,$(basename $(1)))

.PHONY: all
all: $(O)/tas $(O)/libtas.so $(O)/libtas_sockets.so $(O)/libtas_interpose.so examples

# ---- compile ----
$(O)/obj/fastpath/tcp/%.o: fastpath/tcp/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D); $(CC) $(BASE) $(INC_FP) -MMD -MP -c $< -o $@
$(O)/obj/fastpath/tests/%.o: fastpath/tests/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D); $(CC) $(BASE) $(INC_CL) -MMD -MP -c $< -o $@
$(O)/obj/fastpath/%.o: fastpath/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D); $(CC) $(BASE) $(INC_FP) $(DPDK_CFLAGS) -MMD -MP -c $< -o $@
$(O)/obj/apps/%.o: apps/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D); $(CC) $(BASE) -MMD -MP -c $< -o $@
$(O)/obj/interpose/tests/%.o: interpose/tests/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D); $(CC) $(BASE) $(INC_CL) -MMD -MP -c $< -o $@
$(O)/pic/%.o: %.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D); $(CC) $(BASE) -fPIC -fvisibility=hidden -ftls-model=initial-exec $(INC_CL) -MMD -MP -c $< -o $@
$(O)/pic/%.o: %.S
	$(call say,AS,$<)
	$(Q)mkdir -p $(@D); $(CC) -g -fPIC -MMD -MP -c $< -o $@

# ---- link ----
$(O)/libtastcp.a: $(call objs,$(TCP_SRC))
	$(call say,AR,$@)
	$(Q)rm -f $@; $(AR) rcs $@ $^
$(O)/tas: $(call objs,$(TAS_SRC)) $(O)/libtastcp.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDSAN) -pthread -o $@ $^ $(DPDK_LIBS)
$(O)/libtas.so: $(call picobjs,$(LOW_SRC))
	$(call say,LINK,$@)
	$(Q)$(CC) -shared $(LDSAN) -pthread -Wl,-soname,libtas.so -o $@ $^
$(O)/libtas_sockets.so: $(call picobjs,$(SOCK_SRC)) $(O)/libtas.so
	$(call say,LINK,$@)
	$(Q)$(CC) -shared $(LDSAN) -pthread -Wl,-soname,libtas_sockets.so -Wl,-rpath,'$$ORIGIN' -o $@ $(call picobjs,$(SOCK_SRC)) -L$(O) -ltas
# The interposer is one object: it contains the client libraries, so that nothing else has to be found at run time.
$(O)/pic/exports.map: interpose/preload/exports.map.in interpose/preload/calls.h
	$(call say,GEN,$@)
	$(Q)mkdir -p $(@D); $(CC) -E -P -xc $< -o $@
$(O)/libtas_interpose.so: $(call picobjs,$(LOW_SRC) $(SOCK_SRC) $(PRE_SRC)) $(O)/pic/exports.map
	$(call say,LINK,$@)
	$(Q)$(CC) -shared $(LDSAN) -pthread -Wl,-soname,libtas_interpose.so -Wl,-z,now $(NO_UNDEFINED) -Wl,--version-script=$(O)/pic/exports.map -Wl,-e,_start -o $@ $(shell $(CC) -print-file-name=Scrt1.o) $(filter %.o,$^) -ldl
# Every symbol of calls.h is exported, and none besides.
.PHONY: check-exports
check-exports: $(O)/libtas_interpose.so
	$(Q)interpose/preload/check-exports $(O)/pic/exports.map $<
$(O)/%: $(O)/obj/apps/%.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDSAN) -pthread -o $@ $< -lm
.PHONY: examples
examples: $(patsubst apps/%.c,$(O)/%,$(APPS))

# ---- unit tests (cmocka) ----
# the engine's simulator
$(O)/libsim.a: $(call objs,$(sort $(wildcard fastpath/tests/sim*.c)))
	$(call say,AR,$@)
	$(Q)rm -f $@; $(AR) rcs $@ $^
$(O)/tests/fp_%: $(O)/obj/fastpath/tests/%.o $(O)/libsim.a $(O)/libtastcp.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D); $(CC) $(LDSAN) -pthread -o $@ $^ -lcmocka -lm
# tests of the control half link its objects; what else those call, the tests bring
$(O)/tests/fp_test_fast_stream: $(call objs,fastpath/fast/stream.c fastpath/fast/setting.c)
$(O)/tests/fp_test_place: $(call objs,fastpath/fast/place.c)
$(O)/tests/fp_test_memory: $(call objs,fastpath/slow/chunk.c fastpath/slow/memory.c)
CONTROL_SRC := $(patsubst %,fastpath/slow/%.c,admin chunk control epset identity memory process request shared stack watch)
$(patsubst fastpath/tests/%.c,$(O)/tests/fp_%,$(wildcard fastpath/tests/test_control*.c)): $(call objs,$(CONTROL_SRC))
$(O)/tests/cl_%: $(O)/obj/interpose/tests/%.o $(call picobjs,$(LOW_SRC) $(SOCK_SRC))
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D); $(CC) $(LDSAN) -pthread -o $@ $^ -lcmocka
# packets, with the port faked
$(O)/obj/fastpath/tests/test_port.o $(O)/obj/fastpath/tests/test_tap.o: INC_CL += $(DPDK_CFLAGS)
# service and client in one process
IN_OBJ := $(call objs,interpose/tests/inprocess/test_inprocess.c interpose/tests/inprocess/service.c)
$(IN_OBJ): INC_CL += $(DPDK_CFLAGS)
$(O)/tests/inprocess: $(IN_OBJ) $(filter-out %/service/main.o,$(call objs,$(TAS_SRC))) $(O)/libtastcp.a $(call picobjs,$(LOW_SRC) $(SOCK_SRC))
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D); $(CC) $(LDSAN) -pthread -o $@ $^ -lcmocka $(DPDK_LIBS)
UNITS := $(O)/tests/inprocess $(patsubst fastpath/tests/%.c,$(O)/tests/fp_%,$(FP_TESTS)) $(patsubst interpose/tests/%.c,$(O)/tests/cl_%,$(CL_TESTS))
.PHONY: units
units: $(UNITS)
	$(Q)for t in $(UNITS); do echo "== $$t"; $$t || exit 1; done

# ---- interposer: programs that print what their calls gave, compared with the kernel by pytest ----
PY := $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
PRELOAD_PROGS := $(patsubst interpose/tests/preload/%.c,$(O)/tests/preload/%,$(wildcard interpose/tests/preload/*.c))
$(O)/tests/preload/libearly.so: interpose/tests/preload/early.c interpose/tests/preload/say.h
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D); $(CC) $(BASE) -fPIC -shared -DEARLY_LIBRARY -o $@ $<
$(O)/tests/preload/%: interpose/tests/preload/%.c interpose/tests/preload/say.h $(O)/tests/preload/libearly.so
	$(call say,LINK,$@)
	$(Q)$(CC) $(BASE) -o $@ $< -Wl,--as-needed -L$(@D) -learly -Wl,-rpath,'$$ORIGIN'
.PHONY: preload-programs test-preload
preload-programs: $(PRELOAD_PROGS)
test-preload: check-exports preload-programs
	$(Q)TAS_BUILD=$(abspath $(O)) $(PY) -m pytest -q interpose/tests/preload

# ---- conformance: the same scenarios on the kernel and on TAS ----
$(O)/tests/agent: compat_tests/harness/agent.c
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D); $(CC) $(BASE) -rdynamic -o $@ $< -ldl
CONFORMANCE := $(wildcard compat_tests/calls compat_tests/options compat_tests/readiness compat_tests/lifecycle compat_tests/tcp compat_tests/limits)
$(O)/tests/fuzz-executor: $(wildcard compat_tests/fuzz/executor/*.[ch]) fastpath/abi/tas_msg.h
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D); $(CC) $(BASE) $(INC_FP) -o $@ $(filter %.c,$^)
.PHONY: conformance conformance-agent fuzz-executor fuzz-diff
conformance-agent: $(O)/tests/agent $(O)/tests/fuzz-executor
fuzz-executor: $(O)/tests/fuzz-executor
#? make fuzz-diff   random programs on the kernel and on TAS, compared (N=1000 SEED=1)
fuzz-diff: all fuzz-executor
	$(Q)cd compat_tests && TAS_BUILD=$(abspath $(O)) PYTHONPATH=$(CURDIR) $(abspath $(PY)) -m fuzz.campaign -n $(or $(N),1000) --seed $(or $(SEED),1) --out $(abspath $(O))/fuzz-diff
# More workers than processors: half of the time of a scenario is waiting.
WORKERS ?= $(shell expr 2 '*' $$(nproc))
conformance: test-deps
	$(Q)$(MAKE) --no-print-directory all conformance-agent $(O)/python-extension
	$(Q)TAS_BUILD=$(abspath $(O)) TAS_CONFORMANCE_OUT=$(abspath $(O))/conformance .venv/bin/python -m pytest -q -r f --timeout=60 --tb=line -n $(WORKERS) $(if $(QUICK),-m 'not full') $(CONFORMANCE); \
		status=$$?; echo "$(O)/conformance/index.html"; exit $$status

# ---- real programs, on the kernel and on TAS: apps/recipes (APP=name: that program) ----
#? make apps        real programs on Linux and on TAS, compared (APP=nginx: one; build/apps/result.json)
.PHONY: apps
apps: test-deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)TAS_BUILD=$(abspath $(O)) PYTHONPATH=apps:compat_tests .venv/bin/python -m recipes $(APP)

# ---- TAS beside Linux (QUICK=1: a short list, three repetitions; ONLY=text: rows whose name contains it; REPS=n) ----
.PHONY: bench
#? make bench       TAS beside Linux, interleaved, as ratios (QUICK=1, ONLY=text, REPS=n; DOCS=1: also into docs/bench)
bench:
	$(Q).ci/deps bench
	$(Q)$(MAKE) --no-print-directory all
	$(Q)cd compat_tests && TAS_BUILD=$(abspath $(O)) PYTHONPATH=$(CURDIR) $(CURDIR)/.venv/bin/python -m bench $(if $(QUICK),--quick) $(if $(REPS),--reps $(REPS)) $(if $(ONLY),--only '$(ONLY)') $(if $(DOCS),--docs) --out $(abspath $(O))/bench

.PHONY: profile
#? make profile     instructions and cycles of the service per request (ONLY=text)
profile:
	$(Q).ci/deps bench
	$(Q)$(MAKE) --no-print-directory all
	$(Q)cd compat_tests && TAS_BUILD=$(abspath $(O)) PYTHONPATH=$(CURDIR) $(CURDIR)/.venv/bin/python -m bench.profile $(if $(ONLY),--only '$(ONLY)') --out $(abspath $(O))/bench

# ---- Python: the extension of the checkout's own .venv, built in place ----
PY_SRC := tas_sockets/_build_ffi.py tas_sockets/_fast.c tas_sockets/_glue.c tas_sockets/_glue.h tas_sockets/_exports.map
$(O)/python-extension: $(PY_SRC) $(LOW_SRC) $(SOCK_SRC) $(wildcard interpose/client/*.h interpose/client/*/*.h fastpath/abi/*.h)
	$(call say,CFFI,tas_sockets)
	$(Q)mkdir -p $(@D); $(PY) -m tas_sockets._build_ffi >$@

# ---- documentation: build/docs/index.html, with the figures of the last `make conformance` where there are some ----
.PHONY: docs
#? make docs        the site, into build/docs
docs:
	$(Q).ci/deps docs
	$(Q)TAS_CONFORMANCE=$(abspath $(O))/conformance/result.json .venv/bin/python -m sphinx -b html -q -W --keep-going -d $(O)/docs-cache docs $(O)/docs
	$(Q)PYTHONPATH=compat_tests .venv/bin/python -m harness.pagecheck $(O)/docs
	@echo "$(O)/docs/index.html"

# ---- what users type ----
.PHONY: deps test-deps demo test test-full lint install help
deps:
	$(Q).ci/deps build
test-deps:
	$(Q).ci/deps test
demo: deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)TAS_BUILD=$(abspath $(O)) .venv/bin/python -m tas_sockets._demo
ASAN_UBSAN := address,undefined
test test-full: test-deps
	$(Q)$(MAKE) --no-print-directory all units check-exports preload-programs conformance-agent $(O)/python-extension
	$(Q)TAS_BUILD=$(abspath $(O)) .venv/bin/python -m pytest -q --reruns 1 $(if $(filter test,$@),-m 'not full') $(CONFORMANCE:%=--ignore=%)
	$(Q)TAS_BUILD=$(abspath $(O)) .venv/bin/python -m pytest -q -r f --tb=short -n $(WORKERS) $(if $(filter test,$@),-m 'not full') $(CONFORMANCE)
	$(Q)$(if $(filter test-full,$@),$(MAKE) --no-print-directory O=$(O)-asan SAN=$(ASAN_UBSAN) units)
	$(Q)$(if $(filter test-full,$@),$(MAKE) --no-print-directory O=$(O)-tsan SAN=thread units)
#? make guest       the service in a virtual machine (QEMU), on a virtio card that DPDK drives
.PHONY: guest
guest: test-deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q).ci/deps packages qemu-system-x86 busybox-static
	$(Q).ci/guest-kernel $(abspath $(O))/guest
	$(Q)TAS_BUILD=$(abspath $(O)) .venv/bin/python -m pytest -q -rs compat_tests/test_guest.py
lint: test-deps
	$(Q)$(MAKE) --no-print-directory check-exports
	$(Q)$(MAKE) --no-print-directory CC=clang O=$(O)-clang all
	$(Q).ci/lint
install: all
	$(Q).ci/install $(O) "$(PREFIX)" "$(DESTDIR)"
help:
	@sed -n 's/^#? //p' Makefile

# ---- fuzzing (clang with its libFuzzer): make fuzz, then run build/fuzz/NAME -max_total_time=60 CORPUS ----
$(O)/fuzz/fuzz_tcp_%: fastpath/fuzz/fuzz_tcp_%.c $(TCP_SRC) fastpath/tests/sim_check.c
	$(call say,FUZZ,$@)
	$(Q)mkdir -p $(@D); clang $(filter-out -fsanitize=% -fno-sanitize-recover=%,$(BASE)) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
		$(INC_FP) -Ifastpath/tests -o $@ $^
.PHONY: fuzz
fuzz: $(patsubst fastpath/fuzz/%.c,$(O)/fuzz/%,$(wildcard fastpath/fuzz/fuzz_tcp_*.c))

.PHONY: clean
clean:
	$(Q)rm -rf $(O)

-include $(shell test -d $(O)/obj && find $(O)/obj $(O)/pic -name '*.d' 2>/dev/null)
