# Makefile: builds the engine (build/*.so) and runs what people run. `make help` lists the targets. Installs packages only for test, demo, bench and lint.
# No compiled-in machine: plain code for the architecture; kernels pick their instruction set at run time.
CFLAGS ?= -O3 -g
LUAJIT ?= luajit
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LUADIR ?= $(PREFIX)/share/lua/5.1
LIBDIR ?= $(PREFIX)/lib/lua/5.1
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
OPENMP ?= -fopenmp

ifeq ($(SANITIZE),1)
BUILD ?= build/asan
CHECKS := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
endif
BUILD ?= build

MEDIA_PKG := libavformat libavcodec libavutil libswscale libswresample libpng libjpeg
MEDIA_CFLAGS = $(shell pkg-config --cflags $(MEDIA_PKG))
MEDIA_LIBS = $(shell pkg-config --libs $(MEDIA_PKG))
ALL_CFLAGS := $(CFLAGS) $(CHECKS) -std=gnu11 -Wall -Wextra -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -MMD -MP -Icsrc -I$(BUILD)

CORE_SRC := $(wildcard csrc/*.c csrc/cpu/*.c csrc/cpu/reference/*.c)
MEDIA_SRC := $(wildcard csrc/media/*.c)
CORE_OBJ := $(CORE_SRC:%.c=$(BUILD)/%.o)
MEDIA_OBJ := $(MEDIA_SRC:%.c=$(BUILD)/%.o)
LIBRARIES := $(BUILD)/libration_core.so $(BUILD)/libration_media.so

# The CUDA device is a library of its own, which the core opens when a CUDA device is asked for. nvcc builds it for every GPU generation since 2020 and, as PTX, for what
# comes later; two front ends serve six machine codes, as nothing in csrc/cuda depends on the generation. That takes more than ten minutes of two cores at full optimisation,
# so `make` does it where there is a GPU to use it, says in a line where it does not, and leaves it out with CUDA=0; `make cuda` does it anywhere. `make cuda-check`, part of
# `make test`, compiles the same sources for the same generations with little optimisation, only to see that they compile.
NVCC ?= $(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
CUDA_SRC := $(wildcard csrc/cuda/*.cu)
CUDA_HDR := $(wildcard csrc/cuda/*.cuh) csrc/core.h csrc/device.h csrc/libration.h csrc/ops.def
CUDA_FLAGS = -std=c++17 -Icsrc -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra -Werror all-warnings
CUDA_FULL = -O3 -lineinfo -gencode arch=compute_80,code=[sm_80,sm_86,sm_89,compute_80] -gencode arch=compute_90,code=[sm_90a,sm_100,sm_120,compute_90]
CUDA_QUICK = $(shell $(NVCC) --help | grep -q Ofast-compile && echo -Ofc max) -gencode arch=compute_80,code=[sm_80,sm_86,sm_89,sm_90a,sm_100,sm_120]

# For Lua started from here: this checkout's modules and libraries before any installed ones.
HERE = LUA_PATH="$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;$$LUA_PATH;" LUA_CPATH="$(CURDIR)/$(BUILD)/?.so;$$LUA_CPATH;"

all: $(LIBRARIES) $(if $(filter 0,$(CUDA))$(filter 1,$(SANITIZE)),,cuda-here)
objects: $(CORE_OBJ) $(MEDIA_OBJ)
cuda: $(BUILD)/libration_core.so
	@[ -n "$(NVCC)" ] || { echo "make cuda: there is no nvcc here (NVCC=path names one)" >&2; exit 1; }
	@+$(MAKE) --no-print-directory -s -j$(JOBS) $(BUILD)/libration_cuda.so
cuda-here: $(LIBRARIES)
	@+if [ -z "$(NVCC)" ]; then echo "libration_cuda.so is left out: there is no nvcc here"; \
	elif [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ]; then echo "libration_cuda.so is left out: nvcc is here, but no GPU; make cuda builds it all the same"; \
	else $(MAKE) --no-print-directory -s $(BUILD)/libration_cuda.so; fi
cuda-check:
	@[ -n "$(NVCC)" ] || { echo "make cuda-check: there is no nvcc here (NVCC=path names one)" >&2; exit 1; }
	@mkdir -p $(BUILD)/cuda-check
	@+flock $(BUILD)/cuda-check $(MAKE) --no-print-directory cuda-checked
cuda-checked: $(CUDA_SRC:csrc/cuda/%.cu=$(BUILD)/cuda-check/%.fatbin)

# ---- generated text: the header as the C string that lbr_cdef() returns, the doors of ops.def ----
EMBED = sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/'
$(BUILD)/cdef.inc: csrc/libration.h csrc/ops.def
	@mkdir -p $(@D)
	$(CC) -E -P -DLBR_CDEF -Icsrc $< -o $@.i && $(EMBED) $@.i > $@.tmp && mv $@.tmp $@ && rm $@.i
$(BUILD)/media_cdef.inc: csrc/media/media.h
	@mkdir -p $(@D)
	$(CC) -E -P -DLBR_CDEF -Icsrc $< -o $@.i && $(EMBED) $@.i > $@.tmp && mv $@.tmp $@ && rm $@.i
$(BUILD)/doors.inc: csrc/doors.h csrc/ops.def tools/doors.awk
	@mkdir -p $(@D)
	$(CC) -E -P -Icsrc $< -o $@.i && awk -f tools/doors.awk $@.i > $@.tmp && mv $@.tmp $@ && rm $@.i

# ---- objects and libraries ----
$(BUILD)/csrc/media/%.o: csrc/media/%.c $(BUILD)/media_cdef.inc
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(MEDIA_CFLAGS) -c $< -o $@
$(BUILD)/csrc/%.o: csrc/%.c $(BUILD)/cdef.inc $(BUILD)/doors.inc
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(OPENMP) -c $< -o $@

# Linked beside and renamed, so that a running process keeps the library it has mapped.
# A bilinear enlargement, and what is done with points and boxes (points.h, boxes.h), is rounded step by step, as other engines round it; activations are, so that processors agree.
$(BUILD)/csrc/cpu/image_ops.o $(BUILD)/csrc/cpu/points.o $(BUILD)/csrc/cpu/boxes.o $(BUILD)/csrc/cpu/warp.o $(BUILD)/csrc/cpu/activate.o: ALL_CFLAGS += -ffp-contract=off
$(BUILD)/csrc/cuda/points.o $(BUILD)/csrc/cuda/boxes.o $(BUILD)/csrc/cuda/warp.o: CUDA_FLAGS += -fmad=false
$(BUILD)/libration_core.so: $(CORE_OBJ)
	$(CC) -shared $(OPENMP) $(CFLAGS) $(CHECKS) $(LDFLAGS) -Wl,-soname,libration_core.so -o $@.tmp $^ -ldnnl -lm -lpthread -ldl && mv $@.tmp $@
$(BUILD)/libration_media.so: $(MEDIA_OBJ) $(BUILD)/libration_core.so
	$(CC) -shared $(CFLAGS) $(CHECKS) $(LDFLAGS) -Wl,-soname,libration_media.so -o $@.tmp $(MEDIA_OBJ) -L$(BUILD) -l:libration_core.so \
	  -Wl,-rpath,'$$ORIGIN' $(MEDIA_LIBS) -lm -lpthread && mv $@.tmp $@

$(foreach f,points boxes warp,$(BUILD)/csrc/cuda/$(f).o $(BUILD)/cuda-check/$(f).fatbin): csrc/points.h csrc/boxes.h
$(BUILD)/csrc/cuda/%.o: csrc/cuda/%.cu $(CUDA_HDR)
	@mkdir -p $(@D)
	$(NVCC) $(CUDA_FLAGS) $(CUDA_FULL) -c $< -o $@
$(BUILD)/cuda-check/%.fatbin: csrc/cuda/%.cu $(CUDA_HDR)
	@mkdir -p $(@D)
	$(NVCC) $(CUDA_FLAGS) $(CUDA_QUICK) -fatbin $< -o $@
$(BUILD)/libration_cuda.so: $(CUDA_SRC:%.cu=$(BUILD)/%.o) $(BUILD)/libration_core.so
	$(NVCC) -shared -cudart static -o $@.tmp $(CUDA_SRC:%.cu=$(BUILD)/%.o) -L$(BUILD) -l:libration_core.so -Xlinker -rpath,'$$ORIGIN',-soname,libration_cuda.so && mv $@.tmp $@

# The same kernels compiled for the processor by tests/emu, which needs no GPU and no CUDA: plain, for AddressSanitizer, for ThreadSanitizer. emu-flags: of the second.
EMU_BUILDS := emu emu-asan emu-tsan
EMU_FLAGS = -x c++ -std=c++17 -O1 -g1 -ffp-contract=off -Wall -Wextra -fPIC -fvisibility=hidden -Itests/emu -Icsrc
EMU_HDR = $(wildcard tests/emu/*.h)
emu_flags_emu-asan := -fsanitize=address -fno-omit-frame-pointer
emu_flags_emu-tsan := -fsanitize=thread
emu_own_emu-asan := $(emu_flags_emu-asan)
emu_own_emu-tsan := -DEMU_RACES
define EMULATION
$(BUILD)/$(1)/points.o $(BUILD)/$(1)/boxes.o $(BUILD)/$(1)/warp.o: csrc/points.h csrc/boxes.h
$(BUILD)/$(1)/%.o: csrc/cuda/%.cu $(CUDA_HDR) $(EMU_HDR)
	@mkdir -p $$(@D)
	$(CXX) $(EMU_FLAGS) $(emu_flags_$(1)) -c $$< -o $$@
$(BUILD)/$(1)/emu/%.o: tests/emu/%.cpp $(EMU_HDR)
	@mkdir -p $$(@D)
	$(CXX) $(EMU_FLAGS) $(emu_own_$(1)) -c $$< -o $$@
$(1)-objects: $(CUDA_SRC:csrc/cuda/%.cu=$(BUILD)/$(1)/%.o) $(patsubst tests/emu/%.cpp,$(BUILD)/$(1)/emu/%.o,$(wildcard tests/emu/*.cpp))
$(BUILD)/$(1)/libration_cuda.so: $(CUDA_SRC:csrc/cuda/%.cu=$(BUILD)/$(1)/%.o) $(patsubst tests/emu/%.cpp,$(BUILD)/$(1)/emu/%.o,$(wildcard tests/emu/*.cpp)) $(BUILD)/libration_core.so
	$(CXX) -shared $(emu_flags_$(1)) -o $$@.tmp $$(filter %.o,$$^) -L$(BUILD) -l:libration_core.so -ldl -Wl,-rpath,'$$$$ORIGIN/..' && mv $$@.tmp $$@
$(1): $(BUILD)/$(1)/libration_cuda.so
endef
$(foreach b,$(EMU_BUILDS),$(eval $(call EMULATION,$(b))))
emu-flags:
	@echo $(EMU_FLAGS) $(emu_flags_emu-asan)

# ---- what people run ----
deps:
	@tools/setup build run

# nvcc's part of the tests takes two minutes of one core, of which the plain pass leaves one: it begins beside it, and tests/nvcc_spec.lua tells what came of it.
# All passes: plain, interpreted, sanitized, the CUDA device emulated; SANITIZE=1 the sanitized one alone, DEVICE=emu the emulated ones with both sanitizers, DEVICE=cuda the
# device's specs on a real one; SPEC=file, PASS=name to narrow it down.
TEST_PASS = $(if $(filter 1,$(SANITIZE)),sanitized,$(if $(filter emu,$(DEVICE)),emulated,$(if $(DEVICE),$(DEVICE),$(PASS))))
test:
	@tools/setup build run test
	@+$(MAKE) --no-print-directory -s -j$(JOBS) all $(if $(filter cuda,$(DEVICE)),cuda) CUDA=0 SANITIZE=
	@+$(if $(filter-out sanitized,$(TEST_PASS)),,$(MAKE) --no-print-directory -s -j$(JOBS) all SANITIZE=1)
	@+$(if $(filter-out emulated,$(TEST_PASS)),,[ "$$(uname -m)" != x86_64 ] || $(MAKE) --no-print-directory -s -j$(JOBS) $(if $(TEST_PASS),$(EMU_BUILDS),emu) SANITIZE=)
	@$(HERE) $(LUAJIT) recipes/models.lua >/dev/null || echo "tests that need these weights will be pending"
	@[ -z "$(NVCC)" ] || [ -n "$(TEST_PASS)$(SPEC)" ] || nice $(MAKE) -s cuda-check >/dev/null 2>&1 </dev/null &
	@$(LUAJIT) tools/test.lua $(TEST_PASS) $(SPEC)

demo:
	@tools/setup build run
	@+$(MAKE) --no-print-directory -s -j$(JOBS) all
	@$(HERE) $(LUAJIT) recipes/demo.lua

bench:
	@tools/setup build run $(if $(filter 1,$(PEERS)),bench)
	@+$(MAKE) --no-print-directory -s -j$(JOBS) all
	@$(HERE) $(LUAJIT) tools/bench.lua $(if $(filter 1,$(PEERS)),--peers)

# The cases come from the onnx Python package (pip install onnx), once; running them needs no Python.
PYTHON ?= python3
conformance: all
	@[ -f $(BUILD)/conformance/cases.txt ] || $(PYTHON) tools/onnx_cases.py $(BUILD)/conformance
	@$(HERE) $(LUAJIT) tools/conformance.lua $(BUILD)/conformance --write docs/ONNX.md

models:
	@tools/setup run
	@$(HERE) $(LUAJIT) recipes/models.lua

repl: all
	@$(HERE) $(LUAJIT) -l libration -i

# Warnings are errors here, with both compilers. Objects stay, so a second run is quick; those of gcc and of the emulator are the ones that the tests link.
# clang reads gcc's omp.h, last in its search, as it brings none of its own.
lint:
	@tools/setup build run lint
	@failed=; luacheck -q . || failed=1; \
	$(MAKE) --no-print-directory -k -s -j$(JOBS) objects CC=gcc CFLAGS="$(CFLAGS) -Werror" || failed=1; \
	$(MAKE) --no-print-directory -k -s -j$(JOBS) objects CC=clang BUILD=build/lint-clang CFLAGS="-O2 -Werror" \
	  OPENMP="-fopenmp -idirafter $$(gcc -print-file-name=include)" || failed=1; \
	[ "$$(uname -m)" != x86_64 ] || $(MAKE) --no-print-directory -k -s -j$(JOBS) emu-objects CXX="g++ -Werror" || failed=1; \
	[ -z "$$failed" ]
	@echo lint: clean

install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)
	install -m 755 $(LIBRARIES) $(DESTDIR)$(LIBDIR)
	[ ! -e $(BUILD)/libration_cuda.so ] || install -m 755 $(BUILD)/libration_cuda.so $(DESTDIR)$(LIBDIR)
	install -m 755 bin/libration $(DESTDIR)$(BINDIR)/libration
	(cd lua && find libration* -type f -name '*.lua') | while read -r f; do install -D -m 644 "lua/$$f" "$(DESTDIR)$(LUADIR)/$$f" || exit 1; done
	for f in models/*.lua recipes/*.lua; do install -D -m 644 "$$f" "$(DESTDIR)$(LUADIR)/libration/$$f" || exit 1; done

clean:
	rm -rf build

help:
	@echo "make           build            make test      every test, installs packages where missing"
	@echo "make demo      the whole path   make models    fetch the networks' weights"
	@echo "make bench     speed, PEERS=1   make lint      luacheck, gcc and clang, warnings are errors"
	@echo "make conformance   ONNX operators against the cases of the onnx package -> docs/ONNX.md"
	@echo "make cuda      the CUDA library make test DEVICE=emu: its specs without a GPU, DEVICE=cuda: on one"
	@echo "make repl      LuaJIT with it   make install   PREFIX=/usr/local; make clean; make deps"

-include $(CORE_OBJ:.o=.d) $(MEDIA_OBJ:.o=.d)
.PHONY: all objects cuda cuda-here cuda-check cuda-checked $(EMU_BUILDS) $(EMU_BUILDS:%=%-objects) emu-flags deps test demo bench conformance models repl lint install clean help
.DELETE_ON_ERROR:
