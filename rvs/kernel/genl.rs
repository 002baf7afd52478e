// SPDX-License-Identifier: GPL-2.0-only

//! Generic netlink families with commands, dumps and multicast groups.
//!
//! Parsing is liberal, as families of the time before strict validation do it: unknown attributes are ignored, nesting
//! flags are not asked for. Messages are written by [`super::nlmsg`].
//!
//! C header: `include/net/genetlink.h`

use super::{
    atomic::Usize,
    module::this_module,
    net::Net,
    nlattr::{
        Attr,
        Attrs,
        Policy,
        Rule, //
    },
    nlmsg::{
        Reply,
        Writer, //
    },
    rcu::{
        self,
        Held, //
    }, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_long,
        c_uint, //
    },
    prelude::*,
    str::CStr,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// What a family does.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The family's name, at most 15 bytes.
    const NAME: &'static CStr;
    /// The version that messages carry.
    const VERSION: c_uint;
    /// The first command number of which reserved header fields are checked.
    const RESERVED_FROM: u8;
    /// Rules for the top-level attributes, by number.
    const POLICY: &'static [Rule];
    /// The commands; all of them take `CAP_NET_ADMIN` in the initial user namespace.
    const COMMANDS: &'static [Command];
    /// More commands, in the order of their numbers, which are [`Self::RESERVED_FROM`] or more: each has rules of its own,
    /// which are strict.
    const STRICT: &'static [Strict];
    /// The multicast groups; who wants to join needs `CAP_NET_ADMIN` in the namespace's user namespace.
    const GROUPS: &'static [Group];

    /// Where the family is found while it is registered.
    fn published() -> &'static Published;

    /// Answers a command. May sleep, and runs at the same time as other commands.
    fn command(&self, request: &Request<'_>) -> Result;

    /// Writes the next messages of a dump: none when it is complete.
    fn dump(&self, dump: &mut Dump<'_>) -> Result;

    /// Somebody is about to join a group (its index), whose task lives in `net`; the socket is in another namespace now and
    /// then. May sleep.
    fn joins(&self, group: usize, net: &Net);
}

/// A multicast group of a family.
#[repr(transparent)]
pub(crate) struct Group(bindings::genl_multicast_group);

impl Group {
    /// A group of this name, which has at most 15 bytes.
    #[inline(always)]
    pub(crate) const fn new(name: &str) -> Self {
        let mut group: bindings::genl_multicast_group = pin_init::zeroed();
        let bytes = name.as_bytes();
        assert!(bytes.len() < group.name.len());
        let mut i = 0;
        while i < bytes.len() {
            group.name[i] = bytes[i];
            i += 1;
        }
        group.flags = bindings::RVS_GENL_MCAST_ADMIN as u8;
        Self(group)
    }
}

/// One way in which a command can be used that has rules of its own: `struct genl_split_ops`.
#[repr(transparent)]
pub(crate) struct Strict(bindings::genl_split_ops);

// SAFETY: Commands are read-only; what they point to is static.
unsafe impl Sync for Strict {}

impl Strict {
    const fn new<const N: usize>(
        number: u8,
        flags: u32,
        policy: &'static Policy<N>,
        function: bindings::genl_split_ops__bindgen_ty_1,
    ) -> Self {
        assert!(N > 0);
        Self(bindings::genl_split_ops {
            __bindgen_anon_1: function,
            policy: policy.as_ptr().cast(),
            maxattr: N as c_uint - 1,
            cmd: number,
            internal_flags: 0,
            flags: (flags | bindings::GENL_ADMIN_PERM) as u8,
            validate: 0,
        })
    }

    /// A command that is done.
    pub(crate) const fn doing<H: Handler, const N: usize>(
        number: u8,
        policy: &'static Policy<N>,
    ) -> Self {
        let function = bindings::genl_split_ops__bindgen_ty_1 {
            __bindgen_anon_1: bindings::genl_split_ops__bindgen_ty_1__bindgen_ty_1 {
                pre_doit: None,
                doit: Some(doit::<H>),
                post_doit: None,
            },
        };
        Self::new(number, bindings::GENL_CMD_CAP_DO, policy, function)
    }

    /// A command that dumps.
    pub(crate) const fn dumping<H: Handler, const N: usize>(
        number: u8,
        policy: &'static Policy<N>,
    ) -> Self {
        let function = bindings::genl_split_ops__bindgen_ty_1 {
            __bindgen_anon_2: bindings::genl_split_ops__bindgen_ty_1__bindgen_ty_2 {
                start: None,
                dumpit: Some(dumpit::<H>),
                done: None,
            },
        };
        Self::new(number, bindings::GENL_CMD_CAP_DUMP, policy, function)
    }

    const fn policy_max(&self) -> u16 {
        self.0.maxattr as u16
    }
}

/// One command of a family; the ways it can be used decide which function of [`Handler`] gets it.
#[repr(transparent)]
pub(crate) struct Command(bindings::genl_small_ops);

impl Command {
    const fn raw(number: u8) -> bindings::genl_small_ops {
        bindings::genl_small_ops {
            doit: None,
            dumpit: None,
            cmd: number,
            internal_flags: 0,
            flags: bindings::GENL_ADMIN_PERM as u8,
            validate: (bindings::genl_validate_flags_GENL_DONT_VALIDATE_STRICT
                | bindings::genl_validate_flags_GENL_DONT_VALIDATE_DUMP)
                as u8,
        }
    }

    /// A command that is done.
    pub(crate) const fn doing<H: Handler>(number: u8) -> Self {
        Self(bindings::genl_small_ops {
            doit: Some(doit::<H>),
            ..Self::raw(number)
        })
    }

    /// A command that dumps.
    pub(crate) const fn dumping<H: Handler>(number: u8) -> Self {
        Self(bindings::genl_small_ops {
            dumpit: Some(dumpit::<H>),
            ..Self::raw(number)
        })
    }

    /// A command that can be used both ways.
    pub(crate) const fn both<H: Handler>(number: u8) -> Self {
        Self(bindings::genl_small_ops {
            doit: Some(doit::<H>),
            dumpit: Some(dumpit::<H>),
            ..Self::raw(number)
        })
    }
}

/// A registered family; dropping it waits for commands in progress.
///
/// # Invariants
///
/// `family` is registered while the value lives, and its operations are those of `H`.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<H: Handler> {
    handler: H,
    #[pin]
    family: Opaque<bindings::genl_family>,
}

