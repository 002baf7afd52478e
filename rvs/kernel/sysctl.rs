// SPDX-License-Identifier: GPL-2.0-only

//! Sysctls of a network namespace.
//!
//! C header: `include/linux/sysctl.h`

use super::net::Net;
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    str::CStr,
    sync::Arc, //
};

/// One sysctl of a `D`.
pub(crate) struct Var<D> {
    /// The file's name.
    pub(crate) name: &'static CStr,
    /// Whether root of an unprivileged namespace may only read it.
    pub(crate) host_only: bool,
    /// What reading the file shows.
    pub(crate) get: fn(&D) -> c_int,
    /// Takes what was written; checks it first.
    pub(crate) set: fn(&D, c_int, &Writer) -> Result,
    /// What stands for "nothing was written" when a write holds only white space; `None`: the present value, which is
    /// then set once more.
    pub(crate) unset: Option<c_int>,
}

/// A sysctl of a `D` that is text.
pub(crate) struct Text<D> {
    /// The file's name.
    pub(crate) name: &'static CStr,
    /// Whether root of an unprivileged namespace may only read it.
    pub(crate) host_only: bool,
    /// Writes what reading the file shows, with its newline, and returns how long it is.
    pub(crate) get: fn(&D, &mut [u8]) -> usize,
    /// Takes what was written.
    pub(crate) set: fn(&D, &CStr) -> Result,
}

/// A sysctl of a `D` that is a number of the machine's size, not negative.
pub(crate) struct Long<D> {
    /// The file's name.
    pub(crate) name: &'static CStr,
    /// Whether root of an unprivileged namespace may only read it.
    pub(crate) host_only: bool,
    /// What reading the file shows.
    pub(crate) get: fn(&D) -> usize,
    /// Takes what was written.
    pub(crate) set: fn(&D, usize),
}

/// A sysctl of a `D` that is two numbers. Who writes one only leaves the second as it is.
pub(crate) struct Pair<D> {
    /// The file's name.
    pub(crate) name: &'static CStr,
    /// What reading the file shows.
    pub(crate) get: fn(&D) -> [c_int; 2],
    /// Takes what was written; checks it first.
    pub(crate) set: fn(&D, [c_int; 2]) -> Result,
}

/// Who writes a sysctl.
pub(crate) struct Writer(());

impl Writer {
    /// Whether the writer has `CAP_NET_ADMIN` in the initial user namespace.
    pub(crate) fn is_host_admin(&self) -> bool {
        // SAFETY: Asks about the current task only.
        unsafe { bindings::capable(bindings::RVS_CAP_NET_ADMIN as c_int) }
    }
}

/// The sysctls of one namespace; dropping it removes the files and waits for those who read and write them.
///
/// # Invariants
///
/// `header` is the registration of `_table`, in whose rows `data` is what `_data` points to and `extra1` a `Var<D>` where the
/// handler is [`handle`], a `Text<D>` where it is [`handle_text`], a `Long<D>` where it is [`handle_long`], a `Pair<D>` where it
/// is [`handle_pair`].
pub(crate) struct Registration<D: Send + Sync + 'static> {
    header: NonNull<bindings::ctl_table_header>,
    _table: KVec<bindings::ctl_table>,
    _data: Arc<D>,
}

// SAFETY: The registration is a token; files reach `D: Send + Sync` only.
unsafe impl<D: Send + Sync + 'static> Send for Registration<D> {}
// SAFETY: As above.
unsafe impl<D: Send + Sync + 'static> Sync for Registration<D> {}

