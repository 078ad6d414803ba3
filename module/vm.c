// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings: see vm.h, and "What orders what" in buffer.h.
 *
 * Faults install their PTE themselves, while they hold the locks that made the
 * page theirs, and return VM_FAULT_NOPAGE: one exception per first write, and
 * nothing in flight when snapshot has the snap lock.  The one page that goes to
 * the core is the source of a private copy.
 */
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "amplify.h"
#include "buffer.h"
#include "compat.h"
#include "page.h"
#include "trace.h"
#include "vm.h"

static vm_fault_t fault_error(int err)
{
	switch (err) {
	case -ENOMEM:
		return VM_FAULT_OOM;
	case -EIO:
		return VM_FAULT_HWPOISON;
	case -EBUSY:
		/* Its PTE is gone: the next fault comes without the page. */
		return VM_FAULT_NOPAGE;
	default:
		/*
		 * -ERANGE: beyond the end.  -ENOSPC: at the limit.  -EINTR: the
		 * task dies anyway; and a copy by the kernel must fail, not
		 * fault for ever.
		 */
		return VM_FAULT_SIGBUS;
	}
}

/* A page table, so that nothing is allocated under the locks. */
static int prepare_page_table(struct vm_fault *vmf)
{
	if (likely(!pmd_none(*vmf->pmd)))
		return 0;
	return apply_to_page_range(vmf->vma->vm_mm, vmf->address & PAGE_MASK,
				   PAGE_SIZE, NULL, NULL);
}

/*
 * A store through a shared mapping, or any access through one that gets its
 * pages ready to be written; @mapped: the page of a read-only PTE.
 */
static vm_fault_t fault_write(struct cowmem_buffer *buf, struct vm_fault *vmf,
			      struct page *mapped)
{
	struct cowmem_reserve reserve = { };
	struct page *page;
	vm_fault_t ret;
	int err;

	err = cowmem_buffer_own(buf, vmf->pgoff, mapped, true, &reserve, &page);
	if (err) {
		ret = fault_error(err);
		goto out;
	}
	cowmem_amplify_grant();
	ret = vmf_insert_page_mkwrite(vmf, page, true);
	cowmem_buffer_unlock(buf, vmf->pgoff);
out:
	cowmem_reserve_release(&reserve);
	return ret;
}

/*
 * The page to map for reading, with a reference: the zero page for a hole.
 * -EMLINK: that one has no references to spare.
 */
static struct page *page_to_read(struct cowmem_buffer *buf, pgoff_t index)
{
	struct page *page;

	if (index >= cowmem_buffer_nr_pages(buf))
		return ERR_PTR(-ERANGE);
	page = cowmem_buffer_page(buf, index);
	if (!page) {
		page = cowmem_zero_page();
		if (!page)
			return ERR_PTR(-EMLINK);
		get_page(page);
		/* Under other leaf locks others do the same. */
		WRITE_ONCE(buf->holes_mapped, true);
	} else if (PageHWPoison(page)) {
		put_page(page);
		return ERR_PTR(-EIO);
	}
	return page;
}

/* Put a page of its own into a hole. */
static int fill_hole(struct cowmem_buffer *buf, pgoff_t index)
{
	struct cowmem_reserve reserve = { };
	struct page *page;
	int err;

	if (buf->frozen)
		return -ERANGE;
	err = cowmem_buffer_own(buf, index, NULL, true, &reserve, &page);
	if (!err)
		cowmem_buffer_unlock(buf, index);
	cowmem_reserve_release(&reserve);
	return err;
}

/* The core copies the page, and drops its lock and reference. */
static vm_fault_t give_to_core(struct vm_fault *vmf, struct page *page)
{
	lock_page(page);
	/* The core cannot cope with a poisoned page without a mapping. */
	if (PageHWPoison(page)) {
		unlock_page(page);
		put_page(page);
		return VM_FAULT_HWPOISON;
	}
	vmf->page = page;
	return VM_FAULT_LOCKED;
}

/*
 * The OOM reaper may have taken the private copy that was here: the task, which
 * is about to die, must not read the page of the buffer instead.
 */
static vm_fault_t private_unstable(struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_SHARED ? 0 :
	       check_stable_address_space(vma->vm_mm);
}

