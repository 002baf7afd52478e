// SPDX-License-Identifier: GPL-2.0-only

//! Kernel threads, and what wakes them.
//!
//! C headers: `include/linux/kthread.h`, `include/linux/wait.h`

use super::atomic::U32;
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    str::CStr,
    sync::LockClassKey,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// What a thread does.
pub(crate) trait Work: Send + Sync + 'static {
    /// Runs in the thread, in process context, until [`Current::should_stop()`]. It may return earlier.
    fn run(&mut self, me: &Current);
}

/// Evidence that this is a [`Thread`] of ours.
pub(crate) struct Current(NotThreadSafe);

impl Current {
    /// Whether the thread shall end: `kthread_should_stop()`.
    pub(crate) fn should_stop(&self) -> bool {
        // SAFETY: By the type this is a kernel thread.
        unsafe { bindings::kthread_should_stop() }
    }
}

/// A running thread; dropping it stops the thread and waits for its end.
///
/// # Invariants
///
/// `task` is a kernel thread with a reference of ours that runs [`run::<W>`] with `work`, which is from `KBox::into_raw()` and
/// the thread's alone until it has stopped.
pub(crate) struct Thread<W: Work> {
    task: NonNull<bindings::task_struct>,
    work: NonNull<W>,
}

// SAFETY: The thread may be stopped by any other; `W` is `Send` and `Sync`.
unsafe impl<W: Work> Send for Thread<W> {}
// SAFETY: As above.
unsafe impl<W: Work> Sync for Thread<W> {}

impl<W: Work> Thread<W> {
    /// Starts a thread. Sleeps.
    pub(crate) fn start(name: &CStr, work: KBox<W>) -> Result<Self> {
        let raw = KBox::into_raw(work);
        let data = raw.cast::<c_void>();
        // SAFETY: `run::<W>` gets a work that stays where it is until `drop()` has waited for the thread; the name is copied.
        let task =
            unsafe { bindings::rvs_helper_thread_start(Some(run::<W>), data, name.as_char_ptr()) };
        let started = from_err_ptr(task).and_then(|task| NonNull::new(task).ok_or(ENOMEM));
        let (Ok(task), Some(work)) = (started, NonNull::new(raw)) else {
            // SAFETY: The pointer is from `into_raw()`, and there is no thread.
            drop(unsafe { KBox::from_raw(raw) });
            return Err(started.err().unwrap_or(ENOMEM));
        };
        // INVARIANT: Just started, with a reference.
        Ok(Self { task, work })
    }
}

impl<W: Work> Drop for Thread<W> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the reference is not used again. Waits until the function does not run.
        unsafe { bindings::rvs_helper_thread_stop(self.task.as_ptr()) };
        // SAFETY: By the type invariant, now that the thread has stopped.
        drop(unsafe { KBox::from_raw(self.work.as_ptr()) });
    }
}

/// A thread's function.
///
/// # Safety
///
/// Called by the kernel in a new thread with the address of a `W` that outlives the thread and is nobody else's.
unsafe extern "C" fn run<W: Work>(data: *mut c_void) -> c_int {
    // SAFETY: By the requirement.
    let work = unsafe { &mut *data.cast::<W>() };
    work.run(&Current(NotThreadSafe));
    0
}

/// What a thread sleeps on until somebody rings.
///
/// # Invariants
///
/// `queue` is an initialised wait queue that stays where it is.
#[pin_data]
pub(crate) struct Bell {
    #[pin]
    queue: Opaque<bindings::wait_queue_head>,
    /// Whether it was rung since the last wait.
    rung: U32,
}

// SAFETY: Wait queues have a lock of their own.
unsafe impl Send for Bell {}
// SAFETY: As above.
unsafe impl Sync for Bell {}

impl Bell {
    /// Makes a bell. `key` is lockdep's class: `kernel::static_lock_class!()`.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes and pinned; `name` and `key` live forever.
            queue <- Opaque::ffi_init(|slot| unsafe {
                bindings::rvs_helper_bell_init(slot, name.as_char_ptr(), key.as_ptr())
            }),
            rung: U32::new(0),
        })
    }

    /// Wakes who waits, or who waits next. Any context.
    pub(crate) fn ring(&self) {
        // SAFETY: By the type invariant; the word lives as long, and is accessed atomically only.
        unsafe { bindings::rvs_helper_bell_ring(self.queue.get(), self.rung.as_ptr()) };
    }

    /// Waits until somebody rings, or has rung since the last time, but no longer than `jiffies`, nor when the thread shall
    /// stop.
    pub(crate) fn wait(&self, jiffies: u32, _: &Current) {
        // SAFETY: As in `ring()`; this is a kernel thread.
        unsafe {
            bindings::rvs_helper_bell_wait(self.queue.get(), self.rung.as_ptr(), jiffies as c_ulong)
        };
    }
}
