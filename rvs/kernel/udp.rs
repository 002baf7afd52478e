// SPDX-License-Identifier: GPL-2.0-only

//! UDP sockets of the kernel, for multicast datagrams.
//!
//! C headers: `include/linux/net.h`, `include/net/sock.h`, `include/linux/rtnetlink.h`

use super::{
    kthread::Current,
    net::Net, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    str::CStr,
    types::NotThreadSafe, //
};

/// Evidence that the lock of network configuration is held: `rtnl_lock()`.
pub(crate) struct Rtnl(NotThreadSafe);

impl Rtnl {
    /// Takes the lock. Sleeps. Sockets must not be dropped while it is held.
    pub(crate) fn lock() -> Self {
        // SAFETY: Process context.
        unsafe { bindings::rvs_helper_rtnl_lock() };
        Self(NotThreadSafe)
    }

    /// The interface of this name.
    pub(crate) fn device(&self, net: &Net, name: &CStr) -> Option<Device> {
        let (mut mtu, mut addr) = (0, 0);
        // SAFETY: The namespace is alive while borrowed; the name ends with a zero; the lock is held.
        let index = unsafe {
            bindings::rvs_helper_device(net.as_ptr(), name.as_char_ptr(), &mut mtu, &mut addr)
        };
        (index != 0).then_some(Device { index, mtu, addr })
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        // SAFETY: Taken in `lock()` by this thread.
        unsafe { bindings::rvs_helper_rtnl_unlock() };
    }
}

/// What was known of an interface.
pub(crate) struct Device {
    /// Its number.
    pub(crate) index: u32,
    /// How long packets may be.
    pub(crate) mtu: u32,
    /// Its IPv4 address of global scope, in memory order; 0: none.
    pub(crate) addr: u32,
}

/// Which of a socket's buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// That of what was not sent yet.
    Send,
    /// That of what was not received yet.
    Receive,
}

/// A socket of a namespace, which it does not keep alive.
///
/// Addresses are words in memory order, IPv4 in the first; ports in host order.
///
/// # Invariants
///
/// `sock` is an open UDP socket that nobody else has.
pub(crate) struct Udp {
    sock: NonNull<bindings::socket>,
}

// SAFETY: Sockets lock themselves.
unsafe impl Send for Udp {}
// SAFETY: As above.
unsafe impl Sync for Udp {}

impl Udp {
    /// Opens a socket. Who does must drop it before the namespace's data go ([`super::pernet::PerNet::pre_exit()`]), without
    /// [`Rtnl`].
    pub(crate) fn open(net: &Net, v6: bool) -> Result<Self> {
        let mut sock = core::ptr::null_mut();
        // SAFETY: The namespace is alive while borrowed; `sock` is valid for a write.
        to_result(unsafe { bindings::rvs_helper_udp_open(net.as_ptr(), v6, &mut sock) })?;
        // INVARIANT: Just opened.
        Ok(Self {
            sock: NonNull::new(sock).ok_or(ENOMEM)?,
        })
    }

    /// Sends multicast datagrams by this interface, with this time to live, not to this host itself, and in fragments if need be.
    pub(crate) fn set_multicast(&self, ifindex: u32, ttl: u8) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_udp_multicast(self.sock.as_ptr(), ifindex, ttl) };
    }

    /// Gives a buffer this size, within the host's limits: `SO_SNDBUF`, `SO_RCVBUF`.
    pub(crate) fn set_buffer(&self, buffer: Buffer, bytes: i32) {
        let send = buffer == Buffer::Send;
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_udp_buffer(self.sock.as_ptr(), send, bytes) };
    }

    /// Receives from this interface only, and shares the address with others who do the same.
    pub(crate) fn set_device(&mut self, ifindex: u32) {
        // SAFETY: By the type invariant; nobody else uses the socket now.
        unsafe { bindings::rvs_helper_udp_on_device(self.sock.as_ptr(), ifindex) };
    }

    /// Gives the socket its own address. Sleeps.
    pub(crate) fn bind(&self, addr: &[u32; 4], port: u16) -> Result {
        // SAFETY: By the type invariant; the address has the 16 bytes that are read.
        to_result(unsafe { bindings::rvs_helper_udp_bind(self.sock.as_ptr(), addr.as_ptr(), port) })
    }

    /// Says where datagrams go. Sleeps.
    pub(crate) fn connect(&self, addr: &[u32; 4], port: u16) -> Result {
        // SAFETY: As in `bind()`.
        to_result(unsafe {
            bindings::rvs_helper_udp_connect(self.sock.as_ptr(), addr.as_ptr(), port)
        })
    }

    /// Joins a multicast group at an interface. Sleeps.
    pub(crate) fn join(&self, group: &[u32; 4], ifindex: u32, _: &Rtnl) -> Result {
        // SAFETY: By the type invariant; the address has the 16 bytes that are read, and RTNL is held.
        to_result(unsafe {
            bindings::rvs_helper_udp_join(self.sock.as_ptr(), group.as_ptr(), ifindex)
        })
    }

    /// Sends a datagram; `EAGAIN` if there is no room for it now. Process context.
    pub(crate) fn send(&self, data: &[u8]) -> Result {
        // SAFETY: By the type invariant; `data` is readable.
        let sent = unsafe {
            bindings::rvs_helper_udp_send(
                self.sock.as_ptr(),
                data.as_ptr().cast::<kernel::ffi::c_void>(),
                data.len(),
            )
        };
        to_result(sent.min(0))
    }

    /// Receives a datagram, as much of it as there is room for; `EAGAIN` if there is none now. Process context.
    pub(crate) fn receive<'a>(&self, room: &'a mut [u8]) -> Result<&'a [u8]> {
        // SAFETY: By the type invariant; `room` is writable, and initialised whatever happens to it.
        let got = unsafe {
            bindings::rvs_helper_udp_receive(
                self.sock.as_ptr(),
                room.as_mut_ptr().cast::<kernel::ffi::c_void>(),
                room.len(),
            )
        };
        to_result(got.min(0))?;
        let len = usize::try_from(got).unwrap_or(0);
        Ok(room.get(..len).unwrap_or(&[]))
    }

    /// Waits until there is room for another datagram, or the thread shall stop.
    pub(crate) fn wait_room(&self, _: &Current) {
        // SAFETY: By the type invariant; this is a kernel thread.
        unsafe { bindings::rvs_helper_udp_wait_room(self.sock.as_ptr()) };
    }

    /// Waits until there is a datagram, or the thread shall stop.
    pub(crate) fn wait_data(&self, _: &Current) {
        // SAFETY: By the type invariant; this is a kernel thread.
        unsafe { bindings::rvs_helper_udp_wait_data(self.sock.as_ptr()) };
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the socket is not used again.
        unsafe { bindings::rvs_helper_udp_close(self.sock.as_ptr()) };
    }
}