/* A load, or a store through a private mapping. */
static vm_fault_t fault_read(struct cowmem_buffer *buf, struct vm_fault *vmf)
{
	struct page *page;
	vm_fault_t ret;
	int err;

	for (;;) {
		if (cowmem_buffer_lock(buf, vmf->pgoff))
			return fault_error(-EINTR);
		page = page_to_read(buf, vmf->pgoff);
		if (!IS_ERR(page))
			break;
		cowmem_buffer_unlock(buf, vmf->pgoff);
		err = PTR_ERR(page);
		if (err == -EMLINK)
			err = fill_hole(buf, vmf->pgoff);
		if (err)
			return fault_error(err);
	}
	if (vmf->cow_page) {
		ret = give_to_core(vmf, page);
	} else {
		ret = private_unstable(vmf->vma);
		if (!ret)
			ret = vmf_insert_page_mkwrite(vmf, page, false);
		put_page(page);
	}
	cowmem_buffer_unlock(buf, vmf->pgoff);
	return ret;
}

/*
 * Without page_mkwrite nobody asks before a read-only PTE becomes writable, now
 * or after an mprotect(): so what such a mapping maps has to be granted.
 */
static bool maps_granted(struct cowmem_buffer *buf, struct vm_area_struct *vma)
{
	return buf->pinnable && vma->vm_flags & VM_MAYWRITE;
}

static vm_fault_t cowmem_vm_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct cowmem_buffer *buf = cowmem_file_buffer(vma->vm_file);
	bool write = vmf->flags & FAULT_FLAG_WRITE;
	vm_fault_t ret;

	atomic_long_inc(&buf->faults);
	if (fatal_signal_pending(current))
		ret = fault_error(-EINTR);
	else if (prepare_page_table(vmf))
		ret = VM_FAULT_OOM;
	else if (vma->vm_flags & VM_SHARED && (write || maps_granted(buf, vma)))
		ret = fault_write(buf, vmf, NULL);
	else
		ret = fault_read(buf, vmf);
	trace_cowmem_fault(buf->id, vmf->pgoff, write, ret);
	return ret;
}

static vm_fault_t cowmem_vm_page_mkwrite(struct vm_fault *vmf)
{
	struct cowmem_buffer *buf = cowmem_file_buffer(vmf->vma->vm_file);
	vm_fault_t ret;

	atomic_long_inc(&buf->faults);
	if (fatal_signal_pending(current))
		ret = fault_error(-EINTR);
	else
		ret = fault_write(buf, vmf, vmf->page);
	trace_cowmem_fault(buf->id, vmf->pgoff, true, ret);
	return ret;
}

/*
 * Maps nothing: that it is here tells the core that our faults do not need
 * mmap_lock, so they run under the VMA lock alone.
 */
static vm_fault_t cowmem_vm_map_pages(struct vm_fault *vmf, pgoff_t start,
				      pgoff_t end)
{
	return 0;
}

static const struct vm_operations_struct cowmem_vm_ops = {
	.fault		= cowmem_vm_fault,
	.page_mkwrite	= cowmem_vm_page_mkwrite,
	.map_pages	= cowmem_vm_map_pages,
};

/* Long-term write pins are refused where there is a page_mkwrite. */
static const struct vm_operations_struct pinnable_vm_ops = {
	.fault		= cowmem_vm_fault,
	.map_pages	= cowmem_vm_map_pages,
};

int cowmem_vm_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	vm_flags_clear(vma, VM_MAYEXEC);
	vm_flags_set(vma, COWMEM_VM_FLAGS);
	vma->vm_ops = cowmem_file_buffer(file)->pinnable ? &pinnable_vm_ops :
		      &cowmem_vm_ops;
	return 0;
}

int cowmem_vm_mmap_device(struct file *file, struct vm_area_struct *vma)
{
	u64 end = (u64)vma->vm_pgoff + vma_pages(vma);
	int err;

	if (end > COWMEM_MAX_SIZE >> PAGE_SHIFT)
		return -EOVERFLOW;
	err = cowmem_vm_mmap(file, vma);
	if (err)
		return err;
	return cowmem_buffer_set_size(cowmem_file_buffer(file),
				      (loff_t)(end << PAGE_SHIFT));
}