// SAFETY: The kernel serialises what it does to `family`; `H` is `Send`.
unsafe impl<H: Handler> Send for Registration<H> {}
// SAFETY: As above, and `H: Sync`.
unsafe impl<H: Handler> Sync for Registration<H> {}

impl<H: Handler> Registration<H> {
    /// Registers the family; `EEXIST` if its name is taken.
    pub(crate) fn new(handler: H) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            handler,
            family <- Opaque::try_ffi_init(|slot: *mut bindings::genl_family| {
                let mut family = bindings::genl_family {
                    version: H::VERSION,
                    maxattr: (H::POLICY.len() as c_uint).saturating_sub(1),
                    n_small_ops: H::COMMANDS.len() as u8,
                    resv_start_op: H::RESERVED_FROM,
                    // CAST: `Rule`, `Command`, `Strict` and `Group` are transparent.
                    policy: H::POLICY.as_ptr().cast(),
                    small_ops: H::COMMANDS.as_ptr().cast(),
                    n_split_ops: H::STRICT.len() as u8,
                    split_ops: H::STRICT.as_ptr().cast(),
                    n_mcgrps: H::GROUPS.len() as u8,
                    mcgrps: H::GROUPS.as_ptr().cast(),
                    bind: Some(bind::<H>),
                    module: this_module(),
                    ..Default::default()
                };
                family.set_netnsok(1);
                family.set_parallel_ops(1);
                for (to, from) in family.name.iter_mut().zip(H::NAME.to_bytes_with_nul()) {
                    *to = *from;
                }
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(family) };
                // INVARIANT: The operations are those of `H`, and `handler`, which they use, is initialised before
                // `family`.
                //
                // SAFETY: `slot` is pinned and stays until `genl_unregister_family()` in `drop()`.
                to_result(unsafe { bindings::genl_register_family(slot) })?;
                // INVARIANT: The family is registered until `drop()`, which takes it back first.
                H::published().0.swap(slot as usize);
                Ok::<_, Error>(())
            }),
        }? Error)
    }

    /// What answers the commands.
    pub(crate) fn handler(&self) -> &H {
        &self.handler
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Registration<H> {
    fn drop(self: Pin<&mut Self>) {
        H::published().0.swap(0);
        // Who found it is done with it.
        kernel::sync::rcu::synchronize_rcu();
        // SAFETY: By the type invariant the family is registered.
        unsafe { bindings::genl_unregister_family(self.family.get()) };
    }
}

/// The handler of the family of a message.
///
/// # Safety
///
/// `family` must be the `family` of a live `Registration<H>`.
unsafe fn handler<'a, H: Handler>(family: *const bindings::genl_family) -> &'a H {
    let family = family.cast::<Opaque<bindings::genl_family>>();
    // SAFETY: By the requirement.
    let registration = unsafe { container_of!(family, Registration<H>, family) };
    // SAFETY: As above; the field is initialised before the family is registered and never written again.
    unsafe { &(*registration).handler }
}

/// Where a family is found by who announces something.
///
/// # Invariants
///
/// The word is 0 or the address of a registered family; that family stays registered for a grace period after the word
/// has become 0.
pub(crate) struct Published(Usize);

impl Published {
    /// No family.
    pub(crate) const fn new() -> Self {
        // INVARIANT: 0 is none.
        Self(Usize::new(0))
    }

    fn family(&self, _: &Held) -> Option<NonNull<bindings::genl_family>> {
        NonNull::new(self.0.load() as *mut bindings::genl_family)
    }

    /// Whether anybody has joined the group, in whatever namespace.
    pub(crate) fn has_listeners(&self, net: &Net, group: u32, g: &Held) -> bool {
        let Some(family) = self.family(g) else {
            return false;
        };
        // SAFETY: By the type invariant the family is registered during the RCU section of `g`; `net` is alive, and its
        // netlink socket goes after everything that the module has in it.
        unsafe { bindings::rvs_helper_genl_has_listeners(family.as_ptr(), net.as_ptr(), group) }
    }

    /// Makes messages for a group: `fill` adds them, then they are sent to those of the group who are in `net`. Returns
    /// whether there was somebody; where nothing was added, that there was. Does not sleep.
    pub(crate) fn announce(
        &self,
        net: &Net,
        group: u32,
        fill: impl FnOnce(&mut Batch<'_>) -> Result,
    ) -> Result<bool> {
        rcu::read(|g| {
            let Some(family) = self.family(g) else {
                return Ok(false);
            };
            // SAFETY: No requirement.
            let skb = unsafe { bindings::rvs_helper_genl_event_new() };
            // INVARIANT: A new buffer, and the family of the RCU section.
            let mut batch = Batch {
                skb: NonNull::new(skb).ok_or(ENOMEM)?,
                family,
                count: 0,
                _section: PhantomData,
            };
            fill(&mut batch)?;
            if batch.count == 0 {
                return Ok(true);
            }
            let batch = core::mem::ManuallyDrop::new(batch);
            // SAFETY: As in `has_listeners()`; the buffer is given away, and `batch` is kept from freeing it.
            let sent = unsafe {
                bindings::rvs_helper_genl_multicast(
                    batch.family.as_ptr(),
                    net.as_ptr(),
                    batch.skb.as_ptr(),
                    group,
                )
            };
            // A listener whose buffer is full is told by the kernel.
            Ok(sent != ESRCH.to_errno())
        })
    }
}

/// Messages to a group that are sent together.
///
/// # Invariants
///
/// `skb` is a message buffer that the value owns; `family` is registered during `'g`, an RCU section.
pub(crate) struct Batch<'g> {
    skb: NonNull<bindings::sk_buff>,
    family: NonNull<bindings::genl_family>,
    count: u32,
    _section: PhantomData<&'g Held>,
}

impl Batch<'_> {
    /// Adds one message with command number `number`, whole or not at all: `EMSGSIZE` if there is no room for it.
    pub(crate) fn message(
        &mut self,
        number: u8,
        fill: impl FnOnce(&Writer<'_>) -> Result,
    ) -> Result {
        // SAFETY: By the type invariant.
        let header = unsafe {
            bindings::rvs_helper_genl_event_put(
                self.skb.as_ptr(),
                self.family.as_ptr(),
                c_int::from(number),
            )
        };
        if header.is_null() {
            return Err(EMSGSIZE);
        }
        // SAFETY: The buffer is owned by `self`, which is borrowed.
        let filled = fill(unsafe { &Writer::new(self.skb.as_ptr()) });
        match filled {
            // SAFETY: `header` was returned for this buffer, and the attributes behind it are complete.
            Ok(()) => unsafe { bindings::genlmsg_end(self.skb.as_ptr(), header) },
            // SAFETY: As above; cuts off everything from the header on.
            Err(_) => unsafe { bindings::genlmsg_cancel(self.skb.as_ptr(), header) },
        }
        if filled.is_ok() {
            self.count = self.count.saturating_add(1);
        }
        filled
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the buffer is owned here.
        unsafe { bindings::nlmsg_free(self.skb.as_ptr()) };
    }
}

/// Whether the current task is the administrator of the host: `CAP_NET_ADMIN` in the initial user namespace.
pub(crate) fn is_host_admin() -> bool {
    // SAFETY: Asks about the current task only.
    unsafe { bindings::capable(bindings::RVS_CAP_NET_ADMIN as c_int) }
}

/// Where a refusal is explained: `struct netlink_ext_ack`.
///
/// # Invariants
///
/// The pointer is null or valid for `'a`, and nobody else uses what it points to.
#[derive(Clone, Copy)]
pub(crate) struct Explain<'a> {
    raw: *mut bindings::netlink_ext_ack,
    _call: PhantomData<&'a ()>,
}

