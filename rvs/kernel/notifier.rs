// SPDX-License-Identifier: GPL-2.0-only

//! Being told when network devices go down, and when they go for good.
//!
//! C headers: `include/linux/notifier.h`, `include/linux/netdevice.h`

use super::{
    net::Net,
    pernet::{
        self,
        PerNet, //
    },
    rcu, //
};
use crate::bindings;
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// Passes on that a device went down to the data of its namespace, until dropped. A device that goes for good is passed on, too: over
/// and over until nobody holds it, so that also a packet that was on its way meanwhile has nothing remembered.
///
/// # Invariants
///
/// `block` is registered and the first field, so that its address is that of the value.
#[repr(C)]
#[pin_data(PinnedDrop)]
pub(crate) struct DeviceDown<T: PerNet> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    data: Arc<pernet::Registration<T>>,
}

// SAFETY: The C side serialises access to `block`; the rest is `Send`.
unsafe impl<T: PerNet> Send for DeviceDown<T> {}
// SAFETY: As above, and the rest is `Sync`.
unsafe impl<T: PerNet> Sync for DeviceDown<T> {}

impl<T: PerNet> DeviceDown<T> {
    /// Starts to pass on.
    pub(crate) fn new(data: Arc<pernet::Registration<T>>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            data,
            block <- Opaque::try_ffi_init(|slot: *mut bindings::notifier_block| {
                let block = bindings::notifier_block {
                    notifier_call: Some(call::<T>),
                    // Before IPv6 takes its routes down, as C does it.
                    priority: bindings::RVS_NOTIFY_PRIORITY as c_int,
                    ..Default::default()
                };
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(block) };
                // INVARIANT: Registered here; the structure is `repr(C)`, with the block first. `data` is initialised
                // before.
                //
                // SAFETY: `slot` is pinned and stays until it is unregistered in `drop()`.
                to_result(unsafe { bindings::register_netdevice_notifier(slot) })
            }),
        }? Error)
    }
}

#[pinned_drop]
impl<T: PerNet> PinnedDrop for DeviceDown<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the block is registered. The only error there is says that it is not.
        unsafe { bindings::unregister_netdevice_notifier(self.block.get()) };
    }
}

/// Passes an event on.
///
/// # Safety
///
/// Called by the kernel for the `block` of a `DeviceDown<T>`, with what netdevice notifiers get.
unsafe extern "C" fn call<T: PerNet>(
    block: *mut bindings::notifier_block,
    event: c_ulong,
    info: *mut c_void,
) -> c_int {
    let down = bindings::RVS_NETDEV_DOWN as c_ulong;
    let gone = bindings::RVS_NETDEV_UNREGISTER as c_ulong;
    if event == down || event == gone {
        // SAFETY: By the type invariant the block's address is that of the whole, which unregisters before it goes.
        let this = unsafe { &*block.cast::<DeviceDown<T>>() };
        // SAFETY: The device in `info`, and so its namespace, is alive during the call.
        let net = unsafe { Net::from_raw(bindings::rvs_helper_notifier_net(info)) };
        // Under RCU: a namespace whose data goes has taken it out a grace period before.
        rcu::read(|g| {
            if let Some(data) = this.data.get(net) {
                data.device_down(g);
            }
        });
    }
    bindings::RVS_NOTIFY_DONE as c_int
}
