// SPDX-License-Identifier: GPL-2.0-only

//! Socket options of IPv4 sockets that a module adds.
//!
//! All of them take `CAP_NET_ADMIN` in the user namespace that owns the socket's network namespace.
//!
//! C header: `include/linux/netfilter.h`

use super::{
    atomic::Usize,
    module::this_module,
    net::Net, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ops::Range, //
};
use kernel::{
    container_of,
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// What answers socket options.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The numbers of the options that are set.
    const SET: Range<c_int>;
    /// The numbers of the options that are asked for.
    const GET: Range<c_int>;

    /// Where calls find the handler; no other kind may have the same.
    fn slot() -> &'static Slot<Self>;

    /// Sets an option. May sleep, and runs at the same time as other calls.
    fn set(&self, request: &Set<'_>) -> Result;

    /// Answers what was asked. As [`Handler::set()`].
    fn get(&self, request: &mut Get<'_>) -> Result;
}

/// Where calls find the handler that is registered: the kernel passes them nothing but the socket. Meant for a `static`.
///
/// # Invariants
///
/// `handler` is 0 or the address of a handler that stays while it is there, and until `calls` was 0 after it was taken out.
pub(crate) struct Slot<H: ?Sized> {
    handler: Usize,
    /// Calls in progress.
    calls: Usize,
    _handler: PhantomData<fn(&H)>,
}

impl<H: Handler> Slot<H> {
    /// An empty slot.
    pub(crate) const fn new() -> Self {
        // INVARIANT: 0 is the empty slot.
        Self {
            handler: Usize::new(0),
            calls: Usize::new(0),
            _handler: PhantomData,
        }
    }

    /// Calls `f` with the handler, if there is one.
    fn with<R>(&self, f: impl FnOnce(&H) -> R) -> Option<R> {
        // Counted before the look, both fully ordered: see `clear()`.
        self.calls.fetch_add(1);
        // SAFETY: By the type invariant, since this call is counted.
        let result = unsafe { (self.handler.load() as *const H).as_ref() }.map(f);
        self.calls.fetch_sub(1);
        result
    }

    /// Takes the handler out and waits for those who found it. Sleeps.
    fn clear(&self) {
        self.handler.swap(0);
        // Who is counted after the swap finds nothing. The kernel holds the module during a call, so that there is none
        // when the module goes, and one at most when its start fails.
        while self.calls.fetch_add(0) != 0 {
            fsleep(Delta::from_millis(1));
        }
    }
}

/// Registered options; dropping it waits for calls in progress.
///
/// # Invariants
///
/// `ops` is registered while the value lives, with the callbacks of `H`; the slot holds the address of `handler`.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<H: Handler> {
    handler: H,
    #[pin]
    ops: Opaque<bindings::nf_sockopt_ops>,
}

// SAFETY: The kernel serialises what it does to `ops`; `H` is `Send`.
unsafe impl<H: Handler> Send for Registration<H> {}
// SAFETY: As above, and `H: Sync`.
unsafe impl<H: Handler> Sync for Registration<H> {}

impl<H: Handler> Registration<H> {
    /// Registers the options; `EBUSY` if somebody has their numbers.
    pub(crate) fn new(handler: H) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            handler,
            ops <- Opaque::try_ffi_init(|slot: *mut bindings::nf_sockopt_ops| {
                let ops = bindings::nf_sockopt_ops {
                    pf: bindings::RVS_PF_INET as u8,
                    set_optmin: H::SET.start,
                    set_optmax: H::SET.end,
                    set: Some(set::<H>),
                    get_optmin: H::GET.start,
                    get_optmax: H::GET.end,
                    get: Some(get::<H>),
                    owner: this_module(),
                    ..Default::default()
                };
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(ops) };
                let field = slot.cast::<Opaque<bindings::nf_sockopt_ops>>();
                // SAFETY: `field` is the `ops` of a registration, of which `handler` is initialised before.
                let handler = unsafe { &raw const (*container_of!(field, Registration<H>, ops)).handler };
                // INVARIANT: The handler is pinned, and taken out of the slot again below and by `drop()`.
                if !H::slot().handler.replace(0, handler as usize) {
                    return Err(EBUSY);
                }
                // SAFETY: `slot` is pinned and stays until `nf_unregister_sockopt()` in `drop()`; the callbacks have the
                // types that the structure asks for.
                to_result(unsafe { bindings::nf_register_sockopt(slot) })
                    .inspect_err(|_| H::slot().clear())
            }),
        }? Error)
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Registration<H> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the operations are registered.
        unsafe { bindings::nf_unregister_sockopt(self.ops.get()) };
        H::slot().clear();
    }
}