impl<'a> Explain<'a> {
    /// Takes the structure of a request.
    ///
    /// # Safety
    ///
    /// `raw` must be null or valid for `'a`, and nobody else may use what it points to in that time.
    pub(super) unsafe fn new(raw: *mut bindings::netlink_ext_ack) -> Self {
        // INVARIANT: By the requirement.
        Self {
            raw,
            _call: PhantomData,
        }
    }

    /// The C pointer, which may be null.
    pub(super) fn as_ptr(&self) -> *mut bindings::netlink_ext_ack {
        self.raw
    }

    /// Says what is wrong and, if it is an attribute that is there, with which; returns `err` for the caller to return.
    /// What was said last counts.
    pub(crate) fn refuse(&self, err: Error, text: &'static CStr, attr: Option<Attr<'_>>) -> Error {
        // SAFETY: By the type invariant.
        if let Some(ext) = unsafe { self.raw.as_mut() } {
            ext._msg = text.as_char_ptr();
            ext.bad_attr = attr.map_or(core::ptr::null(), |attr| attr.as_ptr());
            ext.policy = core::ptr::null();
        }
        err
    }
}

/// A command to answer.
///
/// # Invariants
///
/// `info` is the request that the kernel passed for `'a`, and `max` the highest number of the rules that it was parsed by.
pub(crate) struct Request<'a> {
    info: &'a bindings::genl_info,
    max: u16,
    _context: NotThreadSafe,
}

