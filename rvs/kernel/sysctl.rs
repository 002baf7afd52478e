// SPDX-License-Identifier: GPL-2.0-only

//! Integer sysctls of a network namespace.
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
/// `header` is the registration of `_table`, in whose rows `data` is what `_data` points to and `extra1` a `Var<D>`.
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
        data: Arc<D>,
    ) -> Result<Self> {
        let read_only = net.is_unprivileged();
        let mut table = KVec::with_capacity(vars.len(), GFP_KERNEL)?;
        for var in vars {
            let row = bindings::ctl_table {
                procname: var.name.as_char_ptr(),
                data: (&raw const *data).cast_mut().cast::<c_void>(),
                maxlen: size_of::<c_int>() as c_int,
                mode: if var.host_only && read_only {
                    0o444
                } else {
                    0o644
                },
                proc_handler: Some(handle::<D>),
                extra1: core::ptr::from_ref(var).cast_mut().cast::<c_void>(),
                ..Default::default()
            };
            table.push_within_capacity(row).map_err(|_| ENOMEM)?;
        }
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
        // INVARIANT: Just registered; the rows were filled above.
        Ok(Self {
            header: NonNull::new(header).ok_or(ENOMEM)?,
            _table: table,
            _data: data,
        })
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
