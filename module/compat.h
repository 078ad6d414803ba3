/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The names of the newest kernel, for older ones: the only place with version
 * checks.  Each entry says which release brought the name, what it does there,
 * and why the stand-in is safe.
 */
#ifndef _COWMEM_COMPAT_H
#define _COWMEM_COMPAT_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/version.h>

/*
 * 6.3: VMA flags are changed through functions, which take the VMA lock.
 * Safe: before 6.3 there is no such lock, and .mmap runs under mmap_lock.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/*
 * 6.3: inode operations get a struct mnt_idmap instead of a user namespace.
 * Safe: both are only handed on to the helpers of the same release.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#define mnt_idmap user_namespace
#endif

/*
 * 6.6: generic_fillattr() gets the request mask.  Safe: it only serves
 * multigrain time stamps and change cookies, which 6.1 does not have.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define generic_fillattr(idmap, request_mask, inode, stat) \
	generic_fillattr(idmap, inode, stat)
#endif

/*
 * 6.5: copy_splice_read() copies into pages of its own.  Safe: what stands in
 * calls ->read_iter() with a pipe iterator, into which copy_to_iter(), the only
 * way our ->read_iter() hands out data, copies as well.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define copy_splice_read generic_file_splice_read
#endif

/*
 * 6.6: copy_folio_from_iter_atomic(), which 7.x has instead of the one for pages.
 * Safe: that one does the same to a page, and our folios are one page each.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define copy_folio_from_iter_atomic(folio, offset, bytes, iter) \
	copy_page_from_iter_atomic(&(folio)->page, offset, bytes, iter)
#endif

/*
 * 6.6, 6.7: accessors for inode times.  Safe: plain fields before.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
static inline void simple_inode_init_ts(struct inode *inode)
{
	inode->i_atime = current_time(inode);
	inode->i_mtime = inode->i_atime;
	inode->i_ctime = inode->i_atime;
}
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
static inline void inode_set_mtime_ctime_current(struct inode *inode)
{
	inode->i_ctime = current_time(inode);
	inode->i_mtime = inode->i_ctime;
}
#else
static inline void inode_set_mtime_ctime_current(struct inode *inode)
{
	inode_set_mtime_to_ts(inode, inode_set_ctime_current(inode));
}
#endif

/*
 * 6.18: the name of generic_delete_inode().  Safe: it is the same function.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)
#define inode_just_drop generic_delete_inode
#endif

/*
 * 6.6: pte_mkwrite() wants the VMA, for shadow stacks, and is not exported.
 * Safe: a shadow stack is never a mapping of a file.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define pte_mkwrite_novma pte_mkwrite
#endif

/*
 * 6.15: vmf_insert_page_mkwrite() installs a reference-counted page at the
 * address of a fault, read-only or writable, and upgrades a read-only PTE of
 * the same page.  Before, vm_insert_page() installs it read-only, in a mapping
 * with VM_MIXEDMAP, and the PTE is made writable in a second step under the
 * page-table lock.  Safe: RO to RW needs no TLB flush (a stale read-only entry
 * only faults again), the PTE is checked to be still of this page, and the
 * caller's lock keeps everybody else from installing another at this index.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define COWMEM_VM_FLAGS	VM_MIXEDMAP

struct compat_mkwrite {
	struct vm_area_struct *vma;
	struct page *page;
	bool foreign;
};

static inline int compat_pte_mkwrite(pte_t *ptep, unsigned long addr, void *data)
{
	struct compat_mkwrite *arg = data;
	pte_t pte = ptep_get(ptep);

	/* Zapped again already: there will be another fault. */
	if (!pte_present(pte))
		return 0;
	if (pte_pfn(pte) != page_to_pfn(arg->page)) {
		arg->foreign = true;
		return 0;
	}
	pte = pte_mkyoung(pte);
	/* Write before dirty: x86 keeps the dirty bit of others elsewhere. */
	if (arg->vma->vm_flags & VM_WRITE)
		pte = pte_mkdirty(pte_mkwrite_novma(pte));
	set_pte_at(arg->vma->vm_mm, addr, ptep, pte);
	return 0;
}

static inline vm_fault_t vmf_insert_page_mkwrite(struct vm_fault *vmf,
						 struct page *page, bool write)
{
	struct compat_mkwrite arg = { .vma = vmf->vma, .page = page };
	unsigned long addr = vmf->address & PAGE_MASK;
	int err = vm_insert_page(vmf->vma, addr, page);

	if (err && err != -EBUSY)
		return err == -ENOMEM ? VM_FAULT_OOM : VM_FAULT_SIGBUS;
	if (write)
		apply_to_existing_page_range(vmf->vma->vm_mm, addr, PAGE_SIZE,
					     compat_pte_mkwrite, &arg);
	/* A page that nobody revoked: better an error than a fault for ever. */
	return WARN_ON_ONCE(arg.foreign) ? VM_FAULT_SIGBUS : VM_FAULT_NOPAGE;
}
#else
/* Keeps mlock() from taking references that look like pins. */
#define COWMEM_VM_FLAGS	VM_DONTEXPAND
#endif

#endif