impl<'a> Request<'a> {
    /// The number of the command.
    pub(crate) fn number(&self) -> u8 {
        // SAFETY: By the type invariant the header is there.
        unsafe { (*self.info.genlhdr).cmd }
    }

    /// The namespace of the socket that asks.
    pub(crate) fn net(&self) -> &'a Net {
        // SAFETY: By the type invariant; the socket that asks keeps its namespace alive.
        unsafe { Net::from_raw(bindings::rvs_helper_genl_info_net(self.info)) }
    }

    /// A top-level attribute.
    pub(crate) fn attr(&self, number: u16) -> Option<Attr<'a>> {
        // SAFETY: By the type invariant.
        unsafe { parsed(self.info, self.max, number) }
    }

    /// Where to explain a refusal.
    pub(crate) fn explain(&self) -> Explain<'a> {
        // SAFETY: The structure belongs to this request; only one reference to it is made at a time, in `refuse()` and
        // by the parser.
        unsafe { Explain::new(self.info.extack) }
    }

    /// Says what is wrong; see [`Explain::refuse()`].
    pub(crate) fn refuse(&self, err: Error, text: &'static CStr, attr: Option<Attr<'_>>) -> Error {
        self.explain().refuse(err, text, attr)
    }

    /// Makes the answer to this request: a message with command number `number`.
    pub(crate) fn reply(&self, number: u8) -> Result<Reply<'a>> {
        // SAFETY: By the type invariant.
        unsafe { Reply::new(self.info, number) }
    }
}