/// An option to set.
///
/// # Invariants
///
/// `arg` is what the kernel passed for `'a`, with `len`.
pub(crate) struct Set<'a> {
    number: c_int,
    net: &'a Net,
    arg: bindings::sockptr_t,
    len: usize,
    _context: NotThreadSafe,
}

impl<'a> Set<'a> {
    /// The number of the option.
    pub(crate) fn number(&self) -> c_int {
        self.number
    }

    /// The namespace of the socket.
    pub(crate) fn net(&self) -> &'a Net {
        self.net
    }

    /// Reads what is to be set, which must have `N` bytes exactly: `EINVAL`. May sleep.
    pub(crate) fn read<const N: usize>(&self) -> Result<[u8; N]> {
        if self.len != N {
            return Err(EINVAL);
        }
        let mut bytes = [0; N];
        // SAFETY: `bytes` is valid for writes of `N` bytes; by the type invariant the argument is from the kernel, and has
        // that many bytes if it is in kernel memory.
        let failed = unsafe {
            bindings::rvs_helper_copy_from_sockptr(
                bytes.as_mut_ptr().cast::<c_void>(),
                &raw const self.arg,
                N,
            )
        };
        if failed {
            return Err(EFAULT);
        }
        Ok(bytes)
    }
}

/// A question, and room for the answer.
pub(crate) struct Get<'a> {
    number: c_int,
    net: &'a Net,
    user: UserPtr,
    /// Bytes at `user`.
    room: usize,
    /// Bytes that the caller is told.
    len: &'a mut c_int,
    _context: NotThreadSafe,
}

impl<'a> Get<'a> {
    /// The number of the option.
    pub(crate) fn number(&self) -> c_int {
        self.number
    }

    /// The namespace of the socket.
    pub(crate) fn net(&self) -> &'a Net {
        self.net
    }

    /// For how many bytes the caller has room.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Reads the first `N` bytes of the room, which must have that many: `EINVAL`. May sleep.
    pub(crate) fn read<const N: usize>(&self) -> Result<[u8; N]> {
        if self.room < N {
            return Err(EINVAL);
        }
        let mut bytes = [0; N];
        UserSlice::new(self.user, self.room)
            .reader()
            .read_slice(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes `bytes` at `offset` of the room. May sleep.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) -> Result {
        let left = self.room.checked_sub(offset).ok_or(EFAULT)?;
        UserSlice::new(self.user.wrapping_byte_add(offset), left)
            .writer()
            .write_slice(bytes)
    }

    /// Tells the caller that the answer has `len` bytes; otherwise it hears what it said itself.
    pub(crate) fn set_len(&mut self, len: usize) {
        *self.len = c_int::try_from(len).unwrap_or(c_int::MAX);
    }
}

/// The namespace of a socket, if the caller may configure it.
///
/// # Safety
///
/// `sk` must stay alive for `'a`.
unsafe fn allowed<'a>(sk: *mut bindings::sock) -> Result<&'a Net> {
    // SAFETY: By the requirement; a socket keeps its namespace alive.
    let net = unsafe { Net::from_raw(bindings::rvs_helper_sock_net(sk)) };
    if net.is_admin() {
        Ok(net)
    } else {
        Err(EPERM)
    }
}

/// Passes an option on that is to be set.
///
/// # Safety
///
/// Called by netfilter for operations made by [`Registration::new()`] of the same `H`, in process context.
unsafe extern "C" fn set<H: Handler>(
    sk: *mut bindings::sock,
    number: c_int,
    arg: bindings::sockptr_t,
    len: c_uint,
) -> c_int {
    from_result(|| {
        // SAFETY: The kernel passes the socket of the call.
        let net = unsafe { allowed(sk) }?;
        // INVARIANT: What the kernel passes.
        let request = Set {
            number,
            net,
            arg,
            len: len as usize,
            _context: NotThreadSafe,
        };
        H::slot()
            .with(|handler| handler.set(&request))
            .unwrap_or(Err(ENOPROTOOPT))?;
        Ok(0)
    })
}

/// Passes a question on.
///
/// # Safety
///
/// As for [`set()`].
unsafe extern "C" fn get<H: Handler>(
    sk: *mut bindings::sock,
    number: c_int,
    user: *mut c_void,
    len: *mut c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: The kernel passes the socket of the call.
        let net = unsafe { allowed(sk) }?;
        // SAFETY: The kernel passes a number of its own, which belongs to this call.
        let len = unsafe { &mut *len };
        let mut request = Get {
            number,
            net,
            user: UserPtr::from_ptr(user),
            room: usize::try_from(*len).unwrap_or(0),
            len,
            _context: NotThreadSafe,
        };
        H::slot()
            .with(|handler| handler.get(&mut request))
            .unwrap_or(Err(ENOPROTOOPT))?;
        Ok(0)
    })
}