impl<D: Send + Sync + 'static> Registration<D> {
    /// Creates the files `vars` of `data` in the directory `path` of `net`.
    pub(crate) fn new(
        net: &Net,
        path: &'static CStr,
        vars: &'static [Var<D>],
        texts: &'static [Text<D>],
        data: Arc<D>,
    ) -> Result<Self> {
        let rows = Rows::new(net, &data);
        let count = vars.len().checked_add(texts.len()).ok_or(EINVAL)?;
        let mut table = KVec::with_capacity(count, GFP_KERNEL)?;
        for var in vars {
            let row = bindings::ctl_table {
                proc_handler: Some(handle::<D>),
                extra1: core::ptr::from_ref(var).cast_mut().cast::<c_void>(),
                ..rows.row(var.name, var.host_only, size_of::<c_int>() as c_int)
            };
            table.push_within_capacity(row).map_err(|_| ENOMEM)?;
        }
        for text in texts {
            let row = bindings::ctl_table {
                proc_handler: Some(handle_text::<D>),
                extra1: core::ptr::from_ref(text).cast_mut().cast::<c_void>(),
                ..rows.row(text.name, text.host_only, 0)
            };
            table.push_within_capacity(row).map_err(|_| ENOMEM)?;
        }
        Self::register(net, path, table, data)
    }

    /// As [`Registration::new()`], with other kinds of numbers.
    pub(crate) fn wide(
        net: &Net,
        path: &'static CStr,
        longs: &'static [Long<D>],
        pairs: &'static [Pair<D>],
        data: Arc<D>,
    ) -> Result<Self> {
        let rows = Rows::new(net, &data);
        let count = longs.len().checked_add(pairs.len()).ok_or(EINVAL)?;
        let mut table = KVec::with_capacity(count, GFP_KERNEL)?;
        for long in longs {
            let row = bindings::ctl_table {
                proc_handler: Some(handle_long::<D>),
                extra1: core::ptr::from_ref(long).cast_mut().cast::<c_void>(),
                ..rows.row(long.name, long.host_only, size_of::<usize>() as c_int)
            };
            table.push_within_capacity(row).map_err(|_| ENOMEM)?;
        }
        for pair in pairs {
            let row = bindings::ctl_table {
                proc_handler: Some(handle_pair::<D>),
                extra1: core::ptr::from_ref(pair).cast_mut().cast::<c_void>(),
                ..rows.row(pair.name, false, size_of::<[c_int; 2]>() as c_int)
            };
            table.push_within_capacity(row).map_err(|_| ENOMEM)?;
        }
        Self::register(net, path, table, data)
    }

    fn register(
        net: &Net,
        path: &'static CStr,
        table: KVec<bindings::ctl_table>,
        data: Arc<D>,
    ) -> Result<Self> {
        // SAFETY: `net` is alive; `path` and the names live forever; the rows live in the returned value, which
        // unregisters them before it frees them, and moving the vector does not move them.
        let header = unsafe {
            bindings::register_net_sysctl_sz(
                net.as_ptr(),
                path.as_char_ptr(),
                table.as_ptr(),
                table.len(),
            )
        };
        // INVARIANT: Just registered; the rows were filled by the callers.
        Ok(Self {
            header: NonNull::new(header).ok_or(ENOMEM)?,
            _table: table,
            _data: data,
        })
    }
}

/// What the rows of one table have in common.
struct Rows {
    read_only: bool,
    data: *mut c_void,
}

impl Rows {
    fn new<D>(net: &Net, data: &Arc<D>) -> Self {
        Self {
            read_only: net.is_unprivileged(),
            data: (&raw const **data).cast_mut().cast::<c_void>(),
        }
    }

    fn row(&self, name: &'static CStr, host_only: bool, maxlen: c_int) -> bindings::ctl_table {
        bindings::ctl_table {
            procname: name.as_char_ptr(),
            data: self.data,
            maxlen,
            mode: if host_only && self.read_only {
                0o444
            } else {
                0o644
            },
            ..Default::default()
        }
    }
}

impl<D: Send + Sync + 'static> Drop for Registration<D> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the header is a live registration.
        unsafe { bindings::unregister_net_sysctl_table(self.header.as_ptr()) };
    }
}

/// Reads or writes one of the files.
///
/// # Safety
///
/// Called by the kernel for a row made by [`Registration::new()`] of the same `D`.
unsafe extern "C" fn handle<D: Send + Sync + 'static>(
    row: *const bindings::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut bindings::loff_t,
) -> c_int {
    from_result(|| {
        // SAFETY: By the invariant of `Registration`, whose drop waits for calls in progress.
        let (data, var) = unsafe { (&*(*row).data.cast::<D>(), &*(*row).extra1.cast::<Var<D>>()) };
        let write = write != 0;
        let mut value = (var.get)(data);
        if let (true, Some(unset)) = (write, var.unset) {
            value = unset;
        }
        let number = bindings::ctl_table {
            data: (&raw mut value).cast::<c_void>(),
            maxlen: size_of::<c_int>() as c_int,
            ..Default::default()
        };
        // SAFETY: `number` describes one integer, and the other arguments are those the kernel called with.
        to_result(unsafe { bindings::proc_dointvec(&number, write.into(), buffer, len, pos) })?;
        // SAFETY: `value` is a live local; volatile, since C wrote it through the pointer above.
        let value = unsafe { (&raw const value).read_volatile() };
        if write && var.unset != Some(value) {
            (var.set)(data, value, &Writer(()))?;
        }
        Ok(0)
    })
}