/// An attribute that the kernel has parsed.
///
/// # Safety
///
/// `info` must be that of a request which lives for `'a`, and `max` the highest number of the rules that it was parsed by.
unsafe fn parsed<'a>(info: &bindings::genl_info, max: u16, number: u16) -> Option<Attr<'a>> {
    if number > max || info.attrs.is_null() {
        return None;
    }
    // SAFETY: The array has an entry for each number up to `max`.
    let raw = unsafe { *info.attrs.add(number.into()) };
    // SAFETY: The kernel has checked the attributes it put there; they live as long as the request.
    unsafe { Attr::from_raw(raw) }
}

/// What a dump remembers from one call to the next.
pub(crate) type Place = [usize; 4];

/// A dump to go on with.
///
/// # Invariants
///
/// `skb` and `cb` are what the kernel passed for `'a`; `max` is the highest number of the rules of a [`Strict`] command, 0 for
/// others.
pub(crate) struct Dump<'a> {
    skb: *mut bindings::sk_buff,
    cb: &'a mut bindings::netlink_callback,
    max: u16,
    _context: NotThreadSafe,
}

impl<'a> Dump<'a> {
    fn info(&self) -> &bindings::genl_info {
        // SAFETY: By the type invariant `cb` is that of a generic netlink dump, which has an info for as long.
        unsafe { &*bindings::rvs_helper_genl_info_dump(&raw const *self.cb) }
    }

    /// The number of the command.
    pub(crate) fn number(&self) -> u8 {
        // SAFETY: By the type invariant the header of the request is there.
        unsafe { (*self.info().genlhdr).cmd }
    }

    /// The namespace of the socket that asks.
    pub(crate) fn net(&self) -> &'a Net {
        // SAFETY: By the type invariant; the socket that asks keeps its namespace alive.
        unsafe { Net::from_raw(bindings::rvs_helper_genl_info_net(self.info())) }
    }

    /// Where to go on: what [`Dump::set_place()`] said last, zeros at first.
    pub(crate) fn place(&self) -> Place {
        // SAFETY: Both members of the union are plain data; the kernel zeroes it before the first call.
        let [a, b, c, d, ..] = unsafe { self.cb.__bindgen_anon_1.args };
        [a, b, c, d].map(|word| word as usize)
    }

    /// Remembers where the next call goes on.
    pub(crate) fn set_place(&mut self, place: Place) {
        let [a, b, c, d] = place.map(|word| word as c_long);
        self.cb.__bindgen_anon_1.args = [a, b, c, d, 0, 0];
    }

    /// A top-level attribute of the request that asked for the dump, for a command that is [`Strict`].
    pub(crate) fn attr(&self, number: u16) -> Option<Attr<'a>> {
        // SAFETY: By the type invariant; the request is kept until the dump is over.
        unsafe { parsed(self.info(), self.max, number) }
    }

    /// Parses the top-level attributes of the request that asked for the dump.
    pub(crate) fn attrs<const N: usize>(&self, policy: &'static Policy<N>) -> Result<Attrs<'a, N>> {
        // SAFETY: The request's header is valid for `'a`.
        unsafe { Attrs::of_message(self.cb.nlh, policy, self.explain()) }
    }

    /// Where to explain a refusal.
    pub(crate) fn explain(&self) -> Explain<'a> {
        // SAFETY: As in `Request::explain()`.
        unsafe { Explain::new(self.cb.extack) }
    }

    /// Adds one message with command number `number`, whole or not at all: `EMSGSIZE` if the buffer has no room for it.
    pub(crate) fn message(
        &mut self,
        number: u8,
        fill: impl FnOnce(&Writer<'_>) -> Result,
    ) -> Result {
        // SAFETY: By the type invariant; the family's id and version are those of the request's.
        let header = unsafe {
            bindings::rvs_helper_genl_dump_put(self.skb, &raw const *self.cb, c_int::from(number))
        };
        if header.is_null() {
            return Err(EMSGSIZE);
        }
        // SAFETY: `skb` is the buffer of this dump, which nobody else writes now.
        let filled = fill(unsafe { &Writer::new(self.skb) });
        match filled {
            // SAFETY: `header` was returned for this buffer, and the attributes behind it are complete.
            Ok(()) => unsafe { bindings::genlmsg_end(self.skb, header) },
            // SAFETY: As above; cuts off everything from the header on.
            Err(_) => unsafe { bindings::genlmsg_cancel(self.skb, header) },
        }
        filled
    }
}

