// SPDX-License-Identifier: GPL-2.0-only

//! What another module has switched on: an application helper for some ports.
//!
//! The other module (`bindings/rvs_ftp.c`) calls the two functions below that `bindings/shim_ct.c` exports. Who takes a
//! [`Use`] holds it.

use super::{
    atomic::{
        Bool,
        Usize,
        U32, //
    },
    conntrack,
    module, //
};
use crate::bindings;
use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*,
    sync::barrier::{
        smp_mb,
        Read, //
    }, //
};

/// How many ports there can be.
pub(crate) const MOST: usize = bindings::RVS_APP_PORTS as usize;

/// Whether there is an owner, or just was.
static TAKEN: Bool = Bool::new(false);
/// The module that is held.
static OWNER: Usize = Usize::new(0);
/// Ports in memory order, the last one first, as C lists them.
static PORTS: [U32; MOST] = [const { U32::new(0) }; MOST];
/// How many of them there are. While it is not 0 the rest does not change.
static COUNT: U32 = U32::new(0);

/// A reference to the owner for one of its ports, by its index.
pub(crate) struct Use(usize);

/// The port with this index, memory order.
pub(crate) fn port(index: usize) -> Option<u16> {
    let count = COUNT.load() as usize;
    // What a number that was just published counts is read after it.
    smp_mb(Read);
    let word = PORTS.get(..count)?.get(index)?;
    u16::try_from(word.load()).ok()
}

/// Takes a reference for a port, if it is one of those; RCU must be held.
#[inline(always)]
pub(crate) fn get(wanted: u16, g: &super::rcu::Held) -> Option<Use> {
    if COUNT.load() == 0 {
        return None;
    }
    get_slow(wanted, g)
}

#[cold]
#[inline(never)]
fn get_slow(wanted: u16, _: &super::rcu::Held) -> Option<Use> {
    let index = (0..MOST).find(|index| port(*index) == Some(wanted))?;
    // SAFETY: There was an owner inside this RCU section; `rvs_app_unregister()` waits for it before the module goes.
    unsafe { module::try_get(OWNER.load() as *mut bindings::module) }.then_some(Use(index))
}

impl Use {
    /// The port's index.
    pub(crate) fn index(&self) -> usize {
        self.0
    }

    /// Leaves the reference where it is: [`put()`] gives it back.
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        // SAFETY: The reference of this value, which is not used again.
        unsafe { module::put(OWNER.load() as *mut bindings::module) };
    }
}

/// Takes over the reference that was kept for a port, in memory order. `None` if none was: a port of an owner that is held does
/// not go.
pub(crate) fn kept(wanted: u16) -> Option<Use> {
    let index = (0..MOST).find(|index| port(*index) == Some(wanted))?;
    Some(Use(index))
}

/// Switches the helper on for up to [`MOST`] ports (host order; 0 is none). `EEXIST`: it is on, or a port comes twice;
/// `EOPNOTSUPP`: the kernel has no connection tracking for it.
///
/// # Safety
///
/// `owner` must be a module that calls [`rvs_app_unregister()`] before it goes, and `ports` readable for `count` numbers.
#[no_mangle]
pub(crate) unsafe extern "C" fn rvs_app_register(
    owner: *mut bindings::module,
    ports: *const u16,
    count: c_uint,
) -> c_int {
    from_result(|| {
        if !conntrack::AVAILABLE {
            pr_err!("FTP needs a kernel with CONFIG_IP_VS_NFCT\n");
            return Err(EOPNOTSUPP);
        }
        let len = (count as usize).min(MOST);
        // SAFETY: By the requirement.
        let ports = unsafe { core::slice::from_raw_parts(ports, len) };
        let mut rest = ports;
        while let [port, others @ ..] = rest {
            if *port != 0 && others.contains(port) {
                return Err(EEXIST);
            }
            rest = others;
        }
        if TAKEN.swap(true) {
            return Err(EEXIST);
        }
        OWNER.store(owner as usize);
        let mut used = 0_u32;
        for (place, port) in PORTS
            .iter()
            .zip(ports.iter().rev().filter(|port| **port != 0))
        {
            place.store(port.to_be().into());
            used = used.wrapping_add(1);
        }
        // Fully ordered: who sees the number sees what it counts.
        COUNT.swap(used);
        Ok(0)
    })
}

/// Switches the helper off. Sleeps until nobody can take a reference any more.
///
/// # Safety
///
/// The caller must have called [`rvs_app_register()`] with success, and not this since.
#[no_mangle]
pub(crate) unsafe extern "C" fn rvs_app_unregister() {
    COUNT.swap(0);
    kernel::sync::rcu::synchronize_rcu();
    OWNER.store(0);
    TAKEN.store(false);
}
