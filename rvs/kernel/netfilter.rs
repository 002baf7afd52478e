// SPDX-License-Identifier: GPL-2.0-only

//! Netfilter hooks of one network namespace.
//!
//! C header: `include/linux/netfilter.h`

use super::{
    net::Net,
    rcu::Held,
    skb::Skb, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_uint,
        c_void, //
    },
    prelude::*, //
};

/// What becomes of a packet. Who gives one back must still have it: that is what the packets in here are for.
#[expect(dead_code, reason = "the packets are proofs, not read")]
pub(crate) enum Verdict<'a> {
    /// It goes on: `NF_ACCEPT`.
    Accept(Skb<'a>),
    /// The core frees it: `NF_DROP`.
    Drop(Skb<'a>),
    /// It is gone: `NF_STOLEN`.
    Stolen,
}

/// Where in the stack a hook sits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// All packets that come in, before they have a route: `NF_INET_PRE_ROUTING`.
    PreRouting = 0,
    /// Packets to this host: `NF_INET_LOCAL_IN`.
    LocalIn = 1,
    /// Packets through this host: `NF_INET_FORWARD`.
    Forward = 2,
    /// Packets from this host: `NF_INET_LOCAL_OUT`.
    LocalOut = 3,
}

/// A hook function over per-namespace data `D`.
pub(crate) trait Hook<D>: 'static {
    /// Deals with a packet. Softirq or process context, RCU held, bottom halves possibly enabled.
    fn run<'a>(data: &D, skb: Skb<'a>, net: &Net, g: &Held) -> Verdict<'a>;
}

/// One hook for [`Registration::new()`].
pub(crate) struct Spec<D> {
    func: bindings::nf_hookfn,
    point: Point,
    priority: i32,
    _data: PhantomData<fn(&D)>,
}

impl<D> Spec<D> {
    /// A hook at a point; hooks of lower priority run first.
    pub(crate) const fn new<H: Hook<D>>(point: Point, priority: i32) -> Self {
        Self {
            func: Some(trampoline::<D, H>),
            point,
            priority,
            _data: PhantomData,
        }
    }
}

/// The C side of a [`Hook`].
///
/// # Safety
///
/// Called by netfilter with the `priv` of a [`Registration`] for `D`.
unsafe extern "C" fn trampoline<D, H: Hook<D>>(
    data: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: The registration's creator keeps the data alive until a grace period after unregistering.
    let data = unsafe { &*data.cast::<D>().cast_const() };
    // SAFETY: Netfilter passes a valid state whose namespace is alive.
    let net = unsafe { Net::from_raw((*state).net) };
    // SAFETY: Netfilter passes a packet that is not null and that is the hook's until it returns.
    let skb = unsafe { Skb::from_raw(NonNull::new_unchecked(skb)) };
    // SAFETY: Netfilter calls hooks with RCU held.
    let held = unsafe { Held::assume() };
    match H::run(data, skb, net, &held) {
        Verdict::Accept(_) => bindings::NF_ACCEPT,
        Verdict::Drop(_) => bindings::NF_DROP,
        Verdict::Stolen => bindings::NF_STOLEN,
    }
}

/// Hooks that are registered until this is dropped.
///
/// # Invariants
///
/// The array at `ops` is registered with netfilter in the namespace `net`, stays where it is, and its entries' `priv` is
/// the data's address.
pub(crate) struct Registration {
    ops: KVec<bindings::nf_hook_ops>,
    net: NonNull<bindings::net>,
}

// SAFETY: Registration and unregistration may happen on different threads; the rest is owned data.
unsafe impl Send for Registration {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers `specs` for a protocol family. May sleep.
    ///
    /// # Safety
    ///
    /// `data` must stay valid and `net` alive until the registration is dropped; dropping waits for running hooks
    /// (`nf_unregister_net_hooks()` does, before the memory of the hooks goes).
    pub(super) unsafe fn new<D: Sync>(
        net: &Net,
        v6: bool,
        specs: &[Spec<D>],
        data: NonNull<D>,
    ) -> Result<Self> {
        let mut ops = KVec::with_capacity(specs.len(), GFP_KERNEL)?;
        for spec in specs {
            ops.push_within_capacity(bindings::nf_hook_ops {
                hook: spec.func,
                priv_: data.as_ptr().cast(),
                pf: if v6 { 10 } else { 2 },
                hooknum: spec.point as c_uint,
                priority: spec.priority,
                ..Default::default()
            })
            .map_err(|_| ENOMEM)?;
        }
        let count = c_uint::try_from(ops.len()).map_err(|_| EINVAL)?;
        // SAFETY: The operations are initialised and stay in the vector's heap memory until `drop()`.
        to_result(unsafe { bindings::nf_register_net_hooks(net.as_ptr(), ops.as_ptr(), count) })?;
        // INVARIANT: Just registered; `data` by the requirement.
        Ok(Self {
            ops,
            net: NonNull::from(net).cast(),
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the operations are registered in this namespace.
        unsafe {
            bindings::nf_unregister_net_hooks(
                self.net.as_ptr(),
                self.ops.as_ptr(),
                self.ops.len() as c_uint,
            )
        };
        // Hooks that were entered before may still be running.
        kernel::sync::rcu::synchronize_rcu();
    }
}

/// A family's hooks of one namespace, coming and going with its services.
///
/// The data is counted, so the hooks hold it as long as they are registered.
pub(crate) struct Hooks<D: Send + Sync + 'static> {
    _registration: Registration,
    // After the registration: dropped when no hook runs any more.
    _data: kernel::sync::Arc<D>,
}

impl<D: Send + Sync + 'static> Hooks<D> {
    /// Registers `specs` over `data`. May sleep. The namespace of `net` must outlive the value: whoever holds it must be
    /// dropped with the namespace's data (see [`super::net::Handle`]).
    pub(crate) fn new(
        net: &super::net::Handle,
        v6: bool,
        specs: &[Spec<D>],
        data: kernel::sync::Arc<D>,
    ) -> Result<Self> {
        let ptr = NonNull::from(&*data);
        // SAFETY: `_data` keeps the data alive longer than the registration; a `Handle` exists only inside what is dropped
        // before the namespace goes.
        let registration = unsafe { Registration::new(net, v6, specs, ptr)? };
        Ok(Self {
            _registration: registration,
            _data: data,
        })
    }
}
