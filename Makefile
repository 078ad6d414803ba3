# SPDX-License-Identifier: GPL-2.0
#
# make help lists the verbs.

KDIR ?= /lib/modules/$(shell uname -r)/build
K ?= 6.12
T ?=
MINUTES ?= 60

all:	## build module/cowmem.ko for the running kernel (or KDIR=...)
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

clean:	## remove what was built
	-$(MAKE) -C $(KDIR) M=$(CURDIR) clean
	rm -rf build

install:	## install the module for the running kernel
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules_install
	depmod

unit:	## tree and page suites in user space, under ASan and UBSan: seconds
	$(MAKE) -s -C selftests/unit run

model:	## the protocol of locks and faults, and mutants of it, searched by spin: minutes
	@selftests/vm/packages.sh
	@selftests/model/run.sh $(T)

vm:	## run tests in a VM: K=6.1|6.12|7|debug|DIRECTORY, T="test..." (default all)
	@selftests/vm/packages.sh
	@selftests/vm/run.sh $(K) $(T)

run:	## the main job, shown in a VM: LMDB in a buffer, snapshotted while it is written
	@selftests/vm/packages.sh
	@selftests/vm/demo.sh

check:	## all tests, in VMs with the stock 6.12 and 6.1 kernels and a debug kernel
	@selftests/vm/check.sh

lint:	## W=1, sparse, checkpatch, kernel-doc
	@selftests/vm/packages.sh
	@selftests/vm/lint.sh

bench:	## snapshots against fork() and memfd, in a VM
	@selftests/vm/packages.sh
	@selftests/vm/bench.sh

mutants:	## break the module on purpose: does a test notice?
	@selftests/vm/packages.sh
	@selftests/mutants/run.sh $(T)

soak:	## the longest tests in a loop, with fresh seeds, for MINUTES=60, or until one is red
	@selftests/vm/packages.sh
	@selftests/vm/soak.sh $(MINUTES)

help:	## this list
	@sed -n 's/^\([a-z]*\):\t## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.PHONY: all clean install unit model vm run check lint bench mutants soak help