/// Passes a command on.
///
/// # Safety
///
/// Called by generic netlink for an operation of a family made by [`Registration::new()`] of the same `H`.
unsafe extern "C" fn doit<H: Handler>(
    _skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    from_result(|| {
        // SAFETY: The kernel passes a valid info, which nobody changes during the call.
        let info = unsafe { &*info };
        // SAFETY: The family is that of a registration, whose drop waits for this call.
        let handler = unsafe { handler::<H>(info.family) };
        // INVARIANT: As above.
        //
        // SAFETY: The kernel passes the request's header.
        let number = unsafe { (*info.genlhdr).cmd };
        let strict = H::STRICT.iter().find(|strict| strict.0.cmd == number);
        handler.command(&Request {
            info,
            max: strict.map_or(H::POLICY.len().saturating_sub(1) as u16, Strict::policy_max),
            _context: NotThreadSafe,
        })?;
        Ok(0)
    })
}

/// Tells the handler that somebody joins a group.
///
/// # Safety
///
/// Called by generic netlink for a family made by [`Registration::new()`] of the same `H`.
unsafe extern "C" fn bind<H: Handler>(group: c_int) -> c_int {
    let Some(family) = NonNull::new(H::published().0.load() as *mut bindings::genl_family) else {
        return 0;
    };
    // SAFETY: The caller holds the lock that unregistering takes, so that the family that it has found stays registered;
    // it is the only one of `H`, and what is published is either that one or nothing.
    let handler = unsafe { handler::<H>(family.as_ptr()) };
    // SAFETY: No requirement; the task's namespace does not go, nor change, while the task is here.
    let net = unsafe { Net::from_raw(bindings::rvs_helper_current_net()) };
    if let Ok(group) = usize::try_from(group) {
        handler.joins(group, net);
    }
    0
}

/// Passes a dump on.
///
/// # Safety
///
/// As for [`doit()`].
unsafe extern "C" fn dumpit<H: Handler>(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
) -> c_int {
    from_result(|| {
        // INVARIANT: What the kernel passes.
        let mut dump = Dump {
            skb,
            // SAFETY: The kernel passes a valid callback structure, which belongs to this call.
            cb: unsafe { &mut *cb },
            max: 0,
            _context: NotThreadSafe,
        };
        let number = dump.number();
        let strict = H::STRICT.iter().find(|strict| strict.0.cmd == number);
        dump.max = strict.map_or(0, Strict::policy_max);
        // SAFETY: A dump in progress holds a reference to the module, and the registration lives as long as it is used.
        let handler = unsafe { handler::<H>(dump.info().family) };
        handler.dump(&mut dump)?;
        // SAFETY: `skb` is valid. More than nothing written means that there may be more to come.
        Ok(unsafe { (*skb).len } as c_int)
    })
}