/// Reads or writes one of the files of text. Only from its beginning, as C does with lists of CPUs.
///
/// # Safety
///
/// Called by the kernel for a row made by [`Registration::new()`] of the same `D`.
unsafe extern "C" fn handle_text<D: Send + Sync + 'static>(
    row: *const bindings::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut bindings::loff_t,
) -> c_int {
    from_result(|| {
        // SAFETY: By the invariant of `Registration`, whose drop waits for calls in progress.
        let (data, text) =
            unsafe { (&*(*row).data.cast::<D>(), &*(*row).extra1.cast::<Text<D>>()) };
        // SAFETY: The kernel passes valid pointers, which nobody else uses during the call.
        let (len, pos) = unsafe { (&mut *len, &mut *pos) };
        if *pos != 0 || *len == 0 {
            *len = 0;
            return Ok(0);
        }
        // SAFETY: The buffer has the bytes that were written, or room for those that are asked for, and one more for a
        // terminating zero, which is there when something was written.
        let bytes =
            unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), len.saturating_add(1)) };
        if write != 0 {
            let text_written = CStr::from_bytes_until_nul(bytes).map_err(|_| EINVAL)?;
            (text.set)(data, text_written)?;
        } else {
            *len = (text.get)(data, bytes).min(*len);
        }
        *pos = pos.saturating_add_unsigned(*len as u64);
        Ok(0)
    })
}

/// Reads or writes one of the files of a large number.
///
/// # Safety
///
/// Called by the kernel for a row made by [`Registration::wide()`] of the same `D`.
unsafe extern "C" fn handle_long<D: Send + Sync + 'static>(
    row: *const bindings::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut bindings::loff_t,
) -> c_int {
    from_result(|| {
        // SAFETY: By the invariant of `Registration`, whose drop waits for calls in progress.
        let (data, long) =
            unsafe { (&*(*row).data.cast::<D>(), &*(*row).extra1.cast::<Long<D>>()) };
        let mut value = (long.get)(data);
        let number = bindings::ctl_table {
            data: (&raw mut value).cast::<c_void>(),
            maxlen: size_of::<usize>() as c_int,
            ..Default::default()
        };
        // SAFETY: `number` describes one `unsigned long`, and the other arguments are those the kernel called with.
        to_result(unsafe { bindings::proc_doulongvec_minmax(&number, write, buffer, len, pos) })?;
        if write != 0 {
            // SAFETY: `value` is a live local; volatile, since C wrote it through the pointer above.
            (long.set)(data, unsafe { (&raw const value).read_volatile() });
        }
        Ok(0)
    })
}

/// Reads or writes one of the files of two numbers. What was read before something that is no number counts, as in C.
///
/// # Safety
///
/// Called by the kernel for a row made by [`Registration::wide()`] of the same `D`.
unsafe extern "C" fn handle_pair<D: Send + Sync + 'static>(
    row: *const bindings::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut bindings::loff_t,
) -> c_int {
    from_result(|| {
        // SAFETY: By the invariant of `Registration`, whose drop waits for calls in progress.
        let (data, pair) =
            unsafe { (&*(*row).data.cast::<D>(), &*(*row).extra1.cast::<Pair<D>>()) };
        let mut values = (pair.get)(data);
        let numbers = bindings::ctl_table {
            data: (&raw mut values).cast::<c_void>(),
            maxlen: size_of::<[c_int; 2]>() as c_int,
            ..Default::default()
        };
        // SAFETY: `numbers` describes two integers, and the other arguments are those the kernel called with.
        let done = unsafe { bindings::proc_dointvec(&numbers, write, buffer, len, pos) };
        if write != 0 {
            // SAFETY: `values` is a live local; volatile, since C wrote it through the pointer above.
            (pair.set)(data, unsafe { (&raw const values).read_volatile() })?;
        }
        to_result(done)?;
        Ok(0)
    })
}
