// SPDX-License-Identifier: GPL-2.0-only

//! Read-only text files under `/proc/net`.
//!
//! C headers: `include/linux/proc_fs.h`, `include/linux/seq_file.h`

use super::net::Net;
use crate::bindings;
use core::{
    fmt,
    ptr::NonNull, //
};
use kernel::{
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*,
    seq_file::SeqFile,
    str::CStr,
    sync::Arc, //
};

/// What a file shows: records with numbers from 0 up.
///
/// A reader that takes the file in pieces comes back with the number of the record that did not fit, so finding a record
/// by its number must be cheap: let a record be a bucket of a table, not an entry. A record may be empty.
pub(crate) trait Records: 'static {
    /// What the records are made from.
    type Data: Send + Sync + 'static;

    /// Who may read the file.
    const MODE: u16 = 0o444;

    /// The first record from `at` on that may show something; `None` if there is none. May sleep.
    fn seek(data: &Self::Data, at: u64) -> Option<u64>;

    /// Writes record `at`.
    fn show(data: &Self::Data, at: u64, out: &Out<'_>);
}

/// Where a record is written to.
pub(crate) struct Out<'a>(&'a SeqFile);

impl Out<'_> {
    /// Writes `text`. What does not fit makes the kernel ask again, with more room.
    pub(crate) fn put(&self, text: impl fmt::Display) {
        self.0.call_printf(format_args!("{text}"));
    }
}

/// A file under a namespace's `/proc/net`; dropping it removes it and waits for those who read it.
///
/// # Invariants
///
/// `entry` is the file's live entry, whose data is what `_data` points to.
pub(crate) struct File<R: Records> {
    entry: NonNull<bindings::proc_dir_entry>,
    _data: Arc<R::Data>,
}

// SAFETY: The file is a token; readers reach `R::Data: Send + Sync` only.
unsafe impl<R: Records> Send for File<R> {}
// SAFETY: As above.
unsafe impl<R: Records> Sync for File<R> {}

impl<R: Records> File<R> {
    const OPS: &'static bindings::seq_operations = &bindings::seq_operations {
        start: Some(start::<R>),
        stop: Some(stop),
        next: Some(next::<R>),
        show: Some(show::<R>),
    };

    /// Creates the file `name`, mode [`Records::MODE`].
    ///
    /// The caller makes sure that no file of this name is there: the kernel warns about that.
    pub(crate) fn new(net: &Net, name: &'static CStr, data: Arc<R::Data>) -> Result<Self> {
        // SAFETY: `net` is alive; the name and the operations live forever; the data lives as long as the entry, by the
        // type invariant. The private state of an open file has the size that the kernel asks for at least.
        let entry = unsafe {
            bindings::proc_create_net_data(
                name.as_char_ptr(),
                R::MODE,
                (*net.as_ptr()).proc_net,
                Self::OPS,
                size_of::<bindings::seq_net_private>() as c_uint,
                (&raw const *data).cast_mut().cast::<c_void>(),
            )
        };
        // INVARIANT: Just created with `data`.
        Ok(Self {
            entry: NonNull::new(entry).ok_or(ENOMEM)?,
            _data: data,
        })
    }
}

impl<R: Records> Drop for File<R> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the entry is there.
        unsafe { bindings::proc_remove(self.entry.as_ptr()) };
    }
}

/// The data of an open file.
///
/// # Safety
///
/// `seq` must be an open file made by [`File::new()`] of the same `R`, in one of its callbacks.
unsafe fn data<'a, R: Records>(seq: *mut bindings::seq_file) -> &'a R::Data {
    // SAFETY: By the requirement, and the invariant of `File`, whose drop waits for callbacks in progress.
    unsafe { &*bindings::rvs_helper_seq_data(seq).cast::<R::Data>() }
}

/// The cookie that stands for record `*pos`: the address of the number, or null past the end.
///
/// # Safety
///
/// As for [`data()`], and `pos` must be the file's index.
unsafe fn cookie<R: Records>(
    seq: *mut bindings::seq_file,
    pos: *mut bindings::loff_t,
) -> *mut c_void {
    // SAFETY: By the requirement.
    let (data, at) = unsafe { (data::<R>(seq), &mut *pos) };
    let next = u64::try_from(*at).ok().and_then(|from| R::seek(data, from));
    match next.map(bindings::loff_t::try_from) {
        Some(Ok(next)) => {
            *at = next;
            pos.cast::<c_void>()
        }
        _ => core::ptr::null_mut(),
    }
}

/// # Safety
///
/// Called by seq_file for `seq_operations.start`.
unsafe extern "C" fn start<R: Records>(
    seq: *mut bindings::seq_file,
    pos: *mut bindings::loff_t,
) -> *mut c_void {
    // SAFETY: seq_file passes its own index.
    unsafe { cookie::<R>(seq, pos) }
}

/// # Safety
///
/// Called by seq_file for `seq_operations.next`.
unsafe extern "C" fn next<R: Records>(
    seq: *mut bindings::seq_file,
    _v: *mut c_void,
    pos: *mut bindings::loff_t,
) -> *mut c_void {
    // SAFETY: seq_file passes its own index, which nobody else uses now.
    unsafe { *pos = (*pos).saturating_add(1) };
    // SAFETY: As in `start()`.
    unsafe { cookie::<R>(seq, pos) }
}

/// # Safety
///
/// Called by seq_file for `seq_operations.stop`. Nothing is held between `start` and `stop`.
unsafe extern "C" fn stop(_seq: *mut bindings::seq_file, _v: *mut c_void) {}

/// # Safety
///
/// Called by seq_file for `seq_operations.show`.
unsafe extern "C" fn show<R: Records>(seq: *mut bindings::seq_file, v: *mut c_void) -> c_int {
    // SAFETY: `v` is what `start()` or `next()` returned: the address of the file's index.
    let at = unsafe { *v.cast::<bindings::loff_t>() };
    // SAFETY: This is a callback of a file made with `R`; seq_file serialises its callbacks.
    let (data, out) = unsafe { (data::<R>(seq), SeqFile::from_raw(seq)) };
    if let Ok(at) = u64::try_from(at) {
        R::show(data, at, &Out(out));
    }
    0
}
