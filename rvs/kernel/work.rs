// SPDX-License-Identifier: GPL-2.0-only

//! Work that repeats, off the packet path.
//!
//! The kernel crate's work items cannot be cancelled; these can, so that what they use may go.
//!
//! C header: `include/linux/workqueue.h`

use crate::bindings;
use kernel::{
    ffi::c_ulong,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// A function that runs in process context some time after it was asked for.
///
/// Dropping the job waits until it does not run and will not run again. The function may take locks and sleep; it must
/// not drop the job, so what holds the job must not be reached from the data.
pub(crate) struct Job<D: Send + Sync + 'static>(Pin<KBox<Inner<D>>>);

/// What the kernel keeps pointers to.
///
/// # Invariants
///
/// `work` is an initialised delayed work whose function is [`run::<D>`].
#[repr(C)]
#[pin_data]
struct Inner<D: Send + Sync + 'static> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    data: Arc<D>,
    run: fn(&D) -> Option<u32>,
}

// SAFETY: The workqueue serialises access to `work`; the rest is `Send`.
unsafe impl<D: Send + Sync + 'static> Send for Inner<D> {}
// SAFETY: As above, and `D: Sync`.
unsafe impl<D: Send + Sync + 'static> Sync for Inner<D> {}

impl<D: Send + Sync + 'static> Job<D> {
    /// Makes a job that is not asked for yet.
    ///
    /// `run` returns after how many jiffies it wants to run again, `None` for not at all.
    pub(crate) fn new(data: Arc<D>, run: fn(&D) -> Option<u32>) -> Result<Self> {
        let init = pin_init!(Inner {
            // INVARIANT: Initialised with `run::<D>`.
            //
            // SAFETY: `slot` is valid for writes and pinned.
            work <- Opaque::ffi_init(|slot| unsafe {
                bindings::rvs_helper_job_init(slot, Some(self::run::<D>))
            }),
            data,
            run,
        });
        Ok(Self(KBox::pin_init(init, GFP_KERNEL)?))
    }

    /// Asks for a run `delay` jiffies from now; changes nothing if one is due already.
    pub(crate) fn start(&self, delay: u32) {
        // SAFETY: By the type invariant; the work stays where it is until `drop()`, which waits.
        unsafe { bindings::rvs_helper_job_start(self.0.work.get(), delay as c_ulong) };
    }
}

impl<D: Send + Sync + 'static> Drop for Job<D> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. From here on the work cannot be queued, not even by itself.
        unsafe { bindings::disable_delayed_work_sync(self.0.work.get()) };
    }
}

/// Runs a job.
///
/// # Safety
///
/// Called by the workqueue for the `work` of an `Inner<D>`.
unsafe extern "C" fn run<D: Send + Sync + 'static>(work: *mut bindings::work_struct) {
    // The work is the first field of the delayed work, and that the first of `Inner`.
    //
    // SAFETY: `Job::drop()` waits for this call before it frees the `Inner`.
    let job = unsafe { &*work.cast::<Inner<D>>() };
    if let Some(delay) = (job.run)(&job.data) {
        // SAFETY: As in `Job::start()`.
        unsafe { bindings::rvs_helper_job_start(job.work.get(), delay as c_ulong) };
    }
}
