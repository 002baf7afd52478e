// SPDX-License-Identifier: GPL-2.0-only

//! Work that repeats, off the packet path.
//!
//! The kernel crate's work items cannot be cancelled; these can, so that what they use may go.
//!
//! C header: `include/linux/workqueue.h`

use crate::bindings;
use core::cell::UnsafeCell;
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
pub(crate) struct Job<D: Send + Sync + 'static>(Arc<Inner<D>>);

/// Somebody who may ask for runs of a [`Job`], and may be reached from its data. When the job is gone, nothing happens.
pub(crate) struct Starter<D: Send + Sync + 'static>(Arc<Inner<D>>);

/// What the kernel keeps pointers to.
///
/// # Invariants
///
/// - `work` is an initialised delayed work whose function is [`run::<D>`].
/// - `data` is there while the work is enabled; it belongs to the function as long as that may run, then to the job.
#[repr(C)]
#[pin_data]
struct Inner<D: Send + Sync + 'static> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    data: UnsafeCell<Option<Arc<D>>>,
    run: fn(&D) -> Option<u32>,
}

// SAFETY: The workqueue serialises access to `work` and `data`; the rest is `Send`.
unsafe impl<D: Send + Sync + 'static> Send for Inner<D> {}
// SAFETY: As above, and `D: Sync`.
unsafe impl<D: Send + Sync + 'static> Sync for Inner<D> {}

impl<D: Send + Sync + 'static> Inner<D> {
    /// See [`Job::start()`].
    fn start(&self, delay: u32) {
        // SAFETY: By the type invariant; the work stays where it is as long as it is enabled, which the job sees to. Disabled
        // work is not queued.
        unsafe { bindings::rvs_helper_job_start(self.work.get(), delay as c_ulong) };
    }
}

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
            data: UnsafeCell::new(Some(data)),
            run,
        });
        Ok(Self(Arc::pin_init(init, GFP_KERNEL)?))
    }

    /// Asks for a run `delay` jiffies from now; changes nothing if one is due already.
    pub(crate) fn start(&self, delay: u32) {
        self.0.start(delay);
    }

    /// For others who ask.
    pub(crate) fn starter(&self) -> Starter<D> {
        Starter(self.0.clone())
    }
}

impl<D: Send + Sync + 'static> Starter<D> {
    /// See [`Job::start()`]. Any context.
    pub(crate) fn start(&self, delay: u32) {
        self.0.start(delay);
    }
}

impl<D: Send + Sync + 'static> Drop for Job<D> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. From here on the work cannot be queued, not even by itself.
        unsafe { bindings::disable_delayed_work_sync(self.0.work.get()) };
        // INVARIANT: The work is disabled for good.
        //
        // SAFETY: It does not run, and nobody else uses the data.
        drop(unsafe { (*self.0.data.get()).take() });
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
    // SAFETY: By the type invariant: this is the function, which never runs twice at once.
    let Some(data) = (unsafe { &*job.data.get() }) else {
        return;
    };
    if let Some(delay) = (job.run)(data) {
        job.start(delay);
    }
}
